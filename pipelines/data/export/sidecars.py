"""The course project's files: `1.jpg` photo, `1.png` landmarks, `1.txt` prompt, `1.pt` embedding, and so on."""

from __future__ import annotations

import io

import cv2
import numpy as np

from pipelines.data.export.rows import Row, said_of, sidecar
from pipelines.data.export.target import Target


def write_row(target: Target, number: int, row: Row) -> None:
    """Write an accepted processed row as the files of `number`, and a line of metadata.jsonl.

    The photo is the stored JPEG, byte for byte; landmarks are in its pixels. There is no text where nothing is said.
    """
    target.write(f"{number}.jpg", row["image"])
    target.write(f"{number}.png", landmark_picture(row["image"], row["landmarks"]))
    text = sidecar(row)
    if text is not None:
        target.write(f"{number}.txt", text)
    target.write(f"{number}.pt", tensor_file(np.asarray(row["embedding"], np.float32)))
    target.describe(f"{number}.jpg", said_of(row))


def landmark_picture(jpeg: bytes, landmarks: list[float]) -> bytes:
    """Return a grey PNG of the photo's size: 68 white points on black, at least a pixel wide."""
    photo = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    canvas = np.zeros_like(photo)
    for x, y in np.asarray(landmarks, np.float64).reshape(-1, 2):
        cv2.circle(canvas, (round(x), round(y)), canvas.shape[0] // 256, 255, cv2.FILLED)
    return bytes(cv2.imencode(".png", canvas)[1].tobytes())


def tensor_file(values: np.ndarray) -> bytes:
    """Return `values` as torch.save writes a tensor: the same numbers give the same bytes."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(values)), buffer)
    return buffer.getvalue()
