"""``rack stations``: which minions of the rack's master are stations, and how one becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from imager.base.errors import BatchFailed
from imager.base.text import as_counted
from imager.base.units import format_size
from imager.card.host.target import Limits
from imager.cli.choice import existing_rack, golden_images_at_hand
from imager.cli.lazy import CommandGroup
from imager.cli.master import master_options
from imager.cli.session import CommandResult, Session, command
from imager.cli.settings import common_options, take
from imager.cli.stations.head import station_names
from imager.config.rack import Rack
from imager.rack.master.connection import Door, Way, door_to_master
from imager.rack.master.presence import Presence
from imager.rack.master.status import ask_who
from imager.rack.plan.survey import different
from imager.stations.head.roll_call import RollCall, looked_round
from imager.stations.salt.install import MASTER_FILE, MODULE, RULES_FILE, is_prepared
from imager.stations.salt.install import install as install_on
from imager.stations.salt.offering import files_root
from imager.stations.salt.on_minion import PILLAR, PLACE
from imager.stations.salt.salt_bus import opened_bus

_STATIONS = click.argument("stations", required=False, metavar="[STATIONS]")


class _ListsByItself(CommandGroup):
    """A group that lists where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See CommandGroup."""
        if not {"--help", *self.commands}.intersection(args):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("stations", cls=_ListsByItself)
@common_options
@click.pass_context
def stations(context: click.Context, /, **options: Any) -> None:
    """See which computers with card readers take part, and make them do so.

    A station is a minion of the rack's Salt master that has this program and card readers.

    Examples:
        picloud-image rack stations
            Which are there, which cards are in them, what keeps one from being one?
        picloud-image rack stations install 'desk[1-4]'
            Put this program on four minions.
    """
    context.obj = take(context, options)


@command("list", uses=("rack", "cache"))
@_STATIONS
@master_options
def list_stations(session: Session, stations: str | None, way: Way) -> CommandResult:
    """Show the stations, their cards, and what keeps a minion from being a station.

    STATIONS are ids of minions such as desk[1-4]; all minions that are no nodes when left out.

    A card is told by the label of its slot, or by its device; one that is refused is on a disk
    that is never written. Of the images that this computer has composed, it is said how many a
    station has already, and how many it can make of what its archive has: the others are sent to
    it when it makes a card.

    Examples:
        picloud-image rack stations list
            All of them; picloud-image rack stations is the same.
        picloud-image rack stations list 'desk[1-4]'
            Four of them.
    """
    named = station_names(stations, "STATIONS") if stations else ()
    rack = existing_rack(session)
    door = door_to_master(rack, way)
    session.console.note(f"asking the Salt master {rack.master.name} ({door.name})")
    names = named or _minions(rack, door)
    if not names:
        session.console.lines("No minion is there but the nodes of the rack.")
        return {"stations": []}
    images = golden_images_at_hand(session, rack, rack.nodes)
    with opened_bus(door) as bus:
        found = looked_round(bus, names, rack, images, Limits(allow_fixed_disk=None))
    goldens = {golden.key: golden.manifest.digest for golden in different(images)}
    rows = [_row(name, found, goldens) for name in names]
    session.console.table(["station", "cards", "refused", "free room", "images", "version"], rows)
    for name in (name for name in names if name in found.absent):
        session.console.lines(f"{name}: {found.absent[name]}")
    session.console.lines(*found.crowded)
    return {"stations": [_fields(name, found) for name in names]}


@command("install", uses=("rack",))
@click.argument("stations", metavar="STATIONS")
@click.option("--dry-run", is_flag=True, help="Say what would be put where; change nothing.")
@master_options
def install(session: Session, stations: str, dry_run: bool, way: Way) -> CommandResult:
    """Put this very program, its udev rule and its module of Salt on minions.

    STATIONS are ids of minions such as desk[1-4]. They get it from the master, so they need no
    internet, but the same version of Python and the same kind of processor as this computer.

    Examples:
        picloud-image rack stations install 'desk[1-4]'
            Four desks with card readers become stations.
        picloud-image rack stations install desk1 --dry-run
            What would be written on the master, and there?
    """
    names = station_names(stations, "STATIONS")
    rack = existing_rack(session)
    door = door_to_master(rack, way)
    if dry_run:
        return _would_install(session, stations, names, door)
    session.console.note(f"putting this program on {stations}, by {door.name}: some minutes")
    faults = install_on(door, names)
    failed = [name for name in names if faults[name]]
    for name in names:
        session.console.lines(f"{name}: {faults[name] or 'is a station'}")
    fields = {"stations": {name: faults[name] or None for name in names}}
    if not failed:
        return fields
    session.console.error(
        BatchFailed(
            f"{len(failed)} of {len(names)} are no stations yet",
            hint="mend what is said of each, and run the same command again",
        )
    )
    return {"exit_code": BatchFailed.exit_code, **fields}


def _would_install(
    session: Session, stations: str, names: Sequence[str], door: Door
) -> CommandResult:
    known, root = is_prepared(door), files_root(door)
    settings = "nothing, for it knows of stations" if known else f"/etc/salt/master.d/{MASTER_FILE}"
    after = "" if known else "; it then has to be started again"
    session.console.lines(
        f"on the master ({door.name}): {settings}{after}",
        f"on its file server: {root}/{PILLAR}, {root}/{MODULE}",
        f"on {stations}: {PLACE}, {RULES_FILE}",
        "Nothing was touched (--dry-run).",
    )
    return {"dry_run": True, "master_knows": known, "file_server": root, "stations": list(names)}


for _command in (list_stations, install):
    stations.add_command(_command)


def _minions(rack: Rack, door: Door) -> tuple[str, ...]:
    """The accepted minions that are no nodes of the rack."""
    nodes = {node.name for node in rack.nodes}
    known = ask_who(door).standing
    accepted = {Presence.JOINED, Presence.SILENT}
    found = (name for name, presence in known.items() if presence in accepted)
    return tuple(sorted(set(found) - nodes, key=as_counted))


def _row(name: str, found: RollCall, goldens: Mapping[str, str]) -> list[str]:
    survey = found.surveys.get(name)
    if survey is None:
        return [name, *["-"] * 5]
    places = [card.slot or card.facts.path for card in survey.cards]
    unfit = [card.slot or card.path for card in survey.unfit]
    has = sum(survey.goldens.get(key) == digest for key, digest in goldens.items())
    makes = len(goldens.keys() & set(survey.makes))
    return [
        name,
        f"{len(places)}: {' '.join(places)}" if places else "none",
        " ".join(unfit) or "-",
        format_size(survey.free_bytes),
        "-" if not goldens else f"{has} of {len(goldens)}{f', makes {makes}' if makes else ''}",
        survey.version,
    ]


def _fields(name: str, found: RollCall) -> dict[str, object]:
    survey = found.surveys.get(name)
    fields: dict[str, object] = {"station": name, "fault": found.absent.get(name)}
    return fields if survey is None else {**fields, **survey.to_json()}
