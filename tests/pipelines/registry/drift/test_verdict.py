"""Drift is reported in the feature that changed, and not where chance explains the difference."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import StageFailed
from pipelines.core.params import Params
from pipelines.core.sections.operations import Drift
from pipelines.registry.drift.distances import distances
from pipelines.registry.drift.features import Sample, read_sample
from pipelines.registry.drift.page import write_page
from pipelines.registry.drift.verdict import ADDED, WHOLE, Verdict, change_in_words, compare, state_of

Write = Any


@pytest.fixture(scope="module")
def settings(params: Params) -> Drift:
    return params.drift.model_copy(update={"resamples": 20})


@pytest.fixture(scope="module")
def sample(write_version: Write, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def make(parts: dict[str, int], **how: Any) -> Sample:
        folder = tmp_path_factory.mktemp("version")
        write_version(folder, parts, **how)
        return read_sample(folder / "faces", folder / "processed", 2000)

    return make


@pytest.fixture(scope="module")
def champion(sample: Any) -> Sample:
    return sample({"old": 20})


def states(findings: Any, part: str = WHOLE) -> dict[str, str]:
    return {one.feature: one.state for one in findings if one.part == part}


def test_the_same_data_and_other_people_like_them_do_not_drift(champion: Sample, sample: Any, settings: Drift) -> None:
    assert set(states(compare(champion, champion, settings)).values()) == {"ok"}
    assert all(one.value == 0 for name, one in distances(champion, champion, 10).items() if name != "embedding")
    more = compare(champion, sample({"old": 20, "new": 12}), settings)
    assert state_of(more) == "ok"
    assert set(states(more, ADDED)) == set(states(more))


@pytest.mark.parametrize(
    ("how", "feature"),
    [
        ({"brightness": 0.15}, "brightness"),
        ({"side": 64}, "size"),
        ({"shift": 3.0}, "embedding"),
        ({"rejected": 0.5}, "outcome"),
    ],
)
def test_what_changed_stops_and_is_named(
    champion: Sample, sample: Any, settings: Drift, how: dict[str, float], feature: str
) -> None:
    findings = compare(champion, sample({"other": 20}, **how), settings)
    stopped = {name for name, state in states(findings).items() if state == "stop"}
    assert stopped == {feature}
    (line,) = Verdict("stop", findings=findings).lines("stop")
    assert line.startswith(f"{feature} ")
    assert f"> {settings.limits[feature].stop:.3f}" in line  # type: ignore[index]


def test_a_few_photos_of_another_size_do_not_stop_where_the_champions_are_all_of_one(
    champion: Sample, sample: Any, settings: Drift
) -> None:
    """Procedural photos have one size: in their standard deviation a few larger ones were far away."""
    few = compare(champion, sample({"old": 20, "new": 2}, side=1024, changed="new"), settings)
    assert states(few)["size"] == "ok"
    every = compare(champion, sample({"other": 20}, side=1024), settings)
    (size,) = [one for one in every if one.feature == "size"]
    assert size.state == "stop"
    assert size.distance == pytest.approx(2.0)
    assert size.words == "256 pixels (256 to 256) → 1024 pixels (1024 to 1024)"
    assert size.words in size.line()


def test_one_broken_photo_hardly_changes_the_unit(champion: Sample, sample: Any) -> None:
    current = sample({"other": 20})
    broken = champion.numbers["yaw"].copy()
    broken[:3] = 1e4
    odd = replace(champion, numbers={**champion.numbers, "yaw": broken})
    moved = replace(current, numbers={**current.numbers, "yaw": current.numbers["yaw"] + 30})
    assert distances(odd, moved, 10)["yaw"].value > distances(champion, moved, 10)["yaw"].value


def test_words_say_which_share_changed_most(champion: Sample, sample: Any) -> None:
    current = sample({"other": 20}, rejected=0.5)
    share = float((current.words["outcome"] == "ok").mean())
    assert change_in_words("outcome", champion, current) in (
        f"ok 100% → {share:.0%}",
        f"no_face 0% → {1 - share:.0%}",
    )
    assert change_in_words("embedding", champion, current) == ""
    nearly = replace(champion, numbers={**champion.numbers, "pitch": np.full(len(champion), -0.2)})
    assert change_in_words("pitch", nearly, nearly) == "0° (0 to 0) → 0° (0 to 0)", "no minus zero"


def test_dark_new_photos_warn_though_the_whole_version_hardly_changed(
    champion: Sample, sample: Any, settings: Drift
) -> None:
    findings = compare(champion, sample({"old": 20, "dark": 4}, brightness=0.42, changed="dark"), settings)
    assert states(findings, ADDED)["brightness"] == "warn"
    assert state_of(findings) == "warn"


def test_a_sample_is_the_same_photos_however_large_the_version(
    write_version: Write, tmp_path: Path, champion: Sample
) -> None:
    write_version(tmp_path, {"old": 20})
    small = read_sample(tmp_path / "faces", tmp_path / "processed", 30)
    assert small.image_ids.tolist() == champion.image_ids[:30].tolist()
    assert small.photos == champion.photos == 120
    assert small.numbers["size"] == pytest.approx(np.full(30, 8.0))
    assert small.numbers["brightness"].mean() == pytest.approx(0.5, abs=0.05)
    assert small.numbers["brightness"].tolist() == champion.numbers["brightness"][:30].tolist()


def test_folders_that_do_not_belong_together_are_refused(write_version: Write, tmp_path: Path) -> None:
    write_version(tmp_path / "a", {"old": 4})
    write_version(tmp_path / "b", {"new": 4})
    with pytest.raises(StageFailed, match="24 photos not in"):
        read_sample(tmp_path / "a" / "faces", tmp_path / "b" / "processed", 100)


def test_the_page_shows_verdict_numbers_and_distributions(champion: Sample, sample: Any, settings: Drift) -> None:
    current = sample({"other": 20}, brightness=0.15)
    findings = compare(champion, current, settings)
    counts = {"reference": 120, "current": 120, "reference_sample": 120, "current_sample": 120, "added": 120}
    page = write_page(Verdict("stop", "3", "faces-v1", "faces-v2", counts, findings), champion, current)
    assert "champion v3" in page
    assert page.count("data:image/svg+xml;base64,") == 7
    assert 'class="stop">stop' in page
    assert "http" not in page, "the page must not fetch anything"
    plots = [base64.b64decode(one).decode() for one in re.findall(r"svg\+xml;base64,([\w+/=]+)", page)]
    (sizes,) = (plot for plot in plots if "<!-- pixels -->" in plot)
    assert "<!-- 256.0 -->" in sizes, "photos of one size, whose logarithms differ by the last digits"
    assert "e" not in "".join(re.findall(r"<!-- ([\d.e+−-]+) -->", sizes))
