"""Test that drawings and photographs meet the networks that know them, or are refused by name."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.core.weights.domains import (
    NetworkDomain,
    check_domains,
    main_domain,
    network_domains,
)

DRAWN = NetworkDomain("preprocess.insightface_name", "foundation-faces", "drawn", "preprocess.domain")
PHOTOGRAPH = NetworkDomain("preprocess.landmarker.path", "face-alignment", "photograph", "preprocess.domain")
OWN = NetworkDomain("base.pipeline", "/own/base", "unknown", "base.domain")


def _params(project: Path, *overrides: str) -> Params:
    return load_params(project / "profiles" / "tiny.yaml", overrides)


def test_the_shipped_networks_know_drawings(project: Path) -> None:
    found = network_domains(_params(project), ("base", "preprocess", "evaluate"), project)
    assert {one.domain for one in found} == {"drawn"}
    assert "evaluate.judges.recogniser.path" in {one.key for one in found}


def test_what_the_user_states_nearest_to_a_path_counts(project: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(b"network")
    found = {
        one.key: one
        for one in network_domains(
            _params(project, f"preprocess.landmarker.path={own}", "preprocess.domain=photograph", "base.domain=any"),
            ("base", "preprocess", "evaluate"),
            project,
        )
    }
    assert {one.domain for key, one in found.items() if key.startswith("preprocess")} == {"photograph"}
    assert found["base.pipeline"].domain == "any"
    assert found["evaluate.judges.clip"].domain == "drawn"
    unknown = network_domains(_params(project, f"preprocess.landmarker.path={own}"), ("preprocess",), project)
    assert [(one.domain, one.setting) for one in unknown if one.key == "preprocess.landmarker.path"] == [
        ("unknown", "preprocess.domain")
    ]


@pytest.mark.parametrize(
    ("network", "domain", "words"),
    [
        (DRAWN, "photograph", "foundation-faces (preprocess.insightface_name) knows only drawings"),
        (PHOTOGRAPH, "drawn", "face-alignment (preprocess.landmarker.path) knows only photographs"),
    ],
)
@pytest.mark.parametrize("way", ["stated", "measured"])
def test_what_does_not_meet_is_refused_with_both_names_and_the_setting(
    network: NetworkDomain, domain: str, words: str, way: str
) -> None:
    counts = {"stated": {domain: 3}} if way == "stated" else {"measured": {domain: 3, "unknown": 2}}
    with pytest.raises(UserError) as refused:
        check_domains("data/faces", [network], **counts)
    message = str(refused.value)
    assert message.startswith("data/faces: 3 ")
    assert words in message
    assert f"--set preprocess.domain={domain}" in message
    assert "dynamicid weights list" in message


def test_what_meets_passes_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    both = NetworkDomain("base.pipeline", "stable-diffusion-v1-5", "any", "base.domain")
    check_domains("data/faces", [PHOTOGRAPH, both], stated={"photograph": 2}, measured={"photograph": 9, "unknown": 1})
    assert capsys.readouterr().err == ""


def test_doubt_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    check_domains("data/faces", [PHOTOGRAPH], measured={"photograph": 2, "unknown": 3})
    assert "3 of 5 may be drawings or photographs; ingest.domain states it" in capsys.readouterr().err
    check_domains("data/faces", [PHOTOGRAPH], measured={"photograph": 8, "drawn": 2})
    assert "mostly photographs, but 2 of 10 seem to be drawings" in capsys.readouterr().err
    check_domains("data/faces", [OWN], measured={"photograph": 8})
    assert "base.pipeline = /own/base: nobody says" in capsys.readouterr().err


def test_the_main_domain_is_that_of_more_than_half_of_those_recognised() -> None:
    for drawn, photos, unknown in itertools.product(range(6), range(6), range(12)):
        main = main_domain({"drawn": drawn, "photograph": photos, "unknown": unknown})
        assert (main == "unknown") == (drawn + photos == 0 or drawn + photos < unknown)
        if main != "unknown":
            assert main == ("drawn" if drawn >= photos else "photograph")
