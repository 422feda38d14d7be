"""The registered model as MLflow loads it: JSON in, base64 PNG out. Logged as this file, never as a pickle."""

from __future__ import annotations

import base64
import io
import os
import threading
import time
from pathlib import Path
from typing import Any, cast

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class DynamicIDModel(PythonModel):
    """The model: draws the people of the references according to the prompt."""

    def load_context(self, context: Any) -> None:
        """Load base model, adapter and face analysers once, and in a scoring server install the request guard.

        Raises MlflowException with the reason where one is missing or does not belong to the others.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_STATE

        from pipelines.core.errors import StageFailed, UserError
        from pipelines.core.params import load_params
        from pipelines.serving.generation import Generator
        from pipelines.serving.request import COLUMNS
        from pipelines.serving.request_guard import install

        try:
            params = load_params(Path(context.artifacts["params"]))
            self._generator = Generator.load(Path(context.artifacts["adapter"]), params)
        except (UserError, StageFailed) as error:
            # Without the traces of libraries, among which a server's log would lose the reason.
            raise MlflowException(str(error), error_code=INVALID_STATE) from None
        self._limits = params.serve
        # Callers share one pipeline with its scheduler, so they wait for each other.
        self._drawing = threading.Lock()
        install(params.serve, COLUMNS)

    # From the hint for a frame MLflow derives no signature: one is logged with the model. Without a hint it warns.
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        """Return a frame with the columns `image` (base64 PNG), `cut` and `note`, one row per picture.

        `cut` is the end of a prompt that was too long for the model, `note` why the picture may be wrong all the same,
        both "" for none. A row of `model_input` gives one picture, or its `number`, with seeds from `seed` on.

        Columns: `references` (list of base64 pictures, one per person, or a list of several of one person), `prompt`,
        and optionally `face_prompts`, `boxes` (y0, x0, y1, x1 in [0, 1]), one per person; `faces` (from the left, 0:
        the only one), one per reference, in lists as they are; `seed`, `negative_prompt`, `width`, `height`, `number`,
        `sampler`; and, one per person, `strength` of the expression, `yaw`, `pitch`, `roll` (degrees, None for
        nothing), `driving` (base64 pictures whose expression and pose are taken, "" for none) and `driving_faces`.
        Raises MlflowException: a server's status 400 on invalid input in any row (no picture is returned),
        500 where the drawing itself fails.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

        from pipelines.core.errors import UserError
        from pipelines.serving.request import read_row
        from pipelines.serving.traces import drawing_span

        # A server answers 504 then, but lets this call go on: nobody would see the rest of its pictures.
        end = time.monotonic() + float(os.environ.get("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT") or "inf")
        images, cuts, notes = [], [], []
        try:
            rows = model_input.to_dict(orient="records")
            requests = [one for row in rows for one in read_row(cast(Any, row), self._limits).pictures()]
            if len(requests) > self._limits.max_rows:
                raise UserError(f"{len(requests)} pictures in a request; at most {self._limits.max_rows}")
            for request in requests:
                with self._drawing:
                    if time.monotonic() > end:
                        raise TimeoutError("the time limit of the request was over before this picture was begun")
                    with drawing_span(request) as note_drawn:
                        drawn = self._generator.draw(request)
                        note_drawn(drawn)
                buffer = io.BytesIO()
                drawn.image.save(buffer, format="PNG")
                cuts.append(drawn.cut)
                notes.append(drawn.note)
                images.append(base64.b64encode(buffer.getvalue()).decode())
        except UserError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        except Exception as error:
            reason = " ".join(f"drawing failed: {type(error).__name__}: {error}".split())
            raise MlflowException(reason, error_code=INTERNAL_ERROR) from error
        return pd.DataFrame({"image": images, "cut": cuts, "note": notes})


mlflow.models.set_model(DynamicIDModel())
