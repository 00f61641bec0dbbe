"""The root filesystem of a card: the one that root= means, and what is wrong with it.

In: a way to read the card, its table, and a command line. Out: findings. Each filesystem is looked
at once, for all boards together. What only the initramfs or another filesystem's own tool can tell
is said to be unproven, never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.formats.cmdline import Cmdline
from imager.bootcheck.meanings import finding
from imager.bootcheck.root.filesystem import RootFilesystem, is_blank, mounted
from imager.bootcheck.root.fstab import lost_mounts
from imager.bootcheck.root.init import FirstProgram, first_program
from imager.bootcheck.root.names import (
    NamedPartition,
    RootFault,
    RootOffCard,
    RootUnproven,
    named_root,
)
from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4.format import Ext4Unknown
from imager.disk.manifest import Reader
from imager.disk.signature import Form, signature_at
from imager.disk.table import PartitionTable

_OTHER_ROOT = frozenset(
    {"ostree", "loop", "subroot", "overlayroot", "boot", "live-media", "rdinit"}
)
"""Words by which an initramfs makes the root of something else than the partition itself."""
_INSIDE = frozenset({"boot", "disk"})
"""Words that are read by an initramfs inside the kernel, where it may not be seen."""
_FAT = "FAT"
_EXT = ("ext2", "ext3", "ext4")
_DRIVERS: Mapping[str, tuple[str, ...]] = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": ("ext4",),
    **{kind: (kind.casefold(),) for kind in ("btrfs", "XFS", "F2FS", "EROFS", "squashfs")},
}
"""What rootfstype= may say of each kind of filesystem, as far as that is certain."""
_MOST_SEEN = 64
"""Of so many partitions the content is looked at; each may take a MiB to read."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What came of looking at one partition: a filesystem, or the finding that stands for it."""

    filesystem: RootFilesystem | None
    found: tuple[Finding, ...] = ()


class Roots:
    """The partitions of a card, among which root= chooses. ``table`` is None where there is no
    table; then there is no root either."""

    def __init__(
        self, read: Reader, table: PartitionTable | None, size_bytes: int, budget: Budget
    ) -> None:
        self._read, self._size, self._budget = read, size_bytes, budget
        self._table = table
        self._looked: dict[int, _Looked] = {}
        self._programs: dict[tuple[int, str | None, int | None], FirstProgram] = {}

    @cached_property
    def partitions(self) -> tuple[NamedPartition, ...]:
        """Every partition that begins on the card, and what begins there."""
        found: list[NamedPartition] = []
        for part in self._table.partitions if self._table else ():
            offset, length = part.extent.offset, part.extent.length
            holds = None
            if offset < self._size and len(found) < _MOST_SEEN:
                holds = signature_at(self._read, offset, min(length, self._size - offset))
            found.append(NamedPartition(part, holds))
        return tuple(found)

    @cached_property
    def presumed(self) -> NamedPartition | None:
        """The partition that is the root on nearly every card: the second, else the first that
        holds no FAT. It is asked where no command line can be."""
        others = [one for one in self.partitions if not _is_fat(one)]
        second = next((one for one in others if one.part.index == 2), None)
        return second or next(iter(others), None)

    def filesystem(self, one: NamedPartition | None) -> RootFilesystem | None:
        """The filesystem on ``one``; None where there is none that can be read."""
        return None if one is None else self._look(one, initramfs=True).filesystem

    def named(self, line: Cmdline, *, initramfs: bool) -> NamedPartition | None:
        """The partition that ``line`` makes the root; None where that cannot be told."""
        try:
            return named_root(line.value("root") or "", self.partitions, initramfs=initramfs)
        except (RootFault, RootUnproven):
            return None

    def findings(
        self, line: Cmdline, path: str, *, initramfs: bool, bits: int | None = None
    ) -> Iterator[Finding]:
        """What is wrong with the root that ``line``, the content of the file ``path``, names for a
        kernel of ``bits`` (None: that is not known)."""
        root = line.value("root")
        keys = {word.partition("=")[0] for word in line.words}
        if not root:
            if initramfs or keys & _INSIDE:
                what = f"{path} has no root=: the initramfs finds it, or is the system itself"
                yield finding(Code.ROOT_UNPROVEN, what, path=path)
            else:
                yield finding(Code.ROOT_MISSING, f"{path} has no root=", path=path)
            return
        try:
            one = named_root(root, self.partitions, initramfs=initramfs)
        except RootOffCard as off:
            what, grade = f"{path}: {off}", Severity.WARNING
            yield finding(Code.ROOT_ELSEWHERE, what, path=path, severity=grade)
            return
        except RootUnproven as unproven:
            yield finding(Code.ROOT_UNPROVEN, f"{path}: {unproven}", path=path)
            return
        except RootFault as fault:
            if len(self.partitions) == 1:
                what = "the table has no second partition"
                yield finding(Code.ROOT_PARTITION_MISSING, what)
                return
            yield finding(Code.ROOT_ELSEWHERE, f"{path}: {fault}", path=path)
            return
        if _is_fat(one):
            what = f"{path}: root={root} is partition {one.part.index}, which holds a FAT"
            yield finding(Code.ROOT_ELSEWHERE, what, path=path)
            return
        yield from _type(one, line, path, initramfs=initramfs)
        looked = self._look(one, initramfs=initramfs)
        yield from looked.found
        if looked.filesystem is not None:
            yield from _groups(looked.filesystem, line, initramfs=initramfs)
            other = initramfs and bool(keys & _OTHER_ROOT)
            started = self._started(looked.filesystem, line, bits)
            yield from _start(looked.filesystem, started, initramfs=initramfs, other=other)
            yield from self._lost(looked.filesystem, line, started)

    def presumed_findings(self, *, bits: int | None = None) -> Iterator[Finding]:
        """What is wrong with the presumed root, where no command line names another, for a kernel
        of ``bits``."""
        if self.presumed is None:
            yield finding(Code.ROOT_PARTITION_MISSING, "the table has no second partition")
            return
        looked = self._look(self.presumed, initramfs=True)
        yield from looked.found
        if looked.filesystem is not None:
            nothing = Cmdline(("rw",), 0, None, has_control=False)
            yield from _groups(looked.filesystem, nothing, initramfs=False)
            started = self._started(looked.filesystem, nothing, bits)
            yield from _start(looked.filesystem, started, initramfs=False, other=False)
            yield from self._lost(looked.filesystem, nothing, started)

    def _look(self, one: NamedPartition, *, initramfs: bool) -> _Looked:
        known = self._looked.get(one.part.index)
        if known is None:
            known = self._looked[one.part.index] = self._seen(one)
        if not initramfs and one.holds is not None and one.holds.form is Form.CONTAINER:
            what = f"partition {one.part.index} holds {one.holds.kind}"
            what = f"{what}, which only an initramfs can open, and none is loaded"
            return _Looked(None, (finding(Code.ROOT_FILESYSTEM, what),))
        return known

    def _seen(self, one: NamedPartition) -> _Looked:
        where, holds = f"partition {one.part.index}", one.holds
        if one.part.extent.offset >= self._size:
            what = f"{where} begins behind the end of the card"
            return _Looked(None, (finding(Code.ROOT_FILESYSTEM, what),))
        if holds is not None and holds.form is Form.SWAP:
            what = f"{where} holds swap space, no filesystem"
            return _Looked(None, (finding(Code.ROOT_FILESYSTEM, what),))
        if holds is None or not holds.kind.startswith("ext"):
            if is_blank(self._read, one.part):
                what = f"{where}: its first MiB holds only zeros"
                return _Looked(None, (finding(Code.ROOT_FILESYSTEM, what),))
            kind = f"holds {holds.kind}" if holds else "holds nothing this check knows"
            return _Looked(None, (finding(Code.ROOT_UNPROVEN, f"{where} {kind}"),))
        try:
            filesystem = mounted(self._read, one.part, self._budget)
        except OverBudget as spent:
            return _Looked(None, (finding(Code.NOT_LOOKED_AT, f"{where}: {spent}"),))
        except Ext4Unknown as unknown:
            return _Looked(None, (finding(Code.ROOT_UNPROVEN, f"{where}: {unknown}"),))
        except ValueError as error:
            return _Looked(None, (finding(Code.ROOT_FILESYSTEM, f"{where}: {error}"),))
        found = []
        if filesystem.journal:
            found.append(finding(Code.ROOT_JOURNAL, f"{where}: its journal is not empty"))
        if filesystem.cut:
            what = f"{where}: {filesystem.cut}: not looked at further"
            found.append(finding(Code.NOT_LOOKED_AT, what))
        return _Looked(filesystem, tuple(found))

    def _started(
        self, filesystem: RootFilesystem, line: Cmdline, bits: int | None
    ) -> FirstProgram | OverBudget:
        """What would be started first on ``filesystem``, or why that was not looked at."""
        named = line.value("init")
        key = (filesystem.partition, named, bits)
        if key not in self._programs:
            try:
                self._programs[key] = first_program(filesystem.files, named, bits)
            except OverBudget as spent:
                return spent
        return self._programs[key]

    def _lost(
        self, filesystem: RootFilesystem, line: Cmdline, started: FirstProgram | OverBudget
    ) -> Iterator[Finding]:
        """Lines of fstab that name nothing on this card: only systemd is known to wait for them."""
        waits = isinstance(started, FirstProgram) and started.is_systemd
        for lost in lost_mounts(filesystem.mounts, self.partitions):
            what = (
                f"/etc/fstab on partition {filesystem.partition}, line {lost.line}: "
                f"{lost.source} for {lost.target} is no partition of this card"
            )
            if lost.alike:
                what += f"; it has {lost.alike}, and capital and small letters differ"
            # The root is mounted already; fstab's line is for making it writable.
            harmless = not lost.is_system or (lost.target == "/" and "rw" in line.words)
            grade = None if waits and not harmless else Severity.WARNING
            yield finding(Code.FSTAB, what, severity=grade)


def _type(one: NamedPartition, line: Cmdline, path: str, *, initramfs: bool) -> Iterator[Finding]:
    """That rootfstype= names other filesystems than the one on ``one``: the kernel tries no other,
    an initramfs may."""
    named = line.value("rootfstype")
    drivers = _DRIVERS.get(one.holds.kind, ()) if one.holds else ()
    if named is None or not drivers or one.holds is None:
        return
    names = named.split(",")
    if set(names) & set(drivers) or (initramfs and "auto" in names):
        return
    what = f"{path}: rootfstype={named}, and partition {one.part.index} holds {one.holds.kind}"
    grade = Severity.WARNING if initramfs else None
    yield finding(Code.ROOT_TYPE, what, path=path, severity=grade)


def _start(
    filesystem: RootFilesystem, started: FirstProgram | OverBudget, *, initramfs: bool, other: bool
) -> Iterator[Finding]:
    """Why nothing is ``started`` on ``filesystem``; ``other`` says that the initramfs may start
    something else."""
    where = f"partition {filesystem.partition}"
    if isinstance(started, OverBudget):
        yield finding(Code.NOT_LOOKED_AT, f"{where}: {started}")
    elif started.fault:
        # What lies on another filesystem is there only once the initramfs has mounted that.
        apart = any(started.missing.startswith(f"{mount.target}/") for mount in filesystem.mounts)
        if initramfs and (other or apart):
            what = f"{where}: {started.fault}; the initramfs may put the root together itself"
            yield finding(Code.ROOT_UNPROVEN, what)
        else:
            yield finding(Code.ROOT_INIT, f"no init on {where}: {started.fault}")


def _groups(filesystem: RootFilesystem, line: Cmdline, *, initramfs: bool) -> Iterator[Finding]:
    """Group descriptors that are damaged. Where the kernel does not mount the root for writing at
    once, or an initramfs does it, an e2fsck that mends them may come first."""
    if filesystem.damaged_groups:
        what = (
            f"partition {filesystem.partition}: the descriptor of its group "
            f"{filesystem.damaged_groups[0]} does not fit its checksum"
        )
        at_once = "rw" in line.words and not initramfs
        severity = None if at_once else Severity.WARNING
        yield finding(Code.ROOT_FILESYSTEM, what, severity=severity)


def _is_fat(one: NamedPartition) -> bool:
    return one.holds is not None and one.holds.kind.startswith(_FAT)
