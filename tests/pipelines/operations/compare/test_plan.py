"""Which rows a comparison has, and what is refused before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from model.foundation.random_models import save_random_flux
from pipelines.core.errors import UserError
from pipelines.operations.compare.keys import refuse_equal, training_key
from pipelines.operations.compare.plan import Asked, Row, plan_rows
from pipelines.registry.registry import open_registry
from tests.pipelines.operations.compare.conftest import Home

THREE = ("dynamicid", "ip_adapter_faceid", "text_only")


def rows_of(home: Home, **asked: object) -> list[Row]:
    rows = plan_rows(Asked(**asked), home.params, home.root)  # type: ignore[arg-type]
    refuse_equal(rows)
    return rows


def test_methods_share_the_budget_and_start_from_new_weights(home: Home) -> None:
    changes = ("train_anchoring.steps=7", "ip_adapter_faceid:train_anchoring.learning_rate=0.5")
    first, second, third = rows_of(home, methods=THREE, changes=changes, seeds=2)
    assert [row.name for row in (first, second, third)] == list(THREE)
    assert [row.seeds for row in (first, second, third)] == [(0, 1), (0, 1), (None,)]
    assert third.is_text_only
    for row in (first, second):
        section = row.params.train_anchoring
        assert (section.steps, section.start_from, row.params.train_imr.start_from) == (7, None, None)
        assert section.method == row.name
        seeded = row.with_seed(1)
        assert (seeded.train_anchoring.seed, seeded.train_imr.seed) == (1, 1)
    assert second.params.train_anchoring.learning_rate == 0.5 != first.params.train_anchoring.learning_rate
    assert second.changes == ("train_anchoring.learning_rate=0.5",)


def test_every_combination_of_values_is_a_row(home: Home) -> None:
    vary = ("train_anchoring.gate_threshold=0,0.3", "evaluate.guidance=2,3")
    rows = rows_of(home, vary=vary)
    assert [row.name for row in rows] == [
        "gate_threshold=0, guidance=2",
        "gate_threshold=0, guidance=3",
        "gate_threshold=0.3, guidance=2",
        "gate_threshold=0.3, guidance=3",
    ]
    assert {row.params.train_anchoring.method for row in rows} == {"dynamicid"}
    keys = [training_key(row, 0, "photos") for row in rows]
    assert keys[0] == keys[1] != keys[2] == keys[3], "what only the evaluation reads is trained once"
    assert training_key(rows[0], 1, "photos") != keys[0] != training_key(rows[0], 0, "other photos")


def test_versions_and_adapter_folders_are_rows_without_a_training(home: Home) -> None:
    rows = rows_of(home, versions=("first", "second"))
    assert [(row.name, row.method, row.seeds) for row in rows] == [("first", None, (None,)), ("second", None, (None,))]
    assert rows[0].adapter == Path("first")


def test_a_registered_version_brings_its_own_base(home: Home, empty_database: Path) -> None:
    shutil.copy2(empty_database, home.root / "mlflow.db")
    for resolution in (64, 128):
        model = home.root / f"model-{resolution}" / "artifacts"
        shutil.copytree(home.root / "first", model / "adapter")
        tree = yaml.safe_load(home.params.read_text())
        tree["base"] |= {"resolution": resolution, "hair": True}
        (model / "params.yaml").write_text(yaml.safe_dump(tree))
        client = open_registry(home.root)
        if resolution == 64:
            client.create_registered_model("dynamicid")
        client.create_model_version("dynamicid", model.parent.as_uri())
    client.set_registered_model_alias("dynamicid", "champion", "1")
    rows = rows_of(home, versions=("models:/dynamicid@champion",), methods=("text_only",))
    assert [row.name for row in rows] == ["text_only", "dynamicid/1"]
    assert rows[1].params.base.hair
    assert not rows[0].params.base.hair
    with pytest.raises(UserError, match=r"dynamicid/1 has base.resolution 64, dynamicid/2 has 128: their pictures"):
        rows_of(home, versions=("dynamicid/1", "dynamicid/2"))
    with pytest.raises(UserError, match="models:/dynamicid/7: no such version in the registry; there are v1, v2"):
        rows_of(home, versions=("dynamicid/1", "dynamicid/7"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": ("dynamicid", "consistentd")}, r"consistentd: no such method; did you mean consistentid\?"),
        ({"methods": ("dynamicid",)}, "dynamicid to compare; name two or more rows"),
        ({}, "nothing to compare"),
        ({"methods": ("dynamicid", "dynamicid")}, "dynamicid is named twice"),
        ({"versions": ("first", "third")}, "third: no adapter here"),
        ({"vary": ("train_anchoring.gate=0,1",)}, r"--vary train_anchoring.gate=0: .*unknown key.*gate"),
        ({"vary": ("train_anchorin.steps=1,2",)}, "unknown section train_anchorin; did you mean train_anchoring"),
        ({"vary": ("train_anchoring.steps=1",)}, "two values or more"),
        ({"vary": ("train_anchoring.checkpoint_every=5,6",)}, "the same training and the same pictures"),
        ({"vary": ("train_anchoring.facial_parts.depth=1,2",)}, "dynamicid does not read what differs"),
        ({"vary": ("serve.steps=5,6",)}, "neither training nor evaluation reads it"),
        ({"vary": ("evaluate.people=4,5",)}, "it changes what is asked or who judges"),
        ({"vary": ("preprocess.face_share=0.1,0.2",)}, "all rows have the same photos"),
        ({"vary": ("train_imr.seed=1,2",)}, "use --seeds"),
        ({"methods": THREE, "changes": ("train_anchoring.method=consistentid",)}, "use --methods"),
        ({"methods": THREE, "changes": ("evaluate.protocol=paper",)}, "sets it to ours"),
        ({"methods": THREE, "changes": ("dynamicid:train_anchoring.steps=9",)}, "the budget is one for all"),
        ({"methods": THREE, "changes": ("consistentid:train_anchoring.steps=9",)}, "not among the methods"),
        ({"vary": ("base.resolution=64,128",)}, "base.resolution 64, .* has 128: their pictures do not compare"),
        (
            {"methods": ("dynamicid", "ip_adapter_faceid"), "vary": ("train_imr.steps=1,2",)},
            "ip_adapter_faceid, steps=1 and ip_adapter_faceid, steps=2: the same training",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(home: Home, asked: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows_of(home, **asked)


def test_a_method_without_layers_for_the_base_is_named_with_it(home: Home) -> None:
    pipeline = save_random_flux(home.root / "flux").pipeline
    tree = yaml.safe_load(home.params.read_text())
    tree["base"]["pipeline"] = str(pipeline)
    home.params.write_text(yaml.safe_dump(tree))
    with pytest.raises(
        UserError, match=rf"ip_adapter_faceid cannot be trained on the base {pipeline}: .*has no layers"
    ):
        rows_of(home, methods=("ip_adapter_faceid", "text_only"))
