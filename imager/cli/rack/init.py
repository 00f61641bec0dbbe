"""``rack init``: a commented rack.toml, from a few answers or none.

In: options, or a person's answers where there is a terminal and no option was given. Out: a rack.
Every answer is checked by the reader of rack.toml itself. If it would be a fault in the file, the
question is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from imager.base.boards import MODELS
from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError, Interrupted, UsageError
from imager.base.ownership import at_home
from imager.base.text import command_line
from imager.cli.session import CommandResult, Session, command
from imager.config.example import Choices, initial_rack_toml
from imager.config.folder import init_rack, require_no_rack
from imager.config.load import load_rack, parse_rack
from imager.config.nodeset import expand
from imager.config.rack import Rack

_NONE = ("none", "-")
_OPTIONAL = ("slots", "addresses", "key_file")
_KEY_FILES = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
_PLACES_PER_TOWER = 7
_QUESTIONS: Mapping[str, str] = {
    "nodes": "Names of the nodes, in the order of their places",
    "master": "The Salt master: a node, or a computer elsewhere",
    "model": f"The board: {', '.join(MODELS[:-1])} or {MODELS[-1]}",
    "slots": "Labels of their places, tower and number (or none)",
    "addresses": "Their addresses, like 10.0.0.[10-23], or dhcp",
    "key_file": "Your public SSH key, to log in with (or none)",
}


@command("init", uses=("rack",))
@click.option("--nodes", metavar="NODES", help="Their names. [pi[0-13]]")
@click.option("--master", metavar="NAME", help="The Salt master: a node, or a host elsewhere.")
@click.option("--model", metavar="MODEL", help=f"The board: {', '.join(MODELS)}. [pi2]")
@click.option("--slots", metavar="LABELS", help="Their places, e.g. A[1-7],B[1-7]; or none.")
@click.option("--addresses", metavar="IPS", help="Fixed ones, e.g. 10.0.0.[10-23]; or dhcp.")
@click.option("--ssh-key", "key_file", metavar="FILE", help="Public key to log in with; or none.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults.")
def init(
    session: Session,
    nodes: str | None,
    master: str | None,
    model: str | None,
    slots: str | None,
    addresses: str | None,
    key_file: str | None,
    yes: bool,
) -> CommandResult:
    """Write a commented rack.toml into the folder --rack names, or into this one.

    On a terminal, and without options, a few questions are asked; Enter takes the default.

    Examples:
        picloud-image rack init --rack ~/rack
            Ask a few questions, and make ~/rack.
        picloud-image rack init --nodes 'pi[0-55]' --model pi3
            A rack of 56 in this folder; nothing is asked.
    """
    folder = (session.settings.rack or Path.cwd()).absolute()
    require_no_rack(folder)
    given = {
        "nodes": nodes,
        "master": master,
        "model": model,
        "slots": slots,
        "addresses": addresses,
        "key_file": key_file,
    }
    chosen = {key: text for key, text in given.items() if text is not None}
    if key_file is not None:
        chosen["key_file"] = _from_here(folder, key_file)
    ask = session.console.can_ask and not (yes or chosen or session.settings.as_json)
    made = init_rack(folder, _choices_asked(session, folder) if ask else _choices_given(chosen))
    rack = load_rack(folder)
    session.console.lines(*(f"made {path}" for path in made), *_summary(rack))
    return {"made": [str(path) for path in made], "nodes": [n.name for n in rack.nodes]}


def _from_here(folder: Path, key_file: str) -> str:
    """``--ssh-key`` as rack.toml is to name it, which takes paths from its own folder; a person
    at a shell means the folder they are in. Raises UsageError for a path that no TOML can have,
    and HostStorage for a name that is too long."""
    with host_storage(folder / key_file):
        as_it_is = key_file in _NONE or key_file.startswith("~") or (folder / key_file).exists()
    named = key_file if as_it_is else str(Path(key_file).absolute())
    try:
        named.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{named} is not UTF-8, as all of rack.toml is",
            hint="copy the key to a path that is, and name it there",
        ) from None
    return named


def _choices_given(given: Mapping[str, str]) -> Choices:
    """The choices given as options, with the defaults that follow from them."""
    choices = Choices()
    for key in _QUESTIONS:
        choices = _with(choices, key, given.get(key) or _default(choices, key))
    return choices


def _choices_asked(session: Session, folder: Path) -> Choices:
    choices, console = Choices(), session.console
    console.say(
        f"A new rack in {folder}. Enter takes what stands in brackets; every answer can be changed "
        "later in rack.toml."
    )
    for key, question in _QUESTIONS.items():
        while True:
            default = _default(choices, key)
            answer = console.ask(question, default)
            if answer is None:
                raise Interrupted("no answer; nothing was made", hint="run the command again")
            asked = _with(choices, key, answer or default)
            try:
                parse_rack(folder, initial_rack_toml(asked))
                break
            except ConfigurationError as error:
                for line in error.details:
                    console.say(f"    {line}")
        choices = asked
    return choices


def _with(choices: Choices, key: str, text: str) -> Choices:
    """``choices`` with one more. "none", "-" and "dhcp" leave an optional key out."""
    value: Any = text
    if key in _OPTIONAL and text in (*_NONE, "dhcp"):
        value = None
    return replace(choices, **{key: value})


def _default(choices: Choices, key: str) -> str:
    if key == "master":
        return next(iter(_names(choices)), choices.master)
    if key == "slots":
        return _places(len(_names(choices)))
    if key == "addresses":
        return "dhcp"
    if key == "key_file":
        # A home that this user may not look into is like one without a key.
        with suppress(PermissionError):
            found = (name for name in _KEY_FILES if at_home(f"~/.ssh/{name}").is_file())
            return next((f"~/.ssh/{name}" for name in found), _NONE[0])
        return _NONE[0]
    return str(getattr(choices, key))


def _names(choices: Choices) -> tuple[str, ...]:
    try:
        return expand(choices.nodes)
    except ValueError:
        return ()  # said by parse_rack, together with what else is wrong


def _places(nodes: int) -> str:
    """Labels for towers of seven places if the nodes fill them, else for a single tower."""
    if not nodes:
        return _NONE[0]
    towers = nodes // _PLACES_PER_TOWER
    if nodes % _PLACES_PER_TOWER or towers > 26:
        return f"A[1-{nodes}]"
    return ",".join(f"{chr(ord('A') + tower)}[1-{_PLACES_PER_TOWER}]" for tower in range(towers))


def _summary(rack: Rack) -> tuple[str, ...]:
    where = "" if rack.master.is_node else " (elsewhere)"
    lines = [f"{len(rack.nodes)} nodes, Salt master {rack.master.name}{where}"]
    if rack.nodes[0].authorized_keys:
        lines.append("Next: look through rack.toml, then write a card:")
    else:
        lines.append("Next: put your SSH key under [login] in rack.toml, then write a card:")
    return (*lines, f"    {command_line('write', '/dev/sdX', '--node', rack.nodes[0].name)}")
