"""``version``: which version this is."""

from __future__ import annotations

from importlib.metadata import version

from imager.cli.session import CommandResult, Session, command


@command("version", uses=())
def show_version(session: Session) -> CommandResult:
    """Show the version.

    Examples:
        picloud-image version --json
            For a script.
    """
    found = version("picloud-image")
    session.console.lines(f"picloud-image {found}")
    return {"version": found}
