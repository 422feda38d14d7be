"""Results may be compared if their judges are the same files with the same input."""

from __future__ import annotations

from typing import Any

from pipelines.registry.champion_metrics import conditions, with_recogniser_input

PARAMS = {f"evaluate.judges.recogniser_{name}": value for name, value in (("size", "112"), ("mean", "127.5"))}


def document(**judges: Any) -> dict[str, Any]:
    return {"evaluation_set": "e", "settings": {"steps": 20, "judges": {"recogniser": "file", **judges}}}


def test_another_normalisation_of_the_judge_is_another_condition() -> None:
    one, other = ([112, 127.5, 127.5], [112, 0.0, 255.0])
    assert conditions(document(recogniser_input=one)) != conditions(document(recogniser_input=other))


def test_results_of_earlier_releases_get_the_input_that_was_recorded_with_them() -> None:
    recorded = {**PARAMS, "evaluate.judges.recogniser_scale": "127.5"}
    old = with_recogniser_input(document(), recorded)
    assert conditions(old) == conditions(document(recogniser_input=[112, 127.5, 127.5]))
    assert with_recogniser_input(document(), PARAMS) == document(), "where it is unknown, the champion is judged again"
    assert conditions(document()) != conditions(old)
    assert with_recogniser_input({"evaluation_set": "e"}, recorded) == {"evaluation_set": "e"}
