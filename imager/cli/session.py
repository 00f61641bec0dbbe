"""One run of one command: its settings, its console, and how it ends.

In: a command's function. Out: a click command that hands it a Session, prints what it returns as
the result, and turns every failure into two lines and the exit code its class names.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
import platformdirs

from imager.base.cache import Cache
from imager.base.durable import how_to_be_allowed
from imager.base.errors import ConfigurationError, HostStorage, Interrupted, PicloudError
from imager.base.ownership import home_behind_sudo, user_name
from imager.cli.console import Console
from imager.cli.pages import PageCommand
from imager.cli.pasting import pasting
from imager.cli.settings import Settings, common_options, take
from imager.cli.terminal.attention import call_back
from imager.cli.terminal.streams import NO_READER

BUG_EXIT_CODE = 70
CommandResult = Mapping[str, object]
"""What a command returns: the fields of its JSON result."""


@dataclass(frozen=True, slots=True)
class Session:
    """What every command is given."""

    settings: Settings
    console: Console

    @property
    def cache(self) -> Cache:
        """The cache the person named, else their own, also with sudo. Raises ConfigurationError for
        a folder that must not be used as one."""
        cache = self.cache_as_named
        cache.require_ours()
        return cache

    @property
    def cache_as_named(self) -> Cache:
        """The same, whatever that folder is."""
        named = self.settings.cache
        return Cache(_own_cache() if named is None else named.absolute())


def _own_cache() -> Path:
    """With sudo that of who called it: else a release would be fetched by both, and what one of
    them composed be unknown to the other."""
    home = None if "XDG_CACHE_HOME" in os.environ else home_behind_sudo()
    if home is not None:
        return home / ".cache/picloud-image"
    return Path(platformdirs.user_cache_dir("picloud-image"))


def command(
    name: str, uses: Collection[str] | None = None
) -> Callable[[Callable[..., CommandResult]], click.Command]:
    """Make a function ``f(session, …) -> CommandResult`` the click command ``name``. ``uses`` are
    the common options that mean something to it, of ``WHERE_USED``; None for all of them."""

    def decorate(function: Callable[..., CommandResult]) -> click.Command:
        @click.pass_context
        @wraps(function)
        def entry(context: click.Context, /, **options: Any) -> None:
            settings = take(context, options)
            notify = options.pop("notify", False)
            console = Console(
                as_json=settings.as_json,
                quiet=settings.quiet,
                colour=settings.colour,
                pasted=pasting(context, settings),
            )
            if settings.verbose:
                _show_commands()
            status = _carry_out(function, Session(settings, console), options)
            if notify:
                call_back(f"{context.info_name} {'is done' if not status else f'ended: {status}'}")
            context.exit(status)

        own = list(getattr(entry, "__click_params__", ()))
        common_options(entry)
        # Click lists parameters last first: a command's own options are shown before these.
        params = entry.__click_params__  # type: ignore[attr-defined]
        params[:] = [*params[len(own) :], *own]
        return click.command(name, cls=PageCommand, uses=uses)(entry)

    return decorate


def _show_commands() -> None:
    """Write what the package logs (the host tools it runs, argument by argument) to standard
    error; no secret is ever an argument."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("imager")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)


def _carry_out(
    function: Callable[..., CommandResult], session: Session, options: Mapping[str, Any]
) -> int:
    # SIGTERM, which service managers send, ends a command as Ctrl-C does: through ``finally``.
    previous = signal.signal(signal.SIGTERM, lambda *_: _raise_interrupt())
    try:
        return _ended(function, session, options)
    except PicloudError as error:
        # Even its end could not be written to standard output.
        return session.console.failure(error)
    except BrokenPipeError:
        return NO_READER
    finally:
        signal.signal(signal.SIGTERM, previous)


def _ended(
    function: Callable[..., CommandResult], session: Session, options: Mapping[str, Any]
) -> int:
    """Run the command and show how it ended; return the exit status."""
    console = session.console
    try:
        outcome = function(session, **options)
        exit_code = outcome.get("exit_code", 0)
        assert isinstance(exit_code, int)  # noqa: S101 - our own commands set it
        console.result(exit_code, {k: v for k, v in outcome.items() if k != "exit_code"})
        return exit_code
    except KeyboardInterrupt:
        return console.failure(
            Interrupted(
                "interrupted; no card was being written",
                hint="run the same command again: finished downloads and images are kept",
            )
        )
    except BrokenPipeError:
        return NO_READER
    except Exception as raised:  # noqa: BLE001 - the one place where a bug becomes exit 70
        error = _told(raised)
        if error is not None:
            console.error(error)
        else:
            traceback.print_exc()
            kind = type(raised).__name__
            console.event("error", exit_code=BUG_EXIT_CODE, kind=kind, what=str(raised))
        exit_code = BUG_EXIT_CODE if error is None else error.exit_code
        if exit_code == BUG_EXIT_CODE:
            _report_bug()
        console.result(exit_code, {})
        return exit_code


def _told(raised: Exception) -> PicloudError | None:
    """The error that a person is told, also for what no lower wing has turned into a sentence of
    its own; None for a mistake of ours."""
    if isinstance(raised, PicloudError):
        return raised
    if isinstance(raised, PermissionError):
        return _not_allowed(raised)
    if isinstance(raised, FileNotFoundError) and _folder_is_gone():
        return ConfigurationError(
            "the folder you are in is gone: somebody removed it",
            hint="go to one that is there (cd), and run the same command again",
        )
    return None


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _not_allowed(error: PermissionError) -> HostStorage:
    """What no lower wing has turned into a sentence of its own: the user may not do this."""
    who = user_name(os.geteuid())
    refused = os.strerror(error.errno or errno.EACCES)
    where = next((str(name) for name in (error.filename, error.filename2) if name), "")
    return HostStorage(
        f"{where}: {refused} for {who}" if where else f"{refused} for {who}",
        hint=how_to_be_allowed(),
    )


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def _report_bug() -> None:
    sys.stderr.write(
        "This is a mistake in picloud-image, not in what you did.\n"
        "  → please report it with the lines above and the command you ran\n"
    )
