"""A base of preprocessed photographs: trained from the command line, then used by the stages as any other base."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner, Result

from model.foundation import edition, manifest
from pipelines.cli import app
from pipelines.core.errors import UserError
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.stages.train_anchoring import Inputs, Outputs
from pipelines.stages.train_anchoring import run as train_anchoring
from pipelines.versions.forgotten import append, is_person, new_entry


@pytest.fixture
def autoencoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a random autoencoder; the trained networks are small, too."""
    from diffusers import AutoencoderTiny

    whole = edition.PHOTOGRAPHS
    clip = replace(whole.clip, size=24, merges=20, steps=(1,), batch=2)
    unet = replace(whole.unet, widths=(32, 64), heads=(2, 2), steps=(1, 1), batch=2)
    monkeypatch.setattr(edition, "PHOTOGRAPHS", replace(whole, clip=clip, unet=unet))
    folder = tmp_path / "taesd"
    widths = {f"{part}_block_out_channels": (8, 8, 8, 8) for part in ("encoder", "decoder")}
    torch.manual_seed(0)
    AutoencoderTiny(**widths, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).save_pretrained(folder)
    return folder


@pytest.fixture
def foundation_train(training_data: object, autoencoder: Path, tmp_path: Path) -> Callable[..., Result]:
    """Return the command, with folders of this test; a later option of a name has priority."""

    def call(*arguments: str | Path) -> Result:
        options = ("--work", tmp_path / "work", "--weights", tmp_path / "own", "--autoencoder", autoencoder)
        given = ("--from", training_data.processed, "--params", training_data.params, *options, *arguments)
        return CliRunner().invoke(app, ["foundation", "train", *map(str, given)])

    return call


def test_the_stages_train_on_a_base_of_photographs(
    training_data: object, foundation_train: Callable[..., Result], tmp_path: Path
) -> None:
    done = foundation_train()
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    # The gates are those of the drawn networks.
    assert "Gates" not in done.stderr
    assert set(printed["figures"]["clip"]) == {"expression_on_crops", "pose_on_crops"}
    assert (printed["missing"], printed["manifest"]) == ([], str(tmp_path / "own" / "manifest.json"))
    origin = manifest.read(tmp_path / "own")["origin"]
    # Six people of five photos are in split train; nothing is known of their terms.
    assert (origin["people"], origin["licence"], origin["consent"]) == (6, {"": 30}, {"": 30})
    assert {one["parameter"] for one in origin["networks"]} >= {"autoencoder", "preprocess.insightface_name"}
    assert len(origin["people_seen"]) == 6
    assert any(is_person(pair, "person_1") for pair in origin["people_seen"])
    base = {"base.pipeline": tmp_path / "own/sd", "base.image_encoder": tmp_path / "own/image_encoder"}
    overrides = [f"{key}={value}" for key, value in base.items()]
    params = training_data.read(*overrides, "train_anchoring.steps=1", "train_anchoring.identity.weight=0.05")
    outputs = Outputs(tmp_path / "anchoring", tmp_path / "losses.csv", tmp_path / "metrics.json")
    train_anchoring(params, Inputs(training_data.processed, tmp_path / ".dynamicid"), outputs)
    made_by = json.loads((outputs.adapter / "config.json").read_bytes())["base"]
    assert made_by["fingerprint"] == origin["fingerprint"]


def test_a_base_is_not_trained_on_forgotten_photos(
    foundation_train: Callable[..., Result],
    write_processed: Callable[..., Path],
    tmp_path: Path,
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    processed = write_processed(tmp_path / "data" / "processed")
    append(tmp_path, new_entry(["person_1"], [], {}))
    done = foundation_train("--from", processed)
    assert done.exit_code != 0
    assert "forgotten" in str(done.exception)
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--autoencoder", "nowhere"), "no autoencoder there"),
        (("--part", "detector"), "detector: no part of the foundation; expected some of clip, unet"),
        (("--set", "base.resolution=72"), "base.resolution 72: expected a multiple of 16"),
        (("--set", "base.resolution=128"), "a photo of 64x64 pixels, base.resolution is 128"),
    ],
)
def test_what_cannot_be_trained_is_named(
    foundation_train: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = foundation_train(*arguments)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not (tmp_path / "own" / manifest.FILE).exists()


def test_photos_that_are_not_preprocessed_are_refused(foundation_train: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    pq.write_table(DATASET_SCHEMA.empty_table(), tmp_path / "faces" / "faces-00000.parquet")
    done = foundation_train("--from", tmp_path / "faces")
    assert isinstance(done.exception, UserError)
    assert "run `dynamicid preprocess`" in str(done.exception)


def test_drawings_are_refused(
    foundation_train: Callable[..., Result], write_processed: Callable[..., Path], tmp_path: Path
) -> None:
    for file in sorted(write_processed(tmp_path / "processed").glob("*.parquet")):
        rows = pq.read_table(file)
        drawn = pa.array(["drawn"] * len(rows))
        pq.write_table(rows.set_column(rows.schema.get_field_index("domain"), "domain", drawn), file)
    done = foundation_train("--from", tmp_path / "processed")
    assert isinstance(done.exception, UserError)
    assert "most of these are drawings" in str(done.exception)
    assert not (tmp_path / "own").exists()


def test_the_networks_of_the_project_are_not_overwritten(
    training_data: object, autoencoder: Path, project: Path
) -> None:
    tiny = project / "profiles" / "tiny.yaml"
    given = ("--from", training_data.processed, "--autoencoder", autoencoder, "--params", tiny)
    done = CliRunner().invoke(app, ["foundation", "train", *map(str, given)])
    assert isinstance(done.exception, UserError)
    assert "the networks that ship with the project are there" in str(done.exception)
