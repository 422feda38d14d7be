"""Serve the page with Gradio, with every feature off that connects to other machines."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.webpage.accounts import check_host, password_check
from pipelines.webpage.folder import page_folder

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from pipelines.core.sections.operations import Serve
    from pipelines.webpage.model_version import PageModel

# Requests that may wait while one is drawn; Gradio refuses more with a message.
MAX_WAITING = 64


def serve_page(
    model: PageModel,
    params: Params,
    *,
    root: Path,
    host: str,
    port: int,
    accounts: Mapping[str, str],
    ready: Callable[[str], None],
) -> None:
    """Load the model, call `ready` with the page's address once it answers, and serve until SIGINT or SIGTERM.

    Raises UserError where the model cannot be loaded, the port is taken, or `host` is no loopback and there are no
    accounts.
    """
    check_host(host, accounts)
    # Overrides the environment: no usage data is ever sent.
    os.environ.update(TELEMETRY_OFF)
    with page_folder(root, port) as folder:
        from pipelines.serving.generation import Generator
        from pipelines.webpage.drawing import Renderer
        from pipelines.webpage.examples import draw_examples
        from pipelines.webpage.page import build

        renderer = Renderer(Generator.load(model.adapter, params), params, model.version, folder)
        examples = [
            example
            for example in draw_examples(folder / "examples")
            if len(example.photos) <= renderer.people
            and all(renderer.generator.shows_a_face(photo.read_bytes()) for photo in example.photos)
        ]
        page = build(renderer, examples)
        url = _launch(page, params.serve, password_check(accounts) if accounts else None, host, port)
        try:
            ready(url)
            ended = threading.Event()
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, lambda *_: ended.set())
            ended.wait()
        finally:
            page.close(verbose=False)


def _launch(page: Any, limits: Serve, auth: Callable[..., Any] | None, host: str, port: int) -> str:
    """Serve the page in the background; return its address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from pipelines.webpage.request_guard import RequestGuard

    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            max_file_size=f"{limits.max_upload_mb}mb",
            app_kwargs={"middleware": [Middleware(RequestGuard, max_request_mb=limits.max_request_mb)]},
            # System fonts: the page must work without internet access.
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=Path(__file__).with_name("page.css"),
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            allowed_paths=[],
            show_error=True,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error}; choose another --port") from None
    return str(url)
