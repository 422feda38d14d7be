"""The manifest of the shipped networks: hashes and sizes of files, the recipe, and the figures of each part."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.face.ledger import ledger
from model.foundation.edition import SHIPPED, edition_of
from model.foundation.people import first_held_out

WEIGHTS = Path(__file__).parent / "weights"
FILE = "manifest.json"
MAX_BYTES = 60_000_000


@dataclass(frozen=True)
class Problem:
    """One file that differs from the manifest."""

    file: str
    reason: str


def folder_of(edition: int) -> Path:
    """Return the folder of an edition's networks; of one that is not the shipped one, only its own parts are there.

    Raises ValueError for an unknown edition.
    """
    edition_of(edition)
    return WEIGHTS if edition == SHIPPED else WEIGHTS.parent / "editions" / str(edition)


def digest(file: Path) -> str:
    """Return the sha256 (hex) of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _foundation_ledger(people: int) -> dict[str, str]:
    """Return the ledger of all parts but the adapter: the last of the drawn people are held out to measure them."""
    names = [f"foundation-{number:05d}" for number in range(people)]
    first = first_held_out(people)
    return ledger(train=names[:first], val=names[first:])


def _files(weights: Path) -> list[str]:
    """Return the files that a manifest lists, by their paths in the folder."""
    files = sorted(path for path in weights.rglob("*") if path.is_file() and path.name != FILE)
    return [path.relative_to(weights).as_posix() for path in files]


def describe(weights: Path, recipe: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a folder of weights; raise ValueError where they exceed MAX_BYTES."""
    files: dict[str, dict[str, Any]] = {
        name: {"bytes": (weights / name).stat().st_size, "sha256": digest(weights / name)} for name in _files(weights)
    }
    total = sum(entry["bytes"] for entry in files.values())
    if total > MAX_BYTES:
        raise ValueError(f"{weights}: {total} bytes of weights, expected at most {MAX_BYTES}")
    return {"format": 1, "bytes": total, "recipe": recipe, "figures": figures, "files": files}


def write(
    weights: Path,
    recipe: dict[str, Any],
    figures: dict[str, Any],
    begun: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
    *,
    seen: dict[str, str] | None = None,
) -> Path:
    """Write the manifest into the folder of weights and return its path.

    `begun` are parts that lack some legs; `origin` states which photographs and networks the weights are made of;
    `seen` is the ledger of an adapter's people, which stays while the recipe names an adapter.
    """
    file = weights / FILE
    ledgers = {"foundation": _foundation_ledger(recipe["people"]["people"])} if "people" in recipe else {}
    if "adapter" in recipe and (seen or file.is_file()):
        ledgers |= {"adapter": seen} if seen else {"adapter": read(weights).get("seen", {}).get("adapter", {})}
    described = {**describe(weights, recipe, figures), **({"begun": begun} if begun else {})}
    described |= {"origin": origin} if origin else {}
    described |= {"seen": ledgers} if ledgers else {}
    file.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return file


def note_begun(weights: Path, part: str, recipe: dict[str, Any], legs: int) -> None:
    """State in the manifest that the files of `part` are the result of the first `legs` legs of `recipe`."""
    known = read(weights) if (weights / FILE).is_file() else {"recipe": {}, "figures": {}}
    recipes, figures = (
        {name: found for name, found in known[kind].items() if name != part} for kind in ("recipe", "figures")
    )
    write(weights, recipes, figures, {**known.get("begun", {}), part: {"legs": legs, **recipe}}, known.get("origin"))


def legs_begun(weights: Path, part: str, recipe: dict[str, Any]) -> int:
    """Return how many legs of `recipe` the files of `part` are the result of, 0 where they are another training's."""
    known = read(weights).get("begun", {}).get(part, {}) if (weights / FILE).is_file() else {}
    same = all(known.get(name) == value for name, value in recipe.items())
    return int(known.get("legs", 0)) if same and not check(weights) else 0


def read(weights: Path = WEIGHTS) -> dict[str, Any]:
    """Return the manifest; raise ValueError where there is none."""
    file = weights / FILE
    if not file.is_file():
        raise ValueError(f"{file}: no manifest; `dynamicid foundation train` writes it with the weights")
    return json.loads(file.read_text(encoding="utf-8"))


def check(weights: Path = WEIGHTS) -> list[Problem]:
    """Return every file that is missing, changed or unknown to the manifest."""
    known = read(weights)["files"]
    problems = []
    for name, entry in known.items():
        path = weights / name
        if not path.is_file():
            problems.append(Problem(name, "missing"))
        elif digest(path) != entry["sha256"]:
            problems.append(Problem(name, "its bytes are not those of the manifest"))
    return problems + [Problem(name, "not in the manifest") for name in sorted(set(_files(weights)) - set(known))]
