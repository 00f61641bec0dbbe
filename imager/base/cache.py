"""Where things are kept between runs; every entry is named by the hash of what it holds.

::

    <cache>/releases/<sha256>/   the archive: never deleted by this program
    <cache>/packages/<sha256>/   Salt and what comes with it, as PyPI published it, and whether pip
                                 brought it; pacman packages with their signatures; never deleted
    <cache>/databases/           what releases say to pacman; read from their tarballs at will
    <cache>/partial/             downloads cut short, to be resumed
    <cache>/golden/<key>/        composed images, rebuilt at will
    <cache>/work/                private folders of running commands
    <cache>/keys/                public keys of releases
    <cache>/CACHEDIR.TAG         says that the folder is a cache, and whose (bford.info/cachedir)

In: the folder a person named. Out: folders in it, judged before they are used (``TrustedFolder``).
A folder that holds other things than a cache of this program is never used as one, and nothing is
swept away that does not bear a name of ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import remove_tree
from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import TrustedFolder

TAG = "CACHEDIR.TAG"
_TAG_TEXT = b"""\
Signature: 8a477f597d28d172789f06886806bc55
# This file marks a cache of picloud-image: programs that make backups may leave it out.
# For what it means see https://bford.info/cachedir/
"""
_OURS = b"picloud-image"
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "releases": re.compile(r"[0-9a-f]{64}\Z"),
    "packages": re.compile(r"[0-9a-f]{64}\Z"),
    "databases": re.compile(r"[0-9a-f]{64}\.json\Z"),
    "golden": re.compile(r"[0-9a-f]{32}\Z"),
    "partial": re.compile(r".+-[0-9a-f]{8}\Z"),
    "keys": re.compile(r"[0-9A-F]{40,64}\.asc\Z"),
}
"""What entries are called; by these a cache from before there was a tag is known."""
_LOCK = ".lock"
_WORK = re.compile(rf"[a-z]+-[0-9a-f]{{12}}{re.escape(_LOCK)}\Z")


@dataclass(frozen=True, slots=True)
class Cache:
    """The folders of one cache; none is created before it is needed."""

    root: Path

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    @property
    def golden(self) -> Path:
        return self.root / "golden"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def require_ours(self) -> None:
        """Raise ConfigurationError when the folder holds other things than a cache of ours, or is
        a stranger's. Makes nothing."""
        folder = TrustedFolder(self.root)
        names = [name for name in folder.names() if not name.startswith(f".{TAG}.")]
        if names and not self._bears_tag(names) and not self._has_entries(names):
            raise ConfigurationError(
                f"{self.root}: holds {names[0]} and more, and is no cache of picloud-image",
                hint="name an empty folder, or a new one, with --cache DIR",
            )

    def looked_at(self, name: str) -> TrustedFolder:
        """The folder ``name`` of it, whether or not it is there."""
        return TrustedFolder(self.root) / name

    def entries(self, name: str) -> list[str]:
        """What the folder ``name`` of it keeps, without locks and what was set aside."""
        shape = _SHAPES[name]
        return [entry for entry in self.looked_at(name).names() if shape.match(entry)]

    def made(self, name: str, mode: int = 0o755) -> TrustedFolder:
        """The folder ``name`` of it, made with ``mode`` where it is missing; the cache is tagged as
        ours. Raises as ``require_ours``."""
        self.require_ours()
        root = TrustedFolder(self.root).make(0o755)
        if TAG not in root.names():
            root.write(TAG, _TAG_TEXT)
        return (root / name).make(mode)

    @contextmanager
    def work_folder(self, name: str) -> Iterator[Path]:
        """A private folder, called ``name`` and a number, that is gone afterwards.

        A run ended by ``kill -9`` leaves its folder behind; each folder is held by a lock, so the
        next run sees that nobody holds it and sweeps it away.
        """
        work = self.made("work", 0o700)
        own = f"{name}-{secrets.token_hex(6)}"
        with ExitStack() as held:
            # Each clean-up is registered before its folder is made, so that Ctrl-C between the two
            # leaves nothing behind.
            held.callback(work.remove, own + _LOCK)
            # The guard keeps a sweep from taking a lock file between its creation and its lock.
            with work.locked(".guard"):
                _sweep(work)
                held.enter_context(work.locked(own + _LOCK))
            held.callback(remove_tree, work.path / own)
            yield (work / own).make().path

    def _bears_tag(self, names: list[str]) -> bool:
        return TAG in names and _OURS in TrustedFolder(self.root).read(TAG, 1 << 16)

    def _has_entries(self, names: list[str]) -> bool:
        return any(self.entries(name) for name in names if name in _SHAPES)


def _sweep(work: TrustedFolder) -> None:
    """Remove the folders of runs that were killed: those that bear a name of ours, with a lock
    that nobody holds. What cannot be removed keeps its lock, for who can."""
    for lock in work.names():
        if not _WORK.match(lock):
            continue
        with suppress(BlockingIOError), work.locked(lock, wait=False):
            folder = lock.removesuffix(_LOCK)
            remove_tree(work.path / folder)
            if folder not in work.names():
                work.remove(lock)
