"""The headline of an evaluation: few metrics, by plain names, with hashes that differ where two do not compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import HEADLINE as FILE
from pipelines.evaluation.headline import HEADLINE, S, figures, headline
from pipelines.evaluation.variants import METRICS, MODEL, SHIPPED


def document(**changes: Any) -> dict[str, Any]:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = dict.fromkeys(METRICS, figure)
    scaled = {name: {"id_similarity": {**figure, "value": 0.25}} for name in (MODEL, SHIPPED)}
    settings = {"steps": 20, "guidance": 2.0, "adapter": "a"}
    return {
        "evaluation_set": "a" * 64,
        "settings": settings,
        MODEL: row,
        SHIPPED: row,
        "normalised": scaled,
    } | changes


def test_at_most_fifteen_metrics_have_names_of_their_own_and_a_meaning() -> None:
    assert len({one.name for one in HEADLINE}) == len(HEADLINE) <= 15
    assert all(one.meaning and one.metric in {*METRICS, S} for one in HEADLINE)
    assert {"s", "own_over_other", "expression_accuracy", "pose_accuracy", "shipped.s"} <= {
        one.name for one in HEADLINE
    }


def test_the_file_has_the_values_by_name_and_the_figures_their_intervals() -> None:
    found = headline(document())
    assert (found["s"], found["own_over_other"], found["shipped"]["s"]) == (0.25, 0.5, 0.25)
    assert found["evaluation_set"] == "a" * 12
    assert figures(document())["s"] == {"value": 0.25, "low": 0.4, "high": 0.6}


def test_the_hashes_differ_where_two_do_not_compare_and_only_there() -> None:
    def hashes(**changes: Any) -> tuple[str, str]:
        found = headline(document(**changes))
        return found["evaluation_set"], found["evaluation_settings"]

    before = hashes()
    assert hashes(settings={"steps": 20, "guidance": 2.0, "adapter": "another"}) == before
    others = hashes(evaluation_set="b" * 64), hashes(settings={"steps": 9, "guidance": 2.0, "adapter": "a"})
    assert [tuple(new == old for new, old in zip(one, before, strict=True)) for one in others] == [
        (False, True),
        (True, False),
    ]


def test_what_is_not_measurable_is_named_and_what_was_not_measured_left_out() -> None:
    withheld = {"value": None, "reason": "expression: kappa 0.10 < 0.40"}
    own = document()
    own[MODEL] = {"expression_accuracy": withheld, "kid": {"value": 0.1, "low": 0.0, "high": 0.2}}
    del own[SHIPPED], own["normalised"][SHIPPED]
    found = headline(own)
    assert found["expression_accuracy"] == "not measurable"
    assert set(found) == {"evaluation_set", "evaluation_settings", "s", "expression_accuracy", "kid"}


def test_dvc_lists_the_headline_and_no_other_metrics(project: Path) -> None:
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"].values()
    assert [file for stage in stages for file in stage.get("metrics", ())] == [FILE]
