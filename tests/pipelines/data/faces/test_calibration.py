"""Thresholds are those of the recogniser that made the numbers, or refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.core.sections.data import Threshold
from pipelines.data.faces.calibration import (
    FILE,
    Calibrations,
    Recogniser,
    RecogniserThresholds,
    pack_traits,
    read_calibrations,
    recogniser_of,
    write_own,
)

OWN, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def tiny(project: Path) -> Params:
    return load_params(project / "profiles/tiny.yaml")


def test_every_network_of_the_small_profile_is_known(tiny: Params, tmp_path: Path) -> None:
    found = recogniser_of(tiny.preprocess, tmp_path)
    assert (found.pack, found.thresholds().similarity) == ("tiny_faces", 0.68)
    assert found.similarity(None, "curate.similarity") == 0.68
    assert pack_traits(tiny.preprocess) == (0.0, None, True, 0.9)


def test_what_was_calibrated_here_comes_before_what_the_project_knows(tiny: Params, tmp_path: Path) -> None:
    fingerprint = recogniser_of(tiny.preprocess, tmp_path).fingerprint
    own = Calibrations(
        recognisers={
            fingerprint: RecogniserThresholds(network="mine", similarity=0.71, same=0.8, excess=0.03, copies=0.9)
        }
    )
    file = write_own(tmp_path, own)
    first = file.read_bytes()
    write_own(tmp_path, own)
    assert file.read_bytes() == first
    assert recogniser_of(tiny.preprocess, tmp_path).thresholds().similarity == 0.71
    assert len(read_calibrations(tmp_path).recognisers) > 1


def test_an_unknown_recogniser_is_refused_with_the_command_that_measures_it() -> None:
    with pytest.raises(UserError, match=r"recogniser mine \(a{12}\) has no .*`dynamicid calibrate DIR`"):
        Recogniser("mine", OWN, None).similarity(None, "curate.similarity")


def test_a_threshold_of_another_recogniser_is_refused_with_both_and_the_calibrated_value() -> None:
    here = Recogniser(
        "mine", OWN, RecogniserThresholds(network="mine", similarity=0.31, same=0.6, excess=0.03, copies=0.8)
    )
    assert here.similarity(Threshold(value=0.4, recogniser=OWN[:12]), "k") == 0.4
    with pytest.raises(UserError, match=r"k: 0.4 was chosen for the recogniser b{12}, .*mine \(a{12}\).* 0.31 is c"):
        here.similarity(Threshold(value=0.4, recogniser=OTHER[:12]), "k")
    with pytest.raises(UserError, match=r"k: 0.68 was chosen for a recogniser that nobody named"):
        here.similarity(Threshold(value=0.68, recogniser=None), "k")


def test_a_photo_in_other_turns_is_compared_where_the_detector_is_unknown(tiny: Params, tmp_path: Path) -> None:
    pack = tmp_path / "models" / "other"
    pack.mkdir(parents=True)
    (pack / "det.onnx").write_bytes(b"another network")
    update = {"insightface_root": str(tmp_path), "insightface_name": "other"}
    assert pack_traits(tiny.preprocess.model_copy(update=update)) == (1.0, None, False, None)
    with pytest.raises(UserError, match="other: its recogniser is not to be found"):
        recogniser_of(tiny.preprocess.model_copy(update=update), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "format: 1\nrecognisers: {"
            + OWN
            + ": {network: a, similarity: 1.5, same: 0.6, excess: 0.03, copies: 0.8}}",
            "similarity = 1.5",
        ),
        (f"recognisers: {{{OWN}: {{network: a, same: 0.6, excess: 0.03, copies: 0.8}}}}", "missing key .*similarity"),
        ("format: 1\nthresholds: {}", "unknown key thresholds"),
        ("format: 7\n", "calibrations in format 7"),
        ("recognisers: {", "not valid YAML"),
        ("[]", "expected a mapping"),
    ],
)
def test_a_damaged_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / FILE))}: .*{message}"):
        read_calibrations(tmp_path)
