"""Where things are kept between runs; every entry is named by the hash of what it holds.

::

    <cache>/releases/<sha256>/   the archive: never deleted by this program
    <cache>/packages/<sha256>/   Salt and what comes with it, as PyPI published it; never deleted
    <cache>/partial/             downloads cut short, to be resumed
    <cache>/golden/<key>/        composed images, rebuilt at will
    <cache>/work/                private folders of running commands
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
