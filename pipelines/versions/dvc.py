"""Run DVC: commands, caches and remotes of a checkout, data by its hash, copies at the remote, stages.

DVC runs in child processes of this Python interpreter, which is also the first Python on their PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import PROCESSED, stage_names
from pipelines.core.errors import REASON_VARIABLE, StageFailed, UserError, read_reason
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.versions.forgotten import refuse_forgotten
from pipelines.versions.git import git_environment, in_repository
from pipelines.versions.git_tags import local_origin
from pipelines.versions.interrupted import mend_interrupted, mend_stores
from pipelines.versions.networks import record_networks

_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
# Lines of DVC's messages that say nothing about their reason.
_ADVICE = re.compile(r"<https://|Having any troubles|Is your cache up to date")


def stage_environment() -> dict[str, str]:
    """Return the environment for stages under DVC: `python` is this interpreter, telemetry is off."""
    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)])
    # Otherwise a web service of DVC gets experiments as they are saved.
    return {**git_environment(), **TELEMETRY_OFF, "DVC_STUDIO_OFFLINE": "true", "PATH": path}


def dvc(
    root: Path, *arguments: str, capture: bool = False, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `dvc …` in `root` with this interpreter; output goes to stderr unless captured.

    Never with `--quiet`, which also silences errors.
    """
    mend_interrupted(root)
    if {"push", "pull", "--pull"} & set(arguments):
        mend_stores(local_stores(root))
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={**stage_environment(), **(variables or {})},
        text=True,
        errors="replace",
        check=False,
        stdout=subprocess.PIPE if capture else sys.stderr,
        stderr=subprocess.PIPE if capture else None,
    )


def dvc_problem(done: subprocess.CompletedProcess[str]) -> str:
    """Return the first error, in one line, of a DVC command whose output was captured; else its first other message."""
    errors: list[str] = []
    others: list[str] = []
    warnings: list[str] = []
    for text in (done.stderr, done.stdout):
        for message in re.split(r"^(?=ERROR:|WARNING:)", text, flags=re.MULTILINE):
            lines = [line.strip() for line in message.splitlines() if line.strip() and not _ADVICE.match(line)]
            if message.startswith("ERROR:"):
                errors.append(" ".join(lines).removeprefix("ERROR:").strip())
            else:
                (warnings if message.startswith("WARNING:") else others).extend(lines)
    found = errors + others + warnings
    return found[0] if found else f"it ended with exit code {done.returncode} and no message"


def dvc_root(folder: Path) -> Path | None:
    """Return the DVC repository that `folder` is in, or None."""
    real = folder.resolve()
    return next((parent for parent in (real, *real.parents) if (parent / ".dvc" / "config").is_file()), None)


def home_of(root: Path) -> Path | None:
    """Return the local checkout that `root` is a clone of and whose DVC cache it shares, as a run's workspace does."""
    origin = local_origin(root)
    if origin is None or dvc_root(root) is None or dvc_root(origin) != origin:
        return None
    return origin if cache_folder(root) == cache_folder(origin) else None


def cache_folder(root: Path) -> Path:
    """Return the DVC cache of the checkout `root`."""
    config = _config(root)
    return (root / ".dvc" / config.get("cache", {}).get("dir", "cache")).resolve()


def remotes(root: Path) -> dict[str, Any]:
    """Return the DVC remotes of a checkout: in `remote` name → settings, in `core` the name of the default remote.

    Relative folders are made absolute, so that the settings are valid in another checkout, too.
    """
    config = _config(root)
    by_name = {name: {key: str(value) for key, value in one.items()} for name, one in config.get("remote", {}).items()}
    for name, one in by_name.items():
        if any(brace in one.get("url", "") for brace in "{}"):
            raise UserError(
                f"DVC remote {name}, {one['url']}: DVC cannot work with braces in a path; rename the folder"
            )
    default = config.get("core", {}).get("remote")
    return {"remote": by_name, "core": {"remote": default} if default else {}}


def local_stores(root: Path) -> list[Path]:
    """Return the folders of the cache and of the remotes that are folders, as far as they are there."""
    urls = [Path(one.get("url", "")) for one in remotes(root)["remote"].values()]
    return [folder for folder in (cache_folder(root), *urls) if folder.is_absolute() and folder.is_dir()]


def default_remote(root: Path) -> str | None:
    """Return the name of the remote that `dvc push` uses, or None where there is none."""
    return remotes(root)["core"].get("remote")


def use_data_of(root: Path, other: Path) -> None:
    """Make the DVC repository `other` use the cache and the remotes of `root`; only its local settings change.

    Files are linked from the cache as `root` does it, and a cache that a group shares stays writable for the group.
    """
    from configobj import ConfigObj

    # Not by DVC's Config, which reads UTF-8 but writes ASCII only.
    config = ConfigObj(str(other / ".dvc" / "config.local"), encoding="utf-8", interpolation=False)
    own = _config(root).get("cache", {})
    shared = {name: own[name] for name in ("type", "shared") if name in own}
    config.setdefault("cache", {}).update({"type": "hardlink,copy", **shared, "dir": str(cache_folder(root))})
    settings = remotes(root)
    if settings["remote"]:
        config.update({f'remote "{name}"': one for name, one in settings["remote"].items()})
        config.setdefault("core", {}).update(settings["core"])
    config.write()


def bring_data(root: Path, *pointers: str, force: bool = False) -> str | None:
    """Check out the data of `pointers` (`.dvc` files, outputs; default: all), pulled from the default remote if needed.

    With `force` it replaces what is there and in no cache, as a killed stage leaves it. Returns the error message,
    which names what is missing, or None on success. Data with photos of the forgotten is an error, and does not stay.
    """
    over = ("--force",) if force else ()
    remote = default_remote(root)
    for one in _one_by_one(pointers):
        done = dvc(root, "checkout", *over, "--", *one, capture=True)
        if done.returncode and remote is not None:
            done = dvc(root, "pull", *over, "--", *one, capture=True)
        if done.returncode:
            break
    if done.returncode:
        missing = "; ".join(_missing(root, pointers or known_pointers(root)))
        there = "there is no DVC remote" if remote is None else f"DVC remote {remote!r}: {dvc_problem(done)}"
        return f"{missing} is missing in the DVC cache {cache_folder(root)}; {there}" if missing else dvc_problem(done)
    folders = [root / name.removesuffix(".dvc") for name in pointers or (*known_pointers(root), f"{PROCESSED}.dvc")]
    try:
        refuse_forgotten(*(folder for folder in folders if folder.is_dir()))
    except StageFailed as error:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return str(error)
    return None


def _one_by_one(targets: Sequence[str]) -> list[tuple[str, ...]]:
    """Return targets of DVC each alone: of several, as a pointer and an output, it ends well without the second."""
    return [(target,) for target in targets] or [()]


def is_cached(root: Path, md5: str) -> bool:
    """Return whether the data with DVC's hash `md5` is whole in the cache."""
    files = cached_files(root, md5)
    return files is not None and all(file.is_file() for file in files)


def cached_files(root: Path, md5: str) -> list[Path] | None:
    """Return the places in the cache of the files with DVC's hash `md5`; None where a folder's list is not there."""
    if not md5.endswith(".dir"):
        return [_cached(root, md5)]
    try:
        return [_cached(root, entry["md5"]) for entry in json.loads(_cached(root, md5).read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cached(root: Path, md5: str) -> Path:
    return cache_folder(root) / "files" / "md5" / md5[:2] / md5[2:]


def pointed_hash(content: bytes) -> str | None:
    """Return the hash of the data that a `.dvc` file names by its contents; None where the file is not whole."""
    try:
        md5 = str(yaml.safe_load(content)["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        return None
    return md5 if _HASH.fullmatch(md5) else None


def _missing(root: Path, pointers: Sequence[str]) -> Iterator[str]:
    """Yield a description of the data of each `.dvc` file that is not whole in the cache."""
    for pointer in pointers:
        file = root / pointer
        md5 = pointed_hash(file.read_bytes()) if file.is_file() else None
        if md5 is None:
            continue
        files = cached_files(root, md5)
        if files is None:
            yield f"{pointer.removesuffix('.dvc')} ({md5[:12]})"
        elif gone := [file for file in files if not file.is_file()]:
            yield f"{pointer.removesuffix('.dvc')} ({len(gone):,} of its files)"


def known_pointers(root: Path) -> list[str]:
    """Return the `.dvc` files of a checkout, relative to it; no hidden folder and no environment of Python is read."""
    found: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name[0] != "." and not (Path(folder) / name / "pyvenv.cfg").is_file()]
        found += [Path(folder, name).relative_to(root) for name in names if name.endswith(".dvc")]
    return sorted(file.as_posix() for file in found)


def not_brought(root: Path) -> type[Exception]:
    """Return the error where data of `root` is missing: StageFailed where there is a remote, which may answer later."""
    return UserError if default_remote(root) is None else StageFailed


def bring_objects(root: Path, objects: Mapping[str, str], target: Path) -> None:
    """Put folders or files into the new folder `target`; `objects`: name → DVC hash (`….dir` for a folder).

    Raises `not_brought` where one of them is in neither the cache of `root` nor its default remote.
    """
    settings = target / ".dvc"
    settings.mkdir(parents=True)
    (settings / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    use_data_of(root, target)
    for name, digest in objects.items():
        out = {"md5": digest, "hash": "md5", "path": name}
        (target / f"{name}.dvc").write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")
    if bring_data(target) is not None:
        raise not_brought(root)(
            f"{json.dumps(dict(objects))}: neither the DVC cache of {root} nor a remote has this data; "
            "`dvc remote add -d` names a remote that does"
        )


def push_data(root: Path, *targets: str) -> str | None:
    """Copy the data of `targets` (`.dvc` files; default: all data of the checkout) to the default remote.

    Returns the remote's name, or None where the repository has no default remote. Raises StageFailed where the push
    fails: all data is then still in the cache, and the same command may be run again.
    """
    remote = default_remote(root)
    if remote is None:
        return None
    for one in _one_by_one(targets):
        done = dvc(root, "push", "--", *one, capture=True)
        if done.returncode:
            raise StageFailed(
                f"{' '.join(one) or root}: kept here, but not copied to the DVC remote {remote!r}: "
                f"{dvc_problem(done)}; run again when it can be reached"
            )
    return remote


def check_stages(names: list[str]) -> list[str]:
    """Return `names`, or all stages where it is empty; raise UserError on an unknown name."""
    known = stage_names()
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such stage; there are {', '.join(known)}")
    return names or list(known)


def repro_stage(root: Path, name: str, *, force: bool = False, pull: bool = False) -> None:
    """Bring one stage up to date; raise the stage's UserError or StageFailed, or StageFailed where DVC itself fails."""
    in_repository(root)  # refuses one that git refuses; DVC would only say that it is none
    record_networks(root, name)
    flags = [flag for flag, on in (("--force", force), ("--pull", pull)) if on]
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "reason"
        done = dvc(root, "repro", "--single-item", *flags, name, variables={REASON_VARIABLE: str(note)})
        code, reason = read_reason(note)
    if done.returncode:
        error = UserError if code == UserError.exit_code else StageFailed
        why = f": {reason}" if reason else "; the reason is above"
        raise error(f"stage {name} failed under DVC (exit {code or done.returncode}){why}")


def _config(root: Path) -> Any:
    from dvc.config import Config

    if not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root}: not a DVC repository; `dvc init` makes one")
    return Config(str(root / ".dvc"), validate=False)
