"""``rack report``: the rack on one page, for a browser or for paper."""

from __future__ import annotations

import os
from pathlib import Path

import click

from imager.base.durable import host_storage, write_atomically
from imager.base.errors import TargetRefused, UsageError
from imager.base.trusted_folder import TrustedFolder
from imager.cli.choice import existing_rack, recipes_at_hand
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.rack.report.report import render_report, spoken_now

_DEFAULT_NAME = "report.html"


@command("report", uses=("rack", "cache"))
@click.option(
    "--out",
    metavar="FILE",
    type=PATH,
    help="Where to write it; - for standard output. [report.html in the rack's folder]",
)
def report(session: Session, out: Path | None) -> CommandResult:
    """Write the rack as one HTML page: towers, every card, its speed, labels to cut out.

    The page needs no network and prints on A4. It holds no secret.

    Examples:
        picloud-image rack report
            Write report.html into the folder of the rack.
        picloud-image rack report --out - > rack.html
            Write it where you like.
    """
    to_stdout = out == Path("-")
    if to_stdout and session.settings.as_json:
        raise UsageError(
            "--out - and --json both want standard output", hint="name a file with --out FILE"
        )
    rack = existing_rack(session)
    page = render_report(rack, spoken_now(), recipes_at_hand(session, rack))
    document = page.encode(errors="backslashreplace")  # JSON can name half a character
    if to_stdout:
        for line in page.rstrip("\n").split("\n"):
            session.console.data(line)
        return {}
    if out is None:
        TrustedFolder(rack.folder).write(_DEFAULT_NAME, document)
        path = (rack.folder / _DEFAULT_NAME).absolute()
    else:
        with host_storage(out):
            path = (out / _DEFAULT_NAME if out.is_dir() else out).absolute()
            is_taken = os.path.lexists(path) and not path.is_file()
        if is_taken:
            raise TargetRefused(
                f"{path} is no file",
                hint="name a new file, such as rack.html, or - for standard output",
            )
        write_atomically(path, document)
    session.console.lines(f"wrote {path}", "    open it in a browser, or print it from there")
    return {"report": str(path), "nodes": len(rack.nodes)}
