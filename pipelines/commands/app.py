"""`dynamicid app`: a page on which people draw."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, AdapterChoice, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit, say_done, warn
from pipelines.core.errors import UserError


def app(
    *,
    adapter: AdapterChoice = None,
    host: Annotated[str, option("Address to listen on; others than loopback need --accounts.")] = "127.0.0.1",
    port: Annotated[int, option("Port to listen on.", min=1, max=65535)] = 7860,
    accounts: Annotated[
        Path | None, option("Who may log in: lines of name:password, readable by you alone.", metavar="FILE")
    ] = None,
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Open a page on which people upload references and draw; it serves until Ctrl+C."""
    from pipelines.webpage.accounts import check_host, is_loopback, read_accounts

    known = read_accounts(accounts) if accounts else {}
    check_host(host, known)
    params = read_params(file, overrides)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio: pip install -c constraints.txt '.[app]'")
    from pipelines.commands.generate import default_adapter
    from pipelines.webpage.model_version import find_model
    from pipelines.webpage.server import serve_page

    shown = find_model(adapter or default_adapter(params), Path.cwd())

    def ready(url: str) -> None:
        emit({"url": url, "model": shown.version})
        say_done(f"app: {url} draws with {shown.version}; Ctrl+C ends it")
        if not is_loopback(host):
            warn("app: passwords and photos travel unencrypted; put a proxy with TLS before it")

    serve_page(shown, params, root=Path.cwd(), host=host, port=port, accounts=known, ready=ready)
