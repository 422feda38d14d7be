"""The registered model as MLflow loads it: JSON in, base64 PNG out. Logged as this file, never as a pickle."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class DynamicIDModel(PythonModel):
    """Draws the people of the references as the prompt says."""

    def load_context(self, context: Any) -> None:
        """Load base model, adapter and face analysers once."""
        from pipelines.generation import Generator
        from pipelines.params import load_params

        self._generator = Generator.load(
            Path(context.artifacts["adapter"]), load_params(Path(context.artifacts["params"]))
        )

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Return a frame with the column `image` (base64 PNG), one row per row of `model_input`.

        Columns: `references` (list of base64 pictures), `prompt`, and optionally `face_prompts` (one per reference),
        `boxes` (y0, x0, y1, x1 in [0, 1], one per reference), `seed`. Raises ValueError on input that cannot be drawn.
        """
        import pandas as pd

        from pipelines.generation import Request

        images = []
        for row in model_input.to_dict(orient="records"):
            request = Request(
                references=tuple(_decode(text) for text in row["references"]),
                prompt=str(row["prompt"]),
                face_prompts=tuple(str(text) for text in _listed(row, "face_prompts")),
                boxes=tuple(_box(box) for box in _listed(row, "boxes")),
                seed=int(row["seed"]) if row.get("seed") is not None else 0,
            )
            buffer = io.BytesIO()
            self._generator.draw(request).image.save(buffer, format="PNG")
            images.append(base64.b64encode(buffer.getvalue()).decode())
        return pd.DataFrame({"image": images})


def _listed(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    return [] if value is None else list(value)


def _box(values: Any) -> tuple[float, float, float, float]:
    if len(values) != 4:
        raise ValueError(f"boxes: expected y0, x0, y1, x1, got {len(values)} numbers")
    y0, x0, y1, x1 = (float(edge) for edge in values)
    return y0, x0, y1, x1


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("references: expected base64 of a JPEG or PNG picture") from None


mlflow.models.set_model(DynamicIDModel())
