"""``rack slots``: give the slots of the card readers the labels of the rack's places."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from imager.base.errors import Interrupted, UsageError
from imager.base.units import format_size
from imager.card.host.arrivals import Arrivals, arrivals
from imager.card.host.disks import Disk, list_disks
from imager.cli.choice import open_rack
from imager.cli.lazy import CommandGroup
from imager.cli.session import CommandResult, Session, command
from imager.cli.settings import common_options, take
from imager.config.rack import Rack
from imager.config.slot_labels import EXAMPLE, by_place, expand_labels
from imager.rack.plan.learn_slots import Lesson, labels_to_learn, learn_slots
from imager.rack.plan.slots import SLOTS_FILE, Slots, forget_slots, load_slots

_POLL_SECONDS = 1.0


@command("learn", uses=("rack",))
@click.argument("labels", required=False)
@click.option("--replace", is_flag=True, help="Learn anew also the slots that have a label.")
def learn(session: Session, labels: str | None, replace: bool) -> CommandResult:
    """Put in one card after the other: each slot gets the next label.

    LABELS are written like A[1-7],B[1-7]; without them, those of the nodes in rack.toml.

    Examples:
        picloud-image rack slots learn
            All labels of the rack, one card after the other.
        picloud-image rack slots learn 'A[1-7]' --replace
            Only tower A, and those that were learned, too.
    """
    rack = open_rack(session)
    wanted = labels_to_learn(load_slots(rack.folder), _labels(rack, labels), replace=replace)
    learned: dict[str, str] = {}
    with _ending_early(learned, wanted), arrivals() as watch:
        _name_cards_in_already(session, watch)
        if wanted:
            _ask_for(session, wanted[0])
        for lesson in learn_slots(rack.folder, wanted, _cards_put_in(watch), replace=replace):
            if lesson.label is not None and not lesson.already:
                learned[lesson.label] = lesson.disk.by_path[0]
            _show_lesson(session, lesson, wanted[len(learned) :])
    if not wanted:
        session.console.lines("Every slot has its label already; --replace learns them anew.")
    else:
        session.console.lines(f"{_count(len(learned))} in {rack.folder / SLOTS_FILE}")
    return {"learned": learned, "file": str(rack.folder / SLOTS_FILE)}


@command("show", uses=("rack",))
def show(session: Session) -> CommandResult:
    """List the labels: whose they are, where they are, and the card that is in now.

    Examples:
        picloud-image rack slots show
            Which reader has which label?
    """
    rack = open_rack(session, looking=True)
    slots = load_slots(rack.folder)
    nodes = {node.slot: node.name for node in rack.nodes if node.slot}
    cards = {slots.label_of(disk.by_path): disk for disk in list_disks() if disk.has_medium}
    labels = sorted({*nodes, *slots.names}, key=by_place)
    if labels:
        session.console.table(
            ["slot", "node", "reader", "card in it now"],
            [
                [
                    label,
                    nodes.get(label, "-"),
                    slots.names.get(label, "not learned yet"),
                    _card(cards.get(label)),
                ]
                for label in labels
            ],
        )
    else:
        session.console.lines(
            f'No slot has a label yet: write slots = "{_one_for_each(rack)}" under [rack] in '
            "rack.toml,",
            "then picloud-image rack slots learn",
        )
    return {"slots": [_fields(label, nodes, slots, cards.get(label)) for label in labels]}


@command("forget", uses=("rack",))
@click.argument("labels")
def forget(session: Session, labels: str) -> CommandResult:
    """Take LABELS, like A3 or B[1-7], away from their slots.

    Examples:
        picloud-image rack slots forget 'A3,B[1-7]'
            A reader has gone, for example.
    """
    rack = open_rack(session)
    gone = _labels(rack, labels)
    left = forget_slots(rack.folder, gone)
    session.console.lines(f"forgot {', '.join(gone)}; {_count(len(left.names))} left")
    return {"forgot": list(gone), "left": list(left.names)}


@click.group("slots", cls=CommandGroup, uses=("rack",), commands=[learn, show, forget])
@common_options
@click.pass_context
def slots(context: click.Context, /, **options: Any) -> None:
    """Name the slots of the card readers, so that each card goes to its node.

    Examples:
        picloud-image rack slots learn
        picloud-image rack slots show
    """
    context.obj = take(context, options)


def _labels(rack: Rack, text: str | None) -> tuple[str, ...]:
    if text is not None:
        try:
            return expand_labels(text)
        except ValueError as error:
            raise UsageError(
                f"{text!r} {error}", hint=f"write them like {shlex.quote(EXAMPLE)}"
            ) from error
    labels = tuple(node.slot for node in rack.nodes if node.slot)
    if not labels:
        raise UsageError(
            "rack.toml gives no node a slot, so there are no labels to learn",
            hint=f'write slots = "{_one_for_each(rack)}" under [rack], or name the labels here: '
            f"{shlex.quote(_one_for_each(rack))}",
        )
    return labels


def _one_for_each(rack: Rack) -> str:
    """Labels as [rack] slots takes them in ``rack``: neither more nor fewer than it has nodes."""
    count = len(rack.nodes)
    return f"A[1-{count}]" if count > 1 else "A1"


@contextmanager
def _ending_early(learned: dict[str, str], wanted: tuple[str, ...]) -> Iterator[None]:
    """Let Ctrl-C end the learning early. What was learned until then is in the file already."""
    try:
        yield
    except KeyboardInterrupt:
        left = [label for label in wanted if label not in learned]
        raise Interrupted(
            f"stopped: {_count(len(learned))} learned and kept, {', '.join(left)} not yet",
            hint="run the command again to go on from there",
        ) from None


def _cards_put_in(watch: Arrivals) -> Iterator[Disk]:
    """The cards that come; one that was in before is told again when udev names it late."""
    before = {(disk.node, disk.diskseq) for disk in watch.present if disk.diskseq is not None}
    while True:
        change = watch.wait(_POLL_SECONDS)
        disk = change.disk if change is not None else None
        if disk is not None and (disk.node, disk.diskseq) not in before:
            yield disk


def _name_cards_in_already(session: Session, watch: Arrivals) -> None:
    for disk in watch.present:
        session.console.note(
            f"{disk.node} is in already; take it out and put it in again when its slot's turn comes"
        )


def _ask_for(session: Session, label: str) -> None:
    session.console.note(f"Put a card into the slot that shall be {label} (Ctrl-C to stop).")


def _show_lesson(session: Session, lesson: Lesson, left: tuple[str, ...]) -> None:
    disk = lesson.disk
    slot = disk.by_path[0] if disk.by_path else None
    session.console.event(
        "slot",
        label=lesson.label,
        already=lesson.already,
        slot=slot,
        device=disk.node,
        why=lesson.why or None,
    )
    if lesson.label is None:
        session.console.say(f"{disk.node} {lesson.why}")
    elif lesson.already:
        session.console.say(f"{disk.node} is in {lesson.label}, which has its label already")
    else:
        session.console.say(f"{lesson.label} is {slot} ({disk.node})")
    if left:
        _ask_for(session, left[0])


def _count(slots: int) -> str:
    return f"{slots} slot{'' if slots == 1 else 's'}"


def _card(disk: Disk | None) -> str:
    return f"{disk.node} {format_size(disk.size_bytes)}" if disk else "none"


def _fields(
    label: str, nodes: dict[str, str], slots: Slots, disk: Disk | None
) -> dict[str, object]:
    return {
        "label": label,
        "node": nodes.get(label),
        "slot": slots.path_of(label),
        "device": disk.node if disk else None,
        "size_bytes": disk.size_bytes if disk else None,
    }
