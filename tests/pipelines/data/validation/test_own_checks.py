"""A team adds expectations in a YAML or a Python file; a bad file is named and nothing is checked half."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.core.chain import EXPECTATIONS
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.stages import validate_processed as processed_stage
from pipelines.stages.validate import Inputs, Outputs, run
from tests.pipelines.data.validation.test_processed_frame import good_rows, write
from tests.pipelines.stages.test_validate import dataset

GUIDE = Path(__file__).resolve().parents[4] / "docs" / "guides" / "expectations.md"
YAML = """
validate:
  very_large_share:
    protects: Scans of whole pages are no portraits.
    expectation: ExpectColumnValuesToBeBetween
    column: pixels
    arguments: {max_value: 10000}
    allowed: 0.1
    severity: warn
  formats:
    protects: Only the camera's own files are in this dataset.
    expectation: ExpectColumnDistinctValuesToBeInSet
    column: format
    arguments: {value_set: [JPEG]}
"""
PYTHON = '''
import great_expectations.expectations as gxe

from pipelines.data.validation.check import between, values


class ExpectFilesOfACamera(gxe.ExpectColumnValuesToMatchRegex):
    """File names as our camera writes them."""

    regex: str = r"^\\\\d+$"


def checks(stage, frame):
    if stage != "validate":
        return []
    frame["wide"] = (frame["pixels"] / frame["shorter_side"] >= frame["shorter_side"] * 3).astype(float)
    return [
        between("banners", "wide", 0, 0, "A banner is no portrait.", allowed=0.05),
        values("of_a_camera", ExpectFilesOfACamera, "identity", "Only our camera's photos are used.", severity="warn"),
    ]
'''


def folder_with(tmp_path: Path, name: str, text: str) -> Path:
    folder = tmp_path / EXPECTATIONS
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("not read")
    (folder / "_draft.yaml").write_text("[")
    (folder / name).write_text(text)
    return folder


def test_a_yaml_file_adds_expectations(params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = Inputs(dataset(tmp_path / "faces"), folder_with(tmp_path, "team.yaml", YAML))
    verdict = run(params, inputs, Outputs(tmp_path / "report", tmp_path / "docs"))
    results = {item.name: item for item in verdict.results}
    assert (results["very_large_share"].observed, results["very_large_share"].success) == (1.0, False)
    assert results["formats"].success
    assert results["formats"].observed is None
    assert "validate: warning: very_large_share in column pixels: 1 > 0.1" in capsys.readouterr().err
    (page,) = (tmp_path / "docs").glob("validations/**/*.html")
    assert "Scans of whole pages are no portraits." in page.read_text()
    assert "team.yaml</code>" in page.read_text().replace("<wbr>", "")


def test_the_files_of_the_guide_work(project: Path, params: Params, tmp_path: Path) -> None:
    blocks = re.findall(r"```(?:yaml|python)\n# expectations/(\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for name, text in blocks:
        folder = folder_with(tmp_path, name, text)
    verdict = run(params, Inputs(dataset(tmp_path / "faces"), folder), Outputs(tmp_path / "report"))
    assert verdict.results[-1].name == "banners_share"
    processed = processed_stage.Inputs(write(tmp_path / "processed", good_rows()), expectations=folder)
    verdict = processed_stage.run(params, processed, Outputs(tmp_path / "report"))
    assert [item.name for item in verdict.results[-3:]] == ["profiles_share", "tilted_share", "names"]
    assert verdict.success


def test_an_own_expectation_fails_the_stage(params: Params, tmp_path: Path) -> None:
    text = YAML.replace("[JPEG]", "[PNG]").replace("severity: warn", "severity: fail")
    inputs = Inputs(dataset(tmp_path / "faces"), folder_with(tmp_path, "team.yaml", text))
    failed = r"2 of 16 .*very_large_share in column pixels: 1 > 0.1; formats in column format: .*not what was expected"
    with pytest.raises(StageFailed, match=failed):
        run(params, inputs, Outputs(tmp_path / "report"))
    assert json.loads((tmp_path / "report" / "verdict.json").read_text())["failed"] == ["very_large_share", "formats"]


def test_a_python_file_adds_columns_and_classes(params: Params, tmp_path: Path) -> None:
    inputs = Inputs(dataset(tmp_path / "faces"), folder_with(tmp_path, "team.py", PYTHON))
    verdict = run(params, inputs, Outputs(tmp_path / "report", tmp_path / "docs"))
    results = {item.name: item for item in verdict.results}
    assert results["banners"].success
    assert (results["of_a_camera"].expectation, results["of_a_camera"].observed) == ("ExpectFilesOfACamera", 1.0)
    (page,) = (tmp_path / "docs").glob("validations/**/*.html")
    assert "Only our camera&#x27;s photos are used." in page.read_text()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "validate: [", r"a\.yaml: not valid YAML"),
        ("a.yaml", "validat: {}", r"a\.yaml: expected expectations .* \(validate, validate_processed\)"),
        ("a.yaml", "validate: {new: {expectation: X}}", r"a\.yaml: new\.protects: field required"),
        ("a.yaml", YAML.replace("ToBeBetween", "ToBeBetwen"), r"no class .*near are ExpectColumnValuesToBeBetween"),
        (
            "a.yaml",
            YAML.replace("column: pixels", "column: pixel"),
            r"validate has no column 'pixel'; there are pixels",
        ),
        (
            "a.yaml",
            "validate: {short: {protects: x, expectation: ExpectColumnValueLengthsToBeBetween, column: file_name, "
            "arguments: {max_value: 5}}}",
            r"a\.yaml: short: of file_name, validate only knows which rows have one",
        ),
        (
            "a.yaml",
            YAML.replace("max_value", "maxvalue"),
            r"very_large_share: ExpectColumnValuesToBeBetween has no argument 'maxvalue'; did you mean max_value\?$",
        ),
        ("a.yaml", YAML.replace("max_value", "bound"), r"no argument 'bound'; it takes column, .*max_value, min_value"),
        ("a.yaml", YAML.replace("{max_value: 10000}", "{}"), r"min_value and max_value cannot both be None$"),
        ("a.yaml", YAML.replace("{value_set: [JPEG]}", "{}"), r"ToBeInSet: value_set: field required$"),
        ("a.yaml", YAML.replace("severity: warn", "severity: shrug"), r"very_large_share\.severity: input should be"),
        ("a.yaml", YAML.replace("  formats:", "  photos:"), r"a\.yaml: photos: the project has an expectation of this"),
        ("a.yaml", YAML.replace("  formats:", "  Formats 2:"), r"a\.yaml: 'Formats 2': expected a name"),
        ("a.yaml", YAML + "    allowed: 0.1\n", r"a\.yaml: formats\.allowed: .* is not about single values"),
        ("a.py", "def checks(:", r"a\.py: line 1: SyntaxError"),
        ("a.py", "def checks(stage, frame):\n    return frame['none']", r"a\.py: line 2: KeyError: 'none'"),
        ("a.py", "x = 1", r"a\.py: AttributeError.*expected a function `checks"),
        ("a.py", "def checks(stage, frame): return 3", r"a\.py: checks\('validate', …\) returned int"),
        ("a.py", "def checks(stage, frame):\n    frame.drop(0, inplace=True)\n    return []", r"40 rows became 39"),
        ("a.json", "{}", r"a\.json: expected a \.yaml or \.py file"),
    ],
)
def test_a_bad_file_is_named_in_one_line(params: Params, tmp_path: Path, name: str, text: str, message: str) -> None:
    inputs = Inputs(dataset(tmp_path / "faces"), folder_with(tmp_path, name, text))
    with pytest.raises(UserError, match=message) as caught:
        run(params, inputs, Outputs(tmp_path / "report"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_an_argument_of_the_wrong_kind_is_named_with_its_file(params: Params, tmp_path: Path) -> None:
    text = YAML.replace("max_value: 10000", "max_value: large")
    inputs = Inputs(dataset(tmp_path / "faces"), folder_with(tmp_path, "a.yaml", text))
    with pytest.raises(UserError, match=r"a\.yaml: .*very_large_share"):
        run(params, inputs, Outputs(tmp_path / "report"))


def test_the_command_reads_the_folder_and_dvc_runs_the_stages_again(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "faces")
    folder_with(tmp_path, "a.yaml", "validate: [")
    with pytest.raises(SystemExit, match="2"):
        main(["validate", "faces", "--params", str(project / "params.yaml")])
    assert "expectations/a.yaml: not valid YAML" in capsys.readouterr().err
    folder_with(tmp_path, "a.yaml", YAML)
    with pytest.raises(SystemExit, match="0"):
        main(["validate", "faces", "--params", str(project / "params.yaml")])
    assert "validate: 40 rows, 16 expectations, all required ones hold" in capsys.readouterr().err
    assert (project / "dvc.yaml").read_text().count("- expectations\n") == 2
