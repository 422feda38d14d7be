"""The commands that are killed, what they start from, and what they must have left in the end."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kill_process import run_command
from benchmarks.kill_results import State, digests, git, names, registry, versions
from benchmarks.real_networks import PROJECT

PERSON = "demo-00001"
# The tree of a checkout that the commands need; its code runs under DVC only, while the given states are made.
_PARTS = (
    "pipelines",
    "model",
    "profiles",
    "params.yaml",
    "calibrations.yaml",
    "expectations",
    "fingerprints",
    "dvc.yaml",
    ".gitignore",
    ".dvc",
    ".dvcignore",
)
_SMALL = (
    *("preprocess.test_share=0.4", "preprocess.val_share=0.2", "preprocess.slice_photos=8", "preprocess.buckets=2"),
    *("validate.min_photos=1", "ingest.shard_mb=1", "inbox.quiet_seconds=0", "validate.max_unreadable_share=0.5"),
    *("train_anchoring.steps=4", "train_anchoring.batch_size=2", "train_anchoring.checkpoint_every=1"),
    *("train_anchoring.log_every=2", "train_anchoring.probe_photos=2", "train_anchoring.cache_batch=8"),
    *("train_anchoring.warmup_steps=1", "train_anchoring.identity.faces=1"),
    *("train_imr.steps=4", "train_imr.helpers=2", "train_imr.checkpoint_every=1", "train_imr.log_every=2"),
    *("train_imr.ldc_every=2", "train_imr.ldc_targets=2", "train_imr.warmup_steps=1", "train_imr.cache_batch=8"),
    *(
        "evaluate.people=2",
        "evaluate.prompts=1",
        "evaluate.several_people.two=1",
        "evaluate.steps=2",
        "evaluate.bootstrap=20",
    ),
    *("evaluate.variant_cells=2", "evaluate.diversity_seeds=2", "evaluate.shipped_adapter=null", "register.gates=[]"),
)


@dataclass(frozen=True)
class Place:
    """The folder `at`, in which commands work, with the checkout `home` in it, and the saved states beside it."""

    state: Path

    @property
    def at(self) -> Path:
        return self.state / "at"

    @property
    def home(self) -> Path:
        return self.at / "home"

    def environment(self) -> dict[str, str]:
        """Return the variables of the commands: everything that they keep outside of `at` is reset, too."""
        folders = {"TMPDIR": "tmp", "DVC_SITE_CACHE_DIR": "site", "XDG_CACHE_HOME": "cache"}
        return {
            **{name: str(self.state / folder) for name, folder in folders.items()},
            "GIT_CONFIG_GLOBAL": str(self.state / "gitconfig"),
            "PYTHONPATH": str(PROJECT),
        }

    def empty(self) -> None:
        """Remove what the last command left outside of the saved states."""
        for name in ("at", "tmp", "site", "cache"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
            # `at` itself stays: it may be a file system of its own.
            subprocess.run(["find", str(self.state / name), "-mindepth", "1", "-delete"], check=True)

    def save(self, name: str) -> None:
        """Save `at` as the state `name`."""
        copy_folder(self.at, self.state / "given" / name)

    def load(self, name: str) -> None:
        """Make `at` a copy of the state `name`."""
        self.empty()
        copy_folder(self.state / "given" / name, self.at)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder's content with links, times and modes; on file systems that can, files share their blocks."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)


@dataclass(frozen=True)
class Scenario:
    """Commands that follow each other, the state that they start from, and what is compared.

    `units`: files and folders (`folder/**`: each file in it) whose bytes are compared, relative to `at`; `facts`:
    further state. `accepted`: the message of a command that is right to fail when it is started again. The names of all
    files are compared, too, except below the folders `ignored`.
    """

    name: str
    given: str
    commands: tuple[tuple[str, ...], ...]
    units: tuple[str, ...] = ()
    facts: tuple[Callable[[Place], State], ...] = ()
    accepted: str | None = None
    ignored: tuple[str, ...] = field(default=())

    def result(self, place: Place) -> State:
        """Return everything that is compared."""
        return {
            "files": digests(place.at, self.units),
            "names": [name for name in names(place.at) if not name.startswith(self.ignored)],
            **{key: value for facts in self.facts for key, value in facts(place).items()},
        }


def _versions(place: Place) -> State:
    return {"dataset": versions(place.home)}


def _registry(place: Place) -> State:
    return {"registry": registry(place.home)}


def _copy(place: Place) -> State:
    """Return the state of the backup: whole, or absent."""
    from pipelines.core.errors import UserError
    from pipelines.operations.backup.backup import read_backup

    folder = place.at / "copy"
    if not folder.exists():
        return {"copy": "absent"}
    try:
        manifest = read_backup(folder)
    except UserError as error:
        return {"copy": f"not whole: {error}"}
    fixed = {name: digest for name, digest in manifest.files.items() if not name.endswith((".sqlite", ".bundle"))}
    return {"copy": fixed, "parts": sorted(manifest.files)}


def _forgotten(place: Place) -> State:
    """Return where bytes of the person's photos are left, and what the list of the forgotten says."""
    from pipelines.versions.forgotten import read_ledger

    entries = read_ledger(place.home).entries
    photos = sorted({photo for entry in entries for photo in entry.photos})
    pieces = [bytes.fromhex(line) for line in (place.state / "given" / "pieces").read_text().split()]
    left, kept = [], (place.state / "given", place.state / "failed", place.at / "photos")
    for file in sorted(place.state.rglob("*")):
        if any(file.is_relative_to(folder) for folder in kept):
            continue
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            if any(piece in content for piece in pieces):
                left.append(file.relative_to(place.state).as_posix())
    return {"forgotten": {"photos": photos, "people": bool(entries and entries[-1].people)}, "remaining": left}


_RUN = ("--run-id", "monday", "--inbox", "../inbox")
SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "ingest",
        "ingested",
        (("ingest", "../photos/many"),),
        ("home/data/faces/**", "home/data/faces.dvc"),
        (_versions,),
    ),
    Scenario(
        "publish",
        "added",
        (("dataset", "publish"),),
        ("home/data/faces/**", "home/data/faces.dvc"),
        (_versions,),
    ),
    Scenario(
        "preprocess",
        "trained",
        (("preprocess", "--set", "preprocess.jpeg_quality=90"),),
        ("home/data/processed", "home/.dynamicid/preprocess/**"),
    ),
    Scenario(
        "train-anchoring",
        "trained",
        (("train-anchoring", "--set", "train_anchoring.seed=1"),),
        (
            "home/models/anchoring",
            "home/reports/train_anchoring/losses.csv",
            "home/reports/train_anchoring/metrics.json",
        ),
    ),
    Scenario(
        "train-imr",
        "trained",
        (("train-imr", "--set", "train_imr.seed=2"),),
        ("home/models/adapter", "home/reports/train_imr/losses.csv", "home/reports/train_imr/metrics.json"),
    ),
    Scenario(
        "evaluate",
        "trained",
        (("evaluate", "--set", "evaluate.guidance=2.5"),),
        ("home/reports/metrics.json", "home/reports/index.html"),
    ),
    Scenario("register", "trained", (("register",),), (), (_registry, _versions)),
    Scenario("promote", "compared", (("promote", "models:/dynamicid/2", "--by", "anna"),), (), (_registry, _versions)),
    Scenario(
        "forget",
        "held",
        (("forget", "--identity", PERSON, "--delete-artefacts"),),
        ("home/data/faces/**", "home/data/processed/**", "home/data/faces.dvc"),
        (_versions, _forgotten),
        accepted="nothing is left to forget",
    ),
    Scenario("backup", "compared", (("backup", "--out", "../copy"),), (), (_copy, _registry)),
    Scenario("restore", "lost", (("restore", "../copy"),), ("home/mlartifacts/**",), (_registry, _versions)),
    Scenario(
        "inbox",
        "delivered",
        (
            ("inbox", "take", *_RUN),
            ("inbox", "add", *_RUN, "--latest"),
            ("inbox", "validate", *_RUN),
            ("inbox", "publish"),
            ("inbox", "done", *_RUN),
        ),
        ("home/data/faces/**", "home/data/faces.dvc", "inbox/**"),
        (_versions,),
        ignored=("home/reports/validate/",),
    ),
)


def make_states(place: Place, code: str) -> None:
    """Make the saved states that the scenarios start from, by the project's commands; kept where `code` has made them.

    An empty `code` stands for any.
    """
    whole = place.state / "given" / "whole"
    if whole.is_file() and code in whole.read_text(encoding="utf-8"):
        return
    shutil.rmtree(whole.parent, ignore_errors=True)
    place.empty()
    (place.state / "gitconfig").write_text("[user]\n\tname = kills\n\temail = kills@localhost\n", encoding="utf-8")
    _checkout(place)
    _photos(place.at / "photos", place)
    _call(place, "ingest", "../photos/first")
    place.save("ingested")
    _call(place, "ingest", "../photos/many", "--no-version")
    place.save("added")
    place.load("ingested")
    _call(place, "repro")
    _commit(place, "a run")
    _call(place, "register")
    _configure(place, "train_imr.seed=1")
    _call(place, "repro")
    _commit(place, "another run")
    place.save("trained")
    shutil.copytree(place.at / "photos" / "second", place.at / "inbox" / "monday")
    (place.at / "inbox" / "monday" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (place.at / "inbox" / "monday" / "_READY").touch()
    place.save("delivered")
    place.load("trained")
    _call(place, "register", "--no-promote")
    place.save("compared")
    _call(place, "workspace", "create", "--run-id", "a run")
    _dvc(place, "checkout", "-q", folder=next((place.home / ".dynamicid" / "runs").iterdir()))
    place.save("held")
    _write_pieces(place)
    place.load("compared")
    _call(place, "backup", "--out", "../copy")
    (place.home / "mlflow.db").unlink()
    shutil.rmtree(place.home / "mlartifacts")
    for tag in git(place.home, "tag").split():
        git(place.home, "tag", "-d", tag)
    place.save("lost")
    whole.write_text(code or "any", encoding="utf-8")


def _call(place: Place, *arguments: str) -> None:
    print(f"given: dynamicid {' '.join(arguments)}", file=sys.stderr)
    done = run_command(arguments, place.home, place.at, place.state / "log", environment=place.environment())
    if done.code:
        raise RuntimeError(f"dynamicid {' '.join(arguments)}: exit {done.code}\n{done.output[-4000:]}")


def _dvc(place: Place, *arguments: str, folder: Path | None = None) -> None:
    environment = {**os.environ, **place.environment()}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder or place.home, env=environment, check=True)


def _configure(place: Place, *values: str) -> None:
    """Change values of `params.yaml`."""
    from pipelines.core.params import dump_params, overridden_tree

    file = place.home / "params.yaml"
    dump_params(overridden_tree(file, values), file)


def _checkout(place: Place) -> None:
    """Make a small checkout of this project's working tree, with a DVC remote beside it."""
    listed = git(PROJECT, "ls-files", "-co", "--exclude-standard", "-z", "--", *_PARTS).split("\0")
    for name in listed:
        if name and (PROJECT / name).is_file():
            (place.home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, place.home / name)
    _configure(place, *_SMALL)
    git(place.home, "init", "-q", "-b", "main")
    _dvc(place, "remote", "add", "-q", "-d", "store", str(place.at / "remote"))
    _commit(place, "start")


def _commit(place: Place, message: str) -> None:
    identity = ("-c", "user.name=kills", "-c", "user.email=kills@localhost")
    git(place.home, "add", "-A")
    git(place.home, *identity, "commit", "-q", "--allow-empty", "-m", message)


def _photos(folder: Path, place: Place) -> None:
    """Draw eight people and two more, and write fifty pictures of noise, which make several shards of 1 MB."""
    import numpy as np
    from PIL import Image

    from model.face.face_prompts import EXPRESSIONS, POSES

    _call(place, "synthesize", *("--identities", "10", "--workers", "1", "--out", "../photos/first"))
    (folder / "first" / ".synthesize.json").unlink()
    # An evaluation compares with photos of a neutral face in every pose, and of expressions from the front.
    neutral = [EXPRESSIONS.index("neutral") * len(POSES) + pose for pose in range(len(POSES))]
    kept = {*neutral, *(expression * len(POSES) + POSES.index("front") for expression in range(3))}
    for file in (folder / "first").rglob("*.*"):
        if int(file.stem) not in kept:
            file.unlink()
    for name in ("demo-00008", "demo-00009"):
        (folder / "second").mkdir(exist_ok=True)
        (folder / "first" / name).rename(folder / "second" / name)
    rng = np.random.default_rng(0)
    for number in range(50):
        file = folder / "many" / f"guest_{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (140, 140, 3), dtype=np.uint8)).save(buffer, "PNG")
        file.write_bytes(buffer.getvalue())


def _write_pieces(place: Place) -> None:
    """Write pieces of the bytes of the person's photos, preprocessed photos and embeddings, to search for."""
    import numpy as np
    import pyarrow.parquet as pq

    contents = [file.read_bytes() for file in sorted((place.at / "photos" / "first" / PERSON).glob("*.jpg"))]
    for shard in sorted((place.home / "data" / "processed").glob("*.parquet")):
        rows: list[Mapping[str, Any]] = pq.read_table(shard, columns=["identity", "image", "embedding"]).to_pylist()
        for row in rows:
            if row["identity"] == PERSON and row["image"]:
                contents += [row["image"], np.asarray(row["embedding"], "<f4").tobytes()]
    pieces = [content[len(content) // 2 :][:48].hex() for content in contents]
    (place.state / "given" / "pieces").write_text("\n".join(pieces))
