"""Who may see the page, and what a browser may do with it.

In: requests. Out: refusals, or the answers of the page with headers that forbid all that it does
not need. Only GET is answered, so that nothing which is asked here can change anything.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "picloud-image"
_TOKEN = "token"  # noqa: S105 - the name of a field
_HEADERS: Final[Mapping[str, str]] = {
    # Nothing from elsewhere, no script or style but the two files of ours, no frame around it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def new_token() -> str:
    """A secret that nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


def query_of(token: str) -> str:
    """What an address ends in for a browser that is to be let in."""
    return f"?{_TOKEN}={token}"


@dataclass(frozen=True, slots=True)
class Guard:
    """Stands before ``app``. Without a ``token`` everybody who reaches the port may look; with one
    only who was given the address that has it, and is known by a cookie from then on."""

    app: ASGIApp
    token: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        request = Request(scope)
        answer = self._refusal(request) or self._welcome(request) or self.app

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Why the request is not answered; None where it is, or may be."""
        if request.method != "GET":
            return _said(405, "This page can only be looked at.", {"allow": "GET"})
        if not is_own_name(request.headers.getlist("host")):
            return _said(421, "Ask by the address that rack serve printed.")
        return None

    def _welcome(self, request: Request) -> Response | None:
        """What is said to somebody who is not known yet; None to whom is."""
        if self.token is None:
            return None
        if request.url.path == "/" and self._is_token(request.query_params.get(_TOKEN)):
            # The secret leaves the address, and so the browser's history. Lax, because a link that
            # a person opens from a message would come without a strict cookie.
            answer = RedirectResponse("/", 303)
            answer.set_cookie(_cookie(request), self.token, httponly=True, samesite="lax")
            return answer
        if self._is_token(request.cookies.get(_cookie(request))):
            return None
        return _said(403, "Open the whole address that rack serve printed, with its token.")

    def _is_token(self, said: str | None) -> bool:
        if self.token is None or said is None:
            return False
        return secrets.compare_digest(said.encode(), self.token.encode())


def is_own_name(hosts: list[str]) -> bool:
    """Whether a request's Host headers name this computer: by an address, or by a name that nobody
    else can have made point here. A page of a stranger, whose name was made to mean this computer
    (DNS rebinding), asks by that name."""
    if len(hosts) != 1:
        return False
    name = hosts[0].lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    own = socket.gethostname().lower()
    if name in ("localhost", own, f"{own}.local"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookie(request: Request) -> str:
    """Its name. A cookie is for a host, whatever the port: two racks may be served on one."""
    server = request.scope.get("server")
    return f"{_COOKIE}-{server[1] if server else 0}"


def _said(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(words + "\n", status, dict(headers or {}))
