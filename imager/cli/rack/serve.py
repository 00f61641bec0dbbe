"""``rack serve``: the rack as a page that keeps itself up to date.

In: an address to listen at. Out: the page, for a browser, until Ctrl-C.
"""

from __future__ import annotations

import socket
from functools import partial

import click

from imager.base.errors import MissingTool
from imager.cli.choice import existing_rack, recipes_now
from imager.cli.session import CommandResult, Session, command
from imager.doctor.programs import web_words

_DEFAULT = "127.0.0.1:8314"


@command("serve", uses=("rack", "cache"))
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=_DEFAULT,
    show_default=True,
    help="Where to listen; 0.0.0.0 is every address of this computer.",
)
def serve(session: Session, listen: str) -> CommandResult:
    """Show the rack as a page, with what a run at work does to each card.

    The towers, each card with its phase, rate and time left, what is wrong with it, and who has
    joined. The page keeps itself up to date while rack flash, watch, save or restore works, and
    nothing on it changes anything. Run it beside them, as the owner of the rack; Ctrl-C ends it.

    Without --listen only this computer can look. With it, whoever has the address that is printed
    can: it holds a token that is made anew each time.

    Examples:
        picloud-image rack serve
            Then open http://127.0.0.1:8314/ in a browser.
        picloud-image rack serve --listen 0.0.0.0:8314
            Look at it on a phone: open the address that is printed.
    """
    try:
        from imager.rack.page import guard, lookout, server
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "imager":
            raise
        raise MissingTool(f"rack serve needs {error.name}", hint=web_words()) from error
    rack = existing_rack(session)
    place = server.place_named(listen)
    with server.listening(place) as listener:
        token = None if place.is_own else guard.new_token()
        address, port = listener.getsockname()[:2]
        reached = _reached_at(listener) if place.address.is_unspecified else address
        host = f"[{reached}]" if ":" in reached else reached
        url = f"http://{host}:{port}/{guard.query_of(token) if token else ''}"
        session.console.event("serving", url=url)
        session.console.lines(url, "    shows the rack; Ctrl-C ends it")
        seen = lookout.Lookout(rack, partial(recipes_now, session))
        server.serve(seen, listener, token)
    return {"rack": rack.name}


def _reached_at(listener: socket.socket) -> str:
    """An address of this computer by which others know it, going by where it would send from; its
    name where it has no network."""
    elsewhere = "192.0.2.1" if listener.family == socket.AF_INET else "2001:db8::1"
    with socket.socket(listener.family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((elsewhere, 9))  # of a datagram socket this sends nothing
            return str(asked.getsockname()[0])
        except OSError:
            return socket.gethostname()
