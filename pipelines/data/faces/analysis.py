"""Analyse photos: from bytes to a framed face with all measurements of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np

from model.face.face import Face
from model.face.face_prompts import compose, parse
from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from pipelines.core.row_schemas import OK, REJECTED
from pipelines.core.sections.data import Preprocess
from pipelines.data.faces.calibration import PackTraits, pack_traits
from pipelines.data.faces.captions import SIDECAR, CaptionChain, load_captions
from pipelines.data.faces.decode import Undecodable, decode
from pipelines.data.faces.domain import around_face, domain_of_picture
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.data.faces.framing import Frame, encode_jpeg, frame_face
from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder
from pipelines.data.faces.landmarks import load_landmarker
from pipelines.data.faces.pose import LandmarkPose
from pipelines.data.faces.protocols import (
    Caption,
    CaptionRequest,
    Detection,
    FaceDetector,
    Landmarker,
    Pose,
    PoseEstimator,
    Recogniser,
)
from pipelines.data.faces.quality import choose_face, rejection_reason, sharpness
from pipelines.data.faces.record import FaceRecord, FoundFace
from pipelines.data.faces.timing import StepTimes
from pipelines.data.faces.turning import UprightFaces, detected, enlarged, find_upright
from pipelines.data.faces.votes import ExpressionVote, FaceView, NetworkPose

# Decoded pixels per stored pixel along a side: more where the stored square may be tightened around a small face.
_DETAIL, _DETAIL_TIGHTENED, _WORKING_SIDE = 2, 4, 640
# Decoded photos are gathered for the networks' batches until they hold this much memory.
_WAITING_BYTES = 96 * 2**20
# Indices of the five key points after mirroring: eyes and mouth corners change sides.
_MIRRORED = [1, 0, 2, 4, 3]


Item = TypeVar("Item")
Result = TypeVar("Result")
# The prompt and the face prompt given with a photo.
Texts = tuple[str | None, str | None]


@dataclass(frozen=True)
class _ChosenFace:
    """A photo, turned upright by `turned` degrees clockwise, and the detection chosen in it."""

    position: int
    image: np.ndarray
    turned: int
    face: Detection
    areas: tuple[float, ...]
    sharpness: float
    domain: str


class Analyser:
    """The networks that analyse a face, loaded once. Results do not depend on how photos are batched.

    `times` adds up the seconds of each step; `traits` is what is known of the face pack.
    """

    def __init__(
        self,
        params: Preprocess,
        *,
        detector: FaceDetector,
        recogniser: Recogniser,
        landmarker: Landmarker,
        pose: PoseEstimator,
        captions: CaptionChain,
        traits: PackTraits,
        expressions: ExpressionVote,
    ) -> None:
        self._params = params
        self._detector = detector
        self._recogniser = recogniser
        self._landmarker = landmarker
        self._pose = pose
        self._captions = captions
        self.traits = traits
        self.expressions = expressions
        self.times = StepTimes()
        detail = _DETAIL_TIGHTENED if params.face_share > 0 else _DETAIL
        self._working_side = max(detail * params.resolution, _WORKING_SIDE)

    def analyse(
        self,
        photos: Sequence[bytes],
        prompts: Sequence[str | None] | None = None,
        face_prompts: Sequence[str | None] | None = None,
    ) -> list[FaceRecord]:
        """Return one record per photo, in order; a photo that cannot be used gives a rejected record with its reason.

        `prompts` and `face_prompts` are the texts given with the photos, if any.
        """
        texts = list(zip(prompts or [None] * len(photos), face_prompts or [None] * len(photos), strict=True))
        records: list[FaceRecord | None] = [None] * len(photos)
        waiting: list[_ChosenFace] = []
        for position, data in enumerate(photos):
            try:
                chosen = self._choose(position, data)
            except UserError:
                raise
            except Exception as error:
                chosen = _failed(data, error)
            if isinstance(chosen, _ChosenFace):
                waiting.append(chosen)
            else:
                records[position] = replace(chosen, prompt=texts[position][0], face_prompt=texts[position][1])
            if sum(item.image.nbytes for item in waiting) > _WAITING_BYTES:
                self._finish(waiting, texts, records)
                waiting = []
        self._finish(waiting, texts, records)
        return [record for record in records if record is not None]

    def _finish(self, chosen: list[_ChosenFace], texts: list[Texts], records: list[FaceRecord | None]) -> None:
        """Measure the chosen faces and put their records at the positions of their photos."""
        measured = one_by_one_on_error(
            lambda part: self._measure(part, [texts[item.position] for item in part]), chosen, _failed
        )
        for item, record in zip(chosen, measured, strict=True):
            prompt, face_prompt = texts[item.position]
            rejected = replace(record, prompt=prompt, face_prompt=face_prompt, n_faces=len(item.areas))
            records[item.position] = record if record.status == OK else rejected

    def upright(self, image: np.ndarray) -> UprightFaces:
        """Detect the faces of a photo (H, W, 3) uint8 RGB; turn it where it is stored sideways or upside down."""
        return find_upright(image, self._detector, self._recogniser, self.traits.sure_score, self.traits.turns)

    def analyse_images(
        self, images: Sequence[np.ndarray | UprightFaces], *, embed: bool = False
    ) -> list[list[FoundFace]]:
        """Return all faces of every picture (H, W, 3) uint8 RGB, the largest first; no framing, no rejection.

        Pictures are analysed as they are, except for photos given as `upright` returns them. Those whose longer side
        is below 128 pixels are enlarged for the networks; geometry is in pixels of the picture as given. `embed` also
        computes the embedding that conditions the model.
        """
        views = [image if isinstance(image, UprightFaces) else detected(image, self._detector) for image in images]
        shown = [(view.shown, view.factor) for view in views]
        found = [sorted(view.faces, key=lambda face: (face.area, face.score), reverse=True) for view in views]
        pairs = [(index, face) for index, faces in enumerate(found) for face in faces]
        pictures = [shown[index][0] for index, _ in pairs]
        points = self._landmarker.landmarks(pictures, [face.bbox for _, face in pairs])
        poses = self._pose.poses(pictures, [face for _, face in pairs], list(points))
        embeddings = self._recogniser.embed(pictures, [face.keypoints for _, face in pairs]) if embed else None
        results: list[list[FoundFace]] = [[] for _ in images]
        for row, (index, face) in enumerate(pairs):
            factor = shown[index][1]
            results[index].append(
                FoundFace(
                    bbox=(face.bbox / factor).astype(np.float32),
                    keypoints=(face.keypoints / factor).astype(np.float32),
                    landmarks=(points[row] / factor).astype(np.float32),
                    det_score=face.score,
                    pose=poses[row],
                    embedding=None if embeddings is None else embeddings[row],
                )
            )
        return results

    def embed_mirrored(self, images: Sequence[np.ndarray], faces: Sequence[Sequence[FoundFace]]) -> np.ndarray:
        """Return the embeddings (N, 512) of the mirror images of all faces that `analyse_images` found, in order."""
        views: list[np.ndarray] = []
        points: list[np.ndarray] = []
        for image, found in zip(images, faces, strict=True):
            view, factor = enlarged(image)
            mirrored = np.ascontiguousarray(view[:, ::-1]) if found else view
            for face in found:
                views.append(mirrored)
                points.append(np.array([view.shape[1] - 1, 0]) + face.keypoints[_MIRRORED] * factor * [-1, 1])
        return self._recogniser.embed(views, points)

    def _choose(self, position: int, data: bytes) -> _ChosenFace | FaceRecord:
        params = self._params
        try:
            with self.times.step("decode"):
                photo = decode(
                    data,
                    max_pixels=params.max_pixels,
                    min_side=params.min_face_side,
                    working_side=self._working_side,
                )
        except Undecodable as error:
            return FaceRecord(REJECTED, error.reason, detail=str(error))
        with self.times.step("detect"):
            upright = self.upright(photo.image)
            found = [
                Detection(face.bbox / upright.factor, face.keypoints / upright.factor, face.score)
                for face in upright.faces
            ]
            face, reason = choose_face(found, params.several_faces)
            measure = 0.0 if face is None else sharpness(upright.image, face.bbox)
        if face is None:
            return FaceRecord(REJECTED, reason, n_faces=len(found))
        if reason := rejection_reason(face.side * photo.reduction, measure, params):
            shown = measure if reason == "blurred" else None
            return FaceRecord(REJECTED, reason, n_faces=len(found), det_score=face.score, sharpness=shown)
        if upright.turned is None:
            detail = "turned: the face does not tell which way is up"
            return FaceRecord(REJECTED, "turned", n_faces=len(found), det_score=face.score, detail=detail)
        areas = tuple(sorted((each.area for each in found), reverse=True))
        domain = domain_of_picture(around_face(upright.image, face.bbox))
        return _ChosenFace(position, upright.image, upright.turned, face, areas, measure, domain)

    def _measure(self, chosen: Sequence[_ChosenFace], texts: Sequence[Texts]) -> list[FaceRecord]:
        photos = [item.image for item in chosen]
        with self.times.step("landmarks"):
            points = self._landmarker.landmarks(photos, [item.face.bbox for item in chosen])
            poses = self._pose.poses(photos, [item.face for item in chosen], list(points))
        with self.times.step("embed"):
            embeddings = self._recogniser.embed(photos, [item.face.keypoints for item in chosen])
        with self.times.step("encode"):
            frames = [self._frame(item) for item in chosen]
            pictures = [frame.cut(photo) for frame, photo in zip(frames, photos, strict=True)]
        with self.times.step("caption"):
            captions = self._captions.describe(
                [
                    CaptionRequest(picture, frame.box(item.face.bbox), prompt, face_prompt)
                    for picture, frame, item, (prompt, face_prompt) in zip(pictures, frames, chosen, texts, strict=True)
                ]
            )
            views = [FaceView(item.image, item.face.bbox, item.face.keypoints) for item in chosen]
            captions = self.expressions.complete(captions, views)
        with self.times.step("encode"):
            quality = self._params.jpeg_quality
            encoded = [
                None if caption.failed else encode_jpeg(picture, quality)
                for picture, caption in zip(pictures, captions, strict=True)
            ]
        records = []
        for row, (item, frame, caption) in enumerate(zip(chosen, frames, captions, strict=True)):
            if caption.failed:
                records.append(FaceRecord(REJECTED, "no_caption", det_score=item.face.score, sharpness=item.sharpness))
                continue
            records.append(
                FaceRecord(
                    OK,
                    image=encoded[row],
                    bbox=frame.box(item.face.bbox),
                    keypoints=frame.points(item.face.keypoints),
                    landmarks=frame.points(points[row]),
                    yaw=poses[row].yaw,
                    pitch=poses[row].pitch,
                    roll=poses[row].roll,
                    turned=item.turned,
                    embedding=embeddings[row],
                    det_score=item.face.score,
                    n_faces=len(item.areas),
                    areas=item.areas,
                    sharpness=item.sharpness,
                    **self._labels(caption, poses[row], texts[row][1]),
                    prompt=caption.prompt,
                    domain=item.domain,
                )
            )
        return records

    def _labels(self, caption: Caption, pose: Pose, given: str | None) -> dict[str, Any]:
        """Return expression, pose and face prompt of a face, and who says so; `given`: the photo's own face prompt."""
        side = parse(given or "").pose
        return {
            "expression": caption.expression,
            "expression_confidence": caption.confidence,
            "expression_source": caption.source,
            "pose": side or pose.word,
            "pose_spread": pose.spread,
            "pose_source": SIDECAR if side else self._pose.pose_source,
            "face_prompt": given or compose(caption.expression, pose.word) or None,
        }

    def _frame(self, item: _ChosenFace) -> Frame:
        height, width = item.image.shape[:2]
        return frame_face(width, height, item.face.bbox, self._params.resolution, self._params.face_share)


def load_analyser(params: Preprocess) -> Analyser:
    """Load every analyser that the parameters name; raise UserError naming the first that is missing."""
    pack = InsightFaceAnalyser(
        pack_folder(params.insightface_name, resolve(params.insightface_root)),
        det_sizes=params.det_sizes,
        det_threshold=params.det_threshold,
    )
    return Analyser(
        params,
        detector=pack,
        recogniser=pack,
        landmarker=load_landmarker(params.landmarker, resolve(params.landmarker.path)),
        pose=_pose_estimator(params, pack),
        captions=load_captions(params.captions, prompts_only=bool(params.expression.networks)),
        expressions=ExpressionVote(params.expression),
        traits=pack_traits(params),
    )


def _pose_estimator(params: Preprocess, pack: InsightFaceAnalyser) -> PoseEstimator:
    if params.pose.networks:
        return NetworkPose(params.pose)
    return pack if pack.measures_pose else LandmarkPose()


def to_face(record: FaceRecord, inputs: FaceInputs, *, edited: bool = True) -> Face:
    """Return the model's input for the face of an `ok` record; else raise UserError. `edited` as in FaceInputs."""
    if record.image is None or record.keypoints is None or record.landmarks is None or record.embedding is None:
        raise UserError(f"the photo shows no usable face: {record.reason}")
    encoded = cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR)
    image = cv2.cvtColor(encoded, cv2.COLOR_BGR2RGB)
    return inputs.face(image, record, record.expression, record.pose, edited=edited)


def _failed(_: object, error: Exception) -> FaceRecord:
    return FaceRecord(REJECTED, "analyser_failed", detail=in_one_line(error))


def in_one_line(error: Exception) -> str:
    """Return the type and the message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def one_by_one_on_error(
    work: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    failed: Callable[[Item, Exception], Result],
) -> list[Result]:
    """Run `work` on all items at once; where that raises, on each alone, so that only the bad photo fails.

    `failed` makes the result of an item that fails. A UserError means a wrong configuration and is not caught.
    """
    if not items:
        return []
    try:
        return work(items)
    except UserError:
        raise
    except Exception as error:
        if len(items) == 1:
            return [failed(items[0], error)]
        return [result for item in items for result in one_by_one_on_error(work, [item], failed)]
