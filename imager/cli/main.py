"""The ``picloud-image`` command line: the group, its commands, and usage errors.

In: the words typed. Out: an exit status (docs/exit-codes.md). A command's module, and the stages
it drives, are imported when it is called, so that ``--help`` stays quick.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from imager.base.errors import Interrupted, PicloudError, UsageError
from imager.cli.lazy import BareGroup, LazyCommand, LazyGroup
from imager.cli.settings import VersionAsked, common_options, settings_of, take
from imager.cli.terminal.streams import NO_READER, prepare_streams, silence

_COMMANDS = {
    "archive": LazyCommand(
        "release.archive:archive",
        "Carry all that cards are made from in one file; say what is archived.",
    ),
    "completion": LazyCommand(
        "about.completion:completion",
        "Print what your shell needs so that TAB completes commands, options, nodes and disks.",
    ),
    "clone": LazyCommand("card.clone:clone", "Copy a card to other cards, to several at once."),
    "compose": LazyCommand(
        "release.compose:compose", "Compose the golden image that every node of the rack shares."
    ),
    "devices": LazyCommand(
        "card.devices:devices", "List every disk, what is on it, and whether it may be written."
    ),
    "docs": LazyCommand(
        "about.docs:docs", "Show a document that comes with this program; without NAME, list them."
    ),
    "doctor": LazyCommand(
        "about.doctor:doctor",
        "Look whether this computer, the cache and the rack are fit to make cards.",
    ),
    "explain": LazyCommand(
        "card.explain:explain",
        "Say what the lights or the screen of a dead board mean, and what to check.",
    ),
    "fetch": LazyCommand(
        "release.fetch:fetch",
        "Fetch the release, packages and Salt, prove them, archive and pin them.",
    ),
    "help": LazyCommand(
        "about.help:show_help", "Show what a command does, its options and examples."
    ),
    "inspect": LazyCommand(
        "card.inspect:inspect", "Say what a card or image is, and whether and where it would boot."
    ),
    "lock": LazyCommand(
        "release.lock:lock",
        "Show the packages the nodes have beyond the release; pin those that are not pinned yet.",
    ),
    "probe": LazyCommand(
        "card.probe:probe",
        "Find out whether a card stores what it claims, and how fast it is.",
    ),
    "rack": LazyCommand(
        "rack.group:rack", "Describe a rack, write and save its cards, look at it."
    ),
    "read": LazyCommand(
        "card.read:read", "Save a card, or a disk of any system, to an image file."
    ),
    "receipt": LazyCommand(
        "card.receipt:receipt",
        "Show a receipt: which card, which node, how fast, with what result.",
    ),
    "verify": LazyCommand(
        "card.verify:verify", "Read a card again and compare it with its own stamp."
    ),
    "version": LazyCommand("about.version:show_version", "Show the version."),
    "write": LazyCommand(
        "card.write:write", "Write one node's card, or any image, to a disk or an image file."
    ),
}

_UNLISTED = {
    "station": LazyCommand(
        "stations.station:station", "Do what the head of a rack asks of this computer."
    )
}


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    unlisted=_UNLISTED,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes and what to do about each: picloud-image docs exit-codes.",
)
@common_options
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Turn blank SD cards into a working Raspberry Pi cluster.

    Fetches and proves the release, composes one golden image, lays each node's identity over
    it, writes the card, reads every byte back and checks that it can boot.

    Examples:
        picloud-image rack init --rack ~/rack
            Describe the rack; then, in ~/rack:
        picloud-image devices
            Which disk is the card?
        sudo picloud-image write /dev/sdb --node pi7
            Make the card of one node.
        sudo picloud-image rack flash
            Make the cards of all nodes, side by side.
    """
    context.obj = take(context, options)


def run(words: Sequence[str]) -> int:
    """Carry out one command line and return its exit status."""
    try:
        return _carried_out(words)
    except PicloudError as error:
        # Not even what was wrong with it could be written to standard output.
        return _show_error((), error)
    except BrokenPipeError:
        return NO_READER


def _carried_out(words: Sequence[str]) -> int:
    try:
        status = cli.main(list(words), prog_name="picloud-image", standalone_mode=False)
    except VersionAsked:
        return _carried_out(["version", *(["--json"] if settings_of(words).as_json else [])])
    except click.Abort:
        hint = "run the command again"
        return _show_error(words, Interrupted("interrupted; no command was at work", hint=hint))
    except BareGroup as error:
        if error.ctx is not None and not settings_of(words).as_json:
            click.echo(error.ctx.get_help(), err=True)
            return UsageError.exit_code
        return _misread(words, error)
    except click.ClickException as error:
        return _misread(words, error)
    except OSError as error:
        # Commands catch their own: what comes here is click, which could not print a page.
        from imager.cli.console import output_lost

        silence(sys.stdout)
        return _show_error(words, output_lost(error))
    return status if isinstance(status, int) else 0


def _misread(words: Sequence[str], error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    page = context.command_path if context else "picloud-image"
    return _show_error(words, UsageError(error.format_message(), hint=f"{page} --help says more"))


def _show_error(words: Sequence[str], error: PicloudError) -> int:
    """Show an error that came before any command ran, as JSON if that was asked for; return its
    exit status."""
    # Not imported above: it takes a third of the time of a help page.
    from imager.cli.console import Console

    settings = settings_of(words)
    console = Console(as_json=settings.as_json, colour=settings.colour)
    return console.failure(error)


def main() -> None:
    """The console script's entry point."""
    prepare_streams()
    # What others could write would not be used again: not by this program, either (base/ownership).
    os.umask(os.umask(0o077) | 0o022)
    status = run(sys.argv[1:])
    # What is left goes with the process. To look through all of it for circles first, as Python
    # does, takes as long as reading back 100 MB of a card.
    gc.freeze()
    raise SystemExit(status)
