"""Measure what fewer denoising steps cost: identity, expression and pose by number of steps and solver.

    python benchmarks/few_steps.py                     # 12 people whom no network has seen, four minutes of one core
    python benchmarks/few_steps.py --people 40 --first 100 --sheet few.png

People are drawn, the networks are those that ship; every way draws the same requests, of an expression or a pose, from
the same noise. Where the package DeepCache is installed, deep features are kept between steps, too. s compares a
picture with four other photos of the person: 0 is a stranger, 1 another photo of the person. Differences to the first
way are paired, with intervals over people. Times are processor seconds. The last line is JSON.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import print_report, rounded
from benchmarks.references import Sitter, draw, photos_of, sitter
from model.network.denoisers import attention_layers

_PROJECT = Path(__file__).resolve().parents[1]
_RESAMPLES = 2000
_SOLVERS = ("DDIM", "DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "LCM")


class Way(NamedTuple):
    """A solver of diffusers with a number of steps and settings of its own, and what is kept between steps."""

    solver: str
    steps: int
    settings: Mapping[str, Any] = MappingProxyType({})
    keeping: str = ""
    number: int = 0

    @property
    def name(self) -> str:
        """Solver, steps, settings and what is kept, in words."""
        kept = [f"{self.keeping} {self.number}"] if self.keeping else []
        return " ".join([self.solver, str(self.steps), *(f"{key}={one}" for key, one in self.settings.items()), *kept])


def ways(steps: int, few: Sequence[int]) -> list[Way]:
    """Return DDIM with all steps first, then every solver with few."""
    found = [Way("DDIM", steps)]
    found += [Way("DDIM", steps, {}, "attention from", at) for at in (steps // 4, steps // 2)]
    if importlib.util.find_spec("DeepCache") is not None:
        found += [Way("DDIM", steps, {}, "features every", each) for each in (2, 3, 5)]
    for count in few:
        found += [Way(solver, count) for solver in _SOLVERS]
        found.append(Way("DPMSolverMultistep", count, {"solver_order": 3}))
    return found


@contextlib.contextmanager
def keeping(pipe: Any, way: Way) -> Iterator[None]:
    """Keep, inside the block, what a way keeps between steps.

    `attention from N`: the output of every cross-attention, with its identity branch, of step N is used in all later
    ones (Zhang et al., T-GATE). `features every N`: the deep features of every Nth step (Ma et al., DeepCache).
    """
    if way.keeping == "features every":
        from DeepCache import DeepCacheSDHelper

        pipe.scheduler.set_timesteps(way.steps)
        helper = DeepCacheSDHelper(pipe=pipe)
        helper.set_params(cache_interval=way.number, cache_branch_id=0)
        helper.enable()
        yield
        helper.disable()
        return
    layers = [one for one in attention_layers(pipe.unet).values() if one.is_cross_attention]
    for layer in layers if way.keeping else []:
        layer.forward = _kept(layer.forward, way)
    yield
    for layer in layers if way.keeping else []:
        del layer.forward


def _kept(forward: Any, way: Way) -> Any:
    """Return a cross-attention that is computed in the first `way.number` steps of every call only."""
    calls = itertools.count()
    last: list[Any] = []

    def kept(*arguments: Any, **keywords: Any) -> Any:
        if next(calls) % way.steps < way.number:
            last[:] = [forward(*arguments, **keywords)]
        return last[0]

    return kept


def requests(people: int) -> list[tuple[int, str, int | None, int | None]]:
    """Return person, face prompt, and the class of the expression or of the pose that it asks for."""
    from model.face.face_prompts import EXPRESSIONS, POSES, compose

    front = POSES.index("front")
    found: list[tuple[int, str, int | None, int | None]] = []
    for person in range(people):
        for turn in range(3):
            one = (person + 2 * turn) % len(EXPRESSIONS)
            found.append((person, compose(EXPRESSIONS[one], "front"), one, None))
        pose = [one for one in range(len(POSES)) if one != front][person % (len(POSES) - 1)]
        found.append((person, compose("neutral", POSES[pose]), None, pose))
    return found


def main(
    people: Annotated[int, typer.Option(help="Number of people, at least two.")] = 12,
    first: Annotated[int, typer.Option(help="The number of the first.")] = 200,
    few: Annotated[list[int] | None, typer.Option(help="Numbers of steps, of all solvers.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Also write pictures: a row for each way.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON, indented, to this file.")] = None,
) -> None:
    """Measure what fewer denoising steps cost."""
    import cv2
    import diffusers

    from pipelines.core.params import load_params
    from pipelines.data.faces.analysis import load_analyser
    from pipelines.data.faces.face_inputs import FaceInputs
    from pipelines.evaluation.intervals import bootstrap, mean_over_people, means_by_person, resample
    from pipelines.evaluation.judge_loading import load_judges
    from pipelines.evaluation.sampling import load_pipeline

    params = load_params(_PROJECT / "profiles" / "tiny.yaml")
    pipe = load_pipeline(params, _PROJECT / "model" / "foundation" / "weights" / "adapter")
    pipe.set_progress_bar_config(disable=True)
    judges, analyser = load_judges(params).faces, load_analyser(params.preprocess)
    inputs = FaceInputs(pipe.crop_size, pipe.conventions, params.preprocess)
    numbers = range(first, first + people)
    sitters: list[Sitter] = [sitter(photos_of(number, analyser), inputs, judges) for number in numbers]
    asked = requests(people)
    owner = np.array([one[0] for one in asked])
    low = np.mean(
        [(a.references.embeddings @ b.others.embeddings.T).mean() for a in sitters for b in sitters if a is not b]
    )
    high = np.mean([(one.references.embeddings @ one.others.embeddings.T).mean() for one in sitters])
    weights, own = resample(people, _RESAMPLES, 0), dict(pipe.scheduler.config)
    first_read: dict[str, np.ndarray] = {}
    report: dict[str, Any] = {"people": people, "pictures": len(asked), "ways": {}}
    rows = []
    noises = [1000 * first + n for n in range(len(asked))]
    for way in ways(params.evaluate.steps, few or [4]):
        solver = getattr(diffusers, f"{way.solver}Scheduler")
        pipe.scheduler = solver.from_config({**own, **way.settings})
        settings = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"steps": way.steps})})
        started = time.process_time()
        people_drawn = [sitters[n].faces[0] for n in owner]
        with keeping(pipe, way):
            images = draw(pipe, settings, people_drawn, [one[1] for one in asked], noises)
        seconds = time.process_time() - started
        rows.append(np.concatenate(images[:12], 1))
        read = judges.single(images)
        likeness = [(sitters[n].others.embeddings @ one).mean() for n, one in zip(owner, read.embeddings, strict=True)]
        wanted = np.array([-1 if one[2] is None else one[2] for one in asked])
        posed = np.array([-1 if one[3] is None else one[3] for one in asked])
        by_person = {
            "s": means_by_person((np.array(likeness) - low) / (high - low), owner, people),
            "expression": means_by_person(
                (read.expression == wanted)[wanted >= 0].astype(float), owner[wanted >= 0], people
            ),
            "pose": means_by_person((read.pose == posed)[posed >= 0].astype(float), owner[posed >= 0], people),
        }
        first_read = first_read or by_person
        report["ways"][way.name] = {
            "seconds": seconds / len(images),
            **{name: bootstrap(mean_over_people(one), weights).plain() for name, one in by_person.items()},
            "minus_first": {
                name: bootstrap(mean_over_people(one - first_read[name]), weights).plain()
                for name, one in by_person.items()
            },
        }
        print(
            way.name,
            {name: round(float(np.nanmean(one)), 3) for name, one in by_person.items()},
            round(seconds, 1),
            flush=True,
        )
    if sheet is not None:
        cv2.imwrite(str(sheet), np.concatenate(rows)[..., ::-1])
    print_report(rounded(report), out)


if __name__ == "__main__":
    typer.run(main)
