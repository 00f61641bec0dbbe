"""The files of a boot partition, each read and checked once.

In: a FAT volume and the digests its files should have. Out: for each file its content, its digest,
and what is wrong with it. Several boards need the same kernel: the answer is kept and given again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from imager.base.units import MiB
from imager.disk.fat.volume import FatEntry, FatVolume

MAX_LOADED_BYTES = 256 * MiB
"""No file that a Pi loads at boot is larger. A larger one is not read, to save memory."""

Judge = Callable[[bytes], str | None]
"""Says what is wrong with the content of a file; None when nothing is."""


class Contents:
    """The boot partition's files; paths are matched as FAT does, without regard to case."""

    def __init__(self, volume: FatVolume, expected: Mapping[str, str]) -> None:
        self.volume = volume
        self.expected = expected
        self._digests: dict[str, str] = {}
        self._verdicts: dict[tuple[str, object], str | None] = {}
        # A file with wrong clusters is reported as that; its content need not be reported as well.
        self._unreadable = {path for fault in volume.faults for path in fault.paths}

    def entry(self, path: str) -> FatEntry | None:
        """The regular file at ``path``; None when there is none."""
        found = self.volume.find(path)
        return None if found is None or found.is_dir else found

    def read(self, path: str) -> bytes | None:
        """Its content; None when there is no such file, or one too large to be a boot file."""
        entry = self.entry(path)
        if entry is None or entry.size_bytes > MAX_LOADED_BYTES:
            return None
        return self.volume.read_file(path)

    def digest(self, path: str) -> str:
        """Its SHA-256 in hex."""
        if path not in self._digests:
            sha256 = hashlib.sha256()
            for chunk in self.volume.chunks(path):
                sha256.update(chunk)
            self._digests[path] = sha256.hexdigest()
        return self._digests[path]

    def proven(self, path: str) -> bool:
        """Whether its digest is the expected one, so that its content needs no other check."""
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
        if entry.size_bytes > MAX_LOADED_BYTES:
            return f"{path} has {entry.size_bytes} bytes, more than a Pi can load"
        key = (entry.path, judge)
        if key not in self._verdicts:
            clean = entry.path not in self._unreadable
            self._verdicts[key] = judge(self.volume.read_file(path)) if clean else None
        verdict = self._verdicts[key]
        return None if verdict is None else f"{path}: {verdict}"

    def is_readable(self, path: str) -> bool:
        """Whether the file is there and the FAT is undamaged for all of it."""
        entry = self.entry(path)
        if entry is None or entry.path in self._unreadable:
            return False
        return 0 < entry.size_bytes <= MAX_LOADED_BYTES
