"""The server of the page, until it is told to end.

In: a rack, and a socket that listens. Out: the page and its changes, for whoever asks. It opens no
file but those of the rack, and writes none.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp

from imager.base.errors import UsageError
from imager.rack.page.connection import MOST_STREAMS, STREAM, BoundedConnection
from imager.rack.page.feed import Feed
from imager.rack.page.guard import Guard
from imager.rack.page.lookout import Lookout
from imager.rack.page.page import SCRIPT, STYLE


@dataclass(frozen=True, slots=True)
class Place:
    """An address of this computer, and a port; 0 is any that is free."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def is_own(self) -> bool:
        """Whether only this computer can reach it."""
        return self.address.is_loopback


def place_named(text: str) -> Place:
    """The place in ``text``, such as ``192.168.1.5:8314`` or ``[::1]:8314``. Raises UsageError."""
    found = re.fullmatch(r"\[?([0-9A-Fa-f.:]+?)\]?:(\d{1,5})", text)
    try:
        if found is None or int(found[2]) > 65535:
            raise ValueError
        return Place(ipaddress.ip_address(found[1]), int(found[2]))
    except ValueError:
        raise UsageError(
            f"--listen {text}: not an address and a port",
            hint="for example 127.0.0.1:8314, or 0.0.0.0:8314 for everybody who reaches this "
            "computer and has the token",
        ) from None


def listening(place: Place) -> socket.socket:
    """A socket that listens there. Raises UsageError where that cannot be."""
    family = socket.AF_INET if place.address.version == 4 else socket.AF_INET6
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(place.address), place.port))
        made.listen()
    except OSError as error:
        made.close()
        raise UsageError(
            f"--listen {place.address}:{place.port}: {error.strerror}",
            hint="name an address of this computer (ip address) and a port that is free, for "
            "example --listen 127.0.0.1:0",
        ) from error
    return made


class PageServer(uvicorn.Server):
    """Shows a rack, until a signal ends it."""

    def __init__(self, lookout: Lookout, token: str | None) -> None:
        """With a ``token`` only who knows it may look."""
        super().__init__(
            uvicorn.Config(
                page_app(lookout, token),
                loop="asyncio",
                http=BoundedConnection,
                ws="none",
                lifespan="off",
                log_config=None,
                # What strangers send is no news, and addresses hold the token; our own mistakes
                # are news.
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at once, also while pages are open."""
        self.should_exit = self.force_exit = True


def serve(lookout: Lookout, listener: socket.socket, token: str | None) -> None:
    """Show its rack to whoever comes to ``listener``, until Ctrl-C or SIGTERM."""
    asyncio.run(PageServer(lookout, token).serve(sockets=[listener]))


def page_app(lookout: Lookout, token: str | None) -> ASGIApp:
    """The page as an application, guarded."""
    feed = Feed(lookout)
    streams = 0

    async def page(_: Request) -> Response:
        whole = (await feed.newest()).whole()
        return HTMLResponse(whole.encode(errors="backslashreplace"))  # half a character, too

    async def style(_: Request) -> Response:
        return PlainTextResponse(STYLE, media_type="text/css")

    async def script(_: Request) -> Response:
        return PlainTextResponse(SCRIPT, media_type="text/javascript")

    async def events(request: Request) -> Response:
        nonlocal streams
        if streams >= MOST_STREAMS:
            return PlainTextResponse("Too many look at it now.\n", 503)
        number = request.query_params.get("since", "")

        async def changes() -> AsyncIterator[str]:
            nonlocal streams
            streams += 1
            try:
                async for event in feed.changes(number):
                    yield event
            finally:
                streams -= 1

        return StreamingResponse(changes(), media_type="text/event-stream")

    routes = [
        Route("/", page),
        Route("/page.css", style),
        Route("/page.js", script),
        Route(STREAM, events),
    ]
    return Guard(Starlette(routes=routes), token)
