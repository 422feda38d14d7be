"""Parameters are frozen and complete, and unknown keys are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.core.documents import write_yaml
from pipelines.core.errors import UserError
from pipelines.core.params import dump_params, load_params, overridden_tree, read_tree


@pytest.fixture
def tiny(project: Path) -> Path:
    return project / "profiles" / "tiny.yaml"


# sha256 of each loaded profile as canonical JSON. All extend tiny, so one change may change all. After an intended one,
# compare the old and the new output of `dynamicid configure --profile NAME`, and update the digests.
LOADED = {
    "tiny": "cf61f354c5426cd6cd59dc0d410646e75383bc41ba7c0b5a7b81fb10977b13f8",
    "showcase": "ddb24717883f360eba3d85a5c748d3e0a145558fdc44e589021868efdfd41940",
    "photographs": "f5600989bd611f43eb461e147d02267b233f73850227baa727d8bb81cbf2559a",
    "sd15": "380b5522f3920378095e5fb7b96817a6c0169a08ad43ffe8182f3976842a5144",
    "sdxl": "edac2194289ee4f62425ee8c42f083309f69a401e6aeab3a25d15fd9e8053765",
    "flux": "9752661b7c3e585990b10b763923c94945fd6cb6f32ed15a41ea5208aeb791ec",
    "tiny_dit": "f45f237728537077c242234d8dd8ef93307a51494482ddbc359d33133dc47c1f",
}


def _leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_the_values_of_profiles_have_not_changed(project: Path) -> None:
    def digest(name: str) -> str:
        values = load_params(project / "profiles" / f"{name}.yaml").model_dump(mode="json", by_alias=True)
        values.pop("format")
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    assert {file.stem: digest(file.stem) for file in (project / "profiles").iterdir()} == LOADED


def test_tiny_has_every_key_and_other_profiles_only_different_values(project: Path, tiny: Path) -> None:
    whole = dict(_leaves(yaml.safe_load(tiny.read_text("utf-8"))))
    assert set(whole) == {key for key, _ in _leaves(load_params(tiny).model_dump(by_alias=True))}
    for name in set(LOADED) - {"tiny"}:
        own = yaml.safe_load((project / "profiles" / f"{name}.yaml").read_text("utf-8"))
        assert own.pop("format") == whole["format"]
        below = dict(
            _leaves(load_params(project / "profiles" / f"{own.pop('extends')}.yaml").model_dump(by_alias=True))
        )
        assert not {key for key, value in _leaves(own) if key in below and below[key] == value}, name


def test_the_parameters_of_the_checkout_are_those_of_tiny(project: Path, tiny: Path) -> None:
    assert read_tree(project / "params.yaml") == read_tree(tiny)
    assert (project / "params.yaml").read_text("utf-8").partition("\n")[2] == write_yaml(read_tree(tiny)), (
        "as DVC writes it"
    )


def test_a_profile_replaces_values_and_lists_and_extends_sections(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("one: {list: [1, 2], left: 1, inner: {x: 1, y: 1}}\ntwo: 1\n")
    (tmp_path / "b.yaml").write_text("extends: a\none: {list: [3], inner: {y: null}}\n")
    (tmp_path / "c.yaml").write_text("extends: b\ntwo: {new: 2}\n")
    assert read_tree(tmp_path / "c.yaml") == {
        "format": 5,
        "profile": "c",
        "one": {"list": [3], "left": 1, "inner": {"x": 1, "y": None}},
        "two": {"new": 2},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: b", r"profiles extend each other in a circle: a → b → a"),
        ("extends: a", r"in a circle: a → a"),
        ("extends: tyni", r"a\.yaml: extends 'tyni': no file tyni\.yaml in .*; there are a, b"),
        ("extends: [b]", r"a\.yaml: extends: expected the name of a profile, not \['b'\]"),
        ("extends: 3", r"extends: expected the name of a profile, not 3"),
        ("extends:", r"extends: expected the name of a profile, not None"),
        ("extends: ../a", r"extends '\.\./a': no file .*; there are a, b"),
        ("day: 2026-13-45", r"a\.yaml: not valid YAML: month must be"),
        (b"name: caf\xe9", r"a\.yaml: not a text file in UTF-8"),
        ("- extends", r"a\.yaml: expected a mapping"),
    ],
)
def test_a_profile_that_cannot_be_completed_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "b.yaml").write_text("extends: a")
    with pytest.raises(UserError, match=message):
        read_tree(tmp_path / "a.yaml")


def test_override_changes_one_value(tiny: Path) -> None:
    params = load_params(tiny, ["train_anchoring.steps=7", "preprocess.captions.sources=[sidecar]"])
    assert params.train_anchoring.steps == 7
    assert params.preprocess.captions.sources == ("sidecar",)
    assert params.train_imr == load_params(tiny).train_imr


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train_imr.step=7", "unknown key train_imr.step; did you mean train_imr.steps?"),
        ("trian_imr.steps=7", "unknown key trian_imr; did you mean train_imr?"),
        ("preprocess.captions.clip=x", "preprocess.captions.clip; did you mean preprocess.captions.clip_path?"),
        ("register.gates=[{metrc: a}]", "register.gates.0.metrc; did you mean register.gates.0.metric?"),
        ("drift.limits.yaw.stops=1", "drift.limits.yaw.stops; did you mean drift.limits.yaw.stop?"),
        ("train_anchoring.steps=0", "train_anchoring.steps = 0"),
        ("train_anchoring.steps=many", "train_anchoring.steps = 'many'"),
        ("train_anchoring", "expected section.key=value"),
        ("=3", "--set =3: expected section.key=value"),
        ("train_imr.=3", "expected section.key=value"),
        ("train_imr.steps=[1", "--set train_imr.steps=[1: not valid YAML"),
        ("profile.name=x", "profile is a value"),
    ],
)
def test_a_wrong_override_is_named_in_one_line(tiny: Path, override: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        load_params(tiny, [override])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mixed_precision_may_be_no_without_quotes(tiny: Path) -> None:
    params = load_params(tiny, ["train_anchoring.mixed_precision=no", "train_imr.mixed_precision=fp16"])
    assert (params.train_anchoring.mixed_precision, params.train_imr.mixed_precision) == ("no", "fp16")


def test_all_problems_of_a_file_are_reported_at_once_and_with_its_name(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny.read_text("utf-8"))
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\nevaluate: {peple: 3, steps: 0}\nqqq: 1\n")
    message = r"mine\.yaml: evaluate\.steps = 0: .*; unknown key evaluate\.peple; did you mean .*people\?; .*qqq$"
    with pytest.raises(UserError, match=message):
        load_params(file)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dynamicid configure"):
        load_params(tmp_path / "none.yaml")


def test_written_overrides_read_back_the_same(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    dump_params(overridden_tree(tiny, ["evaluate.people=5"]), file)
    assert load_params(file) == load_params(tiny, ["evaluate.people=5"])


def test_parameters_cannot_be_changed(tiny: Path) -> None:
    with pytest.raises(ValidationError):
        load_params(tiny).train_imr.steps = 3


def test_parameters_without_an_identity_term_have_weight_0(tiny: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(tiny.read_text("utf-8"))
    del tree["train_anchoring"]["identity"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    assert load_params(tmp_path / "params.yaml").train_anchoring.identity.weight == 0


def test_a_judge_of_pose_needs_networks_that_measure_yaw(tiny: Path) -> None:
    network = {"path": "a/b.onnx", "angles": ["pitch"]}
    with pytest.raises(UserError, match="whose angles do not name yaw"):
        load_params(tiny, [f"evaluate.judges.yaw=[{json.dumps(network)}]"])
    with pytest.raises(UserError, match="pose needs a network for yaw"):
        load_params(tiny, ["evaluate.judges.yaw=[]"])
    assert load_params(tiny, ["evaluate.judges.yaw=[]", "evaluate.judges.pose=null"]).evaluate.judges.yaw == ()
