"""The training data of the foundation: pictures of procedural people, drawn once, kept as memory-mapped arrays.

Drawing is slower than training, so it happens once. The one who draws is passed in (`Draw`), which keeps this
package free of the data pipeline. The last people of the set are never trained on: every gate is measured on them.

Folder: `photos.npy` (N, S, S, 3) and the arrays of `_PHOTO`, person by person; `group_photos.npy` (M, S, S, 3)
and the arrays of `_GROUP`; `prompts.json`; `settings.json`, what the set was drawn from.
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
"""Share of the people, at the end of the set, that no network is trained on."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RenderedPhoto:
    """One drawn picture with its truth.

    `image` (S, S, 3) uint8 RGB; for each of its P faces, in the picture's pixels: `landmarks` (P, 68, 2),
    `keypoints` (P, 5, 2), `boxes` (P, 4) x0 y0 x1 y1, `angles` (P, 3) yaw pitch roll in degrees, `face_prompts`.
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
    """What to draw: people of the foundation by number, and what each face does, in words of `face_prompts`."""

    seed: int
    photo: int
    people: tuple[int, ...]
    expressions: tuple[str, ...]
    poses: tuple[str, ...]
    size: int


Draw = Callable[[PhotoSpec], RenderedPhoto]


def _photo_arrays(size: int) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        "photos": ((size, size, 3), "uint8"),
        "landmarks": ((68, 2), "float32"),
        "keypoints": ((5, 2), "float32"),
        "boxes": ((4,), "float32"),
        "angles": ((3,), "float32"),
        "identity": ((), "int32"),
        "expression": ((), "int8"),
        "pose": ((), "int8"),
    }


def _group_arrays(size: int) -> dict[str, tuple[tuple[int, ...], str]]:
    faces = {name: ((2, *shape), kind) for name, (shape, kind) in _photo_arrays(size).items() if name != "photos"}
    return {"photos": ((size, size, 3), "uint8"), **faces}


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
        """The number of the first person that is only measured on, never trained on."""
        people = int(self.identity.max()) + 1
        return people - max(round(people * HELD_OUT_SHARE), 1)

    @cached_property
    def train(self) -> Array:
        """Rows (int64) of the photos to train on."""
        return np.flatnonzero(np.asarray(self.identity) < self.first_held_out)

    @cached_property
    def held_out(self) -> Array:
        """Rows (int64) of the photos of people that no network is trained on."""
        return np.flatnonzero(np.asarray(self.identity) >= self.first_held_out)

    @cached_property
    def group_train(self) -> Array:
        """Rows (int64) of the two-person pictures to train on: both people are."""
        if not self.group:
            return np.zeros(0, np.int64)
        return np.flatnonzero((np.asarray(self.group["identity"]) < self.first_held_out).all(1))


def _orders(people: int, photos: int, size: int, seed: int, groups: int) -> Iterator[tuple[str, int, list[PhotoSpec]]]:
    """Yield (key, first row, orders) of every chunk: a person's photos, then pictures of two people by tens."""
    looks = [(expression, pose) for expression in EXPRESSIONS for pose in POSES]
    for person in range(people):
        rng = np.random.default_rng([seed, 0, person])
        chosen = [looks[i % len(looks)] for i in np.concatenate([rng.permutation(len(looks)) for _ in range(9)])]
        orders = [
            PhotoSpec(seed, photo, (person,), (expression,), (pose,), size)
            for photo, (expression, pose) in enumerate(chosen[:photos])
        ]
        yield f"person {person}", person * photos, orders
    first_held_out = people - max(round(people * HELD_OUT_SHARE), 1)
    for start in range(0, groups, 10):
        orders = []
        for photo in range(start, min(start + 10, groups)):
            rng = np.random.default_rng([seed, 1, photo])
            # A pair is never mixed of people to train on and people to measure on.
            held_out = rng.random() < HELD_OUT_SHARE and people - first_held_out > 1
            low, high = (first_held_out, people) if held_out else (0, first_held_out)
            pair = rng.choice(np.arange(low, high), 2, replace=False)
            pick = rng.integers(len(looks), size=2)
            orders.append(
                PhotoSpec(
                    seed,
                    photo,
                    (int(pair[0]), int(pair[1])),
                    (looks[pick[0]][0], looks[pick[1]][0]),
                    (looks[pick[0]][1], looks[pick[1]][1]),
                    size,
                )
            )
        yield f"group {start}", start, orders


def _draw_chunk(task: tuple[Draw, str, int, list[PhotoSpec]]) -> tuple[str, int, list[PhotoSpec], list[RenderedPhoto]]:
    import cv2

    cv2.setNumThreads(1)
    draw, key, row, orders = task
    return key, row, orders, [draw(order) for order in orders]


def _open(folder: Path, prefix: str, rows: int, arrays: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, Array]:
    def at(file: Path, shape: tuple[int, ...], kind: str) -> Array:
        return np.lib.format.open_memmap(file, "r+" if file.exists() else "w+", np.dtype(kind), (rows, *shape))

    return {name: at(folder / f"{prefix}{name}.npy", *described) for name, described in arrays.items()}


def _finished_chunks(log: Path) -> dict[str, dict[str, Any]]:
    """Read the log of finished chunks; the line that a kill has torn is left out."""
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
    """Draw `people` × `photos` pictures of `size` pixels into `folder`, or what of them is missing, and open them.

    `groups` is the number of two-person pictures as a share of the others. `draw` must be importable by name
    (it runs in `workers` processes). Raises ValueError where `folder` holds a set of other settings.
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
    single = _open(folder, "", rows, _photo_arrays(size))
    group = _open(folder, "group_", group_rows, _group_arrays(size)) if group_rows else {}
    log = folder / "finished.jsonl"
    finished = _finished_chunks(log)
    tasks = [
        (draw, key, row, orders)
        for key, row, orders in _orders(people, photos, size, seed, group_rows)
        if key not in finished
    ]
    done = rows + group_rows - sum(len(task[3]) for task in tasks)
    with (
        tqdm(total=rows + group_rows, initial=done, desc="drawing people", unit="picture") as bar,
        log.open("a", encoding="utf-8") as lines,
    ):
        # A line of its own, in case the last one was torn.
        lines.write("\n")
        for key, row, orders, drawn in _drawn(tasks, workers):
            _store(group if key.startswith("group") else single, row, orders, drawn)
            entry = {
                "key": key,
                "row": row,
                "prompts": [one.prompt for one in drawn],
                "face_prompts": [one.face_prompts for one in drawn],
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


def _store(arrays: dict[str, Array], row: int, orders: list[PhotoSpec], drawn: list[RenderedPhoto]) -> None:
    for offset, (order, one) in enumerate(zip(orders, drawn, strict=True)):
        faces = {
            "landmarks": one.landmarks,
            "keypoints": one.keypoints,
            "boxes": one.boxes,
            "angles": one.angles,
            "identity": np.array(order.people),
            "expression": np.array([EXPRESSIONS.index(name) for name in order.expressions]),
            "pose": np.array([POSES.index(name) for name in order.poses]),
        }
        arrays["photos"][row + offset] = one.image
        for name, value in faces.items():
            arrays[name][row + offset] = value if len(order.people) > 1 else value[0]


def _write_prompts(folder: Path, entries: Iterable[dict[str, Any]]) -> None:
    prompts: dict[str, list[Any]] = {"prompts": [], "face_prompts": [], "group_prompts": [], "group_face_prompts": []}
    for entry in sorted(entries, key=lambda entry: int(entry["row"])):
        if entry["key"].startswith("group"):
            prompts["group_prompts"] += entry["prompts"]
            prompts["group_face_prompts"] += entry["face_prompts"]
        else:
            prompts["prompts"] += entry["prompts"]
            prompts["face_prompts"] += [words[0] for words in entry["face_prompts"]]
    temporary = folder / "prompts.json.part"
    temporary.write_text(json.dumps(prompts), encoding="utf-8")
    temporary.replace(folder / "prompts.json")


def open_people(folder: Path) -> People:
    """Open a set that `render_people` has finished; raise ValueError where it is missing or unfinished."""
    if not (folder / "prompts.json").is_file():
        raise ValueError(f"{folder}: no finished set of people there; draw it with `dynamicid foundation draw`")
    size = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["size"]
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    single = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _photo_arrays(size)}
    group = {
        name: np.load(folder / f"group_{name}.npy", mmap_mode="r")
        for name in _group_arrays(size)
        if (folder / f"group_{name}.npy").is_file()
    }
    return People(
        **single,
        prompts=tuple(prompts["prompts"]),
        face_prompts=tuple(prompts["face_prompts"]),
        group=group,
        group_prompts=tuple(prompts["group_prompts"]),
        group_face_prompts=tuple((words[0], words[1]) for words in prompts["group_face_prompts"]),
    )
