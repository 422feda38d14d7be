"""The GPU memory that `doctor` expects: counted from the base's configuration, by what the parameters ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.foundation.random_models import save_random_models
from pipelines.core.params import Params, load_params
from pipelines.operations.doctor import machine
from tests.random_bases import save_xl


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("base")
    plain = save_random_models(folder / "plain")
    return save_xl(folder / "xl", plain.pipeline), plain.image_encoder


def params(project: Path, pipeline: Path, image_encoder: Path, *more: str) -> Params:
    base = f"base.pipeline={pipeline}", f"base.image_encoder={image_encoder}"
    return load_params(project / "profiles" / "sdxl.yaml", [*base, "train_imr.ldc_targets=1", *more])


def test_less_is_needed_where_less_is_asked_for(project: Path, folders: tuple[Path, Path]) -> None:
    whole, eight, single, low = (
        machine._gpu_bytes(params(project, *folders, *more))
        for more in (
            (),
            ("train_anchoring.optimiser=adamw_8bit",),
            ("train_anchoring.batch_size=1",),
            ("train_anchoring.sizes.lora_rank=8",),
        )
    )
    assert all(one is not None and one < whole for one in (eight, single, low))
    imr = machine._gpu_bytes(params(project, *folders, "train_imr.ldc_targets=2000"))
    assert imr > whole, "the larger training counts"


def test_the_need_is_stated_with_and_without_a_gpu_and_without_a_base_nothing(
    project: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    found = machine._gpu(params(project, *folders))
    assert "GiB needed" in found.text
    nowhere = params(project, tmp_path / "nowhere", folders[1])
    assert machine._gpu_bytes(nowhere) is None
    assert "needed" not in machine._gpu(nowhere).text
