"""``lock promote`` and ``lock undo``: what becomes of packages that canary nodes try.

In: rack.lock, canary.lock and the Salt master. Out: canary.lock made rack.lock when every canary
node has its packages, answers, and the check succeeded there; or canary.lock dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from imager.base.errors import BatchFailed, ConfigurationError, PicloudError
from imager.base.text import command_line
from imager.cli.packages import candidate_of, wish_of_node
from imager.cli.session import CommandResult, Session
from imager.cli.views.packages import change_fields, change_lines
from imager.config.nodeset import fold
from imager.config.rack import Rack
from imager.packages.candidate import candidate_in, changes_between, not_tried, promote, undo
from imager.packages.fetch.alone import alone
from imager.packages.plan import LockChange
from imager.rack.master.connection import Way, door_to_master
from imager.rack.master.status import ask_status
from imager.rack.master.trial import Trial, ask_trials
from imager.release.lock import RackLock
from imager.release.terms import FetchTerms

_DIFFERENCES_SHOWN = 5


def promoted(session: Session, rack: Rack, way: Way, *, dry_run: bool) -> CommandResult:
    """Ask the canary nodes, and give their packages to all nodes when all is well. Ends with code
    30 when it is not."""
    candidate = candidate_of(rack)
    if candidate is None:
        return _nothing(session, rack, "promoted")
    changes = changes_between(RackLock.load(rack.lock_file), candidate)
    _show_changes(session, rack, candidate, changes)
    fields = {"canary": list(rack.canary), "changes": change_fields(changes)}
    if dry_run:
        check = f", and run there: {rack.canary_check}" if rack.canary_check else ""
        session.console.lines(
            f"would ask {rack.master.name} about {fold(rack.canary)}{check}",
            "Nothing was touched (--dry-run).",
        )
        return {"dry_run": True, "promoted": False, **fields}
    door = door_to_master(rack, way)
    session.console.note(f"asking the Salt master {rack.master.name} ({door.name})")
    status = ask_status(rack, [rack.node(name) for name in rack.canary], door)
    up = [name for name in rack.canary if name not in status.missing]
    trials = ask_trials(door, up, rack.canary_check) if up else {}
    found = []
    for name in rack.canary:
        trial = trials.get(name)
        if trial is None:
            faults = [f"it does not answer: {status.nodes[name].advice}"]
        else:
            faults = _faults(rack, name, candidate, trial)
        _show(session, rack, name, trial, faults)
        found.append(_fields(name, trial, faults))
    bad = [str(each["node"]) for each in found if each["faults"]]
    fields |= {"nodes": found}
    if bad:
        session.console.error(_not_well(rack, bad))
        return {"exit_code": BatchFailed.exit_code, "promoted": False, **fields}
    with alone(FetchTerms(session.cache, session.console, offline=True)):
        promote(candidate, rack.lock_file)
    session.console.lines(
        f"promoted: {rack.lock_file} has it now, and rack flash writes it to all nodes"
    )
    return {"promoted": True, **fields}


def undone(session: Session, rack: Rack, *, dry_run: bool) -> CommandResult:
    """Drop canary.lock, so that the canary nodes go by rack.lock again."""
    candidate = candidate_in(rack.candidate_file)
    if candidate is None:
        return _nothing(session, rack, "undone")
    changes = changes_between(candidate, RackLock.load(rack.lock_file))
    session.console.lines(*change_lines(changes))
    fields = {"canary": list(rack.canary), "changes": change_fields(changes)}
    if dry_run:
        session.console.lines("Nothing was touched (--dry-run).")
        return {"dry_run": True, "undone": False, **fields}
    with alone(FetchTerms(session.cache, session.console, offline=True)):
        undo(candidate)
    session.console.lines(
        f"{rack.candidate_file} is gone, and {rack.lock_file} is what all nodes have",
        *(
            [f"back from the archive, with its next card: {command_line('rack', 'flash', its)}"]
            if (its := fold(rack.canary))
            else []
        ),
    )
    return {"undone": True, **fields}


def _nothing(session: Session, rack: Rack, what: str) -> CommandResult:
    if not rack.canary and what == "promoted":
        raise ConfigurationError(
            "rack.toml names no canary under [packages], so there is nothing to promote",
            hint='write canary = ["pi3"] there; the next picloud-image lock --update goes to that '
            "node first",
        )
    session.console.lines(f"Nothing is on trial: {rack.lock_file} is what all nodes have.")
    return {what: False, "canary": list(rack.canary), "changes": []}


def _show_changes(
    session: Session, rack: Rack, candidate: RackLock, changes: Sequence[LockChange]
) -> None:
    session.console.lines(*change_lines(changes))
    warn_of_untried(session, rack, candidate, changes)


def warn_of_untried(
    session: Session, rack: Rack, candidate: RackLock, changes: Sequence[LockChange]
) -> None:
    """Say which packages moved that no canary node has: nothing is learned of them."""
    keys = [wish_of_node(rack, rack.node(name)).key for name in rack.canary]
    untried = not_tried(changes, candidate, keys)
    if untried:
        session.console.warn(f"no canary node has {', '.join(untried)}, so nobody tries it")


def _faults(rack: Rack, name: str, candidate: RackLock, trial: Trial) -> list[str]:
    """What is not well on a node that answers."""
    faults = list(_wrong_packages(rack, name, candidate, trial))
    if rack.canary_check is not None and trial.status != 0:
        how = "did not end" if trial.status is None else f"ended with {trial.status}"
        faults.append(f"{rack.canary_check} {how}")
    return faults


def _wrong_packages(rack: Rack, name: str, candidate: RackLock, trial: Trial) -> list[str]:
    wish = wish_of_node(rack, rack.node(name))
    pin = candidate.sets.get(wish.key)
    if pin is None:
        if wish.is_plain:
            return []
        # rack.toml was changed since: what it asks for was never tried.
        return [
            f"{candidate.path.name} has no packages for what rack.toml asks for it now: "
            "picloud-image lock --update"
        ]
    if trial.installed is None:
        return ["it does not say which packages it has (pacman -Q)"]
    has = trial.installed
    wrong = [
        f"{package} is {has.get(package, 'not there')}, not {version}"
        for package in pin.packages
        if has.get(package) != (version := candidate.pacman[package].version)
    ]
    wrong += [f"{package} is still there" for package in pin.remove if package in has]
    if not wrong:
        return []
    more = len(wrong) - _DIFFERENCES_SHOWN
    shown = wrong[:_DIFFERENCES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return [f"it does not run what is on trial: {'; '.join(shown)}"]


def _show(
    session: Session, rack: Rack, name: str, trial: Trial | None, faults: Sequence[str]
) -> None:
    if not faults:
        check = f", {rack.canary_check} succeeded" if rack.canary_check else ""
        session.console.lines(f"{name}: answers, has the packages{check}")
    session.console.lines(
        *(f"{name}: {fault}" for fault in faults),
        *(f"    {line}" for line in (trial.said if trial else ())),
    )


def _fields(name: str, trial: Trial | None, faults: Sequence[str]) -> dict[str, object]:
    return {
        "node": name,
        "answers": trial is not None,
        "check": trial.status if trial else None,
        "said": list(trial.said) if trial else [],
        "faults": list(faults),
    }


def _not_well(rack: Rack, bad: Sequence[str]) -> PicloudError:
    return BatchFailed(
        f"not promoted: {fold(bad)} {'is' if len(bad) == 1 else 'are'} not well",
        hint="write it, if that was not done: "
        f"{command_line('rack', 'flash', fold(rack.canary))}; or go back: picloud-image lock undo",
    )
