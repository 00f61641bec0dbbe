"""``rack status``: who has joined, as the Salt master sees it now."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import inf

import click

from imager.base.errors import BatchFailed, UsageError
from imager.cli.choice import chosen_nodes, existing_rack
from imager.cli.master import master_options
from imager.cli.session import CommandResult, Session, command
from imager.config.rack import MINION, Node, Rack
from imager.disk.budget import MAX_FINDINGS
from imager.rack.master.connection import Way, door_to_master
from imager.rack.master.presence import Seen
from imager.rack.master.status import Status, ask_status, wait_for_all
from imager.rack.report.overview import pinned
from imager.release.lock import RackLock

_WAIT_SECONDS = 900
"""A Pi 2 needs two minutes to start, then makes its swap file and joins; all nodes of a rack do
that at the same time."""

_HEARTBEAT_SECONDS = 30.0
_NAMES_SHOWN = 8


@command("status", uses=("rack",))
@click.argument("nodes", required=False, metavar="[NODES]")
@click.option(
    "--wait",
    is_flag=False,
    flag_value=str(_WAIT_SECONDS),
    metavar="[SECONDS]",
    help=f"Until all have joined, at most so long. [{_WAIT_SECONDS}]",
)
@master_options
def status(
    session: Session,
    nodes: str | None,
    wait: str | None,
    way: Way,
) -> CommandResult:
    """Ask the Salt master who has joined, and each node about its card and first boot.

    NODES are names such as pi[1-13]; all of the rack when left out. With --wait ends with code
    30 when some did not join in time.

    Examples:
        picloud-image rack status
            Who has joined?
        picloud-image rack status 'pi[1-13]' --wait 600
            Wait ten minutes at most until these have joined.
        picloud-image rack status --host 10.0.0.2 --user salt
            The master is there, and this user may ask it.
    """
    seconds = None if wait is None else _seconds_to_wait(wait)
    rack = existing_rack(session)
    chosen = _minions(rack, nodes)
    door = door_to_master(rack, way)
    session.console.note(f"asking the Salt master {rack.master.name} ({door.name})")
    if seconds is None:
        found = ask_status(rack, chosen, door)
    else:
        found = wait_for_all(rack, chosen, door, seconds, _WaitingLine(session))
    pins = _pins(rack, chosen)
    _show_status(session, chosen, found, pins)
    fields = _fields(chosen, found, pins)
    if seconds is None or not found.missing:
        return fields
    session.console.error(
        BatchFailed(
            f"{len(found.missing)} of {len(chosen)} nodes did not join within {seconds:g} s",
            hint="see what is said of each above; picloud-image rack status asks again",
            details=found.missing,
        )
    )
    return {"exit_code": BatchFailed.exit_code, **fields}


def _seconds_to_wait(given: str) -> float:
    """The seconds after ``--wait``. The option takes the next word as its value, even if that is a
    node; the UsageError then says so."""
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise UsageError(
            f"--wait wants seconds, and {given!r} is no number of them",
            hint="nodes stand before it: picloud-image rack status pi1 --wait 600",
        )
    return seconds


class _WaitingLine:
    """Shows which nodes have not joined: a line whenever that changes, and every 30 s if not."""

    def __init__(self, session: Session) -> None:
        self._console = session.console
        self._told: tuple[str, ...] | None = None
        self._left_when_told = 0.0

    def __call__(self, missing: Sequence[str], count: int, seconds_left: float) -> None:
        names = tuple(missing)
        quiet_for = self._left_when_told - seconds_left
        if names == self._told and quiet_for < _HEARTBEAT_SECONDS:
            return
        self._told, self._left_when_told = names, seconds_left
        self._console.event(
            "waiting",
            joined=count - len(names),
            nodes=count,
            missing=list(names),
            seconds_left=round(seconds_left),
        )
        if names:
            more = len(names) - _NAMES_SHOWN
            shown = " ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
            minutes, seconds = divmod(round(seconds_left), 60)
            self._console.say(
                f"{count - len(names)} of {count} joined, {minutes}:{seconds:02} left, "
                f"waiting for {shown}"
            )


def _minions(rack: Rack, nodes: str | None) -> tuple[Node, ...]:
    """The chosen nodes that are minions; no others are expected to join."""
    return tuple(node for node in chosen_nodes(rack, nodes) if MINION in node.roles)


def _pins(rack: Rack, nodes: Sequence[Node]) -> dict[str, str | None]:
    """Node -> the release rack.lock pins for it."""
    lock = RackLock.load(rack.lock_file)
    return {node.name: pinned(rack, node, lock) for node in nodes}


def _show_status(
    session: Session, nodes: Sequence[Node], found: Status, pins: dict[str, str | None]
) -> None:
    console = session.console
    rows = []
    for node in nodes:
        seen = found.nodes[node.name]
        rows.append(
            [
                node.slot or "-",
                node.name,
                seen.presence,
                _to_the_minute(seen.answered_at) or "never",
                seen.firstboot or "-",
                _card(seen, pins[node.name]),
            ]
        )
    console.table(["slot", "node", "Salt", "last answered", "first boot", "card"], rows)
    joined = len(nodes) - len(found.missing)
    console.lines("", f"{joined} of {len(nodes)} joined")
    for name in found.missing:
        console.lines(f"{name}: {found.nodes[name].advice}")
    for name, seen in found.nodes.items():
        if seen.note and seen.firstboot != "complete":
            at = f" at {seen.step}" if seen.step else ""
            console.lines(f"{name}: first boot {seen.firstboot}{at}: {seen.note}")
            console.lines(*([f"    {seen.hint}"] if seen.hint else []))
    for name, how in islice(found.strangers.items(), MAX_FINDINGS):
        console.warn(f"the master knows {name} ({how}), and rack.toml does not")
    if len(found.strangers) > MAX_FINDINGS:
        console.warn(f"and {len(found.strangers) - MAX_FINDINGS} more that rack.toml does not know")


def _card(seen: Seen, pin: str | None) -> str:
    """Whether the card it runs from has the release that rack.lock pins."""
    if not seen.release_sha256:
        return "-"
    imaged = f" of {seen.imaged_at[:10]}" if seen.imaged_at else ""
    if pin is None:
        return f"not pinned{imaged}"
    return f"{'current' if seen.release_sha256 == pin else 'out of date'}{imaged}"


def _to_the_minute(at: str) -> str:
    return f"{at[:10]} {at[11:16]}" if at else ""


def _fields(nodes: Sequence[Node], found: Status, pins: dict[str, str | None]) -> dict[str, object]:
    return {
        "joined": len(nodes) - len(found.missing),
        "missing": list(found.missing),
        "strangers": dict(islice(found.strangers.items(), MAX_FINDINGS)),
        "nodes": [
            {
                "node": node.name,
                "slot": node.slot,
                "presence": seen.presence,
                "joined": seen.is_joined,
                "answered_at": seen.answered_at or None,
                "firstboot": seen.firstboot or None,
                "step": seen.step or None,
                "note": seen.note or None,
                "hint": seen.hint or None,
                "release_sha256": seen.release_sha256 or None,
                "imaged_at": seen.imaged_at or None,
                "as_pinned": seen.release_sha256 == pins[node.name]
                if seen.release_sha256
                else None,
            }
            for node in nodes
            for seen in [found.nodes[node.name]]
        ],
    }
