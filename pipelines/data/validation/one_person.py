"""Find people who are in several splits under different names: a held-out person that the model has seen.

People are compared by the mean cosine of all pairs of their photos, as curation does. Among very many pairs of people
some are alike by chance, so the bound is raised: to where the tail of the calibrated distribution leaves no false find
with 95 %, and by half of that where several pairs of photos are averaged.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipelines.core.params import Params
from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, list_matrix, open_rows
from pipelines.core.words import counted
from pipelines.data.faces.calibration import recogniser_of
from pipelines.data.faces.pairs import RATE

_WIDTH, _ROWS = 512, 8192
# People compared at once: 1,024 with 65,536 are 256 MB of cosines.
_HERE, _THERE = 1024, 65_536
# People for whom memory is taken at first.
_PEOPLE = 1024
_CHANCE = 0.05
_SHOWN_PHOTOS = 2
# Averaging pairs of photos takes the chance out of single photos, but not out of people who are alike.
_MOST_AVERAGED = 4


@dataclass(frozen=True)
class Twins:
    """Two names of one person, that of the held-out photos first: with splits, numbers of photos, and some photos."""

    names: tuple[str, str]
    splits: tuple[str, str]
    photos: tuple[int, int]
    similarity: float
    bound: float
    files: tuple[str, ...]

    def line(self) -> str:
        """Return what was found, and the command that makes them one person."""
        (one, other), (here, there), (few, many) = self.names, self.splits, self.photos
        return (
            f"{one!r} ({here}, {counted(few, 'photo')}) and {other!r} ({there}, {counted(many, 'photo')}) seem to be "
            f"one person: similarity {self.similarity:.2f} ≥ {self.bound:.2f} (such as {', '.join(self.files)}); "
            f"`dynamicid dataset merge {shlex.quote(other)} {shlex.quote(one)}`"
        )


@dataclass(frozen=True)
class _People:
    """P named people: `means` (P, 512) of their embeddings, `photos` (P,) and `splits`."""

    names: list[str]
    splits: list[str]
    means: np.ndarray
    photos: np.ndarray


def find_twins(processed: Path, params: Params) -> list[Twins]:
    """Return the people of different splits who are one person by their photos, the most similar first.

    Raises UserError where the recogniser has no threshold, or `validate_processed.similarity` is for another one. Where
    only one split has named people, nobody is compared and nothing is asked.
    """
    people = _people(processed)
    order = {name: np.flatnonzero(np.array(people.splits) == name) for name in ("test", "val", "train")}
    rivals = {"test": np.concatenate([order["val"], order["train"]]), "val": order["train"]}
    compared = sum(len(order[name]) * len(others) for name, others in rivals.items())
    if not compared:
        return []
    recogniser, given = recogniser_of(params.preprocess), params.validate_processed.similarity
    least = recogniser.similarity(given, "validate_processed.similarity")
    excess = recogniser.thresholds().excess if given is None else 0.0
    margin = max(0.0, excess * math.log(RATE * compared / _CHANCE))
    found = [
        (one, other, cosine, bound)
        for name, others in rivals.items()
        for one, other, cosine, bound in _near(people, order[name], others, least, margin)
    ]
    files = _files(processed, {people.names[row] for pair in found for row in pair[:2]})
    twins = [
        Twins(
            names=(people.names[one], people.names[other]),
            splits=(people.splits[one], people.splits[other]),
            photos=(int(people.photos[one]), int(people.photos[other])),
            similarity=cosine,
            bound=bound,
            files=(*files[people.names[one]], *files[people.names[other]]),
        )
        for one, other, cosine, bound in found
    ]
    return sorted(twins, key=lambda pair: (-pair.similarity, pair.names))


def _near(
    people: _People, held: np.ndarray, others: np.ndarray, least: float, margin: float
) -> Iterator[tuple[int, int, float, float]]:
    """Yield the pairs of a `held` person and one of `others` whose mean cosine reaches the bound, with both numbers."""
    for start in range(0, len(held), _HERE):
        here = held[start : start + _HERE]
        for begin in range(0, len(others), _THERE):
            there = others[begin : begin + _THERE]
            cosines = people.means[here] @ people.means[there].T
            averaged = np.outer(people.photos[here], people.photos[there]).clip(max=_MOST_AVERAGED)
            bounds = least + margin / np.sqrt(averaged)
            for row, column in np.argwhere(cosines >= bounds):
                pair = int(here[row]), int(there[column])
                yield *pair, float(cosines[row, column]), float(bounds[row, column])


def _people(processed: Path) -> _People:
    """Return the named people of the accepted rows; a person in several splits counts for the first."""
    columns = ["identity", "split", "embedding"]
    usable = (pc.field("status") == OK) & pc.field("identity").is_valid()
    places: dict[str, int] = {}
    splits: list[str] = []
    sums = np.zeros((_PEOPLE, _WIDTH), np.float32)
    photos = np.zeros(_PEOPLE, np.int64)
    rows = open_rows(processed, PROCESSED_SCHEMA)
    for batch in rows.to_batches(columns=columns, filter=usable, batch_size=_ROWS, cache_metadata=False):
        vectors = np.nan_to_num(list_matrix(batch["embedding"], _WIDTH, np.float32))
        names, owners = batch["identity"].to_pylist(), batch["split"].to_pylist()
        for name, split, vector in zip(names, owners, vectors, strict=True):
            place = places.setdefault(name, len(places))
            if place == len(splits):
                splits.append(split)
            if place == len(sums):
                sums.resize((place + place // 4, _WIDTH), refcheck=False)
                photos.resize(len(sums), refcheck=False)
            sums[place] += vector
            photos[place] += 1
    means, photos = sums[: len(places)], photos[: len(places)]
    means /= photos[:, None].astype(np.float32)
    return _People(list(places), splits, means, photos)


def _files(processed: Path, names: set[str]) -> dict[str, list[str]]:
    """Return some file names of each person, in the order of the rows."""
    files: dict[str, list[str]] = {name: [] for name in names}
    if names:
        wanted = pc.field("identity").isin(sorted(names)) & (pc.field("status") == OK)
        rows = open_rows(processed, PROCESSED_SCHEMA).to_table(columns=["identity", "file_name"], filter=wanted)
        for row in rows.to_pylist():
            if len(files[row["identity"]]) < _SHOWN_PHOTOS:
                files[row["identity"]].append(row["file_name"])
    return files
