"""What a command left: files, dataset versions, the registry, leftovers; and how two such states differ."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.files import sha256

State = dict[str, Any]
# Parts of names that differ from run to run: runs and models of MLflow, objects and commits, and times of Data Docs.
_RANDOM = re.compile(r"\d{8}T\d{6}\.\d+Z|[0-9a-f]{7,}")
# The folders of git and DVC have files for each process; locks that stay behind are listed separately.
_INTERNAL = (".git", ".dvc/tmp", ".dynamicid/runs")
_UNFINISHED = re.compile(r"(^|/)\.[^/]*\.(part|old)(/|$)|\.tmp(/|$)|(^|/)tmp-")
# What may stay: what DVC and MLflow did not finish, under other names, which `dynamicid clean` removes, and the note of
# a model's name that MLflow writes into its folder whenever the model is read.
_MAY_STAY = re.compile(r"/files/md5/\w\w/[^/]+\.tmp$|/\.artifact\.uploading\.[^/]+$|/registered_model_meta$")


def digests(at: Path, units: Iterable[str]) -> dict[str, str]:
    """Return {unit: sha256} of files and whole folders below `at`; `folder/**` stands for each file in it."""
    result: dict[str, str] = {}
    for unit in units:
        path = at / unit.removesuffix("/**")
        if unit.endswith("/**"):
            files = sorted(file for file in path.rglob("*") if file.is_file())
            whole = {file.relative_to(at).as_posix(): sha256(file) for file in files}
            result |= {name: digest for name, digest in whole.items() if not _UNFINISHED.search(name)}
        elif path.is_dir():
            inside = [(file.relative_to(path).as_posix(), sha256(file)) for file in path.rglob("*") if file.is_file()]
            result[unit] = hashlib.sha256(json.dumps(sorted(inside)).encode()).hexdigest()
        elif path.is_file():
            result[unit] = sha256(path)
    return result


def half_files(at: Path, units: Sequence[str], made: Any) -> list[str]:
    """Return the units that are neither as before the command (`made.before`), nor as after it, nor absent.

    A file that was moved is as before.
    """
    whole = {*made.before.values(), *made.after["files"].values()}
    return [unit for unit, digest in digests(at, units).items() if digest not in whole]


def names(at: Path) -> list[str]:
    """Return the names of all files below `at`, without random parts, each once.

    Lock files are left out, as the end of a process frees its lock and the file stays, and so is what may stay.
    """
    listed = set()
    for file in at.rglob("*"):
        name = file.relative_to(at).as_posix()
        left_out = file.suffix == ".lock" or _MAY_STAY.search(name)
        if file.is_file() and not left_out and not any(f"/{part}/" in f"/{name}" for part in _INTERNAL):
            listed.add(_RANDOM.sub("*", name))
    return sorted(listed)


def locks_left(home: Path) -> list[str]:
    """Return what would stop a later command: locks of git, and DVC's list of readers and writers unless empty."""
    left = [file.relative_to(home).as_posix() for file in home.glob(".git/**/*.lock")]
    listed = home / ".dvc" / "tmp" / "rwlock"
    if listed.is_file():
        try:
            entries = json.loads(listed.read_text(encoding="utf-8"))
            left += [f".dvc/tmp/rwlock: {name}" for name in ("read", "write") if entries.get(name)]
        except json.JSONDecodeError:
            left.append(".dvc/tmp/rwlock is not JSON")
    return left


def git(home: Path, *arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", *arguments], cwd=home, capture_output=True, text=True, check=True).stdout.strip()


def versions(home: Path) -> State:
    """Return {tag: DVC's hash, rows} of every dataset version, the hash in `data/faces.dvc`, and HEAD."""
    tags = [tag for tag in git(home, "tag").split() if tag.startswith("faces-v")]
    pointer = home / "data" / "faces.dvc"
    return {
        "versions": {tag: [_md5(git(home, "show", f"{tag}:data/faces.dvc")), _rows(home, tag)] for tag in tags},
        "present": _md5(pointer.read_text(encoding="utf-8")) if pointer.is_file() else None,
        "branch": git(home, "rev-parse", "HEAD"),
    }


def _md5(text: str) -> str | None:
    tree = yaml.safe_load(text)
    return tree["outs"][0]["md5"] if tree else "no hash"


def _rows(home: Path, tag: str) -> str:
    text = git(home, "for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")
    return "".join(re.findall(r"^Rows: (\d+)$", text, re.MULTILINE))


def registry(home: Path) -> State:
    """Return versions with tags, aliases and artefacts, and the finished and unfinished runs of `mlflow.db`."""
    file = home / "mlflow.db"
    if not file.is_file():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        # A copy: opening the database itself could roll back what a killed command left.
        for part in home.glob("mlflow.db*"):
            shutil.copy2(part, folder)
        with closing(sqlite3.connect(Path(folder) / file.name)) as database:
            problem = database.execute("pragma integrity_check").fetchone()[0]
            return {"integrity": problem, **_read_registry(home, database)}


def _read_registry(home: Path, database: sqlite3.Connection) -> State:
    def rows(query: str, *values: str) -> list[Any]:
        return database.execute(query, values).fetchall()

    tags_of: dict[str, dict[str, str]] = {}
    for run, key, value in rows("select run_uuid, key, value from tags where key like 'dynamicid.%'"):
        tags_of.setdefault(run, {})[key] = value
    runs = rows("select run_uuid, name, status from runs where lifecycle_stage = 'active'")
    status = {run: state for run, _, state in runs}
    finished = Counter(
        f"{name} {tags_of.get(run, {}).get('dynamicid.lock_hash', '')[:12]}"
        for run, name, state in runs
        if state == "FINISHED"
    )
    models: State = {}
    for name, version, source, run in rows("select name, version, source, run_id from model_versions"):
        tags = dict(
            rows("select key, value from model_version_tags where name = ? and version = ?", name, str(version))
        )
        aliases = rows("select alias from registered_model_aliases where name = ? and version = ?", name, str(version))
        where = rows("select artifact_location from logged_models where model_id = ?", source.rpartition("/")[2])
        models[f"{name} {version}"] = {
            "tags": {key: _tag(home, key, value, status) for key, value in tags.items()},
            "aliases": sorted(alias for (alias,) in aliases),
            "run": status.get(run),
            "adapter": digests(Path(where[0][0].removeprefix("file://")), ["artifacts/adapter"]) if where else None,
        }
    unfinished = sorted(f"{name} {state}" for _, name, state in runs if state not in ("FINISHED", "FAILED", "KILLED"))
    return {"models": models, "finished": dict(sorted(finished.items())), "unfinished": unfinished}


def _tag(home: Path, key: str, value: str, status: Mapping[str, str]) -> Any:
    """Return a tag without what differs from run to run; a reference becomes the state of what it refers to."""
    if key == "dynamicid.evaluate_run":
        return f"a run that is {status.get(value)}"
    if key == "dynamicid.snapshot":
        return "a tag" if value in git(home, "tag").split() else f"no tag {value}"
    if key.startswith("dynamicid.decision."):
        decision = json.loads(value)
        decision.pop("at")
        decision["evidence"].pop("evaluate_run", None)
        return decision
    return value


def differences(expected: Any, present: Any, where: str = "") -> list[str]:
    """Return one line for each value that differs."""
    if isinstance(expected, dict) and isinstance(present, dict):
        keys = dict.fromkeys([*expected, *present])
        return [line for key in keys for line in differences(expected.get(key), present.get(key), f"{where}/{key}")]
    if isinstance(expected, list) and isinstance(present, list):
        gone = [item for item in expected if item not in present]
        new = [item for item in present if item not in expected]
        lines = [f"missing {gone[:5]}"] * bool(gone) + [f"left over {new[:5]}"] * bool(new)
        return [f"{where}: {line}" for line in lines]
    return [] if expected == present else [f"{where}: {_short(present)} instead of {_short(expected)}"]


def _short(value: Any) -> str:
    return str(value)[:120]
