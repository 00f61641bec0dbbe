"""Every way this program can fail, and the exit code each one has.

The class decides the exit code, the message says what happened in one line, and the hint says
what to do next in one line. Only ``imager.cli`` catches these, prints them and exits.

::

    PicloudError
    ├── you      UsageError 2 · ConfigurationError 10 · TargetRefused 20
    ├── world    NetworkError 11 · NotAuthentic 12 · MalformedRelease 13
    │            CardFaulty 21 · CardIOError 22 · StampMismatch 23 · FakeCapacity 24
    │            WouldNotBoot 25 · BatchFailed 30 · MissingTool 40 · HostStorage 41
    │            Interrupted 130
    └── us       ToolFailed 70 (and any exception that is not a PicloudError)
"""

from __future__ import annotations

from collections.abc import Iterable


class PicloudError(Exception):
    """The root of the tree; never raised itself.

    ``what`` is one line for the person at the terminal, ``hint`` one line that says what to do.
    ``details`` are further lines (every fault of a file, every reason of a refusal), which the
    terminal prints indented and ``--json`` carries as a list. ``receipt`` is the file name of the
    receipt of a card that ended so, where it has one.
    """

    exit_code = 70
    receipt = ""

    def __init__(self, what: str, *, hint: str, details: Iterable[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.details = tuple(details)


class UsageError(PicloudError):
    """The words of the command line do not fit together."""

    exit_code = 2


class ConfigurationError(PicloudError):
    """rack.toml, an overlay or a setting is wrong; ``details`` holds every fault found."""

    exit_code = 10


class NetworkError(PicloudError):
    """No mirror or keyserver gave what was asked for, or the Salt master cannot be reached."""

    exit_code = 11


class NotAuthentic(PicloudError):
    """A file is not the one that the pinned key signed, that rack.lock pins or that its sums say,
    or a host has another key than this rack made for it."""

    exit_code = 12


class MalformedRelease(PicloudError):
    """The release is signed but no card can be made of it: a dangerous or damaged file, a missing
    kernel; or it is another file that is signed. Or a file that carries an archive is not as it was
    exported, or an image from elsewhere is none, or not whole."""

    exit_code = 13


class TargetRefused(PicloudError):
    """The target must not be overwritten; ``details`` holds every reason."""

    exit_code = 20


class CardFaulty(PicloudError):
    """The card did not return what was written to it."""

    exit_code = 21


class CardIOError(PicloudError):
    """The card, its reader or the target file answered with an I/O error.

    ``offset`` is the byte of the card at which it did, where that is known.
    """

    exit_code = 22
    offset: int | None = None


class StampMismatch(PicloudError):
    """The card does not hold what its stamp or receipt says was written."""

    exit_code = 23


class FakeCapacity(PicloudError):
    """The card stores less than it claims."""

    exit_code = 24


class WouldNotBoot(PicloudError):
    """The boot check found something a Raspberry Pi would stop at."""

    exit_code = 25


class BatchFailed(PicloudError):
    """Some nodes of a batch failed; the others are done."""

    exit_code = 30


class MissingTool(PicloudError):
    """A program this one needs is not installed."""

    exit_code = 40


class HostStorage(PicloudError):
    """This computer's own disk is full or cannot be written; no card is involved."""

    exit_code = 41


class ToolFailed(PicloudError):
    """A program of this computer failed at work it should be able to do: probably our mistake."""

    exit_code = 70


class Interrupted(PicloudError):
    """Ctrl-C or SIGTERM; the message says in which state things were left."""

    exit_code = 130
