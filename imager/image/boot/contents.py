"""The files of a boot partition with what is known of each, worked out once.

In: a FAT volume and the digests its files should have. Out: per file, whether its bytes are proven,
and its fault by kind. Several models ask about the same kernel; it is read and judged once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from imager.image.fat import FatEntry, FatVolume

Judge = Callable[[bytes], str | None]
"""Says what is wrong with the content of a file; None when nothing is."""


class Contents:
    """The boot partition's files; paths are matched as FAT does, without regard to case."""

    def __init__(self, volume: FatVolume, expected: Mapping[str, str]) -> None:
        self.volume = volume
        self.expected = expected
        self._digests: dict[str, str] = {}
        self._verdicts: dict[tuple[str, object], str | None] = {}
        # A file whose clusters are wrong is reported as such; judging its bytes adds only noise.
        self._unreadable = {path for fault in volume.faults for path in fault.paths}

    def entry(self, path: str) -> FatEntry | None:
        """The regular file at ``path``."""
        found = self.volume.find(path)
        return None if found is None or found.is_dir else found

    def read(self, path: str) -> bytes | None:
        """Its content, None when there is no such file."""
        return None if self.entry(path) is None else self.volume.read_file(path)

    def digest(self, path: str) -> str:
        """Its SHA-256 in hex."""
        if path not in self._digests:
            self._digests[path] = hashlib.sha256(self.volume.read_file(path)).hexdigest()
        return self._digests[path]

    def proven(self, path: str) -> bool:
        """Whether its bytes are those that were put on the card."""
        entry = self.entry(path)
        wanted = None if entry is None else self.expected.get(entry.path)
        return wanted is not None and entry is not None and self.digest(entry.path) == wanted

    def fault(self, path: str, judge: Judge) -> str | None:
        """What is wrong with the file at ``path``: absent, empty, or what ``judge`` says."""
        entry = self.entry(path)
        if entry is None:
            return f"{path} is missing"
        if entry.size_bytes == 0:
            return f"{path} is empty"
        key = (entry.path, judge)
        if key not in self._verdicts:
            clean = entry.path not in self._unreadable
            self._verdicts[key] = judge(self.volume.read_file(path)) if clean else None
        verdict = self._verdicts[key]
        return None if verdict is None else f"{path}: {verdict}"

    def is_readable(self, path: str) -> bool:
        """Whether the file is there and the FAT leads through all of it."""
        entry = self.entry(path)
        return entry is not None and entry.size_bytes > 0 and entry.path not in self._unreadable
