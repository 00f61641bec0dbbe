"""``station``: what the head of a rack has this computer do, by way of Salt. Not for people.

In: standard input, as ``imager.stations.salt.conversation`` says. Out: one JSON object a line, the
last one the answer. docs/stations.md says what each action does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from imager.base.cache import Cache
from imager.base.errors import PicloudError, UsageError
from imager.base.json_fields import JsonFault
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.sysfs import HostTrees
from imager.cli.lazy import CommandGroup
from imager.cli.paths import FOLDER
from imager.cli.session import CommandResult, Session, command
from imager.cli.settings import common_options, take
from imager.cli.stations.voice import speaking
from imager.rack.batch.batch import exit_code_of
from imager.stations.desk.desk import Desk
from imager.stations.desk.lookout import changes
from imager.stations.desk.progress_notes import Notes
from imager.stations.desk.records import Records
from imager.stations.desk.survey import survey as survey_of
from imager.stations.desk.work import work as do_work
from imager.stations.salt.conversation import Conversation, conversation
from imager.stations.wire.golden import published_name
from imager.stations.wire.order import named, order_from
from imager.stations.wire.report import StationProgress
from imager.stations.wire.reports import names_in, piece_of
from imager.stations.wire.survey import digest

STATE = Path("/var/lib/picloud-image/station")
"""Where a station keeps its reports, its receipts and its slots.toml."""
CACHE = Path("/var/cache/picloud-image")

_LONGEST_LOOKOUT_SECONDS = 3600

_state_option = click.option(
    "--state",
    metavar="DIR",
    type=FOLDER,
    default=STATE,
    envvar="PICLOUD_STATION",
    help="Where its reports are kept.",
)


@click.group("station", cls=CommandGroup, hidden=True)
@common_options
@click.pass_context
def station(context: click.Context, /, **options: Any) -> None:
    """Do what the head of a rack asks of this computer.

    Examples:
        picloud-image rack stations
            What people type, on the head.
    """
    context.obj = take(context, options)


@command("survey", uses=("cache",))
@_state_option
def survey(session: Session, state: Path) -> CommandResult:
    """Say which cards are here.

    Examples:
        picloud-image --json station survey
            What the head asks first.
    """
    asked = _begun(session)
    with _understood():
        found = survey_of(asked.arguments, _records(state), _cache(session), HostTrees())
    return found.to_json()


@command("reports", uses=())
@_state_option
def reports(session: Session, state: Path) -> CommandResult:
    """Give out the reports that the head has not got yet.

    Examples:
        picloud-image --json station reports
            What the head asks while cards are made, and after it was away.
    """
    asked = _begun(session).arguments
    with _understood():
        rack, done = digest(asked, "rack"), names_in(asked, "done")
        aside = names_in(asked, "aside") if "aside" in asked else ()
        closed = names_in(asked, "closed") if "closed" in asked else ()
        large = named(asked, "large") if "large" in asked else ""
        start = asked.integer("start") if large else 0
        if large:
            return {"piece": piece_of(_records(state).report(rack, large), start)}
    return _records(state).hand_over(rack, done, aside, closed).to_json()


@command("stop", uses=())
@_state_option
def stop(session: Session, state: Path) -> CommandResult:
    """Stop the cards of a batch, as Ctrl-C would.

    Examples:
        picloud-image --json station stop
            What the head asks when somebody presses Ctrl-C there.
    """
    asked = _begun(session).arguments
    with _understood():
        batch = named(asked, "batch")
    return {"stopping": _records(state).stop(batch)}


@command("work", uses=("cache",))
@_state_option
def work(session: Session, state: Path) -> CommandResult:
    """Make the cards of an order.

    Examples:
        picloud-image --json station work
            What the head has a station do.
    """
    asked = _begun(session)
    with _understood():
        order = order_from(asked.arguments)
    with speaking(session.console.event, _notes(state).write) as voice:

        def bring(name: str) -> Path:
            return asked.bring(voice.now, f"{published_name(order.golden)}/{name}")

        desk = Desk(_records(state), _cache(session), bring, voice.progress)
        try:
            results = do_work(desk, order, asked.secrets)
        except PicloudError as error:
            voice.progress(StationProgress(order.job, fault=error.what, hint=error.hint))
            raise
    return {"exit_code": exit_code_of(results)}


@command("follow", uses=())
@_state_option
def follow(session: Session, state: Path) -> CommandResult:
    """Say how far the cards of a batch are whose own program nobody hears any more.

    Examples:
        picloud-image --json station follow
            What the head asks when a minion was started again while cards are made.
    """
    asked = _begun(session).arguments
    with _understood():
        batch = named(asked, "batch")
    for progress in _notes(state).follow(batch):
        session.console.event("progress", **progress.to_json())
    return {}


@command("lookout", uses=())
def lookout(session: Session) -> CommandResult:
    """Say when a card is put in or taken out.

    Examples:
        picloud-image --json station lookout
            What the head of rack watch has each station do.
    """
    asked = _begun(session).arguments
    with _understood():
        seconds = asked.integer("seconds", 1, _LONGEST_LOOKOUT_SECONDS)
    for changed in changes(HostTrees(), seconds):
        session.console.event("cards", changed=changed)
    return {}


for _command in (survey, reports, stop, work, follow, lookout):
    station.add_command(_command)


def _begun(session: Session) -> Conversation:
    """What is asked; this station's own key is told first."""
    if not session.settings.as_json:
        raise UsageError(
            "station is for the head of a rack, which speaks JSON",
            hint="it is no command for people: docs/stations.md says what is",
        )
    with _understood():
        asked = conversation(sys.stdin.buffer)
    session.console.event("key", key=asked.key)
    return asked


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except JsonFault as error:
        raise UsageError(
            f"what the head asked cannot be understood: {error}",
            hint="head and station must have the same version of this program",
        ) from None


def _records(state: Path) -> Records:
    return Records(TrustedFolder(state.absolute()))


def _notes(state: Path) -> Notes:
    return Notes(TrustedFolder(state.absolute()) / "notes")


def _cache(session: Session) -> Cache:
    """The cache that was named, else the system's: a station works for nobody's home."""
    cache = session.cache_as_named if session.settings.cache else Cache(CACHE)
    cache.require_ours()
    return cache
