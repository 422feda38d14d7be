"""The face detector, in the layout of SCRFD, which `insightface.app.FaceAnalysis` loads and decodes.

Input (1, 3, H, W) RGB, (x − 127.5) / 128, H and W multiples of 32. Nine outputs: scores (cells, 1), boxes (cells, 4:
distances to left, top, right, bottom in strides) and key points (cells, 10: offsets in strides) at strides 8, 16, 32,
with two anchors per location (SCRFD, Guo et al. 2021).

One small network runs on the picture at full, half and quarter size and gives the three strides: what it learns about
faces of 20 to 60 pixels also holds for faces of 40 to 120 and of 80 to 250 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.foundation.augment import normalised
from model.foundation.canvases import SIDE, Canvases, canvases
from model.foundation.export import export_onnx, milliseconds
from model.foundation.layers import Residual, conv
from model.foundation.loop import bfloat16_is_faster
from model.foundation.people import Array, People
from model.processors import session_options

BATCH = 48
RATE = 3e-3
STRIDES = (8, 16, 32)
ANCHOR_SIZES = (22.0, 44.0)
"""Face size √(w·h) of each of the two anchors, in pixels of the network's input."""


class FaceNetwork(nn.Module):
    """Map (B, 3, H, W) to (B, 30, H/8, W/8): for each of two anchors a score, four distances, ten offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.to_8 = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 48, 3, 2), conv(48, 48))
        self.to_16 = nn.Sequential(conv(48, 64, 3, 2), Residual(64))
        self.to_32 = nn.Sequential(conv(64, 80, 3, 2), Residual(80), conv(80, 64, 1))
        self.join_16 = conv(64, 48)
        self.join_8 = nn.Sequential(Residual(48), Residual(48))
        self.head = nn.Conv2d(48, 30, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.head.bias.data[[0, 15]] = -4.0

    def forward(self, pictures: Tensor) -> Tensor:
        """Return scores, distances and offsets."""
        at_8 = self.to_8(pictures)
        at_16 = self.to_16(at_8)
        at_32 = self.to_32(at_16)
        at_16 = self.join_16(at_16 + functional.interpolate(at_32, size=at_16.shape[2:], mode="nearest"))
        features = self.join_8(at_8 + functional.interpolate(at_16, size=at_8.shape[2:], mode="nearest"))
        return self.head(features.float())


class Detector(nn.Module):
    """Run the network on three sizes of the picture; give SCRFD's nine outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FaceNetwork()
        sizes = torch.tensor(ANCHOR_SIZES)[:, None] / STRIDES[0]
        self.register_buffer("unit", sizes, persistent=False)

    def raw(self, pictures: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return logits (B, cells, 1), distances (B, cells, 4) and offsets (B, cells, 10), in strides, per stride."""
        levels = []
        for level in range(len(STRIDES)):
            if level:
                pictures = functional.avg_pool2d(pictures, 2)
            out = self.network(pictures)
            out = out.permute(0, 2, 3, 1).reshape(out.shape[0], -1, 2, 15)
            distances = (0.6 + out[..., 1:5]) * self.unit
            offsets = out[..., 5:] * self.unit
            levels.append((out[..., :1].flatten(1, 2), distances.flatten(1, 2), offsets.flatten(1, 2)))
        return levels

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Return scores, boxes and key points of each stride for one picture (1, 3, H, W), without a batch axis."""
        levels = self.raw(pictures)
        scores = [torch.sigmoid(logits).reshape(-1, 1) for logits, _, _ in levels]
        boxes = [distances.reshape(-1, 4) for _, distances, _ in levels]
        points = [offsets.reshape(-1, 10) for _, _, offsets in levels]
        return (*scores, *boxes, *points)


def _anchors() -> tuple[Tensor, Tensor, Tensor]:
    """Return centres (A, 2), sizes (A,) and strides (A,) of a canvas's anchors, in the order of the outputs."""
    centres, sizes, strides = [], [], []
    for level, stride in enumerate(STRIDES):
        cells = SIDE // stride
        y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        grid = (torch.stack([x, y], -1).reshape(-1, 1, 2) * stride).expand(-1, 2, 2).reshape(-1, 2)
        centres.append(grid.float())
        sizes.append(torch.tensor(ANCHOR_SIZES).mul(2**level).repeat(cells * cells))
        strides.append(torch.full((len(grid),), float(stride)))
    return torch.cat(centres), torch.cat(sizes), torch.cat(strides)


def _losses(levels: list[tuple[Tensor, Tensor, Tensor]], batch: Canvases) -> dict[str, Tensor]:
    logits, distances, offsets = (torch.cat([level[part] for level in levels], 1) for part in range(3))
    centres, sizes, strides = _anchors()
    boxes, points = torch.from_numpy(batch.boxes), torch.from_numpy(batch.keypoints)
    state = torch.from_numpy(batch.state)[:, None, :]
    extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1)
    scale = extent.prod(-1).sqrt()[:, None, :]
    away = ((boxes[..., :2] + boxes[..., 2:])[:, None] / 2 - centres[None, :, None]).abs()
    # Face sizes in octaves relative to the anchor's; distances from the face's middle relative to its size.
    octaves = (scale / sizes[None, :, None]).log2()
    # The largest anchor has no larger neighbour, so it also takes faces of a little over twice its size.
    upper = torch.where(sizes > 4 * strides, 1.15, 0.6)[None, :, None]
    fits, nearly = (octaves > -0.6) & (octaves < upper), (octaves > -1.1) & (octaves < upper + 0.3)
    reach = away.amax(-1) / torch.maximum(scale, strides[None, :, None] * 1.6)
    face = (state == 1) & fits & (reach < 0.3)
    within = (away < extent[:, None] * 0.55 + strides[None, :, None, None] * 0.3).all(-1)
    near = (state != 0) & within & nearly & ((state == -1) | (reach < 0.5) | ~fits)
    chosen = torch.where(face, reach, torch.inf).argmin(-1)
    positive, ignored = face.any(-1), near.any(-1) & ~face.any(-1)

    rows, cells = positive.nonzero(as_tuple=True)
    which = chosen[rows, cells]
    unit = strides[cells, None]
    middle = centres[cells]
    want = boxes[rows, which]
    got = torch.cat([middle - distances[rows, cells, :2] * unit, middle + distances[rows, cells, 2:] * unit], 1)
    overlap = torch.minimum(got[:, 2:], want[:, 2:]) - torch.maximum(got[:, :2], want[:, :2])
    shared = overlap.clamp(min=0).prod(-1)
    union = (got[:, 2:] - got[:, :2]).clamp(min=0).prod(-1) + (want[:, 2:] - want[:, :2]).prod(-1) - shared
    iou = shared / union.clamp(min=1e-6)
    face_scale = (want[:, 2:] - want[:, :2]).prod(-1).sqrt()[:, None]
    box_error = functional.smooth_l1_loss(got / face_scale, want / face_scale, beta=0.05)
    got_points = middle[:, None] + offsets[rows, cells].reshape(-1, 5, 2) * unit[:, None]
    point_error = functional.smooth_l1_loss(
        got_points / face_scale[:, None], points[rows, which] / face_scale[:, None], beta=0.05
    )

    target = torch.zeros_like(positive, dtype=torch.float32)
    target[rows, cells] = 0.4 + 0.6 * iou.detach()
    score = logits[..., 0]
    weight = torch.where(positive, 1.0, torch.sigmoid(score.detach()).square() * 2.0) * ~ignored
    known = functional.binary_cross_entropy_with_logits(score, target, weight, reduction="sum")
    known = known / max(int(positive.sum()), 1)
    if not len(rows):
        return {"loss": known, "score": known}
    loss = known + (1 - iou).mean() + 2 * box_error + 12 * point_error
    return {"loss": loss, "score": known, "iou": iou.mean(), "points": point_error}


def build(people: People) -> Detector:
    """Return the untrained detector."""
    return Detector()


def losses(
    detector: Detector, people: People, rng: np.random.Generator, batch: int, progress: float
) -> dict[str, Tensor]:
    """Return the loss of a batch of canvases, and its parts."""
    drawn = canvases(people, batch, rng)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster()):
        levels = detector.raw(normalised(drawn.images, 127.5, 128.0))
    return _losses([(a.float(), b.float(), c.float()) for a, b, c in levels], drawn)


def export(detector: Detector, file: Path) -> None:
    """Write the detector as FaceAnalysis expects it: one picture of any height and width."""
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    example = torch.rand(1, 3, 160, 192) * 2 - 1
    export_onnx(detector, example, file, input_name="input.1", output_names=names, dynamic={2: "height", 3: "width"})


def open_analysis(pack: Path, det_size: Any = None, threshold: float = 0.5, modules: Any = None) -> Any:
    """Return a single-threaded FaceAnalysis of an insightface model folder; `det_size` None: its default sizes."""
    from insightface.app import FaceAnalysis

    analysis = FaceAnalysis(
        str(pack), allowed_modules=modules, providers=["CPUExecutionProvider"], sess_options=session_options()
    )
    analysis.prepare(ctx_id=-1, det_thresh=threshold, det_size=det_size)
    return analysis


def measure(file: Path, data: People, people: int = 24) -> dict[str, Any]:
    """Measure FaceAnalysis with this detector on held-out photos of 64, 128 and 512 pixels, at two detection sizes.

    `found`: share whose best box has IoU > 0.5; `one`: share without other boxes, too; `points`: error / √(w·h).
    """
    figures: dict[str, Any] = {}
    rows = data.held_out[np.isin(data.identity[data.held_out], np.unique(data.identity[data.held_out])[:people])][::2]
    for name, det_size in (("128", (128, 128)), ("default", None)):
        analysis = open_analysis(file.parent, det_size, modules=["detection"])
        for size in (64, 128, 512):
            scale = size / data.photos.shape[1]
            found, alone, errors, overlaps = [], [], [], []
            for row in rows if name == "128" else rows[::5]:
                faces = _faces(analysis, data.photos[row], size)
                truth, points = data.boxes[row] * scale, data.keypoints[row] * scale
                best = max(faces, key=lambda face: face.det_score, default=None)
                overlap = _iou(best.bbox, truth) if best is not None else 0.0
                found.append(overlap > 0.5)
                alone.append(overlap > 0.5 and len(faces) == 1)
                if best is not None and overlap > 0.5:
                    overlaps.append(overlap)
                    extent = float(np.sqrt((truth[2] - truth[0]) * (truth[3] - truth[1])))
                    errors.append(float(np.linalg.norm(best.kps - points, axis=1).mean()) / extent)
            for what, values in (("found", found), ("one", alone), ("points", errors), ("iou", overlaps)):
                figures[f"{what}_{name}_{size}"] = round(float(np.mean(values)), 4) if values else None
    figures |= _pairs(data, file)
    figures["milliseconds_128"] = round(milliseconds(file, (1, 3, 128, 128)), 2)
    figures["milliseconds_640"] = round(milliseconds(file, (1, 3, 640, 640), 9), 2)
    return figures


def _faces(analysis: Any, photo: Array, size: int) -> Any:
    import cv2

    how = cv2.INTER_AREA if size < photo.shape[0] else cv2.INTER_CUBIC
    return analysis.get(cv2.resize(np.asarray(photo), (size, size), interpolation=how)[..., ::-1])


def _pairs(data: People, file: Path) -> dict[str, float]:
    """Return the share of held-out two-person pictures, at 128 and 64 pixels, in which exactly two faces are found."""
    if len(data.groups) != 1:
        return {}
    photos = data.groups[0].photos
    rows = np.setdiff1d(np.arange(len(photos)), data.train_rows(data.groups[0]))
    analysis = open_analysis(file.parent, (128, 128), modules=["detection"])
    return {
        f"two_of_two_{size}": round(float(np.mean([len(_faces(analysis, photos[row], size)) == 2 for row in rows])), 4)
        for size in (64, 128)
    }


def _iou(first: Array, second: Array) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second))
    return shared / max(areas - shared, 1e-6)
