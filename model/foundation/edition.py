"""The editions of the foundation: sizes and steps of everything that differs between them.

The first makes squares of 64 pixels of one person or two. The second makes pictures of 128 × 128 pixels and of three
other shapes of about the same area, with one to four people. `SHIPPED` is the edition whose networks are in the
package's folder of weights, and which everything uses unless another one is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GroupShape:
    """Pictures of several people: width and height in pixels, how many, and the numbers of people, which take turns."""

    width: int
    height: int
    pictures: int
    people: tuple[int, ...]


@dataclass(frozen=True)
class PeopleSpec:
    """The training set: people, photos of each, their side in pixels, and pictures of several people.

    These are squares of two people, `pairs` of them, or those of `shapes`.
    """

    people: int = 700
    photos: int = 28
    size: int = 128
    seed: int = 0
    pairs: int = 1568
    shapes: tuple[GroupShape, ...] = ()


@dataclass(frozen=True)
class AutoencoderSpec:
    """The autoencoder: widths of its levels, channels of the latents, steps and pictures a step.

    `hair` enlarges the face boxes that have a higher weight in the loss, in shares of their sides.
    """

    widths: tuple[int, ...] = (24, 48, 64)
    latents: int = 4
    steps: tuple[int, ...] = (3200, 4000)
    batch: int = 16
    hair: float = 0.0
    seed: int = 0

    @property
    def factor(self) -> int:
        """Pixels of a picture's side for one of its latents'."""
        return 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class ClipSpec:
    """CLIP: side and patch of the pictures in pixels, tokens of a text, steps.

    `groups`: pictures of several people in every batch; `merges`: pairs of symbols that the tokenizer learns.
    """

    size: int = 64
    patch: int = 8
    tokens: int = 77
    merges: int = 400
    groups: int = 0
    steps: tuple[int, ...] = (500,)
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class UnetSpec:
    """The UNet: widths and attention heads of its levels, steps, learning rates and pictures a step."""

    widths: tuple[int, ...] = (64, 128)
    heads: tuple[int, ...] = (2, 4)
    steps: tuple[int, ...] = (2350, 2750, 3000, 3000)
    rates: tuple[float, ...] = (1.2e-3, 8e-4, 8e-4, 6e-4)
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class TransformerSpec:
    """The transformer: blocks of two streams and of one, attention heads of 32, steps, rates and pictures a step."""

    blocks: tuple[int, int] = (2, 7)
    heads: int = 6
    steps: tuple[int, ...] = (3000, 3000, 3000, 3000)
    rates: tuple[float, ...] = (1e-3, 8e-4, 8e-4, 6e-4)
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Edition:
    """One edition. `size` is the side in pixels of its square pictures; `single_share` that of pictures of one person
    that fills them, among the squares of a batch."""

    number: int
    size: int
    single_share: float
    people: PeopleSpec = field(default_factory=PeopleSpec)
    autoencoder: AutoencoderSpec = field(default_factory=AutoencoderSpec)
    clip: ClipSpec = field(default_factory=ClipSpec)
    unet: UnetSpec = field(default_factory=UnetSpec)
    transformer: TransformerSpec = field(default_factory=TransformerSpec)

    @property
    def latent(self) -> int:
        """The side of the latents of a square picture."""
        return self.size // self.autoencoder.factor

    @property
    def most_people(self) -> int:
        """The most people in one picture."""
        return max((max(shape.people) for shape in self.people.shapes), default=2)


EDITIONS: dict[int, Edition] = {
    1: Edition(1, size=64, single_share=7 / 8),
    2: Edition(
        2,
        size=128,
        single_share=1 / 4,
        # Latents must have even sides for the UNet's two levels: with a factor of 8, sides are multiples of 16.
        people=PeopleSpec(
            pairs=0,
            shapes=(
                GroupShape(128, 128, 6000, (1, 2, 2, 3)),
                GroupShape(160, 112, 6000, (1, 2, 3, 4)),
                GroupShape(192, 96, 6000, (2, 3, 4, 1)),
                GroupShape(112, 160, 4000, (1, 2)),
            ),
        ),
        autoencoder=AutoencoderSpec((24, 48, 80, 112), latents=16, steps=(5000, 4000), batch=8, hair=0.35),
        clip=ClipSpec(size=96, patch=12, tokens=96, groups=16, steps=(1500,)),
        unet=UnetSpec(
            (96, 192),
            (3, 6),
            steps=(4000, 4000, 4000, 4000),
            rates=(1e-3, 8e-4, 8e-4, 6e-4),
        ),
    ),
}
SHIPPED = 1
# A base of a folder's own photographs: latents are those of TAESD, so that only CLIP and the UNet are trained.
PHOTOGRAPHS = Edition(
    0,
    size=128,
    single_share=1.0,
    autoencoder=AutoencoderSpec((64, 64, 64, 64), latents=4),
    clip=ClipSpec(size=96, patch=12, merges=200, steps=(4000,)),
    unet=UnetSpec(
        (96, 192),
        (3, 6),
        steps=(1500, 5000, 8000, 10000),
        rates=(1e-3, 8e-4, 8e-4, 6e-4),
    ),
)


def edition_of(number: int) -> Edition:
    """Return an edition by its number; raise ValueError for an unknown one."""
    if number not in EDITIONS:
        raise ValueError(f"edition {number}: expected one of {', '.join(map(str, EDITIONS))}")
    return EDITIONS[number]
