"""``doctor``: whether this computer, the cache and the rack are fit to make cards.

In: the common options. Out: a line for each thing that was looked at, and what to do about those
that are not well. Nothing is made or changed, also where there is no rack yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from imager.base.errors import PicloudError
from imager.card.host.sysfs import HostTrees
from imager.cli.choice import chosen_release, rack_at_hand
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.doctor import checkup_lines, verdict_line
from imager.config.folder import default_rack_to_be
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.doctor.checkup import Checkup, Verdict, failed, well
from imager.doctor.computer import kernel_checkups, right_checkups
from imager.doctor.network import mirror_checkup
from imager.doctor.programs import library_checkups, program_checkups, uses_of, web_checkup
from imager.doctor.rack import AREA, rack_checkups
from imager.doctor.storage import cache_checkups


@command("doctor")
def doctor(session: Session) -> CommandResult:
    """Look whether this computer, the cache and the rack are fit to make cards.

    Says of each program, library, right and folder whether it is as it must be, and what to do
    where it is not. Changes nothing.

    Examples:
        picloud-image doctor
            What must be installed or mended before the first card.
        picloud-image doctor --rack ~/rack --offline --json
            The same of one rack for a script; no mirror is asked.
    """
    checkups = list(_checkups(session))
    console = session.console
    console.lines(*checkup_lines(checkups, console.columns), "", verdict_line(checkups))
    codes = (one.exit_code for one in checkups if one.exit_code)
    return {
        "exit_code": next(codes, 0),
        "well": all(one.verdict is Verdict.OK for one in checkups),
        "checkups": [one.to_json() for one in checkups],
    }


def _checkups(session: Session) -> Iterator[Checkup]:
    """All of them, by area; the programs come first, so that their code is the command's."""
    rack, of_rack = _rack(session)
    yield from program_checkups(uses_of(rack))
    yield from library_checkups()
    yield web_checkup()
    yield from right_checkups()
    yield from kernel_checkups(HostTrees())
    yield from cache_checkups(session.cache_as_named)
    yield from of_rack
    if not session.settings.offline:
        yield _mirrors(session, rack or default_rack_to_be())


def _rack(session: Session) -> tuple[Rack | None, list[Checkup]]:
    """The rack at hand and what is to be said about it; None where there is none, or none that can
    be loaded."""
    try:
        folder = rack_at_hand(session)
        if folder is None:
            found = "none here or above; picloud-image rack init makes one"
            return None, [well(AREA, "rack.toml", found)]
        rack = load_rack(folder)
        return rack, list(rack_checkups(rack))
    except PicloudError as error:
        return None, [failed(AREA, "rack.toml", error)]


def _mirrors(session: Session, rack: Rack) -> Checkup:
    try:
        spec = chosen_release(session, rack, rack.nodes[0])
    except PicloudError as error:
        return failed("network", "mirrors", error)
    return mirror_checkup(spec.urls)
