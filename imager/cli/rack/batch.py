"""A batch, from asking the person to the table at its end.

In: a plan that was shown. Out: the cards are made, the result of each is shown, and the fields of
the command's result are returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click

from imager.base.errors import BatchFailed, Interrupted, TargetRefused, UsageError
from imager.card.host.target import Limits
from imager.cli.session import CommandResult, Session
from imager.cli.views.batch_screen import shown_batch
from imager.cli.views.plan import closing_lines, result_fields, result_lines
from imager.config.rack import Rack
from imager.node.edit.edit import opened
from imager.rack.batch.batch import exit_code_of, flash
from imager.rack.batch.crew import CardJob, Orders
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome
from imager.rack.plan.plan import PlannedCard, RackPlan
from imager.rack.plan.survey import GoldenImages, different

jobs_option = click.option(
    "--jobs", metavar="N", type=click.IntRange(1), help="Cards at a time. [what the bus bears]"
)


def consented_steps(
    session: Session, plan: RackPlan, *, yes: bool
) -> tuple[tuple[PlannedCard, ...], tuple[CardResult, ...]]:
    """The steps that may be done, and a refusal for each of the others. Raises Interrupted when the
    person said no, UsageError when there is nobody to ask."""
    steps = plan.to_do
    asks = [step for step in steps if step.needs_a_word]
    if (yes and not asks) or all(step.candidate.target.is_new for step in steps):
        return steps, ()
    if yes and not session.console.can_ask:
        # Nobody can say whether cards that hold something may be overwritten: do the others.
        return tuple(s for s in steps if s not in asks), tuple(map(_unasked, asks))
    if not session.console.can_ask:
        raise UsageError(
            f"{len(steps)} cards are to be overwritten and there is nobody to ask",
            hint="say --yes; it takes the rack's own slots, blank cards and cards of this rack",
        )
    lost = [
        f"{step.candidate.target.title}: {step.candidate.about}"
        for step in (asks if yes else steps)
        if step.candidate.about not in ("blank", "a new file")
    ]
    lines = ["These cards hold something, which will be lost:", *(f"    {one}" for one in lost)]
    if not session.console.confirm(lines if lost else [], "yes"):
        raise Interrupted("not confirmed; nothing was written", hint="run the command again")
    return steps, ()


def _unasked(step: PlannedCard) -> CardResult:
    target = step.candidate.target
    error = TargetRefused(
        f"{target.node} holds {step.candidate.about}, and there is nobody to ask",
        hint="run it at a terminal and say yes, or blank the card, or name the slot in slots.toml",
    )
    return CardResult(_card_job(step, target.size_bytes), Outcome.REFUSED, error=error)


def _card_job(step: PlannedCard, size_bytes: int) -> CardJob:
    return CardJob(step.node, step.candidate.target, size_bytes, step.candidate.slot or "")


def work(
    session: Session,
    orders: Orders,
    steps: Sequence[PlannedCard],
    images: GoldenImages,
    size_bytes: int | None,
) -> tuple[CardResult, ...]:
    """Do the steps side by side and show how far each is. New image files get ``size_bytes``, or
    are as small as the release allows."""
    jobs = []
    for step in steps:
        smallest = images[step.node.name].layout.size_bytes
        jobs.append(_card_job(step, step.candidate.size_bytes or size_bytes or smallest))
    with shown_batch(session.console, orders.rack.folder, "rack flash", jobs) as watch:
        return flash(orders, jobs, watch)


@contextmanager
def orders_for(
    rack: Rack,
    images: GoldenImages,
    limits: Limits,
    jobs: int | None,
    *,
    update: bool = True,
    probe: bool = True,
) -> Iterator[Orders]:
    """How the crew is to work: ``jobs`` cards at a time, or if None as many as the bus can serve.
    The golden images stay open until the block ends."""
    with ExitStack() as held:
        views = {each.key: held.enter_context(opened(each)) for each in different(images)}
        yield Orders(
            rack=rack,
            golden_of=lambda node: views[images[node.name].key],
            limits=limits,
            at_once=jobs,
            update=update,
            probe=probe,
        )


def show_results(
    session: Session,
    results: Sequence[CardResult],
    without: Sequence[str],
    *,
    again: str = "do what is said above, then run the same command: it does only what is missing",
) -> CommandResult:
    """Show how each card ended; return the fields of the command's result. ``without`` are the
    nodes that need a card and got none; ``again`` says what to do where some failed."""
    console = session.console
    code = exit_code_of(results)
    console.lines(*result_lines(results, console.columns))
    closing = closing_lines(results, without)
    if results and not code:
        first, *closing = closing
        console.verdict(first, good=True)
    console.lines(*closing)
    bad = [result for result in results if not result.is_verified]
    if code == Interrupted.exit_code:
        console.error(
            Interrupted(
                f"interrupted; {len(results) - len(bad)} of {len(results)} cards are verified",
                hint="what is said of each card above holds; run the same command for the rest",
            )
        )
    elif code:
        console.error(
            BatchFailed(
                f"{len(bad)} of {len(results)} cards failed: "
                + ", ".join(f"{result.job.name} ({result.outcome})" for result in bad),
                hint=again,
            )
        )
    return {
        "exit_code": code,
        "nodes": [result_fields(result) for result in results],
        "verified": [result.job.name for result in results if result.is_verified],
        "failed": [result.job.name for result in bad],
        "without_card": list(without),
    }
