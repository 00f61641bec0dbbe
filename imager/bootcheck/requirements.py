"""Would this boot partition start this model?

In: the files of the partition, a model, and the names of the root partition. Out: findings, the
route, and which files the boot needs. The order is the firmware's own: bootcode.bin, the start and
fixup files that config.txt chooses, then the chain that those start, of which Linux is followed to
its command line.
"""

from __future__ import annotations

from collections.abc import Iterator

from imager.base.boards import Board
from imager.bootcheck.contents import Contents
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.formats import cmdline, config, text
from imager.bootcheck.formats.firmware import built_in_cmdline
from imager.bootcheck.formats.kernel import inspect_kernel
from imager.bootcheck.meanings import finding
from imager.bootcheck.root.names import NamedPartition
from imager.bootcheck.root.roots import Roots
from imager.bootcheck.route.chain import BOOT_IMAGE, Chain, route_of
from imager.bootcheck.route.linux import Linux
from imager.bootcheck.route.loader import bootcode_findings, loader_findings
from imager.bootcheck.route.needs import LOST, Needs, cheap
from imager.bootcheck.route.paths import SystemPaths
from imager.bootcheck.route.settings import BOOTCODE, BootSettings
from imager.bootcheck.route.uboot import IMAGE, uboot_findings
from imager.disk.budget import MAX_TEXT_BYTES

_NOTE_CODES = {
    config.NoteKind.LINE_TOO_LONG: Code.CONFIG_LINE,
    config.NoteKind.NO_TEXT: Code.TEXT_FORM,
    config.NoteKind.SYNTAX: Code.CONFIG_LINE,
    config.NoteKind.FILTER_UNKNOWN: Code.CONFIG_FILTER,
    config.NoteKind.INCLUDE_MISSING: Code.CONFIG_LINE,
    config.NoteKind.TOO_LATE: Code.CONFIG_INCLUDED,
    config.NoteKind.TOO_MUCH: Code.NOT_LOOKED_AT,
}
_FILE_KEYS = frozenset({"kernel", "initramfs", "ramfsfile", "device_tree"})
_FIRMWARE_KEYS = frozenset({"start_file", "fixup_file"})
_EEPROM = "EEPROM"
_BUILT_IN = cheap(built_in_cmdline)


class Requirements:
    """What one board needs of one boot partition; ``needed`` collects the files it uses, and
    ``first_needed`` those of the card's first partition, where that is another.

    ``is_sure`` says whether all that tells which way the boot goes was looked at; where it was not,
    nothing is said of what comes after that, and ``route`` is a guess. ``root`` is the partition
    that the kernel has for its root, as far as that can be told.
    ``arrived`` are the steps by which the board came to this partition.
    """

    def __init__(
        self,
        contents: Contents,
        model: Board,
        roots: Roots,
        first: Contents | None = None,
        arrived: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self.roots = roots
        self.root: NamedPartition | None = roots.presumed
        self.contents = contents
        self._needs = Needs(contents)
        self._first = self._needs if first in (None, contents) else Needs(first)
        self.settings = BootSettings.of(contents, self._first.contents, model)
        self._settings_sure = not (self.settings.is_cut or self._has_unseen)
        self.paths = SystemPaths(contents, model, self.settings.firmware)
        began = BOOTCODE if model.needs_bootcode else _EEPROM
        self.route = route_of(contents, model, self.settings, self.paths, (began, *arrived))
        self.is_sure = self._settings_sure and not self._has_unseen

    @property
    def _has_unseen(self) -> bool:
        """Whether something that was asked for so far was not looked at to its end."""
        return bool(self.contents.unseen or self._first.contents.unseen)

    @property
    def needed(self) -> set[str]:
        """The paths of all files that the boot uses; complete after ``findings``."""
        return self._needs.used

    @property
    def first_needed(self) -> set[str]:
        """As ``needed``, of the first partition."""
        return self._first.used

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong for this model."""
        yield from self._config()
        if not self._settings_sure:
            yield from bootcode_findings(self._first, self.model)
            return
        if self.route.chain is Chain.RAMDISK:
            yield from self._needs.whole(Code.BOOT_IMAGE, BOOT_IMAGE, LOST)
            yield from self._not_followed()
            return
        if self.route.chain is Chain.RECOVERY:
            yield from bootcode_findings(self._first, self.model)
            yield from self._not_followed()
            return
        yield from loader_findings(self._needs, self._first, self.model, self.settings)
        yield from self._missing_programs()
        if not self.is_sure:
            if self.contents.is_unseen(self.paths.kernel):
                self._needs.use(self.paths.kernel)
            return
        if self.route.chain is Chain.UBOOT:
            yield from uboot_findings(self._needs, self.model, self.route, self.paths)
            if self.route.followed:
                yield from self.roots.presumed_findings()
                yield from self._modules(IMAGE)
        elif self.route.chain is Chain.LINUX:
            linux = Linux(self._needs, self.model, self.settings.firmware, self.paths)
            yield from linux.findings()
            yield from self._cmdline(initramfs=linux.has_initramfs, bits=linux.bits)
        yield from self._not_followed()

    def _not_followed(self) -> Iterator[Finding]:
        if not self.route.followed:
            self._needs.use(self.route.path)
            what = f"{self.route}: what that starts is not checked from here"
            yield finding(Code.ROUTE_NOT_FOLLOWED, what, path=self.route.path)

    # -- config.txt ----------------------------------------------------------------------------

    def _config(self) -> Iterator[Finding]:
        self._needs.use("config.txt")
        entry = self.contents.entry("config.txt")
        lacks = "missing" if entry is None else "empty" if not entry.size_bytes else ""
        if lacks and self.model.firmware is None:
            yield finding(Code.CONFIG_NEEDED, f"config.txt is {lacks}", path="config.txt")
        elif entry is None:
            yield finding(Code.CONFIG_MISSING, "config.txt is missing", path="config.txt")
        for note in self.settings.firmware.notes:
            yield finding(_NOTE_CODES[note.kind], note.what, path=note.path)
        for reading, keys in (
            (self.settings.loader, _FIRMWARE_KEYS),
            (self.settings.firmware, _FILE_KEYS),
        ):
            for setting in reading.undecided:
                if setting.key in keys and setting.value and not self._has(setting):
                    what = f"{setting.path}, line {setting.line}: {setting.value} is missing"
                    yield finding(Code.CONFIG_UNDECIDED, what, path=setting.path)

    def _has(self, setting: config.Setting) -> bool:
        names = setting.value.split(",")
        if setting.key in _FIRMWARE_KEYS:
            return all(self.contents.may_have(name) for name in names)
        return all(self.contents.may_have(self.paths.path(name)) for name in names if name)

    def _missing_programs(self) -> Iterator[Finding]:
        """Programs that config.txt asks for and that the firmware does without."""
        asked = [(self.settings.firmware, "armstub", self.settings.firmware.value("armstub"))]
        if not self.model.needs_bootcode and self.settings.loader.number("boot_ramdisk"):
            asked.append((self.settings.loader, "boot_ramdisk", BOOT_IMAGE))
        for reading, key, path in asked:
            if path and not self.contents.may_have(path):
                setting = reading.settings[key]
                what = f"{setting.path}, line {setting.line}: {path} is missing"
                yield finding(Code.PROGRAM_MISSING, what, path=path)

    # -- command line --------------------------------------------------------------------------

    def _cmdline(self, *, initramfs: bool, bits: int | None) -> Iterator[Finding]:
        path = self.paths.cmdline
        self._needs.use(path)
        data = self.contents.text(path)
        if self._cmdline_unseen(path, data):
            return
        if data is None and (data := self._built_in()) is not None:
            what = f"{path} is missing; the firmware then takes its own: {data.decode()}"
            yield finding(Code.CMDLINE_BUILT_IN, what, path=path)
        elif not (data or b"").strip():
            what = f"{path} is {'missing' if data is None else 'empty'}"
            yield finding(Code.CMDLINE_MISSING, what, path=path)
            yield from self.roots.presumed_findings(bits=bits)
            return
        else:
            yield from self._cmdline_text(path, data or b"")
        line = cmdline.parse_cmdline(text.meant(data or b""))
        if line.value("root") and not line.waits_for_root:
            yield finding(Code.ROOTWAIT, f"{path} has no rootwait", path=path)
        named = self.roots.named(line, initramfs=initramfs)
        self.root = named or self.root
        yield from self.roots.findings(line, path, initramfs=initramfs, bits=bits)
        if named is not None:
            yield from self._modules(self.paths.kernel)

    def _cmdline_unseen(self, path: str, data: bytes | None) -> bool:
        """Whether nothing can be said of the command line: its file, or the one in start*.elf
        where there is none, was not looked at. Of a file that is cut the kernel reads no more."""
        if data is not None:
            return len(data) < MAX_TEXT_BYTES and self.contents.is_unseen(path)
        pair = self.settings.pair
        return pair is not None and self._built_in() is None and self.contents.is_unseen(pair[0])

    def _built_in(self) -> bytes | None:
        """The command line in the start*.elf that is loaded, which it takes where there is no
        file."""
        pair = self.settings.pair
        return self.contents.about(pair[0], _BUILT_IN) if pair else None

    def _modules(self, kernel: str) -> Iterator[Finding]:
        """Whether the root filesystem has the modules of the kernel in the file ``kernel``. One
        with no modules at all is not asked: its kernel may need none."""
        root = self.roots.filesystem(self.root)
        seen = self.contents.about(kernel, inspect_kernel)
        if root is None or seen is None or not seen.release or not root.modules:
            return
        if seen.release not in root.modules:
            what = (
                f"{kernel} is Linux {seen.release}; partition {root.partition} has modules for "
                f"{', '.join(root.modules[:4])}"
            )
            yield finding(Code.KERNEL_MODULES, what, path=kernel)

    def _cmdline_text(self, path: str, data: bytes) -> Iterator[Finding]:
        """What of the line does not reach the kernel as a person reads it."""
        meant, seen = cmdline.parse_cmdline(text.meant(data)), cmdline.parse_cmdline(data)
        for fault in text.text_faults(data):
            # The kernel gets no root= when it is part of what is not understood.
            lost = meant.value("root") is not None and seen.value("root") is None
            grade = Severity.ERROR if lost else None
            lost_part = ", so root= is lost" if lost else ""
            yield finding(Code.TEXT_FORM, f"{path} {fault}{lost_part}", path=path, severity=grade)
        if meant.extra is not None:
            number, words = meant.extra
            what = f"{path} has a second line (line {number}): {words[:60]!r}"
            # What is lost with a root= in the first line is words, as a person's notes are.
            grade = None if meant.value("root") is None else Severity.WARNING
            yield finding(Code.CMDLINE_LINES, what, path=path, severity=grade)
        if meant.length > cmdline.MAX_BYTES:
            yield finding(Code.CMDLINE_TEXT, f"{path} has {meant.length} bytes", path=path)
        elif meant.has_control and not text.text_faults(data):
            yield finding(Code.CMDLINE_TEXT, f"{path} has {_control_in(data)}", path=path)


def _control_in(data: bytes) -> str:
    line = data.split(b"\n")[0]
    if line.endswith(b"\r"):
        return "a carriage return (CR) at its end, the line end of Windows"
    return "a control character"
