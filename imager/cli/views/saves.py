"""Cards that are saved and restored: the plans, and what came of saving, in lines and as JSON.

In: plans, or results. Out: lines and fields, and for results the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from imager.base.errors import PicloudError
from imager.base.units import clock, format_rate, format_size
from imager.cli.console import Console
from imager.cli.views.plan import (
    ending_fields,
    left_fields,
    left_line,
    plan_fields,
    plan_lines,
    said_table,
    show_end,
    trouble_lines,
)
from imager.config.nodeset import fold
from imager.config.rack import Node
from imager.rack.batch.batch import exit_code_of
from imager.rack.batch.workers import CardResult
from imager.rack.plan.saved import RestorePlan
from imager.rack.plan.to_save import SavePlan

_NOTHING = "–"


def save_lines(plan: SavePlan, columns: int | None) -> list[str]:
    """What will be saved, for a person whose terminal is ``columns`` wide."""
    rows = [
        (
            card.node.name,
            card.candidate.slot or _NOTHING,
            card.candidate.target.node,
            format_size(card.candidate.target.size_bytes),
            card.candidate.about,
            "nothing: see below" if card.against else str(card.files.path),
        )
        for card in plan.cards
    ]
    head = ("node", "slot", "card", "size", "holds now", "becomes")
    lines = said_table(head, rows, columns) if rows else []
    lines += [left_line(left) for left in plan.left]
    lines += _refusal_lines((card.node, card.against) for card in plan.cards if card.against)
    if plan.without:
        lines.append(f"no card here of: {fold([node.name for node in plan.without])}")
    return lines


def _refusal_lines(refused: Iterable[tuple[Node, PicloudError]]) -> list[str]:
    return [
        line
        for node, error in refused
        for line in (f"refused: {node.name}: {error.what}", f"  → {error.hint}")
    ]


def save_fields(plan: SavePlan) -> dict[str, object]:
    """The same for a program."""
    return {
        "cards": [
            {
                "node": card.node.name,
                "target": card.candidate.target.node,
                "slot": card.candidate.slot,
                "about": card.candidate.about,
                "file": str(card.files.path),
                **_refusal_fields(card.against),
            }
            for card in plan.cards
        ],
        "left": [left_fields(left) for left in plan.left],
        "without_card": [node.name for node in plan.without],
    }


def _refusal_fields(error: PicloudError | None) -> dict[str, object]:
    return {"refused": error.what if error else None, "hint": error.hint if error else None}


def show_saved(
    console: Console, folder: Path, results: Sequence[CardResult], plan: SavePlan
) -> dict[str, object]:
    """Show how each card ended; return the fields of the command's result."""
    head = ("node", "slot", "card", "result", "time", "read", "file")
    console.lines(*said_table(head, [_cells(one) for one in results], console.columns))
    console.lines(*trouble_lines(results))
    good = [result.job.name for result in results if result.is_verified]
    bad = [result for result in results if not result.is_verified]
    said = f"{len(good)} of {len(results)} cards are saved in {folder}"
    again = "run the same command for the others: it goes on where it stopped"
    show_end(console, results, said, stopped=again)
    return {
        "exit_code": exit_code_of(results),
        "folder": str(folder),
        "cards": [_fields(result) for result in results],
        "saved": good,
        "failed": [result.job.name for result in bad],
        "without_card": [node.name for node in plan.without],
    }


def _cells(result: CardResult) -> tuple[str, ...]:
    saved = result.saved
    read = next((phase for phase in saved.phases if phase.name == "read"), None) if saved else None
    return (
        result.job.name,
        result.job.slot or _NOTHING,
        result.job.target.node,
        result.outcome.value,
        clock(result.seconds) if result.seconds else _NOTHING,
        format_rate(read.bytes_per_second) if read else "",
        saved.files.path.name if saved else "",
    )


def _fields(result: CardResult) -> dict[str, object]:
    saved = result.saved
    return {
        **ending_fields(result),
        "file": str(saved.files.path) if saved else None,
        "sha256": saved.sha256 if saved else None,
        "bmap_sha256": saved.map_sha256 if saved else None,
        "mapped_bytes": saved.mapped_bytes if saved else None,
    }


def restore_lines(plan: RestorePlan, columns: int | None) -> list[str]:
    """What will be put back, for a person."""
    rows = [
        (
            step.node.name,
            str(plan.saved[step.node.name].path),
            _spoken(plan.saved[step.node.name].saved_at),
            format_size(plan.saved[step.node.name].size_bytes),
        )
        for step in plan.cards.steps
    ]
    from_where = said_table(("node", "restored from", "saved", "needs"), rows, columns)
    return [
        *(from_where if rows else []),
        *plan_lines(plan.cards, plan.unfit, columns),
        *_refusal_lines(plan.against),
    ]


def _spoken(at: str) -> str:
    return f"{at[:10]} {at[11:16]} UTC"


def restore_fields(plan: RestorePlan) -> dict[str, object]:
    """The same for a program."""
    return {
        **plan_fields(plan.cards, plan.unfit),
        "files": [
            {
                "node": name,
                "file": str(saved.path),
                "saved_at": saved.saved_at,
                "needs_bytes": saved.size_bytes,
                "image_id": saved.facts.image_id,
            }
            for name, saved in plan.saved.items()
        ],
        "cannot": [{"node": node.name, **_refusal_fields(error)} for node, error in plan.against],
    }
