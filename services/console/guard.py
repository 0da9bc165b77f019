"""Stands before every HTTP request: who may have sent it, and what a browser may do then.

A page of somebody else, open in the same browser, is the attacker: it can send requests here, also
under a name of its own that it lets point to this machine (DNS rebinding).
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "; ".join(
    [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
        "img-src 'self' data:", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
    ]
)  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Around an application."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        """`hosts`: the only names that the server goes by; None: whatever it is called."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        headers = Headers(scope=scope)
        kept = "no-store" if scope["path"].startswith("/api/") else "no-cache"

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS | {"Cache-Control": kept})
            await send(message)

        refused = self._unknown_host(headers)
        if refused is None and scope["method"] not in ("GET", "HEAD"):
            refused = _foreign(headers)
        await (refused or self._app)(scope, receive, with_headers)

    def _unknown_host(self, headers: Headers) -> JSONResponse | None:
        if self._hosts is None or _host(headers.get("host", "")) in self._hosts:
            return None
        return _refusal(421, f"this console goes by {', '.join(sorted(self._hosts))} alone")


def _foreign(headers: Headers) -> JSONResponse | None:
    """What may have been sent by another's page, whose browser says so or keeps to JSON's rules."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return _refusal(415, "send Content-Type: application/json")
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return _refusal(403, "a page of another origin may not ask")
    if site != "same-origin":
        return _refusal(403, "a page of another site may not ask")
    return None


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _refusal(status: int, message: str) -> JSONResponse:
    body = {"code": "PERMISSION_DENIED", "message": message, "violations": []}
    return JSONResponse(body, status)
