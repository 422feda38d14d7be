"""Serve the page: Gradio behind the guard, with every feature off that connects to other machines."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.webpage.accounts import PasswordCheck, allowed_hosts, check_host
from pipelines.webpage.folder import UPLOADS, page_folder

if TYPE_CHECKING:
    from starlette.requests import Request

    from pipelines.core.params import Params
    from pipelines.core.sections.operations import Serve
    from pipelines.core.server_metrics import ServerMetrics
    from pipelines.registry.loading import ChosenAdapter

# Open connections get this long to end after SIGTERM; those of open tabs would never.
_GRACE_SECONDS = 2


def serve_page(
    models: Sequence[ChosenAdapter],
    params: Params,
    *,
    root: Path,
    host: str,
    port: int,
    accounts: Mapping[str, str],
    public_url: str | None,
    ready: Callable[[str], None],
) -> None:
    """Load the models, call `ready` with the page's address once it answers, and serve until SIGINT or SIGTERM.

    The page draws each request by all `models`. `public_url`: the address under which a proxy passes requests on, None
    without a proxy. Raises UserError where a model cannot be loaded, the port is taken, or other machines could reach
    the page and there are no accounts.
    """
    check_host(host, accounts, public_url)
    # Overrides the environment: no usage data is ever sent.
    os.environ.update(TELEMETRY_OFF)
    with page_folder(root, port) as folder, _listening(host, port) as listener:
        from pipelines.core.server_metrics import ServerMetrics, model_labels
        from pipelines.serving.generation import Generator
        from pipelines.webpage.drawing import Renderer
        from pipelines.webpage.examples import draw_examples
        from pipelines.webpage.page import build

        uploads = folder / UPLOADS
        uploads.mkdir()
        renderers = [
            Renderer(Generator.load(one.folder, one.params), one.params, _shown(one), uploads) for one in models
        ]
        # Not among the uploads, which are deleted: Gradio serves copies of them.
        examples = [
            example
            for example in draw_examples(folder / "examples")
            if len(example.photos) <= renderers[0].people
            and all(renderers[0].generator.shows_a_face(photo.read_bytes()) for photo in example.photos)
        ]
        page = build(renderers, examples)
        labels = [model_labels(one.folder, one.name, one.version) for one in models]
        metrics = ServerMetrics("page", labels, lambda: len(page._queue)).open()
        application = guarded(page, params.serve, uploads, accounts, allowed_hosts(host, public_url), metrics=metrics)
        is_proxied = public_url is not None
        try:
            _serve(application, page, listener, is_proxied=is_proxied, ready=lambda: ready(_url(host, port)))
        finally:
            for renderer in renderers:
                renderer.close()


def guarded(
    page: Any, limits: Serve, uploads: Path, accounts: Mapping[str, str], hosts: list[str], *, metrics: ServerMetrics
) -> Any:
    """Return the ASGI application: names, then guard, then Gradio, whose own rules for other sites are off."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from pipelines.core.request_guard import RequestGuard, detail, not_understood
    from pipelines.core.server_metrics import METRICS
    from pipelines.webpage.admission import Admission, limit_files
    from pipelines.webpage.answers import PageAnswers
    from pipelines.webpage.fair_queue import FairQueue
    from pipelines.webpage.page_paths import PagePaths

    passwords = PasswordCheck(accounts)

    def user_of(request: Request) -> str | None:
        if request.scope["path"] == METRICS:
            return passwords.by_header(request)
        inner = application.routes[-1].app
        names = (f"access-token-{inner.cookie_id}", f"access-token-unsecure-{inner.cookie_id}")
        return next((inner.tokens[t] for t in map(request.cookies.get, names) if t in inner.tokens), None)

    paths = PagePaths(uploads)
    page._queue = queue = FairQueue(
        live_updates=True,
        concurrency_count=page.max_threads,
        update_intervals=1,
        blocks=page,
        default_concurrency_limit=1,
    )
    limit_files()
    admission = Admission(user_of, has_accounts=bool(accounts), limits=limits, paths=paths, sessions=queue.sessions)
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        Middleware(RequestGuard, admit=admission, metrics=metrics),
        Middleware(PageAnswers, paths=paths),
        # Permits no other site; where it is there, Gradio's own, which permits every site, is off.
        Middleware(CORSMiddleware, allow_origins=()),
    ]
    application: Any = FastAPI(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None)
    # Requests past the queue only for what is not queued.
    page.api_open = False
    # Gradio then lets functions read only files that were uploaded; `launch`, which is not used here, sets it.
    page.has_launched = True
    return gr.mount_gradio_app(
        application,
        page,
        path="/",
        app_kwargs={"exception_handlers": {Exception: lambda _, error: detail(400, not_understood(error))}},
        auth=passwords.at_login if accounts else None,
        max_file_size=f"{limits.max_upload_mb}mb",
        theme=_theme(),
        css_paths=Path(__file__).with_name("page.css"),
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        allowed_paths=[],
        show_error=True,
    )


def _shown(model: ChosenAdapter) -> str:
    """Return the origin of `model` without the folders above it: no answer names a folder of the server."""
    given, _, rest = model.origin.partition(", ")
    return f"{Path(given).name}, {rest}" if Path(given).is_absolute() else model.origin


def _theme() -> Any:
    """Return the theme: system fonts, as the page must work without internet, and colours with enough contrast."""
    import gradio as gr

    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    # Soft's are below the 4.5 : 1 that WCAG 2 asks for.
    return theme.set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        checkbox_label_background_fill_selected="*primary_600",
        checkbox_label_background_fill_selected_dark="*primary_600",
        input_placeholder_color="*neutral_500",
        link_text_color="*primary_700",
    )


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise UserError where it cannot."""
    address = host.strip("[]")
    try:
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error}; choose another --port") from None


def _url(host: str, port: int) -> str:
    return f"http://{'localhost' if host == '0.0.0.0' else host}:{port}/"


def _serve(
    application: Any, page: Any, listener: socket.socket, *, is_proxied: bool, ready: Callable[[], None]
) -> None:
    """Answer on `listener` until SIGINT or SIGTERM."""
    import uvicorn

    from pipelines.core.connections import LimitedConnection

    config = uvicorn.Config(
        application,
        # All connections of a proxy come from one address, and it times its clients' headers.
        http="h11" if is_proxied else LimitedConnection,
        ws="none",
        # Without a proxy, `X-Forwarded-For` is whatever a caller would like to be.
        proxy_headers=is_proxied,
        log_level="warning",
        access_log=False,
        # What is written to a screen is escaped, colours too.
        use_colors=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    # uvicorn handles signals in the main thread only, and ends the process by them.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    if not server.started:
        raise UserError("the page's server did not start; the lines above say why")
    try:
        ready()
        ended = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: ended.set())
        ended.wait()
    finally:
        page._queue.close()
        # It would print a traceback for every open tab, whose connection is cut.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True
        thread.join()
