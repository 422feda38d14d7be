"""Errors as Gradio shows them: to a person in the page, to a program in the answer of the API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from pipelines.core.errors import UserError

_LOG = logging.getLogger(__name__)


@contextmanager
def as_gradio_errors() -> Iterator[None]:
    """Raise every error of the block as `gr.Error`; log those that are not a UserError."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), duration=None, title="This cannot be drawn", print_exception=False) from None
    except gr.Error:
        raise
    except Exception as error:
        _LOG.exception("drawing failed")
        reason = (
            f"{type(error).__name__}: {str(error)[:300]}. Nothing was wrong with your input; the server's log says more"
        )
        raise gr.Error(reason, duration=None, title="Drawing failed", print_exception=False) from None
