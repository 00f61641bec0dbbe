"""A batch's plan and its end, as tables that fit the terminal and as JSON.

In: a Plan, or results. Out: lines and fields. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from imager.base.errors import BatchFailed, Interrupted, PicloudError
from imager.base.units import clock, format_rate, format_size
from imager.cli.console import Console
from imager.cli.terminal.folding import table
from imager.config.nodeset import fold
from imager.config.rack import Node
from imager.rack.batch.batch import exit_code_of
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Candidate, Unfit
from imager.rack.plan.plan import Action, Left, PlannedCard, RackPlan

_NOTHING = "–"

_SWITCH_ON = "  → put each in its Pi and switch on, then: picloud-image rack status --wait"
_COPY_THEM = "  → each file is a whole card: copy it to one, or boot it in an emulator"


def made_from(release: str, salt: str | None) -> str:
    """One line that says what the cards are made from. ``salt`` is the version that rack.toml
    names, None if it names none."""
    return f"release {release} · Salt {salt or 'as the release has it'}"


def plan_lines(plan: RackPlan, unfit: Sequence[Unfit], columns: int | None) -> list[str]:
    """The plan, as a person reads it before saying yes."""
    lines: list[str] = []
    if plan.steps:
        head = ("node", "slot", "card", "size", "holds now", "because of", "to do")
        lines += said_table(head, [_step_cells(step) for step in plan.steps], columns)
    lines += [left_line(left) for left in plan.left]
    for card in unfit:
        where = f"{card.slot}, " if card.slot else ""
        lines.append(f"refused: {where}{card.target.node}:")
        lines += [f"    {reason}" for reason in card.reasons]
    lines += unknown_lines(plan)
    if plan.done:
        lines.append(f"done already: {_names(plan.done)}")
    if plan.without:
        lines.append(f"no card here for: {_names(plan.without)}")
    return lines


def unknown_lines(plan: RackPlan) -> list[str]:
    """Where the cards are that were begun, and of which nobody knows the end."""
    return [
        f"unknown: {name}: look at the card in {where}; it was begun there"
        for name, where in plan.elsewhere.items()
    ]


def _step_cells(step: PlannedCard) -> tuple[str, ...]:
    candidate = step.candidate
    size = format_size(candidate.target.size_bytes) if candidate.target.size_bytes else "new"
    todo = {Action.WRITE: "write", Action.UPDATE: "update", Action.NOTHING: "nothing: verified"}
    return (
        step.node.name,
        candidate.slot or _NOTHING,
        candidate.target.node,
        size,
        candidate.about,
        step.why,
        todo[step.action],
    )


def left_line(left: Left) -> str:
    """A card that is left alone, and why, for a person."""
    return f"left alone: {_card(left.candidate)}: {left.because}"


def _card(candidate: Candidate) -> str:
    where = f"{candidate.slot}, " if candidate.slot else ""
    return f"{where}{candidate.target.node} ({candidate.about})"


def _names(nodes: Sequence[Node]) -> str:
    return fold([node.name for node in nodes])


def plan_fields(plan: RackPlan, unfit: Sequence[Unfit]) -> dict[str, object]:
    """The same for a program."""
    return {
        "steps": [
            {
                "node": step.node.name,
                "action": step.action,
                "because": step.why,
                "asks": step.needs_a_word,
                **_candidate_fields(step.candidate),
            }
            for step in plan.steps
        ],
        "left": [left_fields(left) for left in plan.left],
        "refused": [
            {"target": card.target.node, "slot": card.slot, "reasons": list(card.reasons)}
            for card in unfit
        ],
        "done": [node.name for node in plan.done],
        "without_card": [node.name for node in plan.without],
        **({"unknown": dict(plan.elsewhere)} if plan.elsewhere else {}),
    }


def _candidate_fields(candidate: Candidate) -> dict[str, object]:
    target = candidate.target
    return {
        "target": target.node,
        "slot": candidate.slot,
        "size_bytes": candidate.size_bytes or None,
        "model": target.facts.model,
        "serial": target.facts.serial,
        "holds": candidate.holds,
        "about": candidate.about,
    }


def left_fields(left: Left) -> dict[str, object]:
    """The same for a program."""
    return {**_candidate_fields(left.candidate), "because": left.because}


def result_lines(results: Sequence[CardResult], columns: int | None) -> list[str]:
    """How the card of each node ended, and what to do if it failed."""
    if not results:
        return []
    cells = [
        (
            result.job.name,
            result.job.slot or _NOTHING,
            result.job.target.node,
            result.outcome.value,
            clock(result.seconds) if result.seconds else _NOTHING,
            _speeds(result),
        )
        for result in results
    ]
    head = ("node", "slot", "card", "result", "time", "written, read back")
    return [*said_table(head, cells, columns), *trouble_lines(results)]


def trouble_lines(results: Sequence[CardResult]) -> list[str]:
    """What was wrong with each card of ``results``, and what to do."""
    lines = []
    for result in results:
        if result.error is not None:
            lines.append(f"{result.job.name}: {result.fault}")
            lines += [f"    {detail}" for detail in result.error.details]
            lines.append(f"  → {result.error.hint}")
        elif result.receipt is not None and result.receipt.trouble is not None:
            lines.append(f"{result.job.name}: {result.receipt.trouble.meaning}")
    return lines


def closing_lines(results: Sequence[CardResult], without: Sequence[str]) -> list[str]:
    """How a batch ended, and what to do next if nothing failed. ``without`` are the nodes that need
    a card and got none."""
    count = Counter(result.outcome for result in results)
    good, others = count[Outcome.VERIFIED], (Outcome.INTERRUPTED, Outcome.UNKNOWN)
    lines = []
    if results:
        failed = len(results) - good - sum(count[one] for one in others)
        more = "".join(f", {count[one]} {one}" for one in others if count[one])
        lines.append(f"{good} of {len(results)} cards verified; {failed} failed{more}")
    if without:
        lines.append(f"no card yet for: {fold(without)}")
        lines.append("  → put in a card for each and run the same command again")
    elif results and good == len(results):
        cards = any(not result.job.target.made_anew for result in results)
        lines.append(_SWITCH_ON if cards else _COPY_THEM)
    return lines


def _speeds(result: CardResult) -> str:
    if result.receipt is None:
        return ""
    rates = {phase.name: format_rate(phase.bytes_per_second) for phase in result.receipt.phases}
    if "compare" in rates:
        return f"compared at {rates['compare']}"
    return ", ".join(rates[name] for name in ("write", "read back") if name in rates)


def error_fields(error: PicloudError | None) -> dict[str, object]:
    """What went wrong with one card, for a program; empty where nothing did."""
    return {
        "reason": error.what if error else "",
        "hint": error.hint if error else "",
        "details": list(error.details) if error else [],
    }


def ending_fields(result: CardResult) -> dict[str, object]:
    """How the card of one node ended, for a program."""
    return {
        "node": result.job.name,
        "target": result.job.target.node,
        "slot": result.job.slot or None,
        "outcome": result.outcome,
        **error_fields(result.error),
        "exit_code": result.error.exit_code if result.error else 0,
        "seconds": round(result.seconds, 3),
    }


def result_fields(result: CardResult) -> dict[str, object]:
    """The same of a card that was to be written."""
    receipt = result.receipt
    return {
        **ending_fields(result),
        "receipt": result.receipt_name or None,
        "image_id": receipt.image.image_id if receipt else None,
        "trouble": receipt.trouble.to_json() if receipt and receipt.trouble else None,
    }


def show_end(console: Console, results: Sequence[CardResult], said: str, *, stopped: str) -> None:
    """Show how a batch ended. ``said`` is how much of it was done, ``stopped`` what to do where it
    was interrupted."""
    code = exit_code_of(results)
    if code == Interrupted.exit_code:
        console.error(Interrupted(f"interrupted; {said}", hint=stopped))
    elif code:
        bad = [f"{one.job.name} ({one.outcome})" for one in results if not one.is_verified]
        hint = "do what is said above, then run the same command for these"
        console.error(BatchFailed(f"{said}; not {', '.join(bad)}", hint=hint))
    else:
        console.verdict(said, good=True)


def said_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None
) -> list[str]:
    """A table in lines without the columns in which nothing is said."""
    said = [n for n in range(len(head)) if any(row[n] not in ("", _NOTHING) for row in rows)]
    return table([head[n] for n in said], [[row[n] for n in said] for row in rows], columns)
