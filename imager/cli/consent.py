"""Before a disk is overwritten: which disks may be, and a person's yes that this is the one.

In: the options of a command and its target. Out: the limits under which the target is accepted and
claimed. Every command that destroys what is on a card uses this, so that all ask the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from imager.base.errors import Interrupted, UsageError
from imager.base.units import SECTOR_BYTES, align_up, parse_size
from imager.card.host.exclusive import not_allowed
from imager.card.host.refusals import accept
from imager.card.host.target import Limits, Target
from imager.card.inspect.identity import identity_of
from imager.cli.session import Session

_MOST_GIB = 2048
"""Whoever says less than this without a unit means GiB: no card has so few bytes."""


def SIZE(value: object) -> int:
    """``8GiB`` on a command line as bytes; a usage error that says how sizes are written."""
    try:
        return parse_size(str(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def whole_sectors(size_bytes: int) -> int:
    """``--size`` as it was given; UsageError for what no card can have."""
    if size_bytes % SECTOR_BYTES:
        raise UsageError(
            f"--size {size_bytes}: a card is a whole number of {SECTOR_BYTES}-byte sectors",
            hint=f"a number alone counts bytes: say --size {size_bytes}GiB"
            if size_bytes <= _MOST_GIB
            else f"say --size {align_up(size_bytes, SECTOR_BYTES)}",
        )
    return size_bytes


def consent_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--yes``, ``--max-size`` and ``--allow-fixed-disk`` to a command."""
    for option in (
        click.option("--allow-fixed-disk", is_flag=True, help="Also a disk that is not removable."),
        click.option("--max-size", type=SIZE, help="Largest disk taken for a card. [256GiB]"),
        click.option("--yes", is_flag=True, help="Do not ask."),
    ):
        function = option(function)
    return function


def limits_of(
    ours: tuple[Path, ...], max_size: int | None, *, allow_fixed_disk: bool | None = None
) -> Limits:
    """What the options allow; ``allow_fixed_disk`` is None for a command without that option.
    ``ours`` are the folders that must not lie on the target.
    ``max_size`` is in bytes; None for the default."""
    limits = Limits(allow_fixed_disk=allow_fixed_disk, ours=ours)
    return limits if max_size is None else replace(limits, max_size_bytes=max_size)


def refuse_early(target: Target, limits: Limits, need_bytes: int = 0) -> None:
    """Raise for every refusal that is certain before the person is asked. The name of a fixed disk
    is asked for later and counts as typed here. ``need_bytes`` is what must fit on it, if known."""
    accept(target, need_bytes, replace(limits, typed_name=target.typed_name))


def consented(
    session: Session,
    target: Target,
    limits: Limits,
    *,
    yes: bool,
    warning: Sequence[str] | None = None,
) -> Limits:
    """The limits after the person confirmed; Interrupted when they did not.

    ``warning`` is shown instead of the warning that everything will be lost. For a new image file
    nobody is asked. Raises UsageError when there is nobody to ask, and TargetRefused for a target
    that this user may not write to: nothing is fetched or made for it in vain.
    """
    if not target.is_new and not os.access(target.node, os.W_OK):
        raise not_allowed(target.node)
    if target.is_fixed:
        # --yes is not enough for a disk that belongs in the computer: its name must be typed.
        ask(session, warning or _losses(target), target.typed_name)
        return replace(limits, typed_name=target.typed_name)
    if not yes and not target.is_new:
        if not session.console.can_ask:
            raise UsageError(
                f"{target.node} is to be overwritten and there is nobody to ask",
                hint="say --yes if it is the right one",
            )
        ask(session, warning or _losses(target), "yes")
    return limits


def consented_all(
    session: Session, targets: Sequence[Target], limits: Limits, *, yes: bool
) -> tuple[Limits, ...]:
    """As ``consented``, for several targets in one question; the limits of each, in order."""
    if len(targets) == 1:
        return (consented(session, targets[0], limits, yes=yes),)
    lost = [target for target in targets if not (target.is_new or target.is_fixed)]
    if lost and not yes:
        if not session.console.can_ask:
            raise UsageError(
                f"{', '.join(target.node for target in lost)} are to be overwritten and there is "
                "nobody to ask",
                hint="say --yes if they are the right ones",
            )
        ask(session, [line for target in lost for line in _losses(target)], "yes")
    return tuple(consented(session, target, limits, yes=True) for target in targets)


def _losses(target: Target) -> list[str]:
    """What is lost, with whose it is, where it says so itself."""
    first, *rest = target.losses
    name = identity_of(target)
    return [first, *([f"    on it now: {name}"] if name else []), *rest]


def ask(session: Session, lines: Sequence[str], expected: str) -> None:
    """Go on only if the person types ``expected``; Interrupted otherwise."""
    if not session.console.confirm(lines, expected):
        raise Interrupted("not confirmed; nothing was written", hint="run the command again")
