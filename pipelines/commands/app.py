"""`dynamicid app`: a web page that generates pictures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

from pipelines.commands.options import (
    DEFAULT_PARAMS,
    PAGE_PORT,
    AdapterChoice,
    Overrides,
    ParamsFile,
    option,
    read_params,
)
from pipelines.commands.output import emit, say_done, warn
from pipelines.core.errors import UserError


def app(
    *,
    adapter: AdapterChoice = None,
    compare: Annotated[
        str | None,
        option("Also draw every picture with this adapter or version, side by side.", metavar="MODEL"),
    ] = None,
    host: Annotated[str, option("Address to listen on; any but loopback needs --accounts.")] = "127.0.0.1",
    port: Annotated[int, option("Port to listen on.", min=1, max=65535)] = PAGE_PORT,
    accounts: Annotated[
        Path | None,
        option("Logins: one name:password per line; the file must be readable by you only.", metavar="FILE"),
    ] = None,
    public_url: Annotated[
        str | None,
        option("Address of a proxy with TLS that passes requests on, as https://page.example.org.", metavar="URL"),
    ] = None,
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Serve a web page on which people upload reference photos and generate pictures; Ctrl+C stops it."""
    from pipelines.operations.audit import audited
    from pipelines.webpage.accounts import check_host, is_loopback, read_accounts

    logins = read_accounts(accounts) if accounts else {}
    check_host(host, logins, public_url)
    if accounts:
        with audited(Path.cwd(), "accounts", action="open the page", file=str(accounts.absolute())) as result:
            result |= {"accounts": len(logins), "host": host}
    params = read_params(file, overrides)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio: pip install -c constraints.txt '.[app]'")
    from pipelines.registry.loading import choose_adapter
    from pipelines.webpage.server import serve_page

    wanted = [adapter, *([compare] if compare else [])]
    models = [choose_adapter(one, params, Path.cwd(), overrides or ()) for one in wanted]
    origins = " beside ".join(model.origin for model in models)

    def ready(url: str) -> None:
        emit({"url": url, "model": models[0].origin, **({"compared_with": models[1].origin} if compare else {})})
        say_done(f"app: {url} serves {origins}; Ctrl+C stops it")
        if not is_loopback(host) and public_url is None:
            warn(
                "app: passwords and photos are sent unencrypted; put a TLS proxy in front of it, and name --public-url"
            )

    serve_page(
        models,
        params,
        root=Path.cwd(),
        host=host,
        port=port,
        accounts=logins,
        public_url=public_url,
        ready=ready,
    )
