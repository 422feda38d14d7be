"""Draw the training data of the foundation into a folder, in several processes; a stopped run resumes.

Every picture depends on the seed and its number alone, so that machines and runs draw the same. The drawing function is
an argument (`Draw`), which keeps this package free of the data pipeline.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from model.foundation.edition import GroupShape
from model.foundation.people import (
    FACE_ARRAYS,
    HELD_OUT_SHARE,
    SINGLE,
    Array,
    Draw,
    People,
    PhotoSpec,
    RenderedPhoto,
    file_of,
    first_held_out,
    open_people,
)
from model.processors import use_one_thread

_MOTIONS = [(expression, pose) for expression in EXPRESSIONS for pose in POSES]
_PAIRS = "group"


@dataclass(frozen=True)
class _Set:
    """A set of pictures to draw: its name, their number and size in pixels; `people` in each, None: always one."""

    kind: str
    rows: int
    width: int
    height: int
    people: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Chunk:
    """Pictures that one process draws in turn, from row `first` of the set."""

    kind: str
    first: int
    specs: list[PhotoSpec]

    @property
    def key(self) -> str:
        # The log counts single people by person.
        return f"{self.kind} {self.specs[0].people[0] if self.kind == SINGLE else self.first}"


def render_people(
    folder: Path,
    draw: Draw,
    *,
    people: int,
    photos: int,
    size: int,
    seed: int = 0,
    workers: int = 2,
    groups: float = 0.08,
    shapes: Sequence[GroupShape] = (),
) -> People:
    """Draw `people` × `photos` pictures of `size` pixels into `folder`, except those already there; open the set.

    Pictures of several people are those of `shapes`; without them squares of two people, `groups` of them relative to
    the others. `draw` must be importable by name, because it runs in `workers` processes. Raises ValueError where
    `folder` holds a set with other settings.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    sets = [_Set(SINGLE, people * photos, size, size), *_group_sets(people, photos, size, groups, shapes)]
    _claim(folder, {"people": people, "photos": photos, "size": size, "seed": seed, "groups": _described(sets, shapes)})
    arrays = {one.kind: _open_arrays(folder, one) for one in sets}
    log = folder / "finished.jsonl"
    finished = _finished_chunks(log)
    chunks = [chunk for chunk in _chunks(people, photos, size, seed, sets) if chunk.key not in finished]
    total = sum(one.rows for one in sets)
    with (
        tqdm(
            total=total,
            initial=total - sum(len(chunk.specs) for chunk in chunks),
            desc="drawing people",
            unit="picture",
        ) as bar,
        log.open("a", encoding="utf-8") as lines,
    ):
        # A new line, in case the last one was cut off.
        lines.write("\n")
        for chunk, drawn in _drawn(draw, chunks, workers):
            _store(arrays[chunk.kind], chunk, drawn)
            entry = {
                "key": chunk.key,
                "row": chunk.first,
                "prompts": [photo.prompt for photo in drawn],
                "face_prompts": [photo.face_prompts for photo in drawn],
            }
            finished[chunk.key] = entry
            lines.write(json.dumps(entry) + "\n")
            lines.flush()
            bar.update(len(drawn))
    _write_prompts(folder, finished.values(), [one.kind for one in sets[1:]] or [_PAIRS])
    return open_people(folder)


def _group_sets(people: int, photos: int, size: int, groups: float, shapes: Sequence[GroupShape]) -> list[_Set]:
    most = max((max(shape.people) for shape in shapes), default=0)
    if first_held_out(people) < most:
        raise ValueError(f"{people} people, expected at least {most + 1} for pictures of {most}")
    if not shapes:
        pairs = round(people * photos * groups) if people > 3 else 0
        return [_Set(_PAIRS, pairs, size, size, (2,))] if pairs else []
    return [
        _Set(f"group_{shape.width}x{shape.height}", shape.pictures, shape.width, shape.height, shape.people)
        for shape in shapes
    ]


def _described(sets: list[_Set], shapes: Sequence[GroupShape]) -> Any:
    """Return the sets of several people as `settings.json` states them: the number of pairs, or every shape."""
    if shapes:
        return [[shape.width, shape.height, shape.pictures, list(shape.people)] for shape in shapes]
    return sum(one.rows for one in sets[1:])


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    kept = folder / "settings.json"
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder}: holds people drawn with other settings than {settings}; delete it or choose another"
        )
    kept.write_text(json.dumps(settings), encoding="utf-8")


def _chunks(people: int, photos: int, size: int, seed: int, sets: Sequence[_Set]) -> Iterator[_Chunk]:
    """Yield each person's photos, then the pictures of several people, ten a chunk."""
    for person in range(people):
        rng = np.random.default_rng([seed, 0, person])
        chosen = [_MOTIONS[i] for i in np.concatenate([rng.permutation(len(_MOTIONS)) for _ in range(9)])]
        specs = [
            PhotoSpec(seed, photo, (person,), (expression,), (pose,), size)
            for photo, (expression, pose) in enumerate(chosen[:photos])
        ]
        yield _Chunk(SINGLE, person * photos, specs)
    for one in sets:
        for start in range(0, one.rows if one.people else 0, 10):
            rows = range(start, min(start + 10, one.rows))
            yield _Chunk(one.kind, start, [_group_spec(people, seed, one, row) for row in rows])


def _group_spec(people: int, seed: int, one: _Set, row: int) -> PhotoSpec:
    """Return a picture of different people, all training people or all held out; counts take turns, row by row."""
    assert one.people is not None
    pairs = one.kind == _PAIRS
    count = one.people[row % len(one.people)]
    rng = np.random.default_rng([seed, 1, row] if pairs else [seed, 1, row, one.width, one.height])
    first = first_held_out(people)
    held_out = rng.random() < HELD_OUT_SHARE and people - first >= count
    low, high = (first, people) if held_out else (0, first)
    chosen = rng.choice(np.arange(low, high), count, replace=False)
    expressions, poses = zip(*(_MOTIONS[i] for i in rng.integers(len(_MOTIONS), size=count)), strict=True)
    canvas = None if pairs else (one.width, one.height)
    return PhotoSpec(seed, row, tuple(int(i) for i in chosen), expressions, poses, one.height, canvas)


def _draw_chunk(task: tuple[Draw, _Chunk]) -> tuple[_Chunk, list[RenderedPhoto]]:
    use_one_thread()
    draw, chunk = task
    return chunk, [draw(spec) for spec in chunk.specs]


def _drawn(draw: Draw, chunks: list[_Chunk], workers: int) -> Iterator[tuple[_Chunk, list[RenderedPhoto]]]:
    tasks = [(draw, chunk) for chunk in chunks]
    if workers < 2:
        yield from map(_draw_chunk, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_draw_chunk, tasks)


def _open_arrays(folder: Path, one: _Set) -> dict[str, Array]:
    """Open the arrays of a set for writing, making missing files."""
    faces = () if one.people is None else (max(one.people),)

    def open_array(name: str, shape: tuple[int, ...], kind: str) -> Array:
        file = file_of(folder, one.kind, name)
        return np.lib.format.open_memmap(file, "r+" if file.exists() else "w+", np.dtype(kind), (one.rows, *shape))

    arrays = {name: open_array(name, (*faces, *shape), kind) for name, (shape, kind) in FACE_ARRAYS.items()}
    return {"photos": open_array("photos", (one.height, one.width, 3), "uint8"), **arrays}


def _store(arrays: dict[str, Array], chunk: _Chunk, drawn: list[RenderedPhoto]) -> None:
    for row, (spec, photo) in enumerate(zip(chunk.specs, drawn, strict=True), chunk.first):
        faces = {
            **{name: getattr(photo, name) for name in ("landmarks", "keypoints", "boxes", "angles")},
            "identity": np.array(spec.people),
            "expression": np.array([EXPRESSIONS.index(name) for name in spec.expressions]),
            "pose": np.array([POSES.index(name) for name in spec.poses]),
        }
        arrays["photos"][row] = photo.image
        for name, value in faces.items():
            if chunk.kind == SINGLE:
                arrays[name][row] = value[0]
            else:
                arrays[name][row] = -1 if name == "identity" else 0
                arrays[name][row, : len(value)] = value


def _finished_chunks(log: Path) -> dict[str, dict[str, Any]]:
    """Return the log of finished chunks by key; skip a line that a kill cut off."""
    finished = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        finished[entry["key"]] = entry
    return finished


def _write_prompts(folder: Path, entries: Iterable[dict[str, Any]], groups: list[str]) -> None:
    prompts: dict[str, list[Any]] = {"prompts": [], "face_prompts": []}
    prompts |= {f"{kind}_{name}": [] for kind in groups for name in ("prompts", "face_prompts")}
    for entry in sorted(entries, key=lambda entry: int(entry["row"])):
        kind = entry["key"].rpartition(" ")[0]
        if kind == SINGLE:
            prompts["prompts"] += entry["prompts"]
            prompts["face_prompts"] += [prompt for (prompt,) in entry["face_prompts"]]
        else:
            prompts[f"{kind}_prompts"] += entry["prompts"]
            prompts[f"{kind}_face_prompts"] += entry["face_prompts"]
    temporary = folder / "prompts.json.part"
    temporary.write_text(json.dumps(prompts), encoding="utf-8")
    temporary.replace(folder / "prompts.json")
