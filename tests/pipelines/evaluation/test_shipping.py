"""An adapter ships only with its own parameters and figures, and only with legs that can follow one another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.face.ledger import ledger
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import load_params
from pipelines.core.row_schemas import PROCESSED_SCHEMA
from pipelines.evaluation.shipping import people_ledger, read_legs, read_metrics, recipe_of
from tests.pipelines.photos import write_shards

WEIGHTS = b"weights"
Leg = Callable[..., Path]


@pytest.fixture
def adapter(tmp_path: Path, project: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    section = load_params(project / "profiles" / "tiny.yaml").train_anchoring
    config = {"format": 1, "sizes": section.sizes.model_dump(), "gate_threshold": section.gate_threshold}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "adapter.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def leg(tmp_path: Path, project: Path) -> Leg:
    """Writes the profile with some lines changed."""

    def write(name: str, start: str = "null", profile: str = "tiny", **changed: Any) -> Path:
        text = (project / "profiles" / "tiny.yaml").read_text()
        for value in (start, "null"):  # of anchoring, and of the IMR
            text = text.replace("start_from: model/foundation/weights/adapter", f"start_from: {value}", 1)
        text = text.replace("profile: tiny", f"profile: {profile}", 1)
        for key, value in changed.items():
            (line,) = {each for each in text.splitlines() if each.strip().startswith(f"{key}:")}
            text = text.replace(line, f"{line.split(':')[0]}: {value}")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_the_last_leg_is_the_adapters(leg: Leg, adapter: Path) -> None:
    assert [params.train_anchoring.steps for params in read_legs([leg("one.yaml")], adapter)] == [100]
    with pytest.raises(UserError, match=r"has sizes .*'lora_rank': 32.*, train_anchoring of .*one.yaml has .*16"):
        read_legs([leg("one.yaml", lora_rank=16)], adapter)
    with pytest.raises(UserError, match=r"has gate_threshold 0.3, train_anchoring of .* has 0.9"):
        read_legs([leg("one.yaml", gate_threshold=0.9)], adapter)
    config = json.loads((adapter / "config.json").read_text())
    made_by = {"stage": "train_imr", "params": {"train_imr": {"learning_rate": 0.0002}}, "before": None}
    (adapter / "config.json").write_text(json.dumps({**config, "made_by": made_by}))
    assert read_legs([leg("one.yaml")], adapter)
    made_by["params"]["train_imr"]["learning_rate"] = 0.001
    (adapter / "config.json").write_text(json.dumps({**config, "made_by": made_by}))
    with pytest.raises(UserError, match=r"trained with train_imr\.learning_rate 0\.001, .*one\.yaml has 0\.0002"):
        read_legs([leg("one.yaml")], adapter)
    (adapter / "config.json").unlink()
    with pytest.raises(UserError, match="expected an adapter folder"):
        read_legs([leg("one.yaml")], adapter)


def test_legs_follow_one_another(leg: Leg, adapter: Path) -> None:
    began = "models:/dynamicid/1"
    first, second = leg("first.yaml"), leg("second.yaml", began)
    narrow, wide = leg("narrow.yaml", lora_rank=4), leg("wide.yaml", began, lora_rank=64)
    assert len(read_legs([first, second], adapter)) == 2
    assert len(read_legs([narrow, second, second], adapter)) == 3
    for files, message in (
        ([second], r"second.yaml: leg 1 of 1 has start_from models:/dynamicid/1; the first leg begins from scratch"),
        ([first, first], r"first.yaml: leg 2 of 2 has start_from null"),
        ([first, wide, second], r"second.yaml: leg 3 of 3 has other sizes"),
        ([leg("width.yaml", landmark_width=8), second], "has other sizes"),
        ([leg("away.yaml", profile="showcase"), second], r"leg 1 of 2 has profile showcase, the last one tiny"),
    ):
        with pytest.raises(UserError, match=message):
            read_legs(files, adapter)


def test_figures_are_the_adapters_own(tmp_path: Path, adapter: Path) -> None:
    def metrics(**changed: Any) -> Path:
        known = {"adapter": hashlib.sha256(WEIGHTS).hexdigest(), "profile": "tiny", **changed}
        likeness = {"model": {"id_similarity": {"value": 0.5}}}
        (tmp_path / "metrics.json").write_text(json.dumps({"settings": known, "normalised": likeness, "model": {}}))
        return tmp_path / "metrics.json"

    assert read_metrics(metrics(), adapter, "tiny")["settings"]["profile"] == "tiny"
    for changed in ({"adapter": "0" * 64}, {"profile": "showcase"}):
        (name, value), *_ = changed.items()
        with pytest.raises(UserError, match=f"figures of {name} {value}"):
            read_metrics(metrics(**changed), adapter, "tiny")
    unknown = json.loads(metrics().read_text())
    unknown["model"] = {"id_similarity": {"value": None, "reason": "recogniser: auc 0.6 < 0.9"}}
    (tmp_path / "unknown.json").write_text(json.dumps(unknown))
    with pytest.raises(StageFailed, match=r"not measurable: id_similarity: recogniser: auc 0\.6"):
        read_metrics(tmp_path / "unknown.json", adapter, "tiny")
    for text in ("{", "[]", "{}", '{"settings": {}, "normalised": {}}'):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(UserError, match="`dynamicid evaluate` writes"):
            read_metrics(tmp_path / "broken.json", adapter, "tiny")
    for file, folder in ((tmp_path / "no.json", adapter), (metrics(), tmp_path)):
        with pytest.raises(UserError, match="no such file"):
            read_metrics(file, folder, "tiny")


def test_the_recipe_keeps_every_leg_and_its_conditions(leg: Leg, adapter: Path) -> None:
    document = {"evaluation_set": "e" * 64, "settings": {"guidance": 9.0}}
    one = recipe_of(read_legs([leg("one.yaml")], adapter), 2, document)
    assert one["processes"] == 2
    assert one["evaluated"] == {"evaluation_set": "e" * 64, "settings": {"guidance": 9.0}}
    assert "legs_before" not in one
    two = recipe_of(read_legs([leg("one.yaml"), leg("two.yaml", "models:/dynamicid/1")], adapter), 1, document)
    assert two["legs_before"] == [one["train_anchoring"]]
    assert two["train_anchoring"]["start_from"] == "models:/dynamicid/1"


def test_a_ledger_names_the_people_of_train_and_val(tmp_path: Path) -> None:
    people = [("anna", "train"), ("bert", "val"), ("carl", "test"), ("", "train"), (None, "val"), ("anna", None)]
    rows = [{"identity": name, "split": split} for name, split in people]
    processed = write_shards(tmp_path / "processed", PROCESSED_SCHEMA, [rows[:2], rows[2:]])
    assert people_ledger(processed) == ledger(train={"anna"}, val={"bert"})
