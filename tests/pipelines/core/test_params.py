"""Parameters are frozen, complete, and refuse what they do not know."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipelines.core.errors import UserError
from pipelines.core.params import dump_params, load_params, overridden_tree


@pytest.fixture
def tiny(project: Path) -> Path:
    return project / "profiles" / "tiny.yaml"


@pytest.mark.parametrize("profile", ["tiny", "showcase", "sd15"])
def test_every_profile_is_a_complete_parameter_file(project: Path, profile: str) -> None:
    params = load_params(project / "profiles" / f"{profile}.yaml")
    assert params.profile == profile
    tree = yaml.safe_load((project / "profiles" / f"{profile}.yaml").read_text())
    assert set(tree) == set(params.model_dump(by_alias=True))


def test_profiles_have_the_same_sections_as_each_other(project: Path) -> None:
    tiny, sd15 = (yaml.safe_load((project / "profiles" / f"{name}.yaml").read_text()) for name in ("tiny", "sd15"))
    assert list(tiny) == list(sd15)


def test_the_showcase_is_the_demo_with_more_of_everything(project: Path) -> None:
    tiny, showcase = (
        load_params(project / "profiles" / f"{name}.yaml").model_dump(by_alias=True) for name in ("tiny", "showcase")
    )
    changed = {
        f"{section}.{key}"
        for section, values in tiny.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if showcase[section][key] != value
    }
    assert changed == {
        "preprocess.test_share",
        "preprocess.val_share",
        "preprocess.buckets",
        *(f"train_{stage}.{key}" for stage in ("anchoring", "imr") for key in ("steps", "ema_decay")),
        "train_imr.batch_size",
        *(f"train_anchoring.{key}" for key in ("learning_rate", "projection_steps")),
        *(f"evaluate.{key}" for key in ("people", "seeds", "pairs")),
    }
    for section, key in (("train_anchoring", "steps"), ("train_imr", "steps"), ("evaluate", "people")):
        assert showcase[section][key] > tiny[section][key]


def test_override_changes_one_value(tiny: Path) -> None:
    params = load_params(tiny, ["train_anchoring.steps=7", "preprocess.captions.sources=[sidecar]"])
    assert params.train_anchoring.steps == 7
    assert params.preprocess.captions.sources == ("sidecar",)
    assert params.train_imr == load_params(tiny).train_imr


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train_anchoring.stepz=7", "train_anchoring.stepz"),
        ("trian_anchoring.steps=7", "trian_anchoring"),
        ("train_anchoring.steps=0", "train_anchoring.steps = 0"),
        ("train_anchoring.steps=many", "train_anchoring.steps = 'many'"),
        ("train_anchoring", "expected section.key=value"),
        ("profile.name=x", "profile is a value"),
    ],
)
def test_bad_override_is_one_line_that_names_it(tiny: Path, override: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        load_params(tiny, [override])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_mixed_precision_may_be_written_as_yaml_reads_it(tiny: Path) -> None:
    params = load_params(tiny, ["train_anchoring.mixed_precision=no", "train_imr.mixed_precision=fp16"])
    assert (params.train_anchoring.mixed_precision, params.train_imr.mixed_precision) == ("no", "fp16")


def test_unknown_key_in_the_file_is_named_with_the_file(tiny: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(tiny.read_text())
    tree["evaluate"]["peple"] = 3
    file = tmp_path / "params.yaml"
    dump_params(tree, file)
    with pytest.raises(UserError, match=r"params\.yaml: unknown key evaluate\.peple"):
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


def test_parameters_from_before_the_identity_term_are_those_without_it(tiny: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(tiny.read_text("utf-8"))
    del tree["train_anchoring"]["identity"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    assert load_params(tmp_path / "params.yaml").train_anchoring.identity.weight == 0
