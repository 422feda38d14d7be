"""Where the files of a network are: what a source publishes of them, or which files of a folder they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.weights.download import Origin, plain_errors
from pipelines.core.weights.lock import LockedNetwork, Trust
from pipelines.core.weights.manifest import File, Network, Source

_HUB = "https://huggingface.co"
# What the lock file says of networks from a folder: the path would differ on every machine.
_FOLDER = "a folder"


@dataclass(frozen=True)
class Located:
    """Origins of a network's files by their names; `archive`: of the one file that holds them, instead.

    `source` and `revision` are what the lock file records.
    """

    source: str
    revision: str | None
    files: dict[str, Origin]
    archive: Origin | None = None


def go_online() -> None:
    """Allow huggingface_hub to connect, which all other commands of the project keep offline; fetch in pieces of 1 MiB.

    Of a piece that is not complete nothing is kept when a download ends; by default a piece has 10 MiB.
    """
    os.environ["HF_HUB_OFFLINE"] = "0"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = False
    constants.DOWNLOAD_CHUNK_SIZE = 2**20


def at_source(name: str, network: Network, locked: LockedNetwork | None) -> Located:
    """Return the origins of a network's files on the servers that the manifest names.

    A repository is asked for its files once, at the revision that is locked, else that of the manifest. Raises
    UserError where the network has no public source, StageFailed where the server cannot be asked or lacks a file.
    """
    _require_files(name, network)
    source = network.source
    if source is None:
        where = f" ({network.page})" if network.page else ""
        made = f", converted from {network.made_from.release}" if network.made_from else ""
        made += f" by `{network.made_from.command}`" if network.made_from and network.made_from.command else ""
        instead = f"; may stand in for it: {', '.join(network.instead)}" if network.instead else ""
        raise UserError(
            f"{name}: no address that the program can fetch it from is in the manifest{where}; get its files "
            f"({', '.join(network.files)}{made}) and call `dynamicid weights fetch {name} --from DIR`{instead}"
        )
    if source.hub is not None:
        return _in_hub(name, network, source, locked)
    if source.archive is not None:
        archive = _asked(Origin(url=source.archive, bytes=source.bytes, sha256=source.sha256))
        return Located(source.address, None, _packed(network.files, source), archive)
    files = {
        file: _asked(Origin(url=f"{str(source.files).rstrip('/')}/{file}", bytes=known.bytes, sha256=known.sha256))
        for file, known in network.files.items()
    }
    return Located(source.address, None, files)


def in_folder(name: str, network: Network, folder: Path) -> Located:
    """Return the origins of a network's files in `folder`, a copy of another checkout's `weights`.

    A file lies in the network's path (without `weights/`), in a folder of the network's name, or, where its sha256 is
    in the manifest, anywhere under its name. Raises UserError that lists the files that are missing.
    """
    _require_files(name, network)
    places = [folder / Path(network.path).relative_to(Path(network.path).parts[0]), folder / name]
    source, found, missing = network.source, {}, []
    for pattern, known in network.files.items():
        matching = _matching(pattern, places) or (_anywhere(folder, pattern) if known.sha256 else {})
        if not matching:
            missing.append(pattern)
        for file, path in matching.items():
            found[file] = Origin(file=path, bytes=known.bytes, sha256=known.sha256, trust=_trust(known))
    if not missing:
        return Located(_FOLDER, None, found)
    if source is not None and source.archive is not None:
        packed = folder / source.archive.rsplit("/", 1)[-1]
        if packed.is_file():
            archive = Origin(file=packed, bytes=source.bytes, sha256=source.sha256)
            return Located(_FOLDER, None, _packed(network.files, source), archive)
    raise UserError(
        f"--from {folder}: {name}: {', '.join(missing)} missing; expected in {' or '.join(map(str, places))}"
    )


def _require_files(name: str, network: Network) -> None:
    if not network.files:
        raise UserError(f"{name}: the manifest lists no files of it; put your own network at {network.path}")


def _packed(files: Mapping[str, File], source: Source) -> dict[str, Origin]:
    """Return the origins of files in an archive, which come from no place of their own; its hash vouches for them."""
    return {
        file: Origin(bytes=known.bytes, sha256=known.sha256, trust=_trust(known if known.sha256 else source))
        for file, known in files.items()
    }


def _trust(known: File | Source) -> Trust:
    return "manifest" if known.sha256 else "first use"


def _matching(pattern: str, places: Iterable[Path]) -> dict[str, Path]:
    """Return the files of the first of `places` that has some that match, by name."""
    for place in places:
        if files := {
            path.relative_to(place).as_posix(): path for path in sorted(place.glob(pattern)) if path.is_file()
        }:
            return files
    return {}


def _anywhere(folder: Path, file: str) -> dict[str, Path]:
    path = next((path for path in sorted(folder.rglob(Path(file).name)) if path.is_file()), None)
    return {} if path is None else {file: path}


def _asked(origin: Origin) -> Origin:
    """Return `origin` with the size that its server states; raise StageFailed where the manifest has another."""
    from huggingface_hub.utils import hf_raise_for_status, http_backoff

    headers = {"Accept-Encoding": "identity"}
    with plain_errors(origin.name):
        answer = http_backoff("HEAD", str(origin.url), headers=headers, follow_redirects=True, **_patience())
        hf_raise_for_status(answer)
    stated = answer.headers.get("Content-Length", "")
    size = int(stated) if stated.isdigit() else None
    _same_size(origin.name, size, origin.bytes)
    return Origin(
        url=origin.url,
        bytes=size if origin.bytes is None else origin.bytes,
        sha256=origin.sha256,
        trust="manifest" if origin.sha256 else "first use",
    )


def _patience() -> dict[str, Any]:
    """Return for what a server is asked again: not where it cannot be reached, as on a machine without a network."""
    import httpx2

    return {"retry_on_exceptions": (httpx2.TimeoutException, httpx2.RemoteProtocolError, httpx2.ReadError)}


def _same_size(name: str, stated: int | None, known: int | None) -> None:
    if stated is not None and known is not None and stated != known:
        raise StageFailed(
            f"{name}: its server states {stated:,} bytes, the manifest {known:,}: it is another file; nothing was "
            "written"
        )


def _in_hub(name: str, network: Network, source: Source, locked: LockedNetwork | None) -> Located:
    endpoint = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    asked = locked.revision if locked and locked.revision else source.revision
    answer = _repository(endpoint, str(source.hub), asked)
    commit = str(answer.get("sha") or asked)
    listed = {str(entry["rfilename"]): entry for entry in answer.get("siblings", ())}
    where = f"{endpoint}/{source.hub} at {commit[:12]}"
    files: dict[str, Origin] = {}
    for pattern, known in network.files.items():
        matching = [file for file in listed if fnmatchcase(file, pattern) and _as_deep(file, pattern)]
        if not matching:
            raise StageFailed(f"{name}: {where}: no file {pattern}; nothing was written")
        for file in matching:
            files[file] = _of_hub(listed[file], f"{endpoint}/{source.hub}/resolve/{commit}/{file}", known)
    return Located(source.address, commit, files)


def _as_deep(file: str, pattern: str) -> bool:
    """Return whether a listed file lies as deep as the pattern says, in the folder of the network."""
    return file.count("/") == pattern.count("/") and ".." not in file.split("/")


def _repository(endpoint: str, hub: str, revision: str) -> dict[str, Any]:
    """Return what the Hub says of a repository: its commit, and the sizes and hashes of its files."""
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    url = f"{endpoint}/api/models/{hub}/revision/{revision}?blobs=true"
    with plain_errors(url):
        answer = http_backoff("GET", url, headers=build_hf_headers(), follow_redirects=True, **_patience())
        hf_raise_for_status(answer)
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StageFailed(f"{url}: not the answer of a Hub; check HF_ENDPOINT")
    return content


def _of_hub(entry: Mapping[str, Any], url: str, known: File) -> Origin:
    from huggingface_hub.utils import build_hf_headers

    large = entry.get("lfs") or {}
    size, digest, blob = entry.get("size"), large.get("sha256"), None if large else entry.get("blobId")
    _same_size(url, size, known.bytes)
    if known.sha256 and digest and not str(digest).startswith(known.sha256):
        raise StageFailed(
            f"{url}: its server states the sha256 {digest}, the manifest {known.sha256}: it is another file; nothing "
            "was written"
        )
    trust: Trust = "manifest" if known.sha256 else "source" if digest or blob else "first use"
    return Origin(
        url=url,
        headers=build_hf_headers(),
        bytes=known.bytes if size is None else int(size),
        sha256=digest if known.sha256 is None or digest else known.sha256,
        blob=blob,
        trust=trust,
    )
