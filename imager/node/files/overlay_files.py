"""The files of an overlay as they lie on this computer: found and read within limits.

In: folders that may be a stranger's. Out: each file with its place on the card. A symbolic link is
one on the card, or a fault where a file or folder is needed; none is followed here.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imager.base.below import Below
from imager.base.units import MiB, format_chosen

DEEPEST = 64
LARGEST_CONFIG = MiB // 16
_LARGEST_SHIPPED = MiB
_KEPT_FOR_GIT = ".gitkeep"


@dataclass(frozen=True, slots=True)
class Source:
    """A file of an overlay and its place on the card (``root/etc/hosts``); ``mode`` is st_mode."""

    place: str
    at: Below
    mode: int

    @property
    def path(self) -> Path:
        """For messages."""
        return self.at.path

    @property
    def is_utf8(self) -> bool:
        """Whether its name is text: Linux takes any bytes, which Python marks as surrogates."""
        return not any("\ud800" <= letter <= "\udfff" for letter in self.place)


class OverlaysTooLarge(ValueError):
    """The overlays of a card hold too much; the message names the file at which they do."""


@dataclass(slots=True)
class OverlayRoom:
    """What the overlays of one card may still hold: all of it is in memory when a card is made."""

    size_bytes: int = 512 * MiB
    entries: int = 100_000

    def take(self, taken: OverlayRoom) -> bool:
        """Whether as much as ``taken`` has room here, which is then less."""
        if taken.size_bytes > self.size_bytes or taken.entries > self.entries:
            return False
        self.size_bytes -= taken.size_bytes
        self.entries -= taken.entries
        return True

    def read(self, source: Source) -> bytes:
        """The content of ``source``; OSError, OverlaysTooLarge."""
        status = source.at.status() if source.at.judged else None
        if status is not None and status.st_size > self.size_bytes:
            most = format_chosen(OverlayRoom().size_bytes)
            raise OverlaysTooLarge(f"{source.path}: with it the overlays hold more than {most}")
        content = source.at.read(self.size_bytes)[0] if source.at.judged else _shipped(source.at)
        self.size_bytes -= len(content)
        return content

    def count(self, source: Source) -> None:
        """Take note of one more; raises OverlaysTooLarge."""
        self.entries -= 1
        if self.entries < 0:
            most = OverlayRoom().entries
            raise OverlaysTooLarge(
                f"{source.path}: with it the overlays hold more than {most} files"
            )


def is_folder(at: Below) -> bool:
    """Whether there is one; OSError for anything else in its place: it is not left out unsaid."""
    if at.status() is None:
        return False
    at.names()
    return True


def walk(folder: Below, place: str) -> Iterator[Source]:
    """Everything below ``folder``, which goes to ``place``, sorted; raises OSError. What came with
    this program is looked at once, for all nodes."""
    return _walk(folder, place) if folder.judged else iter(_shipped_below(folder, place))


@cache
def _shipped_below(folder: Below, place: str) -> tuple[Source, ...]:
    return tuple(_walk(folder, place))


@cache
def _shipped(file: Below) -> bytes:
    return file.read(_LARGEST_SHIPPED)[0]


def _walk(folder: Below, place: str) -> Iterator[Source]:
    if len(folder.parts) > DEEPEST:
        raise OSError(0, f"lies more than {DEEPEST} folders deep", str(folder.path))
    for name in folder.names():
        if name == _KEPT_FOR_GIT:
            continue
        at = folder / name
        status = at.status()
        if status is None:
            continue
        yield Source(f"{place}/{name}", at, status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(at, f"{place}/{name}")


def said(error: OSError, path: Path) -> str:
    """``error``, met on the way to ``path``, as a fault that names what it is about."""
    where = error.filename if isinstance(error.filename, str) else path
    return f"{where}: {error.strerror or 'cannot be read'}"
