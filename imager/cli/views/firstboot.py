"""How far a node's first boot came, as a person reads it on the pulled card."""

from __future__ import annotations

from imager.card.inspect.firstboot import FirstBoot, State

_LOG = "picloud/firstboot.log on its boot partition"


def firstboot_lines(report: FirstBoot | str | None) -> list[str]:
    """Which step, since when, what to do; text says why the report cannot be read."""
    if report is None:
        return ["    first boot: not yet; put the card in its node and switch it on"]
    if isinstance(report, str):
        return [
            f"    first boot: unknown, for picloud/firstboot.json {report}",
            f"        do:   switch the node on again for five minutes, or read {_LOG}",
        ]
    match report.state:
        case State.COMPLETE:
            ended = next((s.note for s in report.steps if s.name.endswith("-await-master")), "")
            return [f"    first boot: complete{_at(report.time)}{f', {ended}' if ended else ''}"]
        case State.SKIPPED:
            return [
                f"    first boot: skipped{_at(report.time)}, as the kernel command line asks",
                "        do:   take picloud.firstboot=skip out of cmdline.txt",
            ]
        case State.RUNNING:
            return [
                f"    first boot: in step {report.step or '?'}{_since(report)} when it was last "
                f"heard of{_at(report.time)}",
                "        do:   switch the node on again and leave it on for five minutes; "
                "it goes on from there",
                f"        log:  {_LOG}",
            ]
        case State.FAILED:
            where = f" in step {report.step}" if report.step else ""
            lines = [f"    first boot: failed{where}{_since(report)}{_tried(report)}"]
            lines += [f"        what: {report.note}"] if report.note else []
            lines += [f"        do:   {report.hint}"] if report.hint else []
            return [*lines, f"        log:  {_LOG}"]


def firstboot_fields(report: FirstBoot | str | None) -> dict[str, object] | None:
    """The same for ``--json``."""
    if report is None or isinstance(report, str):
        return None if report is None else {"state": "unreadable", "fault": report}
    return report.to_json()


def _at(time: str) -> str:
    return f" at {time}" if time else ""


def _since(report: FirstBoot) -> str:
    return f" since {report.since}" if report.since else ""


def _tried(report: FirstBoot) -> str:
    if not report.tries:
        return ""
    times = "once" if report.tries == 1 else f"{report.tries} times"
    return f", tried {times} since it was switched on, last{_at(report.time)}"
