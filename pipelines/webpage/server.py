"""Serving the page: Gradio with everything off that would leave this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.webpage.accounts import check_host, gatekeeper
from pipelines.webpage.folder import own_folder

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from pipelines.core.sections.operations import Serve
    from pipelines.webpage.model_version import Shown

# Requests that wait while one is drawn; who comes then is told so.
WAITING = 64


def serve_page(
    shown: Shown,
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
    # Not set as defaults: whatever the environment says, nobody is told that this ran.
    os.environ.update(TELEMETRY_OFF)
    with own_folder(root, port) as folder:
        from pipelines.serving.generation import Generator
        from pipelines.webpage.drawing import Renderer
        from pipelines.webpage.examples import draw_examples
        from pipelines.webpage.page import build

        renderer = Renderer(Generator.load(shown.adapter, params), params, shown.version, folder)
        examples = [
            example
            for example in draw_examples(folder / "examples")
            if len(example.photos) <= renderer.people
            and all(renderer.generator.shows_a_face(photo.read_bytes()) for photo in example.photos)
        ]
        page = build(renderer, examples)
        url = _open(page, params.serve, gatekeeper(accounts) if accounts else None, host, port)
        try:
            ready(url)
            _wait()
        finally:
            page.close(verbose=False)


def _open(page: Any, limits: Serve, knows: Callable[..., Any] | None, host: str, port: int) -> str:
    """Serve the page in the background to those whom `knows` lets in; return its address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from pipelines.webpage.door import Door

    page.queue(max_size=WAITING, default_concurrency_limit=1)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=knows,
            max_file_size=f"{limits.max_upload_mb}mb",
            app_kwargs={"middleware": [Middleware(Door, max_request_mb=limits.max_request_mb)]},
            # System fonts, and nothing from elsewhere: the page must work where there is no other network.
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


def _wait() -> None:
    """Return when the process is told to end."""
    over = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: over.set())
    over.wait()
