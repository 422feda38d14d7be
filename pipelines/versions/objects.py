"""Data by its DVC hash: brought from the cache or the remote of a checkout into any folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.errors import UserError
from pipelines.versions.repro import dvc


def cache_folder(root: Path) -> Path:
    """Return the DVC cache of the checkout `root`."""
    config = _config(root)
    return (root / ".dvc" / config.get("cache", {}).get("dir", "cache")).resolve()


def remotes(root: Path) -> dict[str, Any]:
    """Return DVC's settings of the checkout that say where data is: `remote` by name, the default's name in `core`.

    Relative folders are made absolute, so that the settings hold in another checkout as well.
    """
    config = _config(root)
    found = {name: {key: str(value) for key, value in one.items()} for name, one in config.get("remote", {}).items()}
    default = config.get("core", {}).get("remote")
    return {"remote": found, "core": {"remote": default} if default else {}}


def default_remote(root: Path) -> str | None:
    """Return the name of the remote that `dvc push` would use, or None where there is none."""
    return remotes(root)["core"].get("remote")


def use_data_of(root: Path, other: Path, *, link: str = "hardlink,copy") -> None:
    """Let the DVC repository `other` take its data from cache and remotes of `root` (its local configuration)."""
    from dvc.config import Config

    with Config(str(other / ".dvc"), validate=False).edit("local", validate=False) as config:
        config.setdefault("cache", {}).update({"dir": str(cache_folder(root)), "type": link})
        found = remotes(root)
        if found["remote"]:
            config["remote"] = found["remote"]
            config.setdefault("core", {}).update(found["core"])


def bring_objects(root: Path, objects: Mapping[str, str], target: Path) -> None:
    """Put folders or files into the new folder `target`: `objects` says name → DVC hash (`….dir` for a folder).

    Raises UserError where neither the cache of `root` nor its default remote has them.
    """
    settings = target / ".dvc"
    settings.mkdir(parents=True)
    (settings / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    use_data_of(root, target)
    for name, digest in objects.items():
        out = {"md5": digest, "hash": "md5", "path": name}
        (target / f"{name}.dvc").write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")
    done = dvc(target, "checkout", "--quiet", capture=True)
    if done.returncode and default_remote(root) is not None:
        done = dvc(target, "pull", "--quiet", capture=True)
    if done.returncode:
        raise UserError(
            f"{json.dumps(dict(objects))}: neither the DVC cache of {root} nor a remote has this data; "
            "`dvc remote add -d` names a remote that does"
        )


def _config(root: Path) -> Any:
    from dvc.config import Config

    if not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root}: not a DVC repository; `dvc init` makes one")
    return Config(str(root / ".dvc"), validate=False)
