"""The script's table, report and error messages."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest

from benchmarks import denoising_step
from benchmarks.contestants import NAMES
from benchmarks.measure import Times
from tests.processes import run


def test_ratios_come_from_the_raw_figures(
    small_unet_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--unet", str(small_unet_file), "--rank", "4", "--rounds", "3", "--no-memory"]
    denoising_step.main([*command, "--resolutions", "128", "64", "--out", str(tmp_path / "out.json")])
    printed = capsys.readouterr()
    report = json.loads(printed.out.splitlines()[-1])
    assert "ours and literal differ by" in printed.err
    assert "contestant" in printed.out
    assert list(report["resolutions"]) == ["128", "64"]
    assert report["resolution"] == 128
    for result in report["resolutions"].values():
        seconds = result["seconds"]
        assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(NAMES, 3)
        assert result["median_seconds"]["ours"] == statistics.median(seconds["ours"])
        for ratio, over, under in [
            ("ours_over_plain", "ours", "plain"),
            ("ours_over_ip_adapter", "ours", "ip_adapter"),
            ("literal_over_ours", "literal", "ours"),
        ]:
            expected = statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))
            assert result[ratio] == pytest.approx(expected, rel=1e-3)
        assert set(result["cpu"]["seconds"]) == set(NAMES)
    assert report["ours_over_plain"] == report["resolutions"]["128"]["ours_over_plain"]
    assert json.loads((tmp_path / "out.json").read_text()) == report


def test_memory_is_measured_in_a_separate_process(small_unet_file: Path, project: Path) -> None:
    command = [sys.executable, project / "benchmarks/denoising_step.py", "--memory-of", "ours"]
    options = ["--unet", small_unet_file, "--rank", "4", "--resolutions", "128", "--threads", "1"]
    memory = json.loads(run(*command, *options).stdout)
    assert memory["bytes"] > 1e8
    assert 0 < memory["added"] < 1e7


def test_memory_of_the_adapter_is_subtracted() -> None:
    seconds = {name: [1.0] for name in NAMES}
    memory = {name: {"bytes": 1000, "added": 0} for name in NAMES}
    memory |= {"ours": {"bytes": 1250, "added": 200}, "literal": {"bytes": 2500, "added": 200}}
    figures = denoising_step.summary(Times(seconds, seconds), memory)
    assert figures["memory_ours_over_plain"] == 1.05
    assert figures["memory_literal_over_ours"] == 2.0


def test_a_wrong_answer_is_not_timed(small_unet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import contestants

    real = contestants._literal

    def wrong(*arguments: object) -> tuple[object, int]:
        step, added = real(*arguments)
        return (lambda: 1.5 * step()), added

    monkeypatch.setattr(contestants, "_literal", wrong)
    with pytest.raises(SystemExit, match="ours is not the method"):
        denoising_step.main(["--unet", str(small_unet_file), "--rank", "4", "--resolutions", "64", "--no-memory"])


@pytest.mark.parametrize("wrong", [["--resolutions", "100"], ["--rounds", "0"], ["--dtype", "int8"]])
def test_wrong_arguments_end_with_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        denoising_step.main(wrong)
    assert error.value.code == 2
