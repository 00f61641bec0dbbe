"""Other programs' own test files, from Debian's packages: fetched when asked for, never kept.

A reader of this program and the program that the files belong to look at the same bytes; a Tally
counts where they agree.
"""

from __future__ import annotations

import hashlib
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build"
_MIRROR = "http://deb.debian.org/debian/pool/main"
_SNAPSHOT = "https://snapshot.debian.org/file"
_LARGEST = 64 << 20
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Package:
    """A file of Debian's. The mirror drops it some years on; then it is found by its SHA-1, and
    either way it must have the SHA-256."""

    path: str
    sha256: str
    sha1: str

    def fetched(self) -> Path:
        """Where it lies now; skips the test where nobody has it."""
        BUILD.mkdir(exist_ok=True)
        here = BUILD / Path(self.path).name
        if not here.exists() or not self._is(here.read_bytes()):
            here.write_bytes(self._download())
        return here

    def _is(self, data: bytes) -> bool:
        return hashlib.sha256(data).hexdigest() == self.sha256

    def _download(self) -> bytes:
        said = []
        for url in (f"{_MIRROR}/{self.path}", f"{_SNAPSHOT}/{self.sha1}"):
            try:
                with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                    data: bytes = answer.read(_LARGEST)
            except OSError as error:
                said.append(str(error))
                continue
            assert self._is(data), url
            return data
        pytest.skip(f"nobody has {self.path}: {'; '.join(said)}")


@dataclass(slots=True)
class Tally:
    """What came of holding one reader against one program. ``differ`` counts by reason, which the
    test names beforehand; what differs for no known reason is in ``unexplained``."""

    tried: int = 0
    agree: int = 0
    differ: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    def count(self, *, same: bool, what: str, reason: str | None = None) -> None:
        """Note one more: ``what`` it is, and if they differ, the known ``reason``."""
        self.tried += 1
        if same:
            self.agree += 1
        elif reason is None:
            self.unexplained.append(what)
        else:
            self.differ[reason] += 1

    def __str__(self) -> str:
        apart = sum(self.differ.values()) + len(self.unexplained)
        why = "; ".join(f"{count} × {reason}" for reason, count in self.differ.most_common())
        return f"{self.tried} tried, {self.agree} agree, {apart} differ{': ' if why else ''}{why}"


def ends_in(words: Sequence[str | Path], seconds: float, **more: bytes) -> tuple[int, bytes, str]:
    """Exit code, output and messages of a program; -1 where it takes longer than ``seconds``."""
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=seconds, check=False, input=more.get("stdin")
        )
    except subprocess.TimeoutExpired:
        return -1, b"", f"no end after {seconds} s"
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")
