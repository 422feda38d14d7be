"""Read faces by ONNX networks of any convention: classes with their probabilities, and angles of the head.

What a network expects stands in `pipelines.core.sections.face_networks`. It is compared with the file when that is
opened: a file that does not fit is refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.paths import resolve
from pipelines.core.sections.face_networks import FaceClassifier, FaceNetwork, FaceRegressor
from pipelines.data.faces.face_crops import face_input
from pipelines.data.faces.networks import Batches, open_network

ANGLES = ("yaw", "pitch", "roll")
# What published classifiers call the seven expressions, beside the project's own words.
SPELLINGS: dict[str, str] = {
    "neutrality": "neutral",
    "natural": "neutral",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgusted",
}
OTHER = "other"
_ROUNDING = 1e-3


class FaceReader:
    """One network, opened and compared with its parameters; a result does not depend on the other faces."""

    def __init__(self, params: FaceNetwork, parameter: str) -> None:
        """Open `params.path`; raise UserError naming `parameter` where the file is missing or is another network."""
        self.params = params
        self._name = f"{parameter}.path = {params.path}"
        self._file = resolve(params.path)
        self._session = open_network(self._file, f"{parameter}.path")
        self._check_input()
        self._check_output()
        self._batches, self.samples = self._probe()

    @property
    def fingerprint(self) -> str:
        """Name of the file and the first digits of its sha256."""
        return f"{self._file.name} {sha256(self._file)[:12]}"

    @property
    def width(self) -> int:
        """Number of values that the network gives for one face."""
        return int(self.samples.shape[1])

    def metadata(self, key: str) -> str | None:
        """Return an entry of the file's metadata_props; None where there is none."""
        value: str | None = self._session.get_modelmeta().custom_metadata_map.get(key)
        return value

    def values(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (N, K) of N photos (H, W, 3) uint8 RGB, and those of the mirror images if asked for.

        `boxes` (4,) and `keypoints` (5, 2) are those of the faces, in pixels of their photos.
        """
        faces = [face_input(*face, self.params) for face in zip(images, boxes, keypoints, strict=True)]
        if not faces:
            none = np.zeros((0, self.width), np.float32)
            return none, none if self.params.mirror else None
        if not self.params.mirror:
            return self.run(faces), None
        columns = -1 if self.params.layout == "nchw" else -2
        return self.run(faces), self.run([np.flip(face, columns) for face in faces])

    def run(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return the values (N, K) of N inputs as `pipelines.data.faces.face_crops` makes them, N at least 1."""
        return self._batches.run(inputs)

    def refuse(self, found: str, expected: str, remedy: str) -> UserError:
        """Return the error for a network that is not the one of its parameters."""
        return UserError(f"{self._name}: {found}, expected {expected}; {remedy}")

    def _check_input(self) -> None:
        params, entries = self.params, self._session.get_inputs()
        expected = f"{params.layout} {list(params.shape)} ({params.colour}, size {params.size})"
        remedy = "give size, colour and layout of this network"
        shapes = [entry.shape for entry in entries]
        if len(entries) != 1 or len(shapes[0]) != 4:
            raise self.refuse(f"inputs {shapes}", f"one input, a batch of {expected}", remedy)
        batch, *shape = shapes[0]
        if any(isinstance(got, int) and got != want for got, want in zip(shape, params.shape, strict=True)):
            raise self.refuse(f"input {shape}", expected, remedy)
        if entries[0].type != "tensor(float)":
            raise self.refuse(f"input of type {entries[0].type}", "tensor(float)", "export the network in float32")
        if isinstance(batch, int) and batch != 1:
            raise self.refuse(f"batches of {batch}", "batches of 1 or of any size", "export it with a dynamic batch")

    def _check_output(self) -> None:
        names = [output.name for output in self._session.get_outputs()]
        if self.params.output is not None and self.params.output not in names:
            raise self.refuse(f"outputs {', '.join(names)}", f"one of the name {self.params.output}", "set output")

    def _probe(self) -> tuple[Batches, np.ndarray]:
        """Return the network ready to run, and its values (4, K) of four artificial inputs."""
        noise = np.random.default_rng(0).uniform(-1, 1, (3, *self.params.shape)).astype(np.float32)
        try:
            batches = Batches(self._session, self.params.output)
            return batches, batches.run([np.zeros_like(noise[0]), *noise])
        except Exception as error:
            reason = " ".join(str(error).split())
            raise self.refuse(
                f"it does not run ({reason})", f"an input {list(self.params.shape)}", "see size"
            ) from None


class Classifier:
    """A network that gives a probability to each of `words`, in the project's order."""

    def __init__(self, params: FaceClassifier, parameter: str, words: Sequence[str] = EXPRESSIONS) -> None:
        """Open the network; raise UserError where its classes, shapes or values are not those of `params`."""
        self._reader = FaceReader(params, parameter)
        self._logits = params.values == "logits"
        stated = tuple(filter(None, (self._reader.metadata("classes") or "").split(",")))
        names = params.classes or stated
        if not names:
            raise self._reader.refuse("no classes in its metadata_props", "their names", f"set {parameter}.classes")
        spelled, own = (_in_project_words(part, words) for part in (names, stated))
        if any(word != mine for word, mine in zip(spelled, own, strict=False) if word != OTHER):
            raise self._reader.refuse(
                f"classes {', '.join(stated)} in its metadata_props",
                f"those of {parameter}.classes ({', '.join(names)})",
                f"set {parameter}.classes to null to read them from the file",
            )
        known = {*words, OTHER}
        if set(spelled) - known or any(spelled.count(word) > 1 for word in words):
            raise self._reader.refuse(
                f"classes {', '.join(names)}",
                f"each of {', '.join(words)} at most once",
                f"name the class in {parameter}.classes, or call it `{OTHER}` where none of these words fits",
            )
        if len(spelled) != self._reader.width:
            raise self._reader.refuse(
                f"{self._reader.width} outputs", f"one for each of {len(spelled)} classes", "set classes or output"
            )
        self._check_values(self._reader.samples)
        self._columns = [spelled.index(word) if word in spelled else None for word in words]

    @property
    def fingerprint(self) -> str:
        """Name of the file and the first digits of its sha256."""
        return self._reader.fingerprint

    def probabilities(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return the probabilities (N, words) float64 of N photos (H, W, 3) uint8 RGB, averaged over the mirror if set.

        They sum to 1 less what the network gives to `other`; a word that it does not know has 0. A face for which the
        network gives NaN has NaN.
        """
        views = [view for view in self._reader.values(images, boxes, keypoints) if view is not None]
        mean = np.mean([_softmax(view) if self._logits else view.astype(np.float64) for view in views], axis=0)
        none = np.zeros(len(mean))
        return np.stack([none if column is None else mean[:, column] for column in self._columns], axis=1)

    def _check_values(self, samples: np.ndarray) -> None:
        sums = samples.sum(1)
        shares = bool((samples >= -_ROUNDING).all() and (np.abs(sums - 1) < _ROUNDING).all())
        if shares == self._logits:
            found = "values that are probabilities already" if shares else f"values that sum to {sums[0]:.3g}"
            right, other = ("logits", "probabilities") if self._logits else ("probabilities", "logits")
            raise self._reader.refuse(found, right, f"set values: {other}")


class Regressor:
    """A network that measures yaw, pitch and roll, in the directions of `model.face.face_prompts`."""

    def __init__(self, params: FaceRegressor, parameter: str) -> None:
        """Open the network; raise UserError where its shapes are not those of `params`."""
        self._reader = FaceReader(params, parameter)
        if self._reader.width != len(params.angles):
            raise self._reader.refuse(
                f"{self._reader.width} outputs", f"one for each of {', '.join(params.angles)}", "set angles or output"
            )
        self._places: list[tuple[int, int, int]] = [
            (ANGLES.index(angle.lstrip("-")), column, -1 if angle.startswith("-") else 1)
            for column, angle in enumerate(params.angles)
            if angle != "none"
        ]

    @property
    def fingerprint(self) -> str:
        """Name of the file and the first digits of its sha256."""
        return self._reader.fingerprint

    def degrees(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return yaw, pitch and roll (N, 3) float64 in degrees of N photos (H, W, 3) uint8 RGB; NaN: not measured."""
        straight, mirrored = self._reader.values(images, boxes, keypoints)
        angles = self._signed(straight)
        if mirrored is None:
            return angles
        # In the mirror, yaw and roll change their signs.
        return (angles + self._signed(mirrored) * [-1, 1, -1]) / 2

    def _signed(self, values: np.ndarray) -> np.ndarray:
        angles = np.full((len(values), len(ANGLES)), np.nan)
        for place, column, sign in self._places:
            angles[:, place] = sign * values[:, column].astype(np.float64)
        return angles


def _in_project_words(names: Sequence[str], words: Sequence[str]) -> list[str]:
    lowered = [name.strip().lower() for name in names]
    return [name if name in words else SPELLINGS.get(name, name) for name in lowered]


def _softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
    share: np.ndarray = shifted / shifted.sum(1, keepdims=True)
    return share
