"""With a hundred new photos among ten thousand, a hundred are analysed, wherever they are in the shards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from pipelines.core.params import load_params
from pipelines.core.row_schemas import PROCESSED_SCHEMA, read_rows
from pipelines.stages.preprocess import Inputs, Outputs, run
from tests.pipelines.photos import encoded, real_networks

from .conftest import write_faces

pytestmark = [pytest.mark.realdata, pytest.mark.nightly]

OLD, NEW = 10_000, 100


def _photo(number: int) -> tuple[str, str | None, bytes]:
    """Return a photo that is rejected by its header: too small."""
    colour = (number % 256, number // 256 % 256, number // 65536)
    name = f"{hashlib.sha256(str(number).encode()).hexdigest()[:8]}.bmp"
    return name, f"person {number % 300}", encoded(Image.new("RGB", (8, 8), colour), "BMP")


def test_a_hundred_new_photos_in_ten_thousand_cost_a_hundred(shared: Path, project: Path, tmp_path: Path) -> None:
    params = load_params(
        project / "profiles" / "tiny.yaml", [*real_networks(shared), "preprocess.max_failed_share=1.0"]
    )
    old = [_photo(number) for number in range(OLD)]
    new = [_photo(OLD + number) for number in range(NEW)]
    first = write_faces(tmp_path / "v1", old, row_group=256)
    outputs = Outputs(tmp_path / "processed", tmp_path / "state")
    report = run(params, Inputs(first), outputs)
    assert (report.rows, report.looked_at, report.rejected) == (OLD, OLD, {"too_small": OLD})

    # In order of names the new photos are between old ones, so every slice changes.
    mixed = write_faces(tmp_path / "v2", sorted(old + new), row_group=200)
    report = run(params, Inputs(mixed), outputs)
    print(f"\nrows {report.rows}, analysed {report.looked_at}")
    assert (report.rows, report.looked_at) == (OLD + NEW, NEW)
    ids = read_rows(tmp_path / "processed", PROCESSED_SCHEMA, ["image_id"])["image_id"].to_pylist()
    assert sorted(ids) == sorted(hashlib.sha256(data).hexdigest() for _, _, data in old + new)
