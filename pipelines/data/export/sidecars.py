"""Write the course project's files: `1.jpg` photo, `1.png` landmarks, `1.txt` prompt, `1.pt` embedding."""

from __future__ import annotations

import io

import cv2
import numpy as np

from pipelines.data.export.rows import Row, known_labels, sidecar
from pipelines.data.export.target import Target


class SidecarsWriter:
    """Writes accepted rows, numbered from 1: the stored JPEG, and landmarks in its pixels."""

    def __init__(self, target: Target, shard_bytes: int) -> None:
        self._target = target
        self._number = 0

    def add(self, row: Row) -> None:
        """Write the files of a row and a line of metadata.jsonl; a row without prompts has no text file."""
        self._number += 1
        target, number = self._target, self._number
        target.write(f"{number}.jpg", row["image"])
        target.write(f"{number}.png", landmark_picture(row["image"], row["landmarks"]))
        text = sidecar(row)
        if text is not None:
            target.write(f"{number}.txt", text)
        target.write(f"{number}.pt", tensor_file(np.asarray(row["embedding"], np.float32)))
        target.describe(f"{number}.jpg", known_labels(row))

    def close(self) -> None:
        """Do nothing: no file is open."""


def landmark_picture(jpeg: bytes, landmarks: list[float]) -> bytes:
    """Return a grey PNG of the photo's size: 68 white points on black, at least a pixel wide."""
    photo = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    canvas = np.zeros_like(photo)
    for x, y in np.asarray(landmarks, np.float64).reshape(-1, 2):
        cv2.circle(canvas, (round(x), round(y)), canvas.shape[0] // 256, 255, cv2.FILLED)
    return bytes(cv2.imencode(".png", canvas)[1].tobytes())


def tensor_file(values: np.ndarray) -> bytes:
    """Return `values` as the bytes of torch.save; equal values give equal bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(values)), buffer)
    return buffer.getvalue()
