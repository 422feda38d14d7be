"""Errors as Gradio shows them: to a person in the page, to a program in the answer of the API."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from pipelines.core.errors import UserError
from pipelines.core.server_metrics import refused

_LOG = logging.getLogger(__name__)
_MAX_REASON = 300


@contextmanager
def as_gradio_errors() -> Iterator[None]:
    """Raise every error of the block as `gr.Error`; log those that are not a UserError."""
    try:
        yield
    except UserError as error:
        refused()
        raise gr.Error(str(error), duration=None, title="This cannot be drawn", print_exception=False) from None
    except gr.Error:
        raise
    except Exception as error:
        _LOG.exception("drawing failed")
        # Without the text of the error, which may name folders of the server.
        reason = f"{type(error).__name__}. Nothing was wrong with your input; the server's log says more"
        raise gr.Error(reason, duration=None, title="Drawing failed", print_exception=False) from None


class PageBlocks(gr.Blocks):
    """Gradio's Blocks; a request that does not fit gets one line in the log, where Gradio prints all of its values."""

    async def process_api(self, *args: Any, **settings: Any) -> Any:
        """Run an event; raise every error as `gr.Error` that Gradio does not print."""
        try:
            return await super().process_api(*args, **settings)
        except gr.Error as error:
            error.print_exception = False
            error.message = error.message[:_MAX_REASON]
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.warning("request refused: %s at %s:%s", type(error).__name__, last.filename, last.lineno)
            first = f": {str(error).splitlines()[0][:_MAX_REASON]}" if isinstance(error, TypeError | ValueError) else ""
            reason = f"the request does not fit: {type(error).__name__}{first}"
            raise gr.Error(reason, print_exception=False) from None
