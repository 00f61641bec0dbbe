"""The common options: what is typed wins over the environment, the later word over the earlier."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imager.cli.settings import Settings, common_options, take


@click.group()
@common_options
@click.pass_context
def outer(context: click.Context, /, **options: object) -> None:
    context.obj = take(context, options)


@outer.command()
@common_options
@click.pass_context
def inner(context: click.Context, /, **options: object) -> None:
    found.append(take(context, options))


found: list[Settings] = []


@pytest.mark.parametrize(
    ("words", "rack"),
    [
        (["inner"], "env"),
        (["--rack", "before", "inner"], "before"),
        (["inner", "--rack", "after"], "after"),
        (["--rack", "before", "inner", "--rack", "after"], "after"),
    ],
)
def test_who_wins(words: list[str], rack: str) -> None:
    done = CliRunner().invoke(outer, words, env={"PICLOUD_RACK": "env"})
    assert done.exit_code == 0, done.output
    assert found.pop().rack == Path(rack)
