"""Who may call which address of the page, with which body; all other addresses of Gradio are closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from pipelines.core.request_guard import JSON, Body
from pipelines.core.sections.operations import Serve
from pipelines.core.server_metrics import METRICS
from pipelines.webpage.accounts import CALLER, neighbourhood
from pipelines.webpage.budgets import Budget
from pipelines.webpage.page_paths import PagePaths
from pipelines.webpage.sessions import Sessions

_API = "/gradio_api"
# A name that ends with / or = is the beginning of an address. The page of the login and what it loads:
_OPEN = (
    *("/", "/assets/", "/favicon.ico", "/login", "/logout", "/manifest.json", "/robots.txt", "/static/", "/svelte/"),
    *("/theme.css", f"{_API}/theme.css"),
)
_READ = (
    *("/config", METRICS),
    *(f"{_API}/{name}" for name in ("app_id", "call/", "file=", "heartbeat/", "info", "login_check", "queue/data")),
    *(f"{_API}/{name}" for name in ("queue/status", "startup-events", "upload_progress")),
)
_SEND_JSON = tuple(f"{_API}/{name}" for name in ("call/", "cancel", "queue/join", "reset", "run/"))
_UPLOAD = f"{_API}/upload"
_FORM = "multipart/form-data"
# Two prompts and two dozen values, however they are escaped.
_MAX_JSON = 256 * 2**10
_JSON_PER_MINUTE_MB = 16
_MAX_LOGIN = 8 * 2**10
_UPLOADS_PER_HOUR_MB = 2048
# An upload counts as at least this much, and has at most so many files: small ones cost, too.
_LEAST_UPLOAD, _MAX_FILES = 256 * 2**10, 16
_MAX_QUERY = 2_000


class Admission:
    """Decide on a request from its headers alone; a `RequestGuard` calls it before it reads the body.

    `user_of` returns the name of a request's account, None where nobody is logged in; `has_accounts`: whether that is
    required. Addresses without login are those of `_OPEN`.
    """

    def __init__(
        self,
        user_of: Callable[[Request], str | None],
        *,
        has_accounts: bool,
        limits: Serve,
        paths: PagePaths,
        sessions: Sessions,
    ) -> None:
        self._user_of = user_of
        self._has_accounts = has_accounts
        self._limits = limits
        self._paths = paths
        self._sessions = sessions
        megabytes = max(_UPLOADS_PER_HOUR_MB, limits.max_request_mb)
        self._uploaded = Budget(megabytes * 2**20, 3600, f"more than {megabytes} MB uploaded in an hour")
        self._sent = Budget(_JSON_PER_MINUTE_MB * 2**20, 60, f"more than {_JSON_PER_MINUTE_MB} MB sent in a minute")

    def __call__(self, request: Request) -> Body | None:
        """Return the body that the request may have; raise HTTPException with the reason of a refusal."""
        # Not `request.url`, which is put together from the headers, too.
        path = request.scope["path"].rstrip("/") or "/"
        reads = request.method in ("GET", "HEAD")
        is_known = _is_one_of(path, (*_OPEN, *_READ)) if reads else path in ("/login", _UPLOAD)
        if not is_known and not (request.method == "POST" and _is_one_of(path, _SEND_JSON)):
            raise HTTPException(404, "no such address of this page, or not with this method")
        if len(request.scope["query_string"]) > _MAX_QUERY:
            raise HTTPException(414, f"more than {_MAX_QUERY} characters after the ?")
        # Gradio's links to a form that somebody filled: they name a folder of the server.
        if "deep_link" in request.query_params:
            raise HTTPException(404, "this page has no deep links")
        address = request.client.host if request.client else ""
        user = self._user_of(request)
        if self._has_accounts and user is None and not _is_one_of(path, _OPEN):
            # At this address a program names its account with each request.
            raise HTTPException(401, "not logged in", {"WWW-Authenticate": "Basic"} if path == METRICS else None)
        caller = user or address
        if reads:
            # A link of another site may lead to the page, and end nobody's login.
            if path == "/logout" and request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                raise HTTPException(403, "a page of another site may not log anybody out")
            session = request.query_params.get("session_hash") or path.partition(f"{_API}/heartbeat/")[2]
            if session:
                self._sessions.check(caller, session)
            return None
        if path == "/login":
            CALLER.set(neighbourhood(address))
            kind = request.headers.get("content-type", "").partition(";")[0]
            return Body(_FORM if kind == _FORM else "application/x-www-form-urlencoded", _MAX_LOGIN)
        length = request.headers.get("content-length")
        if path == _UPLOAD:
            if length is None:
                raise HTTPException(411, "send a Content-Length: the size of an upload must be known before it is read")
            self._uploaded.spend(caller, max(int(length), _LEAST_UPLOAD))
            return Body(_FORM, self._limits.max_request_mb * 2**20)
        self._sent.spend(caller, _MAX_JSON if length is None else min(int(length), _MAX_JSON))
        return Body(JSON, _MAX_JSON, check=partial(self._check, caller))

    def _check(self, caller: str, payload: Any) -> Any:
        session = payload.get("session_hash") if isinstance(payload, dict) else None
        if session is not None:
            self._sessions.use(caller, session)
        return self._paths.check(payload)


def limit_files() -> None:
    """Have Gradio take at most _MAX_FILES files in an upload."""
    from gradio import route_utils

    class FewFiles(route_utils.GradioMultiPartParser):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "max_files": _MAX_FILES, "max_fields": _MAX_FILES})

    route_utils.GradioMultiPartParser = FewFiles  # type: ignore[misc]


def _is_one_of(path: str, addresses: tuple[str, ...]) -> bool:
    return any(
        path == address or (len(address) > 1 and address[-1] in "/=" and path.startswith(address))
        for address in addresses
    )
