"""The training data of the foundation: pictures of procedural people, drawn once, kept as memory-mapped arrays.

Drawing is slower than training, so it happens once. The drawing function is an argument (`Draw`), which keeps this
package free of the data pipeline. The last people of the set are held out and never trained on.

The folder has `photos.npy` (N, S, S, 3) and the other arrays of `People`, person by person; the same with the prefix
`group_` for pictures of two people; `prompts.json`; `settings.json`; `finished.jsonl`.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.face.face_prompts import EXPRESSIONS, POSES

HELD_OUT_SHARE = 0.08

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RenderedPhoto:
    """A drawn picture with its labels.

    `image` (S, S, 3) uint8 RGB; for each of P faces, in pixels: `landmarks` (P, 68, 2), `keypoints` (P, 5, 2), `boxes`
    (P, 4) x0 y0 x1 y1; `angles` (P, 3) yaw pitch roll in degrees; `face_prompts`.
    """

    image: Array
    landmarks: Array
    keypoints: Array
    boxes: Array
    angles: Array
    prompt: str
    face_prompts: tuple[str, ...]


@dataclass(frozen=True)
class PhotoSpec:
    """A picture to draw: people by number, with expression and pose of each, as named in `face_prompts`."""

    seed: int
    photo: int
    people: tuple[int, ...]
    expressions: tuple[str, ...]
    poses: tuple[str, ...]
    size: int


Draw = Callable[[PhotoSpec], RenderedPhoto]


_FACE_ARRAYS: dict[str, tuple[tuple[int, ...], str]] = {
    "landmarks": ((68, 2), "float32"),
    "keypoints": ((5, 2), "float32"),
    "boxes": ((4,), "float32"),
    "angles": ((3,), "float32"),
    "identity": ((), "int32"),
    "expression": ((), "int8"),
    "pose": ((), "int8"),
}


@dataclass(frozen=True)
class People:
    """A drawn set. Arrays are memory-mapped and read-only; row i of each belongs to photo i.

    `photos` (N, S, S, 3) uint8 RGB; `landmarks` (N, 68, 2), `keypoints` (N, 5, 2), `boxes` (N, 4) x0 y0 x1 y1 in
    pixels; `angles` (N, 3) yaw pitch roll; `identity` (N,); `expression` and `pose` (N,) indices into
    `face_prompts`. `group` holds the same arrays for pictures of two people, with an axis of 2 after the first.
    """

    photos: Array
    landmarks: Array
    keypoints: Array
    boxes: Array
    angles: Array
    identity: Array
    expression: Array
    pose: Array
    prompts: tuple[str, ...]
    face_prompts: tuple[str, ...]
    group: dict[str, Array]
    group_prompts: tuple[str, ...]
    group_face_prompts: tuple[tuple[str, str], ...]

    @cached_property
    def first_held_out(self) -> int:
        """The number of the first held-out person."""
        people = int(self.identity.max()) + 1
        return people - max(round(people * HELD_OUT_SHARE), 1)

    @cached_property
    def train(self) -> Array:
        """Rows (int64) of the photos of training people."""
        return np.flatnonzero(np.asarray(self.identity) < self.first_held_out)

    @cached_property
    def held_out(self) -> Array:
        """Rows (int64) of the photos of held-out people."""
        return np.flatnonzero(np.asarray(self.identity) >= self.first_held_out)

    @cached_property
    def group_train(self) -> Array:
        """Rows (int64) of the two-person pictures of training people."""
        if not self.group:
            return np.zeros(0, np.int64)
        return np.flatnonzero((np.asarray(self.group["identity"]) < self.first_held_out).all(1))


def _chunks(people: int, photos: int, size: int, seed: int, groups: int) -> Iterator[tuple[str, int, list[PhotoSpec]]]:
    """Yield (key, first row, specs) of chunks: first each person's photos, then pictures of two people, ten a chunk."""
    motions = [(expression, pose) for expression in EXPRESSIONS for pose in POSES]
    for person in range(people):
        rng = np.random.default_rng([seed, 0, person])
        chosen = [motions[i] for i in np.concatenate([rng.permutation(len(motions)) for _ in range(9)])]
        specs = [
            PhotoSpec(seed, photo, (person,), (expression,), (pose,), size)
            for photo, (expression, pose) in enumerate(chosen[:photos])
        ]
        yield f"person {person}", person * photos, specs
    first_held_out = people - max(round(people * HELD_OUT_SHARE), 1)
    for start in range(0, groups, 10):
        specs = []
        for photo in range(start, min(start + 10, groups)):
            rng = np.random.default_rng([seed, 1, photo])
            # Both people of a pair are training people, or both are held out.
            held_out = rng.random() < HELD_OUT_SHARE and people - first_held_out > 1
            low, high = (first_held_out, people) if held_out else (0, first_held_out)
            pair = rng.choice(np.arange(low, high), 2, replace=False)
            expressions, poses = zip(*(motions[i] for i in rng.integers(len(motions), size=2)), strict=True)
            specs.append(PhotoSpec(seed, photo, (int(pair[0]), int(pair[1])), expressions, poses, size))
        yield f"group {start}", start, specs


def _draw_chunk(task: tuple[Draw, str, int, list[PhotoSpec]]) -> tuple[str, int, list[PhotoSpec], list[RenderedPhoto]]:
    import cv2

    cv2.setNumThreads(1)
    draw, key, row, specs = task
    return key, row, specs, [draw(spec) for spec in specs]


def _open_arrays(folder: Path, rows: int, size: int, *, group: bool = False) -> dict[str, Array]:
    """Open the arrays of single people or, with `group`, of two people for writing, making missing files."""

    def open_array(name: str, shape: tuple[int, ...], kind: str) -> Array:
        file = folder / f"{'group_' if group else ''}{name}.npy"
        return np.lib.format.open_memmap(file, "r+" if file.exists() else "w+", np.dtype(kind), (rows, *shape))

    faces = {
        name: open_array(name, (2, *shape) if group else shape, kind) for name, (shape, kind) in _FACE_ARRAYS.items()
    }
    return {"photos": open_array("photos", (size, size, 3), "uint8"), **faces}


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
) -> People:
    """Draw `people` × `photos` pictures of `size` pixels into `folder`, except those already there; open the set.

    `groups` is the number of two-person pictures relative to the others. `draw` must be importable by name, because it
    runs in `workers` processes. Raises ValueError where `folder` holds a set with other settings.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    rows, group_rows = people * photos, round(people * photos * groups) if people > 3 else 0
    settings = {"people": people, "photos": photos, "size": size, "seed": seed, "groups": group_rows}
    kept = folder / "settings.json"
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder}: holds people drawn with other settings than {settings}; delete it or choose another"
        )
    kept.write_text(json.dumps(settings), encoding="utf-8")
    single = _open_arrays(folder, rows, size)
    group = _open_arrays(folder, group_rows, size, group=True) if group_rows else {}
    log = folder / "finished.jsonl"
    finished = _finished_chunks(log)
    tasks = [
        (draw, key, row, specs)
        for key, row, specs in _chunks(people, photos, size, seed, group_rows)
        if key not in finished
    ]
    done = rows + group_rows - sum(len(task[3]) for task in tasks)
    with (
        tqdm(total=rows + group_rows, initial=done, desc="drawing people", unit="picture") as bar,
        log.open("a", encoding="utf-8") as lines,
    ):
        # A new line, in case the last one was cut off.
        lines.write("\n")
        for key, row, specs, drawn in _drawn(tasks, workers):
            _store(group if key.startswith("group") else single, row, specs, drawn)
            entry = {
                "key": key,
                "row": row,
                "prompts": [photo.prompt for photo in drawn],
                "face_prompts": [photo.face_prompts for photo in drawn],
            }
            finished[key] = entry
            lines.write(json.dumps(entry) + "\n")
            lines.flush()
            bar.update(len(drawn))
    _write_prompts(folder, finished.values())
    return open_people(folder)


def _drawn(
    tasks: list[tuple[Draw, str, int, list[PhotoSpec]]], workers: int
) -> Iterator[tuple[str, int, list[PhotoSpec], list[RenderedPhoto]]]:
    if workers < 2:
        yield from map(_draw_chunk, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_draw_chunk, tasks)


def _store(arrays: dict[str, Array], first: int, specs: list[PhotoSpec], drawn: list[RenderedPhoto]) -> None:
    for row, (spec, photo) in enumerate(zip(specs, drawn, strict=True), first):
        faces = {
            **{name: getattr(photo, name) for name in ("landmarks", "keypoints", "boxes", "angles")},
            "identity": np.array(spec.people),
            "expression": np.array([EXPRESSIONS.index(name) for name in spec.expressions]),
            "pose": np.array([POSES.index(name) for name in spec.poses]),
        }
        arrays["photos"][row] = photo.image
        for name, value in faces.items():
            arrays[name][row] = value if len(spec.people) > 1 else value[0]


def _write_prompts(folder: Path, entries: Iterable[dict[str, Any]]) -> None:
    prompts: dict[str, list[Any]] = {"prompts": [], "face_prompts": [], "group_prompts": [], "group_face_prompts": []}
    for entry in sorted(entries, key=lambda entry: int(entry["row"])):
        if entry["key"].startswith("group"):
            prompts["group_prompts"] += entry["prompts"]
            prompts["group_face_prompts"] += entry["face_prompts"]
        else:
            prompts["prompts"] += entry["prompts"]
            prompts["face_prompts"] += [prompt for (prompt,) in entry["face_prompts"]]
    temporary = folder / "prompts.json.part"
    temporary.write_text(json.dumps(prompts), encoding="utf-8")
    temporary.replace(folder / "prompts.json")


def open_people(folder: Path) -> People:
    """Open a set finished by `render_people`; raise ValueError where it is missing or unfinished."""
    if not (folder / "prompts.json").is_file():
        raise ValueError(f"{folder}: no finished set of people there; draw it with `dynamicid foundation draw`")
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    names = ("photos", *_FACE_ARRAYS)
    single = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    files = {name: folder / f"group_{name}.npy" for name in names}
    group = {name: np.load(file, mmap_mode="r") for name, file in files.items() if file.is_file()}
    return People(
        **single,
        prompts=tuple(prompts["prompts"]),
        face_prompts=tuple(prompts["face_prompts"]),
        group=group,
        group_prompts=tuple(prompts["group_prompts"]),
        group_face_prompts=tuple((first, second) for first, second in prompts["group_face_prompts"]),
    )
