"""What a base was trained on: how many people in a picture of which size, by the manifest beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

# As model.foundation.manifest names it.
_MANIFEST = "manifest.json"
Size = tuple[int, int]
"""Width and height of a picture in pixels."""


@dataclass(frozen=True)
class KnownPictures:
    """The pictures that a base was trained on, as the manifest `file` beside it says: numbers of people by size."""

    file: Path
    people: dict[Size, tuple[int, ...]]

    @property
    def most_people(self) -> int:
        """The most people in one picture."""
        return max(max(counts) for counts in self.people.values())

    def sizes_of(self, people: int) -> list[Size]:
        """Return the sizes of pictures with so many people; all where there is none."""
        return [size for size, counts in self.people.items() if people in counts] or list(self.people)

    def size_for(self, people: int) -> Size:
        """Return the size for so many people: of those with as many, the one nearest to half a square more for each."""
        return min(self.sizes_of(people), key=lambda size: abs(size[0] / size[1] - (people + 1) / 2))


def known_pictures(pipeline: Path) -> KnownPictures | None:
    """Return what the base in folder `pipeline` was trained on, None where no manifest of this recipe says so.

    Raises ValueError for a damaged manifest.
    """
    file = pipeline.parent / _MANIFEST
    # A transformer draws any size; that of its recipe is the autoencoder's.
    transformer = (pipeline / "transformer" / "config.json").is_file()
    parts = [pipeline / part / "config.json" for part in ("vae", "vae" if transformer else "unet")]
    if not all(one.is_file() for one in (file, *parts)):
        return None
    try:
        known, vae, sized = (json.loads(one.read_text(encoding="utf-8")) for one in (file, *parts))
        people = known["recipe"].get("people", {} if "origin" in known else None)
        if people is None:
            return None
        factor = 1 if transformer else 2 ** (len(vae["block_out_channels"]) - 1)
        side = int(sized["sample_size"]) * factor
        shapes = {(width, height): tuple(counts) for width, height, _, counts in people.get("shapes", ())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({error}); copy the networks again") from None
    square = (1, *shapes.get((side, side), (2,) if people.get("pairs") else ()))
    return KnownPictures(file, {**shapes, (side, side): tuple(sorted(set(square)))})
