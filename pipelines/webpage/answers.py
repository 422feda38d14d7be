"""What leaves the page: answers without paths of the server, cookies that other sites cannot send, no frames."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.webpage.page_paths import PagePaths

# Gradio builds addresses from these, whoever sent them. Compressed answers could not be searched for paths.
_NOT_PASSED_ON = (b"accept-encoding", b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")
_TEXTS = ("application/json", "text/event-stream", "text/html", "text/plain")
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FILE = "/gradio_api/file="


class PageAnswers:
    """ASGI middleware around Gradio that gives it real paths and shows none of them."""

    def __init__(self, app: ASGIApp, *, paths: PagePaths) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the real path of the file that is asked for; hide paths in what it sends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header[0] not in _NOT_PASSED_ON]
        before, is_file, shown = scope["path"].partition(_FILE)
        if is_file:
            # Gradio answers 403 to the empty path.
            scope = {**scope, "path": f"{before}{_FILE}{self._paths.real(shown) or ''}"}
        is_text = False

        async def send_without_paths(message: Message) -> None:
            nonlocal is_text
            if message["type"] == "http.response.start":
                is_text = Headers(raw=message["headers"]).get("content-type", "").startswith(_TEXTS)
                _change(MutableHeaders(scope=message), is_text, scope["scheme"] == "https")
            elif is_text:
                # Gradio sends events, and all of JSON and HTML, each in one part: no path is cut.
                message = {**message, "body": self._paths.hide(message.get("body", b""))}
            await send(message)

        await self._app({**scope, "headers": headers}, receive, send_without_paths)


def _change(headers: MutableHeaders, is_text: bool, is_https: bool) -> None:
    headers.update(_HEADERS)
    if is_text and "content-length" in headers:
        del headers["content-length"]
    cookies = headers.getlist("set-cookie")
    if cookies:
        del headers["set-cookie"]
    for cookie in (given.replace("SameSite=none", "SameSite=lax") for given in cookies):
        headers.append("set-cookie", cookie if "Secure" in cookie or not is_https else f"{cookie}; Secure")
