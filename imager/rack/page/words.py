"""What the page says of each node and of the run at work, as text for people.

In: a RackNow. Out: cells, rows and one line. A card that is being made now is more than what the
ledger says of it: there its work only has begun. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from imager.base.units import clock, format_rate
from imager.config.rack import MASTER
from imager.config.slot_labels import by_place, tower_and_place
from imager.rack.batch.card_progress import Moment
from imager.rack.batch.outlook import outlook
from imager.rack.history.events import Standing
from imager.rack.history.outcome import Outcome
from imager.rack.live.snapshot import LiveCard, LiveRun
from imager.rack.master.presence import Presence
from imager.rack.report.badges import (
    CARD_BADGES,
    PRESENCE_BADGES,
    Badge,
    advice_of,
    findings_of,
    presence_badge,
)
from imager.rack.report.overview import NodeView

_WAITS = Badge("none", "…", "waiting")
_AT_WORK = Badge("work", "▸", "at work")
_IN_RUN = (CARD_BADGES[Standing.VERIFIED], CARD_BADGES[Standing.FAILED], _WAITS, _AT_WORK)
_COUNTED = tuple(dict.fromkeys((*CARD_BADGES.values(), _WAITS, _AT_WORK)))


@dataclass(frozen=True, slots=True)
class Bar:
    """How far something is: ``done`` of 1000, or None where that cannot be told, and the words
    beside the bar: ``rate`` and ``left`` are empty where they are not known."""

    what: str
    done: int | None
    words: str
    rate: str = ""
    left: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One node in its tower, or one card at its station. ``is_live`` says whether the run at work
    has a card for it, ``bar`` is there while that is being made, ``where`` says in which reader it
    is, if it is not in the node's own slot; ``counted`` is as what it counts. Of one that is
    ``to_look_at`` more is said below. At a station it is not said who has joined."""

    name: str
    place: str
    is_master: bool
    card: Badge
    counted: Badge
    presence: Badge | None
    to_look_at: bool
    is_live: bool
    where: str
    bar: Bar | None


@dataclass(frozen=True, slots=True)
class ToLookAt:
    """A node that somebody should look at: what was found, and what to do."""

    name: str
    slot: str
    card: Badge
    found: str
    advice: str


@dataclass(frozen=True, slots=True)
class RunLine:
    """The run at work: what it is, how it stands (said aloud when it changes), how far it is, what
    each station does, which cards are in and not begun, and what it warned of. One that ``watches``
    is given cards while it works, so there is always a place for those."""

    command: str
    since: str
    standing: str
    bar: Bar
    stations: tuple[str, ...]
    watches: bool
    offers: tuple[str, ...]
    said: tuple[str, ...]


def cell_of(view: NodeView, live: LiveCard | None) -> Cell:
    """What is shown of a node whose card ``live`` is made in this run."""
    node = view.node
    place = tower_and_place(node.slot)[1] if node.slot else None
    card, bar = CARD_BADGES[view.card.standing], None
    if live is not None:
        card = _live_badge(live)
        bar = _bar(node.name, live.moment) if live.moment and live.ending is None else None
    return Cell(
        node.name,
        str(place) if place is not None else "",
        MASTER in node.roles,
        card,
        _counted(view, live),
        presence_badge(view),
        trouble_of(view, live) is not None,
        live is not None,
        _where(view, live) if live is not None else "",
        bar,
    )


def desks_of(run: LiveRun) -> dict[str, tuple[Cell, ...]]:
    """The cards of the run by the stations in whose readers they are, each by its slot."""
    found: dict[str, list[LiveCard]] = {}
    for card in run.cards:
        if card.station:
            found.setdefault(card.station, []).append(card)
    return {
        station: tuple(_at_desk(card) for card in sorted(found[station], key=_by_slot))
        for station in sorted(found)
    }


def _by_slot(card: LiveCard) -> tuple[bool, tuple[str, int, str], str]:
    return not card.slot, by_place(card.slot), card.target


def _at_desk(card: LiveCard) -> Cell:
    badge = _live_badge(card)
    bar = _bar(card.node, card.moment) if card.moment and card.ending is None else None
    where = "" if card.slot else card.target.removeprefix(f"{card.station}:")
    failed = card.is_good is False
    return Cell(card.node, card.slot, False, badge, badge, None, failed, True, where, bar)


def trouble_of(view: NodeView, live: LiveCard | None) -> ToLookAt | None:
    """What is wrong with a node; None when nothing is, or when its card is being made anew."""
    card, found, advice = CARD_BADGES[view.card.standing], findings_of(view), advice_of(view)
    if live is not None:
        if live.ending is None:
            return None
        card = _live_badge(live)
        if not live.ending.is_good:
            found, advice = [live.ending.reason], [live.ending.hint]
        elif view.card.is_good is False:
            found, advice = [], []
    presence = presence_badge(view)
    is_out = view.seen is not None and (
        presence.kind == "bad" or view.seen.presence is Presence.SILENT
    )
    if card.kind not in ("bad", "warn") and not is_out:
        return None
    what = next(filter(None, found), presence.word)
    return ToLookAt(
        view.node.name, view.node.slot or "", card, what, "; ".join(filter(None, advice))
    )


def counts_of(cells: Sequence[Cell], *, in_run: bool) -> tuple[tuple[Badge, int], ...]:
    """How many nodes have each state of card, and how many joined. What becomes of cards in a run
    is there from its beginning, with none, so that nothing has to move when it first happens."""
    cards = Counter(cell.counted for cell in cells)
    joined = PRESENCE_BADGES[Presence.JOINED]
    kept = _IN_RUN if in_run else ()
    found = [(badge, cards[badge]) for badge in _COUNTED if cards[badge] or badge in kept]
    return (*found, (joined, sum(cell.presence == joined for cell in cells)))


def run_line(run: LiveRun) -> RunLine:
    """What the page says of the run as a whole."""
    ahead = outlook(run.cards, run.cardless)
    failed = f", {ahead.failed} failed" if ahead.failed else ""
    rate = format_rate(ahead.bytes_per_second) if ahead.bytes_per_second else ""
    return RunLine(
        run.command,
        f"{run.began_at[:10]} {run.began_at[11:16]} UTC",
        f"{run.command}: {ahead.good} of {ahead.cards} done{failed}",
        Bar(
            "all cards",
            round(ahead.share * 1000),
            f"{ahead.share * 100:.0f} %",
            rate,
            _left(ahead.seconds_left),
        ),
        tuple(_stations(run.cards)),
        bool(run.offers) or run.command == "rack watch",
        run.offers,
        run.said,
    )


def _stations(cards: Sequence[LiveCard]) -> Iterator[str]:
    by_name: dict[str, list[LiveCard]] = {}
    for card in cards:
        by_name.setdefault(card.station, []).append(card)
    for name, its in sorted(by_name.items()):
        ahead = outlook(its)
        if name:
            failed = f", {ahead.failed} failed" if ahead.failed else ""
            left = _left(ahead.seconds_left)
            ends = f", {left} left" if left else ""
            yield f"{name}: {ahead.good} of {ahead.cards} done{failed}{ends}"


def _live_badge(live: LiveCard) -> Badge:
    if live.ending is not None:
        if live.ending.outcome == Outcome.UNKNOWN:
            return CARD_BADGES[Standing.UNKNOWN]
        good = live.ending.is_good
        return Badge("good" if good else "bad", "✓" if good else "✗", live.ending.outcome)
    return _WAITS if live.moment is None else _AT_WORK


def _counted(view: NodeView, live: LiveCard | None) -> Badge:
    """The state as which a node is counted."""
    if live is not None and (live.ending is None or live.ending.outcome == Outcome.UNKNOWN):
        return _live_badge(live)
    if live is not None and live.ending is not None and not live.ending.is_good:
        return CARD_BADGES[Standing.FAILED]
    if live is not None and live.ending is not None and live.ending.outcome == Outcome.VERIFIED:
        return CARD_BADGES[Standing.VERIFIED]
    return CARD_BADGES[view.card.standing]


def _bar(name: str, now: Moment) -> Bar:
    phase = now.phase.removesuffix(name).strip() or ("goes on" if now.moved_bytes else "begins")
    share = now.phase_share
    if share is None:
        gone = clock(now.phase_seconds) if now.phase and now.phase_seconds >= 1 else ""
        return Bar(phase, None, f"{phase} … {gone}".rstrip())
    rate = format_rate(now.bytes_per_second) if now.done_bytes else ""
    words = f"{phase} {share * 100:.0f} %"
    return Bar(phase, round(share * 1000), words, rate, _left(now.known_seconds_left))


def _left(seconds: float | None) -> str:
    return clock(seconds) if seconds is not None else ""


def _where(view: NodeView, live: LiveCard) -> str:
    if not live.slot:
        # Of an image file its name is enough: all of a run are in one folder.
        is_disk = live.target.startswith("/dev/") or live.station
        return live.target if is_disk else live.target.rpartition("/")[2]
    return " ".join(filter(None, (live.station, live.slot if live.slot != view.node.slot else "")))


def live_by_node(run: LiveRun | None) -> Mapping[str, LiveCard]:
    """The cards of the run by the nodes they are for."""
    return {card.node: card for card in run.cards} if run is not None else {}
