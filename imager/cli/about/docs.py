"""``docs``: the documents that come with this program, wherever it is installed."""

from __future__ import annotations

import click

from imager.base.errors import UsageError
from imager.cli.session import CommandResult, Session, command
from imager.config.shipped_trees import documents


@command("docs", uses=())
@click.argument("name", required=False)
def docs(session: Session, name: str | None) -> CommandResult:
    """Show a document that comes with this program; without NAME, list them.

    NAME is what stands after docs/ where one document speaks of another: salt for docs/salt.md.

    Examples:
        picloud-image docs
            Which documents are there?
        picloud-image docs exit-codes | less
            What does it mean that a command ended with 23?
    """
    known = documents()
    if name is None:
        titles = {each: text.splitlines()[0].removeprefix("# ") for each, text in known.items()}
        width = max(map(len, titles))
        session.console.lines(*(f"{each:<{width}}  {title}" for each, title in titles.items()))
        return {"documents": titles}
    wanted = name.removeprefix("docs/").removesuffix(".md")
    if wanted not in known:
        raise UsageError(
            f"{name}: there is no such document", hint=f"say one of {', '.join(known)}"
        )
    session.console.lines(*known[wanted].splitlines())
    return {"document": wanted, "text": known[wanted]}
