"""On what terms something is fetched: what one run decides once, for every release and package.

In: the options of a command. Out: two values that go together through everything below. Both are
plain data, so that a run that needs no network does not load what speaks to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from imager.base.cache import Cache
from imager.base.errors import UsageError
from imager.base.progress import Progress


@dataclass(frozen=True, slots=True)
class FetchTerms:
    """On what terms one run fetches: into which cache, telling whom, and with the network or not.

    ``update`` asks for what is published now, whatever is archived, and moves the pins to it;
    ``offline`` never touches the network; ``looking`` pins nothing. ``not_before`` is
    for a person who was told that what is published is older than what is pinned: what was signed
    then, or later, is taken all the same. Raises UsageError where
    ``offline`` and ``update`` are asked for.
    """

    cache: Cache
    progress: Progress
    offline: bool = False
    update: bool = False
    looking: bool = False
    not_before: datetime | None = None

    def __post_init__(self) -> None:
        if self.offline and self.update:
            raise UsageError(
                "--offline and --update exclude each other", hint="leave one of them out"
            )


@dataclass(frozen=True, slots=True)
class KeySources:
    """Places that may know a signing key. ``file``, where a person named one, is the only one
    asked. ``{fingerprint}`` in a keyserver's URL is replaced."""

    keyrings: tuple[Path, ...] = (
        Path("/usr/share/pacman/keyrings/archlinuxarm.gpg"),
        Path("/usr/share/keyrings/archlinuxarm.gpg"),
        Path("/etc/apt/keyrings/archlinuxarm.gpg"),
    )
    keyservers: tuple[str, ...] = (
        "https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x{fingerprint}",
        "https://keys.openpgp.org/vks/v1/by-fingerprint/{fingerprint}",
    )
    file: Path | None = None
