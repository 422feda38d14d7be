"""The probe is tested on people that it was not trained on; an untrained IMR copies the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.foundation.identity_gates import AdapterBench, measure_imr, measure_tokens, probe
from model.foundation.manifest import WEIGHTS
from model.foundation.measure import Sample, unseen_people
from model.foundation.readers import FaceReader
from model.foundation.text_to_image import Sampling
from model.network.adapter import Adapter
from pipelines.data.synthetic.foundation_people import draw


def test_the_probe_reads_labels_and_not_people() -> None:
    rng = np.random.default_rng(0)
    labels, identity = rng.integers(7, size=280), np.repeat(np.arange(20), 14)
    tokens = rng.standard_normal((280, 4, 16))
    assert probe(tokens, labels, identity) < 0.35
    tokens[:, 0, :7] += 6 * np.eye(7)[labels]
    assert probe(tokens, labels, identity) > 0.95
    # A label that depends on the person alone cannot be predicted for another person.
    person = rng.standard_normal((20, 64))[identity].reshape(280, 4, 16)
    assert probe(person, identity % 7, identity) < 0.5


@pytest.fixture
def bench(tmp_path: Path, make_adapter: Callable[..., Adapter]) -> AdapterBench:
    make_adapter(WEIGHTS, tmp_path / "adapter")
    people = unseen_people(tmp_path / "people", draw, Sample(people=3, photos=7, size=64, groups=0.0))
    return AdapterBench(WEIGHTS, tmp_path / "adapter", people, people.photos)


def test_an_untrained_imr_copies_the_source(bench: AdapterBench) -> None:
    # The residual of an untrained IMR is zero, so its error is that of the first baseline.
    imr = measure_imr(bench)
    assert imr["of_copying_source"] == pytest.approx(1, abs=1e-3)
    assert imr["error"] > 0
    tokens = measure_tokens(bench, FaceReader(WEIGHTS.joinpath), Sampling(pictures=4, steps=2))
    assert set(tokens) == {
        "probe_expression",
        "probe_pose",
        "expression_by_tokens",
        "expression_by_text",
        "expression_kept",
        "pose_by_tokens",
    }
    assert all(0 <= tokens[name] <= 1 for name in ("probe_expression", "probe_pose", "expression_by_tokens"))
