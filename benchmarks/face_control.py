"""Measure how a face follows strength, yaw, pitch and a driving photo, and what the identity loses by it.

    python benchmarks/face_control.py                  # 8 people whom no network has seen, four minutes of one core
    python benchmarks/face_control.py --first 100 --people 20 --sheet control.png

People are drawn, the networks are those that ship. All pictures of a person are drawn from the same noise. What is
asked is compared with what the evaluation's judges read: the probability of the expression, and the yaw; pitch is
measured by landmarks, as in preprocessing. `photo` draws the tokens of a photo that shows the pitch: what the base can
show at all. s compares a picture with four other photos of the person: 0 is a stranger, 1 another photo of the person.
Intervals are over people. The last line is JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import print_report, rounded
from benchmarks.references import NAMESPACE, Sitter, draw, photos_of, sitter

_PROJECT = Path(__file__).resolve().parents[1]
_RESAMPLES, _SIDE = 2000, 256
_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_YAWS = (-75.0, -60.0, -45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
_PITCHES = (-20.0, -6.0, 0.0, 6.0, 20.0)
# What face prompts reach in words; the templates know everything between.
_WORDS: dict[str, tuple[float, ...]] = {"strength": (0.0, 1.0), "yaw": (-60.0, -30.0, 0.0, 30.0, 60.0), "pitch": (0.0,)}
_DRIVERS = 3


class Asked(NamedTuple):
    """A picture: of whom, from which face, by which face prompt and motion; the way, and the value that is asked."""

    person: int
    face: Any
    text: str | None
    motion: Any
    way: str
    value: float


@dataclass(frozen=True)
class Read:
    """What is read of N pictures: probabilities (N, 7), yaw and pitch (N,) in degrees, embeddings (N, d)."""

    probabilities: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    embeddings: np.ndarray


def expression_of(person: int) -> int:
    """Return the expression by which the strength of a person is measured: all but neutral, in turn."""
    from model.face.face_prompts import EXPRESSIONS

    return 1 + person % (len(EXPRESSIONS) - 1)


def pictures_of(sitters: Sequence[Sitter], turned: Sequence[Sequence[Any]]) -> list[Asked]:
    """Return what is drawn of every person; `turned`: faces of photos that show the pitches, for each person."""
    from model.face.face_prompts import EXPRESSIONS, POSES, compose
    from model.face.target_motion import TargetMotion

    asked = []
    for n, one in enumerate(sitters):
        face, own = one.faces[0], EXPRESSIONS[expression_of(n)]
        strong = compose(own, "front")
        asked += [Asked(n, face, strong, TargetMotion(strength=value), "strength", value) for value in _STRENGTHS]
        asked += [Asked(n, face, "neutral", TargetMotion(yaw=value), "yaw", value) for value in _YAWS]
        level = compose("neutral", "front")
        asked += [Asked(n, face, level, TargetMotion(pitch=value), "pitch", value) for value in _PITCHES]
        pairs = zip(turned[n], _PITCHES, strict=True)
        asked += [Asked(n, photo, None, None, "photo", value) for photo, value in pairs if value]
        other = sitters[(n + 1) % len(sitters)]
        for row in range(1, 1 + _DRIVERS):
            driving = TargetMotion(driving=other.faces[row])
            words = compose(EXPRESSIONS[other.references.expression[row]], POSES[other.references.pose[row]])
            asked.append(Asked(n, face, None, driving, "driving", row))
            asked.append(Asked(n, face, words, None, "driving in words", row))
    return asked


def read(images: Sequence[np.ndarray], judges: Any, analyser: Any) -> Read:
    """Read pictures with one face each; NaN where none is found."""
    found = judges.single(images)
    faces = judges.largest(images)
    shown = [row for row, face in enumerate(faces) if face is not None]
    probabilities = np.full((len(images), 7), np.nan)
    probabilities[shown] = judges.expression.probabilities(
        [images[row] for row in shown], [faces[row].bbox for row in shown], [faces[row].keypoints for row in shown]
    )
    return Read(probabilities, found.yaw, pitches(images, analyser), found.embeddings)


def pitches(images: Sequence[np.ndarray], analyser: Any) -> np.ndarray:
    """Return the pitch (N,) in degrees that preprocessing measures, NaN where it refuses a picture."""
    import cv2

    records = analyser.analyse([cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images])
    return np.array([np.nan if one.pitch is None else one.pitch for one in records], float)


def turned_photos(index: int) -> list[np.ndarray]:
    """Return pictures (H, W, 3) uint8 RGB of a drawn person, neutral, facing the camera, at each pitch."""
    from pipelines.data.synthetic.dataset import person_scenes
    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person

    person, scene = Person.sample(NAMESPACE, 0, index), person_scenes(0, index, NAMESPACE)[2]
    return [render(person, replace(scene, yaw=0.0, pitch=pitch, roll=0.0), _SIDE).image for pitch in _PITCHES]


class Report:
    """Means and intervals over people of N pictures."""

    def __init__(self, sitters: Sequence[Sitter], asked: Sequence[Asked], found: Read) -> None:
        from pipelines.evaluation.intervals import resample

        self._sitters, self._found = sitters, found
        self._person = np.array([one.person for one in asked])
        self._way = np.array([one.way for one in asked])
        self._value = np.array([one.value for one in asked])
        self._weights = resample(len(sitters), _RESAMPLES, 0)
        # Floor and ceiling of s: other people, and the person's own references.
        low = [self._cosine(a, b.references.embeddings).mean() for a in sitters for b in sitters if a is not b]
        high = [self._cosine(a, a.references.embeddings).mean() for a in sitters]
        self._low, self._scale = float(np.mean(low)), float(np.mean(high) - np.mean(low))
        self._s = self._likeness(0)

    @staticmethod
    def _cosine(person: Sitter, embeddings: np.ndarray) -> np.ndarray:
        mean: np.ndarray = (embeddings @ person.others.embeddings.T).mean(1)
        return mean

    def _likeness(self, shift: int) -> np.ndarray:
        """Return s (N,) to the person themself, or to the one `shift` places on."""
        people = [self._sitters[(n + shift) % len(self._sitters)] for n in self._person]
        cosines = [self._cosine(a, one[None])[0] for a, one in zip(people, self._found.embeddings, strict=True)]
        return (np.array(cosines) - self._low) / self._scale

    def _mean(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        from pipelines.evaluation.intervals import means_by_person

        return means_by_person(values[rows], self._person[rows], len(self._sitters))

    def _interval(self, by_person: np.ndarray) -> dict[str, float]:
        from pipelines.evaluation.intervals import bootstrap, mean_over_people

        return bootstrap(mean_over_people(by_person), self._weights).plain()

    def follows(self, way: str, measured: np.ndarray, name: str) -> dict[str, Any]:
        """Return Spearman's correlation of asked and `measured` (N,), of each person and of all pictures, and s.

        `measured` and `s` are means by asked value; `fall` is how much less s is between the values that words reach.
        """
        from scipy.stats import spearmanr

        rows = self._way == way
        own = [
            spearmanr(self._value[mine], measured[mine], nan_policy="omit").statistic
            for mine in (rows & (self._person == n) for n in range(len(self._sitters)))
        ]
        words = np.isin(self._value, _WORDS[name])
        known = rows & ~words & (np.abs(self._value) <= max(_WORDS[name]))
        values = sorted(set(self._value[rows]))
        at = [rows & (self._value == value) for value in values]
        result: dict[str, Any] = {
            # What never changes follows nothing.
            "spearman": self._interval(np.nan_to_num(np.array(own))),
            "spearman_of_all": float(spearmanr(self._value[rows], measured[rows], nan_policy="omit").statistic),
            "measured": {f"{value:g}": float(np.nanmean(measured[one])) for value, one in zip(values, at, strict=True)},
            "s": {f"{value:g}": float(self._s[one].mean()) for value, one in zip(values, at, strict=True)},
        }
        if known.any():
            result["fall"] = self._interval(self._mean(self._s, rows & words) - self._mean(self._s, known))
        return result

    def driving(self) -> dict[str, Any]:
        """Return how often picture and driving photo agree, and how much likeness to the driver the photo adds."""
        rows, words = self._way == "driving", self._way == "driving in words"
        other = [self._sitters[(n + 1) % len(self._sitters)].references for n in self._person]
        photo = np.where(rows | words, self._value, 0).astype(int)
        wanted = np.array([one.expression[row] for one, row in zip(other, photo, strict=True)])
        yaw = np.array([one.yaw[row] for one, row in zip(other, photo, strict=True)])
        agrees = (np.nan_to_num(self._found.probabilities).argmax(1) == wanted).astype(float)
        off, driver = np.abs(self._found.yaw - yaw), self._likeness(1)
        return {
            "expression": self._interval(self._mean(agrees, rows)),
            "expression_in_words": self._interval(self._mean(agrees, words)),
            "yaw_error": self._interval(self._mean(off, rows)),
            "yaw_error_in_words": self._interval(self._mean(off, words)),
            "s": self._interval(self._mean(self._s, rows)),
            "s_in_words": self._interval(self._mean(self._s, words)),
            "s_of_driver": self._interval(self._mean(driver, rows)),
            "leak": self._interval(self._mean(driver, rows) - self._mean(driver, words)),
        }

    def all(self) -> dict[str, Any]:
        """Return the figures of every way."""
        own = np.array([expression_of(n) for n in self._person])
        return {
            "strength": self.follows("strength", self._found.probabilities[np.arange(len(own)), own], "strength"),
            "yaw": self.follows("yaw", self._found.yaw, "yaw"),
            "pitch": self.follows("pitch", self._found.pitch, "pitch"),
            "photo": self.follows("photo", self._found.pitch, "pitch"),
            "driving": self.driving(),
        }


def sheet(asked: Sequence[Asked], images: Sequence[np.ndarray], file: Path, most: int = 4) -> None:
    """Write the pictures of the first people, a row for each way."""
    import cv2

    ways = ("strength", "yaw", "pitch", "driving", "driving in words")
    lines = [
        [image for one, image in zip(asked, images, strict=True) if (one.person, one.way) == (n, way)]
        for n in range(min(most, asked[-1].person + 1))
        for way in ways
    ]
    width = max(map(len, lines))
    blank = np.full_like(images[0], 255)
    rows = [np.concatenate([*line, *[blank] * (width - len(line))], 1) for line in lines]
    cv2.imwrite(str(file), np.concatenate(rows)[..., ::-1])


def main(
    people: Annotated[int, typer.Option(help="Number of people, at least two.")] = 8,
    first: Annotated[int, typer.Option(help="The number of the first.")] = 100,
    sheet_file: Annotated[Path | None, typer.Option("--sheet", help="Also write pictures of the first four.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON, indented, to this file.")] = None,
) -> None:
    """Measure how a face follows strength, yaw, pitch and a driving photo."""
    import cv2

    from pipelines.core.params import load_params
    from pipelines.data.faces.analysis import load_analyser, to_face
    from pipelines.data.faces.face_inputs import FaceInputs
    from pipelines.evaluation.judge_loading import load_judges
    from pipelines.evaluation.sampling import load_pipeline, use_sampler

    params = load_params(_PROJECT / "profiles" / "tiny.yaml")
    pipe = load_pipeline(params, _PROJECT / "model" / "foundation" / "weights" / "adapter")
    use_sampler(pipe, params.evaluate.sampler)
    pipe.set_progress_bar_config(disable=True)
    judges, analyser = load_judges(params).faces, load_analyser(params.preprocess)
    inputs = FaceInputs(pipe.crop_size, pipe.conventions, params.preprocess)
    numbers = range(first, first + people)
    sitters = [sitter(photos_of(index, analyser), inputs, judges) for index in numbers]
    photos = [turned_photos(index) for index in numbers]
    turned = []
    for own in photos:
        records = analyser.analyse([cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in own])
        turned.append([to_face(record, inputs) for record in records])
    asked = pictures_of(sitters, turned)
    images = draw(
        pipe,
        params,
        [one.face for one in asked],
        [one.text for one in asked],
        [1000 * (first + one.person) for one in asked],
        [one.motion for one in asked],
    )
    if sheet_file is not None:
        sheet(asked, images, sheet_file)
    report = Report(sitters, asked, read(images, judges, analyser)).all()
    seen = np.array([pitches(own, analyser) for own in photos])
    report["photo"]["measured_on_photos"] = dict(zip(map("{:g}".format, _PITCHES), seen.mean(0), strict=True))
    print_report(rounded({"people": people, "pictures": len(images), **report}), out)


if __name__ == "__main__":
    typer.run(main)
