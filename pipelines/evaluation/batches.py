"""Draw and judge pictures one batch at a time, in this process or in several; what is in the store is not drawn again.

Batches are composed before they are divided, so the number of processes changes nothing. A batch is in the store as a
whole or not at all, so those that a killed evaluation left are composed as they were.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.core.errors import StageFailed
from pipelines.core.words import counted
from pipelines.evaluation.metrics.distribution import share_in_box
from pipelines.evaluation.picture_store import DrawnPicture, PictureStore, StoredPictures
from pipelines.evaluation.plan import PictureSpec
from pipelines.evaluation.scoring import JudgedPictures

if TYPE_CHECKING:
    from pipelines.evaluation.division import Helpers
    from pipelines.evaluation.protocol import Judges
    from pipelines.evaluation.sampling import CellRenderer

# Of the bytes of pixels, which photographs have as PNG.
_STORED_SHARE = 0.5


@dataclass(frozen=True)
class Batch:
    """Pictures with the keys `keys`, to be drawn as `specs` say, or, where that is empty, in the store already."""

    keys: tuple[str, ...]
    specs: tuple[PictureSpec, ...] = ()


class BatchRunner:
    """Draws and judges batches into `store` (default: a temporary one), by `helpers` where there are any."""

    def __init__(self, judges: Judges, store: PictureStore | None = None, helpers: Helpers | None = None) -> None:
        self.judges = judges
        self.store = PictureStore() if store is None else store
        self._helpers = helpers

    def run(self, renderer: CellRenderer, specs: Sequence[PictureSpec]) -> JudgedPictures:
        """Draw and judge what is missing of `specs`, and return what was read, in the order of `specs`."""
        self.draw(renderer, specs)
        return self.judged(self.pictures(renderer, specs))

    def judged(self, pictures: StoredPictures) -> JudgedPictures:
        """Return what the judges read of pictures that are drawn."""
        return self.store.judged(pictures.keys, self.judges.key)

    def draw(self, renderer: CellRenderer, specs: Sequence[PictureSpec]) -> None:
        """Draw what is missing of `specs`, and judge all of it.

        Raises StageFailed where the disk has no room for the pictures, or a process dies.
        """
        from tqdm import tqdm

        wanted = {renderer.key_of(spec): spec for spec in specs}
        self.store.find(wanted)
        missing = {key: spec for key, spec in wanted.items() if key not in self.store}
        self._check_room(renderer, len(missing))
        drawn = [tuple(keys) for keys in self.store.batches(wanted)]
        known = [Batch(keys) for keys in drawn if not self.store.is_judged(keys, self.judges.key)]
        batches = [*known, *compose(missing, renderer.params.batch_size)]
        with tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc="drawing", unit="picture") as bar:
            for batch in self._work(renderer, batches):
                self.store.add(batch.keys)
                bar.update(len(batch.specs))

    def pictures(self, renderer: CellRenderer, specs: Sequence[PictureSpec]) -> StoredPictures:
        """Return the pictures of `specs`, which are drawn."""
        return StoredPictures(self.store, [renderer.key_of(spec) for spec in specs])

    def _work(self, renderer: CellRenderer, batches: Iterable[Batch]) -> Iterator[Batch]:
        if self._helpers is not None:
            yield from self._helpers.run(renderer, batches)
            return
        for batch in batches:
            work_on(batch, renderer, self.judges, self.store)
            yield batch

    def _check_room(self, renderer: CellRenderer, count: int) -> None:
        needed = count * renderer.resolution**2 * 3 * _STORED_SHARE
        free = shutil.disk_usage(self.store.folder).free
        if needed > free:
            raise StageFailed(
                f"evaluate: about {needed / 1e9:.1f} GB for {counted(count, 'picture')} of {renderer.resolution} px in "
                f"{self.store.folder}, {free / 1e9:.1f} GB are free; make room (`dynamicid clean`) or lower "
                "evaluate.people"
            )


def compose(specs: Mapping[str, PictureSpec], size: int) -> list[Batch]:
    """Return `specs` (by key) in batches of at most `size` pictures of equal settings."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for key, spec in specs.items():
        groups.setdefault(spec.settings, []).append(key)
    parts = (keys[start : start + size] for keys in groups.values() for start in range(0, len(keys), size))
    return [Batch(tuple(keys), tuple(specs[key] for key in keys)) for keys in parts]


def work_on(batch: Batch, renderer: CellRenderer, judges: Judges, store: PictureStore) -> None:
    """Draw a batch where it is not in the store yet, judge it, and write both."""
    if batch.specs:
        pictures, people = renderer.draw_batch(batch.specs), batch.specs[0].people
        store.write(batch.keys, pictures, people)
    else:
        pictures, people = store.read(batch.keys)
    store.write_judged(batch.keys, judges.key, _judge(pictures, people, judges))


def _judge(pictures: Sequence[DrawnPicture], people: int, judges: Judges) -> JudgedPictures:
    images = [one.image for one in pictures]
    if people > 1:
        nobody = judges.faces.read(images, [None] * len(images))
        width = judges.text.pictures(images[:0]).shape[1]
        faces = dict(enumerate(judges.faces.all_faces(images)))
        return JudgedPictures(nobody, np.zeros((len(images), width), np.float32), np.full(len(images), np.nan), faces)
    readings = judges.faces.single(images)
    gate_in_face = [
        np.nan if one.gate is None else share_in_box(one.gate, box) if found else 0.0
        for one, box, found in zip(pictures, readings.boxes, readings.found, strict=True)
    ]
    return JudgedPictures(readings, judges.text.pictures(images), np.array(gate_in_face), {})
