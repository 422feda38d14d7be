"""A person in a given picture: the part around one head is painted anew, in the base's own size, and put back."""

from __future__ import annotations

import inspect
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.sections.data import Preprocess
from pipelines.core.weights.domains import PHOTOGRAPH, NetworkDomain, conflicts, describe_conflict
from pipelines.serving.request import DrawRequest

# What is seen around the box, on each side, as a part of its longer side: a head is then as large as bases draw it.
# With a third, the embedded one draws heads larger than the box.
_AROUND = 1 / 8
_LEAST = 8


def painting(
    pipeline: Any,
    request: DrawRequest,
    *,
    side: int,
    guidance: float,
    rescale: float,
    limits: Preprocess,
    networks: list[NetworkDomain],
) -> tuple[Any, dict[str, Any]]:
    """Return the inpainting pipeline for a request with `into`, and the arguments that it takes for its picture.

    `side`: of the base's pictures, in pixels; `guidance`, `rescale`: those of the call, the latter where the pipeline
    has it. What is drawn has the size of the given picture. Raise UserError for a picture that cannot be read, a box of
    a few pixels, a photograph for networks that know drawings, and guidance that the pipeline has not.
    """
    import numpy as np
    from PIL import Image

    from model.inference.tasks import for_task, inpainting_of
    from pipelines.data.faces.decode import Undecodable, decode
    from pipelines.data.faces.domain import domain_of_picture

    if request.into is None or request.area is None:
        raise ValueError("a request without a given picture")
    embedded = pipeline.batched_guidance or pipeline.denoiser.config.guidance_embeds
    if not pipeline.batched_guidance and (request.negative_prompt or (guidance > 1 and not embedded)):
        raise UserError(
            f"{request.into.name}: this base paints into a picture without classifier-free guidance; give guidance 1, "
            "and no negative prompt"
        )
    try:
        found = decode(request.into.photo, max_pixels=limits.max_pixels, min_side=1, working_side=limits.max_pixels)
    except Undecodable as error:
        raise UserError(f"{request.into.name}: {error}; expected the picture to paint into") from None
    rows, columns = found.image.shape[:2]
    y0, x0, y1, x1 = (round(edge * full) for edge, full in zip(request.area, (rows, columns) * 2, strict=True))
    if min(y1 - y0, x1 - x0) < _LEAST:
        raise UserError(
            f"{request.into.name}: the box is {x1 - x0} x {y1 - y0} pixels; expected at least {_LEAST} each way, a "
            "head with its hair"
        )
    part = found.image[y0:y1, x0:x1]
    if domain_of_picture(part) == PHOTOGRAPH and (wrong := conflicts(networks, PHOTOGRAPH)):
        raise UserError(f"{request.into.name}: this seems to be a photograph: {describe_conflict(wrong, PHOTOGRAPH)}")
    mask = np.zeros((rows, columns), np.uint8)
    mask[y0:y1, x0:x1] = 255
    kind = inpainting_of(pipeline)
    arguments: dict[str, Any] = {
        "image": Image.fromarray(found.image),
        "mask_image": Image.fromarray(mask),
        "strength": 1.0,
        "padding_mask_crop": max(1, round(_AROUND * max(y1 - y0, x1 - x0))),
        "height": side,
        "width": side,
    }
    if "guidance_rescale" in inspect.signature(kind.__call__).parameters:
        arguments["guidance_rescale"] = rescale
    return for_task(pipeline, kind), arguments
