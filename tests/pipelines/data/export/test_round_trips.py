"""Export and ingest again, and ingest and export again: the same bytes where the layout can hold them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.core.params import Params
from pipelines.core.row_schemas import PROCESSED_SCHEMA, read_rows
from pipelines.data.export.rows import Selection
from pipelines.data.export.run import Inputs, export

from .conftest import ROWS, Data, files_of, ingest

COLUMNS = ("image_id", "identity", "image", "prompt", "face_prompt", "source", "licence", "consent")


def write(data: Data, layout: str, out: Path, faces: Path | None = None, **selection: object) -> Path:
    wanted = Selection(**selection)
    export(layout, Inputs(faces or data.faces, data.processed), out, data.params.export, wanted)
    return out


def by_id(rows: list[dict[str, object]], names: tuple[str, ...] = COLUMNS) -> dict[object, dict[str, object]]:
    return {row["image_id"]: {name: row[name] for name in names} for row in rows}


@pytest.mark.parametrize(
    ("layout", "read_as"),
    [("variface", "auto"), ("variface", "identity-folders"), ("webdataset", "auto"), ("huggingface", "auto")],
)
def test_photos_and_labels_are_restored(data: Data, tmp_path: Path, layout: str, read_as: str) -> None:
    out = write(data, layout, tmp_path / "out")
    back = ingest(data.params, out, tmp_path / "back", read_as)
    assert by_id(back) == by_id(ROWS)


@pytest.mark.parametrize("layout", ["variface", "webdataset", "huggingface"])
def test_an_ingested_export_is_exported_as_the_same_files(data: Data, tmp_path: Path, layout: str) -> None:
    first = write(data, layout, tmp_path / "first")
    ingest(data.params, first, tmp_path / "back")
    second = write(data, layout, tmp_path / "second", faces=tmp_path / "back")
    one, other = files_of(first), files_of(second)
    assert set(one) == set(other)
    if layout == "huggingface":
        assert one == other
    pictures = {name for name in one if name.endswith((".jpg", ".png", ".txt"))}
    assert {name: one[name] for name in pictures} == {name: other[name] for name in pictures}
    third = write(data, layout, tmp_path / "third", faces=tmp_path / "back")
    assert files_of(third) == other


def test_folders_of_people_as_they_are_published(data: Data, tmp_path: Path) -> None:
    out = files_of(write(data, "variface", tmp_path / "out"))
    assert out["anna/1.jpg"] == ROWS[0]["image"]
    assert out["anna/1.txt"] == b"person 0 in a park\nhappy\n"
    assert out["anna/2.png"] == ROWS[1]["image"]
    assert out["anna/2.txt"] == b"\nsad\n"
    assert "bert/1.txt" not in out
    assert out["bert/a.b.txt"].decode() == "a man\u2019s caf\u00e9\n"
    # A tree without metadata.jsonl is restored to the byte.
    source = tmp_path / "source"
    for name in ("anna/1.jpg", "anna/1.txt", "anna/2.png", "anna/2.txt", "bert/1.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(out[name])
    ingest(data.params, source, tmp_path / "faces")
    again = files_of(write(data, "variface", tmp_path / "again", faces=tmp_path / "faces"))
    assert {
        name: body for name, body in again.items() if name not in ("metadata.jsonl", ".dynamicid.json")
    } == files_of(source)


def test_the_course_project_s_files(data: Data, tmp_path: Path) -> None:
    import torch

    out = write(data, "sidecars", tmp_path / "out")
    rows = [row for row in read_rows(data.processed, PROCESSED_SCHEMA).to_pylist() if row["status"] == "ok"]
    for number, row in enumerate(rows, start=1):
        assert (out / f"{number}.jpg").read_bytes() == row["image"]
        embedding = torch.load(out / f"{number}.pt", weights_only=True)
        assert embedding.dtype == torch.float32
        assert embedding.tolist() == row["embedding"]
        canvas = cv2.imread(str(out / f"{number}.png"), cv2.IMREAD_GRAYSCALE)
        points = np.round(np.array(row["landmarks"]).reshape(68, 2)).astype(int)
        assert canvas.shape == (32, 32)
        assert (canvas[points[:, 1], points[:, 0]] == 255).all()
        assert (canvas > 0).sum() == len({tuple(point) for point in points})
    assert len(list(out.glob("*.jpg"))) == 4


def test_the_course_project_s_files_come_back(data: Data, tmp_path: Path) -> None:
    out = write(data, "sidecars", tmp_path / "out")
    expected = {
        row["image"]: (row["prompt"], row["face_prompt"], row["identity"], row["consent"])
        for row in read_rows(data.processed, PROCESSED_SCHEMA).to_pylist()
        if row["status"] == "ok"
    }
    for name, layout in (("auto", "auto"), ("named", "sidecars")):
        back = ingest(data.params, out, tmp_path / name, layout)
        found = {row["image"]: (row["prompt"], row["face_prompt"], row["identity"], row["consent"]) for row in back}
        assert found == expected
    # As in the course project: no metadata.jsonl, only the four files of each number.
    (out / "metadata.jsonl").unlink()
    back = ingest(data.params, out, tmp_path / "plain")
    assert {row["image"]: (row["prompt"], row["face_prompt"]) for row in back} == {
        image: labels[:2] for image, labels in expected.items()
    }


def test_consistentid(data: Data, tmp_path: Path) -> None:
    import torch

    out = write(data, "consistentid", tmp_path / "out")
    entries = json.loads((out / "JSON_all.json").read_text())
    assert len(entries) == 4
    first = next(entry for entry in entries if entry["image_id"] == ROWS[0]["image_id"])
    assert first["origin_IMG"] == "anna/1.jpg"
    assert first["resize_IMG"] == "anna/1_resize.png"
    assert first["id_embed_file_resize"] == "anna/1_resize_faceid.bin"
    assert first["vqa_llva"] == "person 0 in a park"
    assert "parsing_mask_IMG" not in first
    assert (out / "origin_IMG" / "anna" / "1.jpg").read_bytes() == ROWS[0]["image"]
    row = next(
        row for row in read_rows(data.processed, PROCESSED_SCHEMA).to_pylist() if row["image_id"] == ROWS[0]["image_id"]
    )
    resized = cv2.imread(str(out / "resize_IMG" / "anna" / "1_resize.png"))
    assert (resized == cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)).all()
    embedding = torch.load(out / "all_faceID" / "anna" / "1_resize_faceid.bin", weights_only=True)
    assert embedding.shape == (1, 512)
    assert embedding[0].tolist() == row["embedding"]
    back = ingest(data.params, out, tmp_path / "back")
    assert by_id(back) == by_id(ROWS[:4])


def test_masks_where_a_parsing_network_is_configured(data: Data, tmp_path: Path) -> None:
    params = with_parsing(data.params, parsing_network(tmp_path / "parsing.onnx"))
    out = tmp_path / "out"
    export("consistentid", Inputs(data.faces, data.processed), out, params.export, Selection())
    entry = json.loads((out / "JSON_all.json").read_text())[0]
    mask = cv2.imread(str(out / "parsing_mask_IMG" / entry["parsing_mask_IMG"]), cv2.IMREAD_UNCHANGED)
    picture = cv2.imread(str(out / "resize_IMG" / entry["resize_IMG"]))
    assert mask.shape == picture.shape[:2]
    # The network's scores are the channels: the mask names the strongest of red, green and blue.
    assert (mask == picture[..., ::-1].argmax(-1)).mean() > 0.99
    assert set(np.unique(mask)) == {0, 1, 2}
    back = ingest(data.params, out, tmp_path / "back")
    assert by_id(back) == by_id(ROWS[:4])


def parsing_network(file: Path) -> Path:
    """Write an ONNX network of three classes whose scores are the picture's channels."""
    import onnx
    from onnx import TensorProto, helper

    shape = [1, 3, 32, 32]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["picture"], ["scores"])],
        "parsing",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(file))
    return file


def with_parsing(params: Params, network: Path) -> Params:
    from pipelines.core.sections.data import Export, Parsing

    parsing = Parsing(path=str(network), input_size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return params.model_copy(update={"export": Export(parsing=parsing)})


def test_datasets_reads_the_pictures(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    out = write(data, "huggingface", tmp_path / "out")
    found = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(found.features["image"], datasets.Image)
    assert found["image_id"][:] == [row["image_id"] for row in ROWS]
    assert found["consent"][:] == [row["consent"] for row in ROWS]
    assert found[1]["image"].size == (24, 24)
    raw = found.cast_column("image", datasets.Image(decode=False))
    assert [item["image"]["bytes"] for item in raw] == [row["image"] for row in ROWS]
    # Files that `datasets` itself writes are read, too.
    found.to_parquet(str(tmp_path / "theirs" / "a.parquet"))
    back = ingest(data.params, tmp_path / "theirs", tmp_path / "back")
    assert by_id(back) == by_id(ROWS)


def test_webdataset_reads_the_samples(data: Data, tmp_path: Path) -> None:
    import webdataset
    from PIL import Image

    out = write(data, "webdataset", tmp_path / "out")
    samples = list(webdataset.WebDataset(str(out / "faces-000000.tar"), shardshuffle=False))
    assert [json.loads(sample["json"])["image_id"] for sample in samples] == [row["image_id"] for row in ROWS]
    assert samples[0]["jpg"] == ROWS[0]["image"]
    assert samples[2]["__key__"] == "bert/a_b"
    assert Image.open(io.BytesIO(samples[1]["png"])).size == (24, 24)
    assert samples[0]["txt"] == b"person 0 in a park\nhappy\n"
