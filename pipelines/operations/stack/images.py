"""The images that the containers are built from and run: tags, and their digests in `docker/images.lock.json`.

A tag can name other bytes tomorrow, a digest cannot. Dockerfiles and `docker/compose.yaml` have the tags as defaults
and take other references from the environment variables that the lock file names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.core.environment import clean_environment
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically

LOCK = Path("docker") / "images.lock.json"
NOT_LOCKED = "not yet locked"
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_TAG = re.compile(r"(?:(?P<registry>[\w.-]+[.:][\w.:-]*)/)?(?P<name>[a-z0-9][a-z0-9./_-]*):(?P<tag>[\w][\w.-]*)")
# Docker's own registry, and the name under which it serves its manifests.
_HUB = "registry-1.docker.io"
_ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1")
)
_SECONDS = 30


@dataclass(frozen=True)
class Image:
    """An image: the variable that names it, its tag, and its digest (None: not yet locked)."""

    variable: str
    tag: str
    digest: str | None

    @property
    def reference(self) -> str:
        """Return what an engine pulls: with the digest, if there is one."""
        return self.tag if self.digest is None else f"{self.tag}@{self.digest}"


def read_lock(root: Path) -> list[Image]:
    """Return the images of the lock file; raise UserError where it is missing or damaged."""
    file = root / LOCK
    try:
        images = [
            Image(name, entry["tag"], None if entry["digest"] == NOT_LOCKED else entry["digest"])
            for name, entry in json.loads(file.read_bytes()).items()
        ]
        wrong = [
            one
            for one in images
            if not _TAG.fullmatch(one.tag) or not _DIGEST.fullmatch(one.digest or f"sha256:{'0' * 64}")
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: not a lock file of images ({error!r}); `git checkout {LOCK}` restores it") from None
    if wrong:
        expected = f'a tag NAME:TAG and a digest sha256:…, or "{NOT_LOCKED}"'
        raise UserError(f"{file}: {wrong[0].variable}: expected {expected}")
    return images


def renew(root: Path) -> list[Image]:
    """Ask the registries for the digest of every tag and write the lock file; return the images.

    Raises StageFailed, and changes nothing, where one cannot be asked.
    """
    images = [replace(image, digest=_digest(image.tag)) for image in read_lock(root)]
    content = {one.variable: {"tag": one.tag, "digest": one.digest} for one in images}
    write_atomically(root / LOCK, json.dumps(content, indent=2) + "\n")
    return images


def references(root: Path, *, locked: bool) -> dict[str, str]:
    """Return {variable: reference}; raise UserError, with `locked`, where an image has no digest yet."""
    images = read_lock(root)
    if locked and (without := [one.tag for one in images if one.digest is None]):
        raise UserError(
            f"{root / LOCK}: {NOT_LOCKED}: {', '.join(without)}; `dynamicid stack images --renew` locks them, where "
            "there is internet"
        )
    return {one.variable: one.reference for one in images}


def build(root: Path, credentials: Path, given: Mapping[str, str]) -> None:
    """Build the images with `docker compose` from the references `given`; StageFailed where that fails."""
    command = ("docker", "compose", "-f", "docker/compose.yaml", "--env-file", str(credentials), "build")
    try:
        done = subprocess.run(command, cwd=root, env={**clean_environment(os.environ), **given}, check=False)
    except FileNotFoundError:
        raise UserError("docker is missing: https://docs.docker.com/engine/install") from None
    if done.returncode:
        raise StageFailed(f"{' '.join(command)}: exit {done.returncode}")


def _digest(tag: str) -> str:
    """Return the digest of an image at its registry: the sha256 of the manifest that the registry sends."""
    match = _TAG.fullmatch(tag)
    assert match is not None
    registry = match["registry"] or _HUB
    name = match["name"] if match["registry"] or "/" in match["name"] else f"library/{match['name']}"
    scheme = "http" if registry.split(":")[0] in ("127.0.0.1", "localhost") else "https"
    url = f"{scheme}://{registry}/v2/{name}/manifests/{match['tag']}"
    answer = _get(tag, url, {"Accept": _ACCEPT})
    if answer.status_code == 401:
        bearer = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers.get("WWW-Authenticate", "")))
        realm = bearer.pop("realm", "")
        token = _get(tag, realm, {}, params=bearer)
        answer = _get(tag, url, {"Accept": _ACCEPT, "Authorization": f"Bearer {_token(tag, token)}"})
    if answer.status_code != 200:
        raise StageFailed(f"{tag}: {registry} answers {answer.status_code}; {LOCK} stays as it is")
    found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    if answer.headers.get("Docker-Content-Digest", found) != found:
        raise StageFailed(f"{tag}: {registry} sends another manifest than it names; {LOCK} stays as it is")
    return found


def _token(tag: str, answer: Any) -> str:
    try:
        content = answer.json()
        return str(content.get("token") or content["access_token"])
    except (ValueError, KeyError, AttributeError):
        raise StageFailed(f"{tag}: the registry gives no token; {LOCK} stays as it is") from None


def _get(tag: str, url: str, headers: Mapping[str, str], **more: Any) -> Any:
    import requests

    try:
        return requests.get(url, headers=dict(headers), timeout=_SECONDS, **more)
    except (requests.RequestException, ValueError) as error:
        why = type(error).__name__
        raise StageFailed(f"{tag}: its registry cannot be asked ({why}: {url}); {LOCK} stays as it is") from None
