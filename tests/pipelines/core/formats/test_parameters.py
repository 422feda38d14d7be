"""A parameter file of format 1 does what it did; keys that were added since are filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.core.errors import UserError
from pipelines.core.formats.parameters import bring_up_to_date, rewrite
from pipelines.core.params import load_params, read_tree


def test_format_1_is_completed_and_the_present_one_is_not_touched() -> None:
    old = {"preprocess": {"buckets": 4}, "rights": {"consent": {"allow": [], "deny": ["no"]}}, "train_imr": 7}
    assert bring_up_to_date(old, "f") == 1
    words = ["granted", "given", "agreed", "consented"]
    assert old == {
        "preprocess": {"buckets": 4, "spark": {}},
        "rights": {"consent": {"allow": words, "deny": ["no"], "unknown": "allow"}},
        "train_imr": 7,
    }
    present = {"format": 4, "preprocess": {}, "rights": {"consent": {"allow": []}}}
    assert bring_up_to_date(present, "f") == 4
    assert present == {"preprocess": {}, "rights": {"consent": {"allow": []}}}
    strict = {"rights": {"consent": {"allow": ["signed"], "deny": []}}}
    bring_up_to_date(strict, "f")
    assert strict["rights"]["consent"]["allow"] == ["signed"]


def test_a_profile_of_format_1_still_holds_only_what_differs() -> None:
    child = {"extends": "tiny", "preprocess": {"buckets": 4}, "rights": {"consent": {"deny": ["no"]}}}
    bring_up_to_date(child, "f")
    assert child == {"extends": "tiny", "preprocess": {"buckets": 4}, "rights": {"consent": {"deny": ["no"]}}}


def test_values_of_format_1_are_kept(project: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    del tree["format"], tree["preprocess"]["spark"], tree["train_imr"]["gradient_checkpointing"]
    tree["train_imr"]["steps"] = 7
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    params = load_params(tmp_path / "params.yaml")
    assert (params.format, params.train_imr.steps, params.preprocess.spark) == (5, 7, {})


def test_the_judges_of_format_2_read_the_same_outputs_of_the_same_files(project: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    present, judges = load_params(project / "profiles" / "tiny.yaml"), tree["evaluate"]["judges"]
    tree["format"] = 2
    judges["recogniser"], combined = judges["recogniser"]["path"], judges["pose"]["path"]
    judges |= {"recogniser_size": 112, "recogniser_mean": 127.5, "recogniser_scale": 127.5, "expression_pose": combined}
    for key in ("expression", "yaw", "pose"):
        del judges[key]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    assert load_params(tmp_path / "params.yaml") == present
    child = {"format": 2, "extends": "tiny", "evaluate": {"judges": {"recogniser_mean": 0.0}}}
    bring_up_to_date(child, "f")
    assert child["evaluate"]["judges"] == {"recogniser": {"mean": 0.0}}
    bring_up_to_date(untouched := {"format": 2, "evaluate": {"judges": {"clip": "a/b"}}}, "f")
    assert untouched == {"evaluate": {"judges": {"clip": "a/b"}}}


def test_a_profile_without_a_name_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("format: 3\nprofile: below\none: 1\n")
    (tmp_path / "only.yaml").write_text("extends: below\n")
    assert read_tree(tmp_path / "only.yaml")["profile"] == "only"
    (tmp_path / "named.yaml").write_text("extends: below\nprofile: mine\n")
    assert read_tree(tmp_path / "named.yaml")["profile"] == "mine"


@pytest.mark.parametrize("indent", ["", "  "])
def test_a_file_is_rewritten_with_its_comments_order_and_style(indent: str, tmp_path: Path) -> None:
    body = (
        "# ours\nprofile: 'tiny'  # quoted\n\n# the start\npreprocess:\n  max: 1_000\n"
        f"register:\n  gates:\n  {indent}- {{metric: a, minimum: 1e-3}}\n  {indent}- metric: b  # two\n  none: null\n"
    )
    file = tmp_path / "params.yaml"
    file.write_text(body)
    rewrite(file)
    head, rest = body.split("profile", 1)
    assert file.read_text() == f"{head}format: 5\nprofile{rest}".replace("1_000\n", "1_000\n  spark: {}\n")


def test_a_key_that_occurs_twice_is_named_and_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match=r"params\.yaml: line 2: found duplicate key \"seed\".*; keep one of them"):
        rewrite(file)
    assert file.read_text() == "seed: 1\nseed: 2\n"


def test_thresholds_of_format_2_become_those_of_the_network_and_a_chosen_one_is_of_an_unnamed_recogniser() -> None:
    own = {"format": 2, "curate": {"similarity": 0.4}, "preprocess": {"sure_scores": {"mine": 0.7}}}
    assert bring_up_to_date(own, "f") == 2
    # A score of somebody's own is refused as an unknown key: nothing is dropped in silence.
    assert own == {
        "curate": {"similarity": {"value": 0.4, "recogniser": None}},
        "preprocess": {"sure_scores": {"mine": 0.7}},
    }
    profile = {"format": 2, "curate": {"similarity": 0.68}, "preprocess": {"sure_scores": {"tiny_faces": 0.0}}}
    bring_up_to_date(profile, "f")
    assert profile == {"curate": {"similarity": None}, "preprocess": {}}


def test_the_pairs_of_format_3_are_pictures_of_two_people(project: Path, tmp_path: Path) -> None:
    present = load_params(project / "profiles" / "tiny.yaml")
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text())
    tree["format"] = 3
    tree["evaluate"]["pairs"] = tree["evaluate"].pop("several_people")["two"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    assert load_params(tmp_path / "params.yaml") == present
    child = {"format": 3, "extends": "tiny", "evaluate": {"people": 7}}
    assert bring_up_to_date(child, "f") == 3
    assert child == {"extends": "tiny", "evaluate": {"people": 7}}


def test_a_retraining_from_scratch_of_format_4_still_follows_the_parameters() -> None:
    own = {"format": 4, "train_anchoring": {"steps": 9}, "retrain": {"start_from": "scratch"}}
    assert bring_up_to_date(own, "f") == 4
    assert own == {"train_anchoring": {"steps": 9}, "retrain": {"start_from": "parameters"}}
    chosen = {"format": 5, "retrain": {"start_from": "scratch"}}
    bring_up_to_date(chosen, "f")
    assert chosen == {"retrain": {"start_from": "scratch"}}
