"""The ``picloud-image`` command line: the group, its commands, and usage errors.

In: the words typed. Out: an exit status (docs/exit-codes.md). Commands import the stage they
drive when they run, so that ``--help`` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from imager.base.errors import Interrupted, UsageError
from imager.cli.card.inspect import add_card_commands
from imager.cli.card.probe import add_probe_command
from imager.cli.card.receipt import add_receipt_command
from imager.cli.console import Console
from imager.cli.rack.show import add_rack_commands
from imager.cli.release.fetch import add_release_commands
from imager.cli.settings import common_options, take


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes and what to do about each: docs/exit-codes.md.",
)
@click.version_option(package_name="picloud-image", message="picloud-image %(version)s")
@common_options
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Turn blank SD cards into a working Raspberry Pi cluster.

    Fetches and proves the release, composes one golden image, lays each node's identity over
    it, writes the card, reads every byte back and checks that it can boot.
    """
    context.obj = take(context, options)


add_card_commands(cli)
add_probe_command(cli)
add_receipt_command(cli)
add_release_commands(cli)
add_rack_commands(cli)


def run(words: Sequence[str]) -> int:
    """Carry out one command line and return its exit status."""
    try:
        status = cli.main(list(words), prog_name="picloud-image", standalone_mode=False)
    except click.Abort:
        return Interrupted.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        page = context.command_path if context else "picloud-image"
        console = Console(as_json="--json" in words)
        console.error(UsageError(error.format_message(), hint=f"{page} --help says more"))
        console.result(UsageError.exit_code, {})
        return UsageError.exit_code
    return status if isinstance(status, int) else 0


def main() -> None:
    """The console script's entry point."""
    raise SystemExit(run(sys.argv[1:]))
