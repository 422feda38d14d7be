"""Convert the boxes or masks of people to the cells of a layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def vertical_slices(people: int) -> Tensor:
    """Return equal vertical slices from left to right as boxes (1, people, 4), float64."""
    edges = torch.arange(people + 1, dtype=torch.float64) / people
    ones = torch.ones(people, dtype=torch.float64)
    return torch.stack([0 * ones, edges[:-1], ones, edges[1:]], dim=-1)[None]


def box_cells(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Convert boxes (B, P, 4), y0 x0 y1 x1 in [0, 1], to (B, P, rows·columns) bool.

    A box covers the rows ⌊y0·rows⌋ to ⌊y1·rows⌋ − 1, but at least one; columns likewise.
    """
    inside_rows = _span(boxes[..., 0], boxes[..., 2], rows)
    inside_columns = _span(boxes[..., 1], boxes[..., 3], columns)
    return (inside_rows[..., :, None] & inside_columns[..., None, :]).flatten(2)


def mask_cells(masks: Tensor, rows: int, columns: int) -> Tensor:
    """Return (B, P, rows·columns) bool: cells at least half covered by masks (B, P, h, w), and the most covered one."""
    share = F.adaptive_avg_pool2d(masks.float(), (rows, columns)).flatten(2)
    most = F.one_hot(share.argmax(dim=-1), rows * columns).bool()
    return (share >= 0.5) | most


def _span(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Convert (B, P) starts and ends in [0, 1] to (B, P, size) bool."""
    first = (start * size).floor().clamp(0, size - 1)
    last = torch.maximum((end * size).floor(), first + 1)
    index = torch.arange(size, dtype=torch.float64)
    return (index >= first[..., None]) & (index < last[..., None])
