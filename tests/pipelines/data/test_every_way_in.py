"""A picture that viewers show is taken by every way in: ingest, inbox, curation, preprocessing, serving."""

from __future__ import annotations

import base64
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pipelines.core.params import Params, load_params
from pipelines.core.row_schemas import DATASET_SCHEMA, read_rows
from pipelines.data.curation.analyse import Photo, analyse_photos
from pipelines.data.faces.analysis import Analyser, load_analyser
from pipelines.data.faces.captions import load_captions
from pipelines.operations.inbox.reading import unusable
from pipelines.serving.generation import Generator
from pipelines.serving.request import Reference, read_row
from pipelines.stages import ingest
from pipelines.versions.forgotten import Forgotten
from tests.pipelines.photos import encoded, real_networks

pytestmark = pytest.mark.realdata
pillow_heif.register_heif_opener()
FORMATS = {"phone.jpg": "HEIF", "prompt.png": "PNG", "profile.png": "PNG", "wide.avif": "AVIF", "floats.tif": "TIFF"}


@pytest.fixture(scope="module")
def params(shared: Path, project: Path) -> Params:
    return load_params(project / "profiles" / "tiny.yaml", [*real_networks(shared), "base.domain=any"])


@pytest.fixture(scope="module")
def analyser(params: Params) -> Analyser:
    return load_analyser(params.preprocess)


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    import cv2
    import numpy as np

    face = Image.open(shared / "photos" / "lfw10_krasserm" / "Colin_Powell" / "Colin_Powell_0001.jpg").convert("RGB")
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a photo of a person " * 200_000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2_000_000)
    floats = (np.asarray(face)[..., ::-1] / 255).astype(np.float32)
    files = {
        "phone.jpg": encoded(face, "HEIF", quality=90),
        "prompt.png": encoded(face, "PNG", pnginfo=text),
        "profile.png": encoded(face, "PNG", icc_profile=profile),
        "wide.avif": encoded(face, "AVIF", quality=90),
        "floats.tif": cv2.imencode(".tiff", floats)[1].tobytes(),
    }
    (tmp_path / "photos").mkdir()
    for name, data in files.items():
        (tmp_path / "photos" / name).write_bytes(data)
    return tmp_path / "photos"


def test_pictures_with_metadata_that_readers_refuse(
    params: Params, analyser: Analyser, folder: Path, tmp_path: Path
) -> None:
    ingest.run(params, ingest.Inputs(folder), ingest.Outputs(tmp_path / "faces"))
    rows = read_rows(tmp_path / "faces", DATASET_SCHEMA, ["file_name", "format", "width", "height"]).to_pylist()
    assert {row["file_name"]: row["format"] for row in rows} == FORMATS
    assert {(row["width"], row["height"]) for row in rows} == {(250, 250)}
    assert unusable({"batch": folder}, params.preprocess.max_pixels, Forgotten([])) == {}

    files = sorted(folder.iterdir())
    photos = [Photo(file.name, file.name, str(file)) for file in files]
    captions = load_captions(params.preprocess.captions)
    curated = analyse_photos(photos, params.curate, analyser, captions, params.preprocess).to_pylist()
    assert [(row["file_name"], row["reason"]) for row in curated] == [(file.name, None) for file in files]

    first, *others = analyser.analyse([file.read_bytes() for file in files])
    for record in (first, *others):
        assert record.status == "ok", record.detail
        assert float(record.embedding @ first.embedding) > 0.95
    sent = [base64.b64encode(file.read_bytes()).decode() for file in files]
    limits = params.serve.model_copy(update={"max_people": len(sent), "max_upload_mb": 20})
    request = read_row({"references": sent, "prompt": "a photo"}, limits)
    generator = Generator(None, analyser, params)
    assert all(generator.shows_a_face(reference.photo) for reference in request.references)


def test_a_reference_that_is_stored_upside_down(params: Params, analyser: Analyser, folder: Path) -> None:
    upright = Image.open(folder / "phone.jpg")
    stored = encoded(upright.rotate(180), "PNG")
    generator = Generator(None, analyser, params)
    one, other = (generator._record(Reference("photo", data), None) for data in (encoded(upright, "PNG"), stored))
    assert (one.turned, other.turned) == (0, 180)
    assert other.image == one.image
