"""Make networks that are published in another form into the files that the project reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.weights import face_api
from pipelines.core.weights.download import matches
from pipelines.core.weights.fetch import Fetched, fetch
from pipelines.core.weights.manifest import read_manifest

# Each takes the published files by their names, and returns those of the network.
CONVERTERS: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {"faceapi-expression": face_api.convert}


def convert(root: Path, name: str, folder: Path) -> Fetched:
    """Bring the network `name` to its path in the checkout `root`, made from the published files in `folder`.

    Raises UserError where the project cannot convert it, or a published file is missing or another one; else as
    `fetch`, which compares what was made with the manifest.
    """
    network = read_manifest(root).network(name)
    if name not in CONVERTERS or network.made_from is None:
        raise UserError(
            f"{name}: the project cannot make it; it converts {', '.join(CONVERTERS)}, and `dynamicid weights list` "
            "says what stands in for others"
        )
    if not folder.is_dir():
        raise UserError(f"--from {folder}: no such folder")
    published: dict[str, bytes] = {}
    for file, known in network.made_from.files.items():
        place = next((one for one in (folder / file, folder / Path(file).name) if one.is_file()), None)
        if place is None:
            raise UserError(f"{folder}: no {Path(file).name}; {name} is made from {network.made_from.release}")
        if not matches(known.sha256, digest := sha256(place)):
            raise UserError(
                f"{place}: sha256 {digest[:12]}, expected {str(known.sha256)[:12]}: take it from "
                f"{network.made_from.release}"
            )
        published[place.name] = place.read_bytes()
    with TemporaryDirectory(prefix="dynamicid-") as temporary:
        made = Path(temporary) / name
        made.mkdir()
        for file, content in CONVERTERS[name](published).items():
            (made / file).write_bytes(content)
        (done,) = fetch(root, [name], folder=Path(temporary))
    return done
