"""What ``inspect`` tells a person: one sentence first, then the findings, then what was looked at.

In: the report of the boot check. Out: lines. Pure.
"""

from __future__ import annotations

from imager.base.boards import board_named
from imager.bootcheck.check import BootReport
from imager.bootcheck.findings import Finding

UNDECIDED = "not all of it was looked at, so it cannot be said whether it boots"


def verdict(report: BootReport) -> str:
    """Would it boot, on what and as whom; if not, the first thing in the way. No verdict on a
    system that another program than the firmware would start, and none on a card of which not all
    was looked at that the boot depends on."""
    if report.undecided is not None:
        others = f"; it would boot on {', '.join(report.models)}" if report.models else ""
        return f"{UNDECIDED}{_board(report)}: {report.undecided.what}{others}"
    if report.bootable and report.route is not None and not report.route.followed:
        started = f"{report.route.path} ({report.route.chain})"
        boards = ", ".join(report.models)
        return f"starts {started} on {boards}; what comes after that is not checked from here"
    system = report.root.system if report.root else None
    whom = " ".join(filter(None, (report.node, f"({system})" if system else None)))
    if report.bootable:
        return f"would boot on {', '.join(report.models)}{f' as {whom}' if whom else ''}"
    others = f"; it would boot on {', '.join(report.models)}" if report.models else ""
    return f"would not boot{_board(report)}: {report.errors[0].what}{others}"


def _board(report: BootReport) -> str:
    return f" on a {board_named(report.judged_as).title}" if report.judged_as else ""


def finding_lines(finding: Finding) -> list[str]:
    """One finding."""
    return [
        f"{finding.severity}: {finding.what} [{finding.code}]",
        f"    why:  {finding.why}",
        f"    seen: {finding.symptom}",
        f"    mend: {finding.mend}",
    ]


def scope_lines(report: BootReport) -> list[str]:
    """What was looked at, and what was not."""
    seen, unseen = ["the partition table"], []
    if report.judged_as:
        if report.unseen:
            seen.append("the boot partition")
            unseen.append("what the warnings [not-looked-at] name, and what depends on it")
        else:
            seen.append("the boot partition and every file the board loads from it")
        if report.route:
            seen.append(f"the way {report.route}")
    else:
        unseen.append("a boot partition, for there is none that can be read")
    if report.root:
        where = f"partition {report.root.partition}"
        seen.append(f"on {where} superblock, journal, root directory, first program and fstab")
        unseen.append(f"the other files on {where} (verify, or e2fsck -fn)")
    else:
        unseen.append("the root filesystem")
    unseen.append("the board itself, its power and its card slot")
    return [f"    looked at: {'; '.join(seen)}", f"    not looked at: {'; '.join(unseen)}"]
