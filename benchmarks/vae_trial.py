"""Compare autoencoders with different latents, trained shortly on the drawn people of the second edition.

    dynamicid foundation draw --edition 2
    python benchmarks/vae_trial.py --latents 8 --latents 16 --steps 2000

Prints, for each number of channels, how often the judge reads the right expression on reconstructions, of heads that
fill the picture and of heads of a third of the height, and the same on the originals. A stopped trial resumes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def main(
    work: Annotated[Path, typer.Option(help="Folder with people, where trials are kept.")] = Path(
        ".dynamicid/foundation/edition-2"
    ),
    latents: Annotated[list[int] | None, typer.Option(help="Channels of the latents; repeatable.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of encoder and decoder together.", min=1)] = 2000,
    decoder_steps: Annotated[int, typer.Option(help="Steps of the decoder alone.", min=0)] = 0,
) -> None:
    """Train and measure an autoencoder for each number of channels; print JSON."""
    import numpy as np

    from model.foundation import manifest, reconstruction, vae
    from model.foundation.edition import EDITIONS
    from model.foundation.loop import Legs
    from model.foundation.measure import sample_of, unseen_people
    from model.foundation.people import open_people
    from model.foundation.pictures import singles
    from model.foundation.readers import FaceReader
    from pipelines.data.synthetic.foundation_people import draw

    people = open_people(work / "people")
    strangers = unseen_people(work / "strangers_of_trials", draw, sample_of(EDITIONS[2]))
    reader = FaceReader(manifest.WEIGHTS.joinpath)
    figures = {}
    for channels in latents or (8, 16):
        edition = replace(EDITIONS[2], autoencoder=replace(EDITIONS[2].autoencoder, latents=channels))
        network = vae.build(edition)
        legs = Legs(work / f"trial-{channels}x{steps}", (steps, decoder_steps))
        trained = vae.train(network, people, edition, legs)
        photos = np.asarray(singles(strangers, work / "strangers_of_trials" / "pictures", edition.size))
        read = reconstruction.measure(network, strangers, photos, reader)
        small = reconstruction.measure_small(network, strangers.groups, reader)
        figures[channels] = {**trained, **read, **small}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
