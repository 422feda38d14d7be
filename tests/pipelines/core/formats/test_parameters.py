"""A parameter file of format 1 does what it did; keys that were added since are filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.core.formats import parameters
from pipelines.core.formats.parameters import bring_up_to_date
from pipelines.core.params import load_params, read_tree


def test_added_keys_do_what_the_older_program_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "_ADDED", {2: {("one", "new"): [], ("absent", "new"): 1}})
    tree = {"one": {"old": 1}}
    assert bring_up_to_date(tree, "f") == 1
    assert tree == {"one": {"old": 1, "new": []}}
    stated = {"format": 2, "one": {"old": 1}}
    assert bring_up_to_date(stated, "f") == 2
    assert stated == {"one": {"old": 1}}
    child = {"extends": "tiny", "one": {"old": 1}}
    bring_up_to_date(child, "f")
    assert child == {"extends": "tiny", "one": {"old": 1}}


def test_values_of_format_1_are_kept(project: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    del tree["format"], tree["preprocess"]["spark"], tree["train_imr"]["gradient_checkpointing"]
    tree["train_imr"]["steps"] = 7
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    params = load_params(tmp_path / "params.yaml")
    assert (params.format, params.train_imr.steps, params.preprocess.spark) == (2, 7, {})


def test_a_profile_without_a_name_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("format: 2\nprofile: below\none: 1\n")
    (tmp_path / "only.yaml").write_text("extends: below\n")
    assert read_tree(tmp_path / "only.yaml")["profile"] == "only"
    (tmp_path / "named.yaml").write_text("extends: below\nprofile: mine\n")
    assert read_tree(tmp_path / "named.yaml")["profile"] == "mine"
