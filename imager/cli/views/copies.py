"""A card that is copied to others: what will be done, and what came of it, in lines and as JSON.

In: an Original and targets, or results. Out: lines and fields, and for results the exit code.
"""

from __future__ import annotations

from collections.abc import Sequence

from imager.base.units import clock, format_rate, format_size
from imager.card.host.target import Target
from imager.card.save.original import Original
from imager.cli.console import Console
from imager.cli.terminal.folding import table
from imager.cli.views.plan import error_fields, show_end, trouble_lines
from imager.rack.batch.batch import exit_code_of
from imager.rack.batch.workers import CardResult


def plan_lines(original: Original, targets: Sequence[Target]) -> list[str]:
    """What will be done, for a person."""
    card = original.card
    copied, size = original.extents.total_bytes, card.size_bytes
    notes = [f"          {card.note}"] if card.note else []
    notes += [
        f"          {area.name}: all of it, for {area.note}" for area in card.areas if area.note
    ]
    dirty = ", ".join(area.name for area in card.areas if area.dirty)
    return [
        f"source    {original.title}",
        f"copied    {format_size(copied)} of {format_size(size)}: what its filesystems use",
        *notes,
        *([f"          {dirty}: was not unmounted; the copy is as it is"] if dirty else []),
        *(f"target    {target.title}" for target in targets),
        "proof     every byte is read back from each target",
    ]


def plan_fields(original: Original, targets: Sequence[Target]) -> dict[str, object]:
    """The same for a program."""
    return {
        "source": original.name,
        "source_bytes": original.card.size_bytes,
        "mapped_bytes": original.extents.total_bytes,
        "needs_bytes": original.size_bytes,
        "journals_to_replay": [area.name for area in original.card.areas if area.dirty],
        "targets": [
            {"target": target.node, "target_is": target.title, "holds": list(target.holds)}
            for target in targets
        ],
    }


def show_copies(
    console: Console, original: Original, results: Sequence[CardResult]
) -> dict[str, object]:
    """Show how each copy ended; return the fields of the command's result."""
    good = [result for result in results if result.is_verified]
    bad = [result for result in results if not result.is_verified]
    rows = [_cells(result) for result in results]
    console.lines(*table(("card", "result", "time", "written, read back"), rows, console.columns))
    console.lines(*trouble_lines((*bad, *good)))
    said = f"{len(good)} of {len(results)} are copies of {original.name}, every byte read back"
    again = "what is said of each card above holds; run the same command for the others"
    show_end(console, results, said, stopped=again)
    return {
        "exit_code": exit_code_of(results),
        "source": original.name,
        "cards": [_fields(result) for result in results],
        "verified": [result.job.name for result in good],
        "failed": [result.job.name for result in bad],
    }


def _cells(result: CardResult) -> tuple[str, ...]:
    phases = result.receipt.phases if result.receipt else ()
    rates = {phase.name: format_rate(phase.bytes_per_second) for phase in phases}
    return (
        result.job.name,
        result.outcome.value,
        clock(result.seconds),
        ", ".join(rates[name] for name in ("write", "read back") if name in rates),
    )


def _fields(result: CardResult) -> dict[str, object]:
    error = result.error
    if result.receipt is not None:
        return {"outcome": result.outcome, **result.receipt.brief(), "receipt": result.receipt_name}
    return {
        "outcome": result.outcome,
        "target": result.job.name,
        "verified": False,
        **error_fields(error),
        "error_exit_code": error.exit_code if error else 0,
        "receipt": result.receipt_name or None,
    }
