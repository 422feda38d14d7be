"""What the measurement of face control computes from readings that are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.face_control import Asked, Read, Report
from benchmarks.references import Sitter
from pipelines.evaluation.readings import Readings


def readings(direction: int, count: int) -> Readings:
    embeddings = np.tile(np.eye(4)[direction], (count, 1))
    zeros, numbers = np.zeros((count, 4)), np.zeros(count, int)
    return Readings(np.ones(count, bool), zeros, embeddings, numbers, numbers, np.zeros(count))


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_a_face_that_follows_and_one_that_does_not_and_a_leak() -> None:
    sitters = [Sitter([], readings(n, 4), readings(n, 4)) for n in range(2)]
    asked = [Asked(n, None, None, None, "yaw", yaw) for n in range(2) for yaw in (-45.0, 0.0, 45.0)]
    asked += [Asked(n, None, None, None, way, 1) for n in range(2) for way in ("driving", "driving in words")]
    count = len(asked)
    own = np.stack([np.eye(4)[one.person] for one in asked])
    # Half of the driver is in every picture of the driving photo.
    driven = np.array([one.way == "driving" for one in asked])
    own[driven] = (own[driven] + own[driven][:, [1, 0, 2, 3]]) / 2
    yaw = np.array([one.value if one.way == "yaw" else 10.0 for one in asked], float)
    probabilities = np.tile(np.eye(7)[0], (count, 1))
    report = Report(sitters, asked, Read(probabilities, yaw, np.full(count, 3.0), own))
    assert report.follows("yaw", yaw, "yaw")["spearman"]["value"] == pytest.approx(1.0)
    assert report.follows("yaw", np.full(count, 3.0), "yaw")["spearman"]["value"] == 0.0
    assert report.follows("yaw", yaw, "yaw")["fall"]["value"] == pytest.approx(0.0)
    driving = report.driving()
    assert driving["leak"]["value"] == pytest.approx(0.5)
    assert driving["s"]["value"] == pytest.approx(0.5)
    assert driving["expression"]["value"] == 1.0
    assert driving["yaw_error"]["value"] == pytest.approx(10.0)
