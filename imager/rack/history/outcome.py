"""How the work on a node's card ended, in one word.

In: the error that stopped the work, if any. Out: an Outcome; the ledger, the table and ``--json``
all use this word. Receipts use the same words, but for the one that means that no work was begun.
"""

from __future__ import annotations

from enum import StrEnum

from imager.base.errors import TargetRefused
from imager.card.make.finish import result_of


class Outcome(StrEnum):
    """How it ended for one node."""

    VERIFIED = "verified"
    SAVED = "saved"
    """The card was read, and what its filesystems use is in a file."""
    FAULTY = "faulty"
    IO_ERROR = "io-error"
    FAKE_CAPACITY = "fake-capacity"
    WOULD_NOT_BOOT = "would-not-boot"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"
    """The card may not be overwritten, or was exchanged or taken by somebody meanwhile."""
    FAILED = "failed"
    """Nothing is wrong with the card: rack.toml, this computer's disk, or our own mistake."""
    UNKNOWN = "unknown"
    """A station began it and cannot be asked. It has no line in the ledger until it can."""


def outcome_of(error: BaseException) -> Outcome:
    """The outcome of work that ended with ``error``."""
    if isinstance(error, TargetRefused):
        return Outcome.REFUSED
    if isinstance(error, KeyboardInterrupt):
        return Outcome.INTERRUPTED
    result = result_of(error)
    return Outcome.FAILED if result is None else Outcome(result.value)
