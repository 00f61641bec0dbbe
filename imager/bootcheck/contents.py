"""The files of a boot partition, each read and checked once.

In: a FAT volume and the digests its files should have. Out: for each file its content, its digest,
and what is wrong with it. Several boards need the same kernel, a card is checked before and after
it is written, and all cards of a rack have the same files: an answer is kept and given again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from imager.base.units import MiB
from imager.disk.budget import MAX_TEXT_BYTES, Budget, OverBudget
from imager.disk.fat.volume import FatEntry, FatVolume

MAX_LOADED_BYTES = 256 * MiB
"""No file that a Pi loads at boot is larger."""
_MAX_JUDGED_BYTES = 96 * MiB
"""A file that is judged must be in memory whole. A larger one is only digested."""

Judged = TypeVar("Judged")
Judge = Callable[[bytes, Budget], Judged]
"""Says what the content of a file is, or what is wrong with it; raises OverBudget."""


class Inspected(Protocol):
    """What a file is, and its fault if it has one."""

    @property
    def fault(self) -> str | None: ...


Fault = str | Inspected | None


@dataclass(frozen=True, slots=True)
class Heard(Generic[Judged]):
    """What a judge said of a file's bytes, and what that took of a budget."""

    verdict: Judged
    steps: int
    unpacked_bytes: int


_answers: dict[tuple[str, object], Heard[object]] = {}
"""By the SHA-256 of the file, and the judge; for as long as the program runs. To unpack a kernel
takes a third of a second."""
_MAX_ANSWERS = 500


def said_by(judge: Judge[Judged], digests: Iterable[str]) -> dict[str, Heard[Judged]]:
    """By their SHA-256 (hex): what this program heard ``judge`` say of those of the files that it
    was asked about."""
    known = {digest: _answers.get((digest, judge)) for digest in digests}
    heard = {digest: answer for digest, answer in known.items() if answer is not None}
    return cast("dict[str, Heard[Judged]]", heard)


def remember(judge: Judge[Judged], answers: Mapping[str, Heard[Judged]]) -> None:
    """Take ``answers`` of ``said_by``, perhaps of an earlier run, as if ``judge`` gave them now."""
    for digest, answer in answers.items():
        _keep((digest, judge), cast("Heard[object]", answer))


def _keep(key: tuple[str, object], answer: Heard[object]) -> None:
    if len(_answers) == _MAX_ANSWERS:
        _answers.clear()
    _answers[key] = answer


class Contents:
    """The boot partition's files; paths are matched as FAT does, without regard to case.

    ``unseen`` says of which files that were asked for it is not known what they hold, or whether
    they are there, and why: they were not looked at, or not to their end. Of these nothing may be
    said, neither that they are missing nor what they lack.
    """

    def __init__(self, volume: FatVolume, expected: Mapping[str, str], budget: Budget) -> None:
        self.volume = volume
        self.expected = expected
        self.budget = budget
        self.unseen: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._texts: dict[str, bytes] = {}
        self._known: dict[tuple[str, object], object] = {}
        self._unsaid: dict[tuple[str, object], str] = {}

    def entry(self, path: str) -> FatEntry | None:
        """The regular file at ``path``; None when there is none, or none is seen."""
        found = self.volume.find(path)
        if found is None:
            self._note(path)
        return None if found is None or found.is_dir else found

    def _note(self, path: str) -> None:
        if why := self.volume.unseen_at(path):
            self.unseen[path] = why

    def is_unseen(self, path: str) -> bool:
        """Whether ``path`` is one of ``unseen``, by whatever name it was asked for."""
        entry = self.entry(path)
        return (path if entry is None else entry.path) in self.unseen

    def may_have(self, path: str) -> bool:
        """Whether the regular file ``path`` is there, or would not be seen if it were."""
        return self.entry(path) is not None or self.is_unseen(path)

    def may_have_folder(self, path: str) -> bool:
        """Whether there is anything at ``path``, or would not be seen if it were."""
        return self.volume.find(path) is not None or self.volume.unseen_at(path) is not None

    def read(self, path: str) -> bytes | None:
        """Its content; None when there is no such file, or one too large to be judged."""
        entry = self.entry(path)
        if entry is None or not self._fits(entry):
            return None
        return self.volume.read_file(path)

    def text(self, path: str) -> bytes | None:
        """The content of a file that people write, cut where no such file is longer. It is read
        once, though each board asks for it and other files may include it over and over.

        What it costs is bounded by how few such files a board asks for, so it is read whatever is
        left of the budget: without it nothing could be said of the card. Of one that is not seen
        nothing is given.
        """
        entry = self.entry(path)
        if entry is None:
            return b"" if self.is_unseen(path) else None
        self._note(entry.path)
        if entry.size_bytes > MAX_TEXT_BYTES:
            self.unseen[entry.path] = (
                f"it has {entry.size_bytes} bytes; the first {MAX_TEXT_BYTES} were read"
            )
        if entry.path not in self._texts:
            data = self.volume.read_file(entry.path, limit_bytes=MAX_TEXT_BYTES)
            self._texts[entry.path] = data
        return self._texts[entry.path]

    def beginning(self, path: str, size_bytes: int) -> bytes:
        """The first ``size_bytes`` of a file of which nobody reads more; empty where there is
        none."""
        entry = self.entry(path)
        if entry is None:
            return b""
        data = self.volume.read_file(entry.path, limit_bytes=size_bytes)
        if len(data) < min(size_bytes, entry.size_bytes):
            self._note(entry.path)
        return data

    def digest(self, path: str) -> str:
        """Its SHA-256 in hex."""
        if path not in self._digests:
            self._digests[path] = self.volume.sha256(path)
        return self._digests[path]

    def proven(self, path: str) -> bool:
        """Whether its digest is the expected one, so that its content needs no other check."""
        entry = self.entry(path)
        wanted = None if entry is None else self.expected.get(entry.path)
        return wanted is not None and entry is not None and self.digest(entry.path) == wanted

    def fault(self, path: str, judge: Judge[Fault]) -> str | None:
        """What is wrong with the file at ``path``: absent, empty, or what ``judge`` says."""
        entry = self.entry(path)
        if entry is None:
            return None if self.is_unseen(path) else f"{path} is missing"
        if entry.size_bytes == 0:
            return f"{path} is empty"
        if entry.size_bytes > MAX_LOADED_BYTES:
            return f"{path} has {entry.size_bytes} bytes, more than a Pi can load"
        verdict = self.about(path, judge)
        said = verdict if verdict is None or isinstance(verdict, str) else verdict.fault
        return None if said is None else f"{path}: {said}"

    def about(self, path: str, judge: Judge[Judged]) -> Judged | None:
        """What ``judge`` says of the file at ``path``, asked once; None when it cannot be said."""
        entry = self.entry(path)
        if entry is None:
            return None
        self._note(entry.path)
        # A file with wrong clusters is reported as that; its content need not be reported as well.
        if entry.path in self.volume.hurt or not self._fits(entry):
            return None
        key = (entry.path, judge)
        if key not in self._known:
            try:
                self._known[key] = self._verdict(entry.path, judge)
            except OverBudget as spent:
                # Not the error itself, which holds on to all that was in memory.
                self._unsaid[key], self._known[key] = str(spent), None
        if why := self._unsaid.get(key):
            self.unseen[entry.path] = why
        return cast("Judged | None", self._known[key])

    def _verdict(self, path: str, judge: Judge[object]) -> object:
        """An answer that is known is paid for as well: a disk gets the same answers whatever was
        looked at before it."""
        data = self.volume.read_file(path)
        if path not in self._digests:
            self._digests[path] = hashlib.sha256(data).hexdigest()
        key = (self._digests[path], judge)
        answer = _answers.get(key)
        if answer is not None:
            self.budget.step(answer.steps)
            self.budget.unpack(answer.unpacked_bytes)
            return answer.verdict
        steps, unpacked_bytes = self.budget.spent
        verdict = judge(data, self.budget)
        after = self.budget.spent
        _keep(key, Heard(verdict, after[0] - steps, after[1] - unpacked_bytes))
        return verdict

    def _fits(self, entry: FatEntry) -> bool:
        if _MAX_JUDGED_BYTES < entry.size_bytes <= MAX_LOADED_BYTES:
            self.unseen[entry.path] = f"it has {entry.size_bytes} bytes"
        return entry.size_bytes <= _MAX_JUDGED_BYTES

    def is_readable(self, path: str) -> bool:
        """Whether the file is there, the FAT is undamaged for all of it, and it can be judged."""
        entry = self.entry(path)
        if entry is None or entry.path in self.volume.hurt:
            return False
        return entry.size_bytes > 0 and self._fits(entry)
