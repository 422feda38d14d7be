"""A project with people's data in every place that the pipeline writes to: versions, caches, remote, runs, MLflow."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.core.params import load_params
from pipelines.data.preprocessing.files import SLICE_SUFFIX, write_slice
from pipelines.evaluation.picture_store import DrawnPicture, PictureStore
from pipelines.stages.ingest import Inputs, Outputs, run
from pipelines.versions.dataset_version import make_version
from pipelines.versions.forgotten import hashed_people
from pipelines.versions.places import CACHE, note_copy
from pipelines.versions.state import EVALUATION, STATE
from pipelines.versions.workspace import create
from tests.processes import commit_all, git

# Two short stages whose outputs resemble the real ones: rows with other pixels, and a page with pictures.
PREPARE = """
import hashlib, io, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from PIL import Image
sys.path.insert(0, sys.argv[1])
from pipelines.core.row_schemas import PROCESSED_SCHEMA
rows = []
for shard in sorted(Path("data/faces").glob("*.parquet")):
    for row in pq.read_table(shard).to_pylist():
        small, rng = io.BytesIO(), np.random.default_rng(int(row["image_id"][:8], 16))
        Image.open(io.BytesIO(row["image"])).resize((48, 48)).save(small, "JPEG", quality=95)
        kept = {key: row[key] for key in ("image_id", "identity", "file_name", "prompt", "face_prompt")}
        split = "test" if row["identity"] == "anna" else "train"
        rows.append({**kept, "split": split, "status": "ok", "image": small.getvalue(), "bbox": [0.0] * 4,
                     "keypoints": rng.uniform(0, 48, 10).tolist(), "landmarks": rng.uniform(0, 48, 136).tolist(),
                     "embedding": rng.normal(size=512).tolist(), "yaw": 0.0, "expression": "neutral"})
Path("data/processed").mkdir(parents=True)
for bucket in range(2):
    part = [row for row in rows if int(row["image_id"], 16) % 2 == bucket]
    pq.write_table(pa.Table.from_pylist(part, schema=PROCESSED_SCHEMA), f"data/processed/part-{bucket:05d}.parquet",
                   compression={name: "NONE" if name == "image" else "ZSTD" for name in PROCESSED_SCHEMA.names})
"""
REPORT = """
import base64
from pathlib import Path
import pyarrow.parquet as pq
shards = sorted(Path("data/processed").glob("*.parquet"))
held_out = [row for shard in shards for row in pq.read_table(shard).to_pylist() if row["split"] == "test"]
pictures = "".join(f'<img src="data:image/jpeg;base64,{base64.b64encode(row["image"]).decode()}">' for row in held_out)
Path("reports").mkdir(exist_ok=True)
Path("reports/index.html").write_text(f"<!doctype html><p>{len(held_out)} photos</p>{pictures}")
"""
DVC_YAML = """
stages:
  preprocess: {{cmd: {python} prepare.py {project}, deps: [data/faces, prepare.py], outs: [data/processed]}}
  evaluate: {{cmd: {python} report.py, deps: [data/processed, report.py], outs: [reports/index.html]}}
"""
IGNORED = "/.dynamicid/\n/data/faces\n/data/processed\n/data/.gitignore\n/reports/\n/mlflow.db*\n/mlartifacts/\n"


def call(root: Path, *arguments: str) -> None:
    """Run DVC in this process: a new one for each command would take most of the test's time."""
    from dvc.cli import main

    with contextlib.chdir(root):
        assert main([*arguments]) == 0, arguments


def portrait(seed: int) -> bytes:
    """Return a unique picture of a few kilobytes."""
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@dataclass(frozen=True)
class Home:
    """The project, its remote, the source photos by name, and their folder."""

    root: Path
    remote: Path
    photos: dict[str, bytes]
    source: Path
    project: Path

    def ingest(self) -> None:
        """Ingest the source again as the command does, and version it."""
        params = load_params(self.project / "profiles" / "tiny.yaml")
        run(params, Inputs(self.source), Outputs(self.root / "data" / "faces"))
        make_version(self.root, "data/faces", "photos")

    def of(self, *people: str) -> list[bytes]:
        return [body for name, body in self.photos.items() if name.split("/")[0] in people]


def add_people(home: Home, names: list[str]) -> None:
    for name in names:
        body = portrait(sum(map(ord, name)) * 7919)
        file = home.source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        file.with_suffix(".txt").write_text(f"a photo called {name}\n")
        home.photos[name] = body


def make_home(folder: Path, project: Path) -> Home:
    """Make two dataset versions, a processed one, a report, a run, caches and a checkpoint; push everything."""
    root, remote = folder / "home", folder / "remote"
    root.mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "t")
    git(root, "config", "user.email", "t@localhost")
    call(root, "init", "-q")
    call(root, "remote", "add", "-d", "store", str(remote))
    (root / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable, project=project))
    (root / "prepare.py").write_text(PREPARE)
    (root / "report.py").write_text(REPORT)
    (root / ".gitignore").write_text(IGNORED)
    commit_all(root, "start")
    home = Home(root, remote, {}, folder / "source", project)
    add_people(home, ["anna/1.jpg", "anna/2.jpg", "bert/1.jpg", "carl/1.jpg"])
    home.ingest()
    call(root, "push", "-q")
    add_people(home, ["anna/3.jpg", "bert/2.jpg", "dora/1.jpg"])
    home.ingest()
    call(root, "repro", "-q")
    call(root, "push", "-q")
    commit_all(root, "a run")
    _state(home)
    return home


def _state(home: Home) -> None:
    """Make a workspace, records of photos, a slice, a checkpoint and synthetic photos."""
    from model.training.cache import RecordStore, text_keys
    from pipelines.data.training_data import read_photos

    root = home.root
    for store in (root / ".dvc" / "cache", home.remote):
        for number, whole in enumerate([file for file in store.glob("files/md5/??/*") if file.suffix != ".dir"]):
            shutil.copy(whole, whole.with_name(f".{number}h6Pp7s1zFXYmryzZzOBudg.tmp"))  # a transfer that was killed
    state = root / ".dynamicid"
    call(create(root, "with-data").path, "checkout", "-q")
    for checkout in (root, create(root, "without-data").path):
        store = PictureStore(checkout / STATE / EVALUATION)
        store.write(["0" * 64], [DrawnPicture(np.zeros((8, 8, 3), np.uint8), None)], 1)
    photos = read_photos(root / "data" / "processed", "train")
    held_out = read_photos(root / "data" / "processed", "test")
    keys = np.concatenate([photos.keys, held_out.keys])
    faces = RecordStore(state / "cache" / "faces" / "0", (512,), "float32")
    embeddings = [item.embedding for part in (photos, held_out) for item in part.content(np.arange(len(part)))]
    faces.append(keys, np.stack(embeddings))
    texts = RecordStore(state / "cache" / "text_states" / "0", (4,))
    prompts = ["", *photos.prompts, *held_out.prompts]
    texts.append(text_keys(prompts), np.arange(4 * len(prompts)).reshape(-1, 4))
    # A base of these photographs, trained in the usual folder and in one of the user's choice.
    elsewhere = root.parent / "base-work"
    note_copy(root, elsewhere, CACHE)
    for work in (state / "foundation" / "photographs", elsewhere):
        pixels = RecordStore(work / "cache" / "pixels" / "0", (2,), "uint8")
        pixels.append(keys, np.arange(2 * len(keys)).reshape(-1, 2))
    for name, seen in (("ours", ["anna", "bert"]), ("second", ["bert"])):
        base = root / "weights" / name
        base.mkdir(parents=True)
        (base / "manifest.json").write_text(json.dumps({"origin": {"people_seen": hashed_people(seen)}}))
    (state / "preprocess").mkdir(parents=True)
    rows = pq.read_table(root / "data" / "processed")
    people = sorted(set(rows["identity"].to_pylist()))
    for name in people:
        of_one = rows.filter(pa.array([found == name for found in rows["identity"].to_pylist()]))
        write_slice(of_one, state / "preprocess" / f"{name}{SLICE_SUFFIX}")
    (state / "resume" / "train_imr" / "key" / "step-00000001").mkdir(parents=True)
    (state / "resume" / "train_imr" / "key" / "step-00000001" / "progress.json").write_text(json.dumps({}))
    for name, body in home.photos.items():
        file = state / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        file.with_suffix(".txt").write_text("a prompt")


@pytest.fixture(scope="session")
def make(project: Path):
    """Make a home in a folder."""
    return lambda folder: make_home(folder, project)
