"""Traces of drawn pictures in MLflow, without the pictures: what was asked, what came out, how long it took.

Prompts may be personal data, so there are traces only where somebody asks for them: by drawing inside a span, or by the
variable DYNAMICID_TRACES.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from model.face.target_motion import TargetMotion
from pipelines.serving.request import DrawRequest, Reference

VARIABLE = "DYNAMICID_TRACES"
_DIGITS = 12
_PHOTOS = ("references", "driving", "into")


@contextmanager
def drawing_span(request: DrawRequest) -> Iterator[Callable[[Any], None]]:
    """Yield a function that notes the drawn picture in a span of MLflow; without tracing it does nothing."""
    import mlflow

    if mlflow.get_current_active_span() is None and not os.environ.get(VARIABLE):
        yield lambda drawn: None
        return
    with mlflow.start_span("draw a picture") as span:
        span.set_inputs(described(request))
        yield lambda drawn: span.set_outputs(
            {"width": drawn.image.width, "height": drawn.image.height, "cut": drawn.cut, "note": drawn.note}
        )


def described(request: DrawRequest) -> dict[str, Any]:
    """Return what was asked, as far as it was given; of each reference the size and the first digits of its sha256."""
    asked = {name: value for name, value in vars(request).items() if name not in _PHOTOS and value not in (None, ())}
    if request.motions:
        asked["motions"] = [{} if one is None else _given(one) for one in request.motions]
    photos = [
        _photo(one) if isinstance(one, Reference) else [_photo(each) for each in one] for one in request.references
    ]
    driving = [None if one is None else _photo(one) for one in request.driving]
    return {
        **asked,
        "references": photos,
        **({"driving": driving} if driving else {}),
        **({} if request.into is None else {"into": _photo(request.into)}),
    }  # the list of traces shows where this begins


def _given(motion: TargetMotion) -> dict[str, float]:
    return {name: value for name, value in vars(motion).items() if value is not None}


def _photo(reference: Reference) -> dict[str, Any]:
    return {
        "bytes": len(reference.photo),
        "sha256": hashlib.sha256(reference.photo).hexdigest()[:_DIGITS],
    }
