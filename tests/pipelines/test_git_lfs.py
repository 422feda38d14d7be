"""Files that git-lfs did not fetch are named at every way in: in their place lies a pointer of three lines."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from tests.processes import run

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
WEIGHTS = "model/foundation/weights"


def test_a_path_of_the_parameters_must_not_be_a_pointer(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "rec.onnx").write_text(POINTER)
    (tmp_path / "pack" / "readme.txt").write_text("version 2")
    for path in ("pack", "pack/rec.onnx"):
        with pytest.raises(UserError, match=r"pack/rec\.onnx: only the pointer of a git-lfs file.*`git lfs pull`"):
            resolve(tmp_path / path)
    assert resolve(tmp_path / "pack" / "readme.txt") == tmp_path / "pack" / "readme.txt"


@pytest.mark.parametrize(
    "file", ["sd/unet/diffusion_pytorch_model.safetensors", "adapter/adapter.safetensors", "landmarks68.onnx"]
)
def test_generate_and_preprocess_name_it_in_one_line(
    checkout: Path, drawn_people: list[Path], tmp_path: Path, file: str
) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(checkout, root, ignore=shutil.ignore_patterns(".git"))
    (root / WEIGHTS / file).write_text(POINTER)
    command = [sys.executable, "-m", "pipelines.cli"]
    drawing = ["generate", "--reference", str(drawn_people[0]), "--prompt", "a photo", "--out", str(tmp_path / "x.png")]
    analysing = ["preprocess", "data/faces", "--out", "data/processed"]
    for arguments in [drawing, analysing] if file.endswith(".onnx") else [drawing]:
        if arguments is analysing:
            faces = root / "photos"
            faces.mkdir()
            shutil.copy2(drawn_people[0], faces / "1.jpg")
            run(*command, "ingest", "photos", "--out", "data/faces", "--no-version", cwd=root)
        done = run(*command, *arguments, cwd=root, code=2)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"dynamicid: {WEIGHTS}/{file}: only the pointer of a git-lfs file"), done.stderr
        assert "Traceback" not in done.stderr


def test_photos_that_were_not_fetched_are_no_dataset(tmp_path: Path) -> None:
    from pipelines.data.ingest.contents import read_contents
    from pipelines.data.ingest.photo_files import FoundPhoto, Labels

    (tmp_path / "1.jpg").write_text(POINTER)
    photo = FoundPhoto("1.jpg", str(tmp_path / "1.jpg"), len(POINTER), Labels())
    with pytest.raises(UserError, match=r"1\.jpg: only the pointer"):
        list(read_contents([photo], 2**20))


def test_a_shard_of_a_dataset_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows

    (tmp_path / "faces-00000.parquet").write_text(POINTER)
    with pytest.raises(UserError, match=r"faces-00000\.parquet: only the pointer"):
        open_rows(tmp_path, DATASET_SCHEMA)
    (tmp_path / "faces-00000.parquet").write_text("PAR1, and then the disk was full")
    with pytest.raises(UserError, match="damaged: "):
        open_rows(tmp_path, DATASET_SCHEMA)


def test_a_served_model_gives_the_reason_without_the_traces_of_libraries(tmp_path: Path, project: Path) -> None:
    from mlflow.exceptions import MlflowException

    from pipelines.registry.pyfunc import DynamicIDModel

    (tmp_path / "adapter.safetensors").write_text(POINTER)
    context = SimpleNamespace(artifacts={"params": str(project / "profiles" / "tiny.yaml"), "adapter": str(tmp_path)})
    with pytest.raises(MlflowException, match=r"adapter\.safetensors: only the pointer of a git-lfs") as refused:
        DynamicIDModel().load_context(context)
    assert refused.value.__suppress_context__
