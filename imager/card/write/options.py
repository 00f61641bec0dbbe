"""How large the transfers to a card are and how many are under way at a time.

In: what the kernel reports of a disk, what the person asked for, and how much memory there is for
one card. Out: WriteOptions that say why. Pure.

Most readers report nothing of the card in them. Then 4 MiB: the erase unit of common cards, and
large for every reader; and two at a time, which keeps a reader busy that takes one command at a
time, while more would only reach the card out of order, which cards mind.
"""

from __future__ import annotations

from imager.base.errors import UsageError
from imager.base.units import MiB, align_down, align_up, format_chosen
from imager.card.host.target import Target
from imager.card.stages import WriteOptions

DEFAULT_OPTIONS = WriteOptions(block_bytes=4 * MiB, depth=2)
MAX_BLOCK_BYTES = 16 * MiB
MAX_IN_FLIGHT = 32 * MiB
_MANY_DEPTH = 4
_ASKED = "as asked"
_DEFAULT = "by default"


def options_for(
    target: Target,
    *,
    block_bytes: int | None = None,
    depth: int | None = None,
    most_bytes: int = MAX_IN_FLIGHT,
) -> WriteOptions:
    """The transfers for ``target``: as a person asked, else as the device suggests.

    What is chosen here shrinks, to 1 MiB and one at a time at the least, until all that is in
    flight stays within ``most_bytes``; what was asked for is not touched. Raises UsageError for a
    useless wish.
    """
    _check(block_bytes, depth)
    block, why_block = (block_bytes, _ASKED) if block_bytes else suggested_block(target)
    many, why_many = (depth, _ASKED) if depth else _suggested_depth(target)
    most = min(most_bytes, MAX_IN_FLIGHT)
    while block * many > most:
        if not depth and many > DEFAULT_OPTIONS.depth:
            many, why_many = many - 1, "for memory"
        elif not block_bytes and block > MiB:
            block, why_block = max(MiB, align_down(block // 2, MiB)), "for memory"
        elif not depth and many > 1:
            many, why_many = many - 1, "for memory"
        else:
            break
    if block * many > MAX_IN_FLIGHT:
        raise UsageError(
            f"{many} transfers of {format_chosen(block)} at a time cannot be had",
            hint=f"choose from 1 to {MAX_IN_FLIGHT // block}",
        )
    alike = why_block == why_many
    return WriteOptions(block, many, why_many if alike else f"size {why_block}, number {why_many}")


def _check(block_bytes: int | None, depth: int | None) -> None:
    if block_bytes is not None and (not MiB <= block_bytes <= MAX_BLOCK_BYTES or block_bytes % MiB):
        raise UsageError(
            f"a block of {format_chosen(block_bytes)} cannot be used",
            hint=f"choose whole MiB from 1 MiB to {format_chosen(MAX_BLOCK_BYTES)}",
        )
    if depth is not None and not 1 <= depth <= MAX_IN_FLIGHT // MiB:
        raise UsageError(
            f"{depth} transfers at a time cannot be had",
            hint=f"choose from 1 to {MAX_IN_FLIGHT // MiB}",
        )


def suggested_block(target: Target) -> tuple[int, str]:
    """The transfer size the device reports, in whole MiB of at most 16, and where it is from.

    The erase unit of a card in a native slot counts most; a smaller one is filled up to 4 MiB.
    Then the queue's optimal size (of a RAID, say), unless it is the nonsense that some USB
    bridges report (65535 sectors).
    """
    usual = DEFAULT_OPTIONS.block_bytes
    for unit, name in (
        (target.queue.erase_bytes, "from the card's erase unit"),
        (target.queue.optimal_bytes, "from the disk's optimal transfer"),
    ):
        block = align_up(usual, unit) if unit else 0
        if MiB <= block <= MAX_BLOCK_BYTES and block % MiB == 0:
            return block, name
    return usual, _DEFAULT


def _suggested_depth(target: Target) -> tuple[int, str]:
    if target.takes_many:
        return _MANY_DEPTH, "for a disk that takes many at a time"
    return DEFAULT_OPTIONS.depth, _DEFAULT
