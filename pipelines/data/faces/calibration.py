"""Thresholds belong to the network that made the numbers: they are kept by the sha256 of its file.

The same cosine is one person to one recogniser and two to another. `calibrations.yaml` beside this file holds what the
project has measured; the file of the same name in a checkout holds what `dynamicid calibrate` measured there, and
comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field, ValidationError

from model.face.recogniser_file import recogniser_of as recogniser_file
from pipelines.core.errors import UserError
from pipelines.core.files import sha256, write_atomically
from pipelines.core.formats.table import CALIBRATIONS, KEY, check_format
from pipelines.core.params import problems_of, read_mapping
from pipelines.core.paths import resolve
from pipelines.core.sections.data import Preprocess, Threshold
from pipelines.core.sections.section import Count, Section, Share
from pipelines.data.faces.insightface_analyser import pack_folder

FILE = "calibrations.yaml"
_PROJECT = Path(__file__).with_name(FILE)
_HEAD = (
    "# Thresholds that `dynamicid calibrate` measured here, by the sha256 of the recogniser. Commit this file, since\n"
    "# stages depend on it. It holds numbers only, nothing of a person.\n"
)
# Digits of a fingerprint in messages, and at least in parameters.
_DIGITS = 12


class Rate(Section):
    """A share of pairs with its 95 % interval."""

    value: Share
    low: Share
    high: Share


class Measured(Section):
    """What thresholds were measured on: numbers of people, photos and pairs, and the error rates at `similarity`."""

    people: Count
    photos: Count
    same_pairs: Count
    other_pairs: Count
    false_accepts: Rate
    true_accepts: Rate


class RecogniserThresholds(Section):
    """Cosines of one recogniser.

    `similarity`: two faces, or two groups by the mean of their pairs, that are at least as similar are one person.
    `same`: the typical (median) similarity of two photos of one person. `doubtful`: one in fifty pairs of one person's
    photos is less similar, so that references that are may show two people; None: not measured. `excess`: by how much
    the pairs of two people that are above a high bound exceed it on average. `copies`: two pictures that are less
    similar are no copies of one photo. `turns`: two turns of one photo that are less similar show the network different
    people; None: not measured. `mirror`: whether averaging a face with its mirror image separates people better.
    """

    network: str
    similarity: float = Field(gt=0, lt=1)
    same: float = Field(gt=0, lt=1)
    excess: float = Field(gt=0, lt=1)
    copies: float = Field(gt=0, lt=1)
    doubtful: float | None = Field(None, gt=0, lt=1)
    turns: float | None = Field(None, gt=0, lt=1)
    mirror: bool = False
    measured: Measured | None = None


class DetectorThresholds(Section):
    """Scores of one detector.

    `sure_score`: upright faces score at least this, others less; 0: the scores do not tell which way is up. `doubtful`:
    one in five hundred real faces scores less, so that what does may be a statue, a mask or a photo in the photo.
    """

    network: str
    sure_score: Share
    doubtful: Share | None = None


class Calibrations(Section):
    """Thresholds by the fingerprint of the network."""

    format: int = CALIBRATIONS.version
    recognisers: dict[str, RecogniserThresholds] = Field({})
    detectors: dict[str, DetectorThresholds] = Field({})


@dataclass(frozen=True)
class Recogniser:
    """The recogniser of a face pack: the pack's name, the fingerprint, and its thresholds where they are known."""

    pack: str
    fingerprint: str
    known: RecogniserThresholds | None

    def __str__(self) -> str:
        return f"{self.pack} ({self.fingerprint[:_DIGITS]})"

    def thresholds(self) -> RecogniserThresholds:
        """Return its thresholds; raise UserError, which names the command that measures them, where none are known."""
        if self.known is None:
            raise UserError(
                f"the recogniser {self} has no calibrated thresholds, so nobody knows from which cosine on two faces "
                "are one person; `dynamicid calibrate DIR` measures it on photos of known people (DIR: data/processed, "
                "or a folder per person)"
            )
        return self.known

    def similarity(self, given: Threshold | None, key: str) -> float:
        """Return the cosine from which two faces are one person: `given` by parameter `key`, else the calibrated one.

        Raises UserError where `given` was chosen for another recogniser, or nothing is known of this one.
        """
        if given is None:
            return self.thresholds().similarity
        if given.recogniser and self.fingerprint.startswith(given.recogniser):
            return given.value
        whose = f"the recogniser {given.recogniser}" if given.recogniser else "a recogniser that nobody named"
        here = "none is calibrated" if self.known is None else f"{self.known.similarity:g} is calibrated"
        raise UserError(
            f"{key}: {given.value:g} was chosen for {whose}, but preprocess names {self}, for which {here}; "
            f"`dynamicid configure --set {key}=null` takes the calibrated value, which `dynamicid calibrate` measures; "
            f"your own needs its recogniser: {key}={{value: {given.value:g}, recogniser: {self.fingerprint[:_DIGITS]}}}"
        )


def recogniser_of(params: Preprocess, root: Path | None = None) -> Recogniser:
    """Return the recogniser of the face pack that `params` names, with the thresholds known in `root` (default: here).

    Raises UserError where there is no such pack or no recogniser in it, or a file of calibrations is damaged.
    """
    known = read_calibrations(root or Path.cwd()).recognisers
    hashes = _pack_hashes(params)
    fingerprint = next((digest for digest in hashes.values() if digest in known), None)
    if fingerprint is None:
        pack = pack_folder(params.insightface_name, resolve(params.insightface_root))
        try:
            fingerprint = hashes[recogniser_file(pack)]
        except Exception as error:  # ONNX Runtime has types of its own for damaged files
            raise UserError(f"{pack}: its recogniser is not to be found: {' '.join(str(error).split())}") from None
    return Recogniser(params.insightface_name, fingerprint, known.get(fingerprint))


class PackTraits(NamedTuple):
    """What is known of a face pack: `sure_score`, `turns`, `mirror` and `doubtful` of its networks."""

    sure_score: float
    turns: float | None
    mirror: bool
    doubtful: float | None


def pack_traits(params: Preprocess) -> PackTraits:
    """Return what the project knows of the face pack: workers on other machines know it, too.

    Of an unknown detector no score is sure (1): every photo is compared with its turns.
    """
    project, hashes = _project(), _pack_hashes(params).values()
    detectors = [project.detectors[digest] for digest in hashes if digest in project.detectors]
    known = [project.recognisers[digest] for digest in hashes if digest in project.recognisers]
    turns, mirror = (known[0].turns, known[0].mirror) if known else (None, False)
    sure_score, doubtful = (detectors[0].sure_score, detectors[0].doubtful) if detectors else (1.0, None)
    return PackTraits(sure_score, turns, mirror, doubtful)


def read_calibrations(root: Path) -> Calibrations:
    """Return the calibrations of the checkout `root` with those of the project, which it may replace.

    Raises UserError where its file is damaged or of a newer format.
    """
    own, project = read_own(root), _project()
    return project.model_copy(update={"recognisers": {**project.recognisers, **own.recognisers}})


def read_own(root: Path) -> Calibrations:
    """Return the calibrations that were made in the checkout `root`; raises as `read_calibrations`."""
    file = root / FILE
    return _parsed(file) if file.is_file() else Calibrations()


def write_own(root: Path, calibrations: Calibrations) -> Path:
    """Write the calibrations of a checkout, whole or not at all; return the file."""
    tree: dict[str, Any] = calibrations.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    tree = {KEY: CALIBRATIONS.version, "recognisers": dict(sorted(tree.get("recognisers", {}).items()))}
    write_atomically(root / FILE, _HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return root / FILE


@lru_cache(maxsize=1)
def _project() -> Calibrations:
    return _parsed(_PROJECT)


def _parsed(file: Path) -> Calibrations:
    tree = read_mapping(file)
    check_format(CALIBRATIONS, file, tree.get(KEY))
    try:
        return Calibrations.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(problems_of(error, Calibrations))
        raise UserError(f"{file}: {problems}; restore it with git, or calibrate again without it") from None


def _pack_hashes(params: Preprocess) -> dict[Path, str]:
    """Return the sha256 of the networks in the face pack, in the order in which insightface looks for a recogniser."""
    pack = pack_folder(params.insightface_name, resolve(params.insightface_root))
    return {file: sha256(file) for file in sorted(pack.glob("*.onnx"))}
