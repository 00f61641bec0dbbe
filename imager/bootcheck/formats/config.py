"""config.txt as one program of the boot reads it on one model.

In: a way to read files of the boot partition, a model, and the program. Out: the settings that hold
there, those that hold only on some boards, and every line that does not mean what it seems to mean.
Two programs read the file: the one that loads start*.elf (bootcode.bin, from a Pi 4 on one in a
chip), which knows a few settings and no ``include``, and start*.elf itself. Rules: Raspberry Pi
documentation, "What is config.txt?" and "Conditional filters"; what comes of a filter that a
program does not know: raspberrypi/firmware issue 1839.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from imager.base.boards import Board
from imager.bootcheck.formats.text import is_wide, text_faults

LINE_LIMIT = 98
"""The firmware reads so many characters of a line and ignores the rest."""
_MAX_INCLUDES = 32
_MAX_LINES = 10_000
"""Lines of config.txt and what it includes that are looked at; the longest known have 500."""
MODEL_FILTERS = frozenset(
    {"none", "pi0", "pi0w", "pi02", "pi1", "pi2", "pi3", "pi3+", "pi4", "pi400", "pi5"}
    | {"pi500", "pi500+", "cm0", "cm1", "cm3", "cm3+", "cm4", "cm4s", "cm5"}
)
"""Every section name that speaks of the board's model; they replace one another."""
KIND_FILTERS = frozenset({"tryboot", "edid", "gpio", "board-type", "hdmi:"})
"""How each other section name begins that a program may or may not know."""
LOADER_KEYS = frozenset(
    {"start_file", "fixup_file", "start_x", "start_debug", "boot_ramdisk"}
    | {"gpu_mem", "gpu_mem_256", "gpu_mem_512", "gpu_mem_1024"}
)
"""The settings that the program that loads start*.elf reads; for start*.elf they come too late."""
SYSTEM_KEYS = frozenset(
    {"kernel", "initramfs", "ramfsfile", "auto_initramfs", "device_tree", "cmdline", "arm_64bit"}
    | {"os_prefix", "overlay_prefix", "upstream_kernel", "armstub"}
)
"""The settings of start*.elf that choose which files are loaded."""

OVERLAY_KEYS = frozenset({"dtoverlay", "device_tree_overlay"})
"""The settings that add up instead of replacing one another."""
_KIND = re.compile(
    r"(tryboot|edid|gpio\d+|board-type|hdmi:|boot_partition|boot_arg[12]|boot_count|partition|0x)"
)
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,18})")
_BYTE_ORDER_MARK = "\ufeff"
"""A line that begins with it is noted as no text, and is no setting."""
_BLANKS = " \t"
_CONFIG = "config.txt"

ReadFile = Callable[[str], bytes | None]
"""Gives the content of a file of the boot partition, or None when it is not there."""


class NoteKind(StrEnum):
    """What can be odd about a line."""

    LINE_TOO_LONG = "line-too-long"
    NO_TEXT = "no-text"
    SYNTAX = "syntax"
    FILTER_UNKNOWN = "filter-unknown"
    INCLUDE_MISSING = "include-missing"
    TOO_LATE = "too-late"
    TOO_MUCH = "too-much"


@dataclass(frozen=True, slots=True)
class Note:
    """A line that the firmware understands differently than a person would."""

    kind: NoteKind
    what: str
    path: str


@dataclass(frozen=True, slots=True)
class Setting:
    """``key=value`` as written in line ``line`` of ``path``."""

    key: str
    value: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Config:
    """The settings that hold (the last of each key), every ``dtoverlay``, and the settings under
    a filter that only the running board can decide (a display, a GPIO, a serial number)."""

    settings: Mapping[str, Setting]
    overlays: tuple[Setting, ...]
    undecided: tuple[Setting, ...]
    notes: tuple[Note, ...]

    @property
    def is_cut(self) -> bool:
        """Whether there are lines that were not looked at: they may say anything else."""
        return any(note.kind is NoteKind.TOO_MUCH for note in self.notes)

    def value(self, key: str, default: str = "") -> str:
        """The value of ``key``."""
        found = self.settings.get(key)
        return default if found is None else found.value

    def number(self, key: str) -> int | None:
        """The whole number that the value of ``key`` begins with, None when it begins with none."""
        match = _NUMBER.match(self.value(key))
        if match is None:
            return None
        return int(match[0], 16 if "x" in match[0].casefold() else 10)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that reads config.txt.

    ``includes`` says whether it reads included files, ``known`` which of MODEL_FILTERS and
    KIND_FILTERS it knows: a line after any other filter counts as if there were none.
    """

    includes: bool = True
    known: frozenset[str] = MODEL_FILTERS | KIND_FILTERS


FIRMWARE = Program()
"""start*.elf, as it is documented."""


def read_config(
    read: ReadFile, model: Board, program: Program = FIRMWARE, *, path: str = _CONFIG
) -> Config:
    """What config.txt, or another file of its form, means to ``program`` on ``model``; a missing
    file means no settings."""
    parser = _ConfigParser(read, model, program)
    data = read(path)
    if data is not None:
        parser.read_lines(path, data)
    return Config(
        MappingProxyType(parser.settings),
        tuple(parser.overlays),
        tuple(parser.undecided),
        tuple(parser.notes),
    )


@dataclass(slots=True)
class _Filters:
    """The filters (``[pi2]``) that apply to the next lines. A filter replaces an earlier one of its
    kind; filters of different kinds must all be true."""

    model: Board
    known: frozenset[str]
    states: dict[str, bool | None] = field(default_factory=dict)
    passed_over: str = ""
    """The last filter, where it is a real one that this program does not know."""

    def enter(self, name: str) -> bool:
        """Apply the filter ``[name]``; False when there is no such filter at all."""
        folded = name.casefold()
        match = _KIND.match(folded)
        kind = match[1].rstrip("0123456789") if match else ""
        if folded in MODEL_FILTERS:
            kind = "model"
        asked = folded if kind == "model" else kind
        is_known = asked in self.known or asked not in MODEL_FILTERS | KIND_FILTERS
        self.passed_over = "" if is_known else name
        if folded == "all":
            self.states.clear()
        elif not kind:
            return False
        elif kind == "model" and is_known:
            undecided = folded in self.model.undecided
            self.states["model"] = None if undecided else folded in self.model.filters
        elif is_known:
            self.states[kind] = False if kind == "tryboot" else None
        return True

    @property
    def hold(self) -> bool | None:
        """Whether the next lines count: yes, no, or None when it depends on the single board."""
        if False in self.states.values():
            return False
        return None if None in self.states.values() else True


class _ConfigParser:
    def __init__(self, read: ReadFile, model: Board, program: Program) -> None:
        self.read = read
        self.program = program
        self.filters = _Filters(model, program.known | {"none"})
        self.settings: dict[str, Setting] = {}
        self.overlays: list[Setting] = []
        self.undecided: list[Setting] = []
        self.notes: list[Note] = []
        self.includes = 0
        self.lines = 0

    def note(self, kind: NoteKind, path: str, line: int, what: str) -> None:
        self.notes.append(Note(kind, f"{path}, line {line}: {what}", path))

    def read_lines(self, path: str, data: bytes) -> None:
        self.notes += [Note(NoteKind.NO_TEXT, f"{path} {what}", path) for what in text_faults(data)]
        if is_wide(data):
            return
        for number, raw in enumerate(re.split(rb"\r\n|\n|\r", data), 1):
            self.lines += 1
            if self.lines > _MAX_LINES:
                if self.lines == _MAX_LINES + 1:
                    what = f"after {_MAX_LINES} lines nothing more is looked at"
                    self.note(NoteKind.TOO_MUCH, path, number, what)
                return
            text = raw.decode("utf-8", errors="replace")
            if len(raw) > LINE_LIMIT:
                ignored = raw[LINE_LIMIT:].decode("utf-8", errors="replace")
                if not text.lstrip().startswith("#") and ignored.strip():
                    self.note(
                        NoteKind.LINE_TOO_LONG,
                        path,
                        number,
                        f"from column {LINE_LIMIT + 1} on it is ignored: {ignored[:40]!r}",
                    )
                text = raw[:LINE_LIMIT].decode("utf-8", errors="replace")
            self.line(path, number, text.partition("\0")[0].strip(_BLANKS))

    def line(self, path: str, number: int, text: str) -> None:
        if not text or text.startswith(("#", _BYTE_ORDER_MARK)):
            return
        if text.startswith("["):
            name, closed, _ = text[1:].partition("]")
            if not (self.filters.enter(name.strip(_BLANKS)) and closed):
                what = f"no known filter, so that it filters nothing: {text}"
                self.note(NoteKind.SYNTAX, path, number, what)
            return
        word, _, rest = text.partition(" ")
        if word == "include":
            self.include(path, number, rest.strip(_BLANKS))
            return
        if word == "initramfs":
            names = rest.replace("\t", " ").split(" ")
            self.keep(Setting("initramfs", next(filter(None, names), ""), path, number))
            return
        key, equals, value = text.partition("=")
        key = key.strip(_BLANKS)
        if not equals or not key:
            self.note(NoteKind.SYNTAX, path, number, f"neither a setting nor a filter: {text!r}")
        elif key == "initramfs":
            what = f"initramfs takes no '=' and is ignored so: write 'initramfs {value}"
            self.note(NoteKind.SYNTAX, path, number, f"{what} followkernel'")
        else:
            self.keep(Setting(key, value.strip(_BLANKS), path, number))

    def keep(self, setting: Setting) -> None:
        hold = self.filters.hold
        if hold is not False and setting.key in SYSTEM_KEYS and self.filters.passed_over:
            what = f"{setting.key} counts on every board: this card's start*.elf does not know"
            where = (setting.path, setting.line)
            self.note(NoteKind.FILTER_UNKNOWN, *where, f"{what} [{self.filters.passed_over}]")
        if hold is None:
            self.undecided.append(setting)
        elif hold and setting.key in OVERLAY_KEYS:
            if setting.value:
                self.overlays.append(setting)
        elif hold:
            self.settings[setting.key] = setting
            if setting.key in LOADER_KEYS and setting.path.casefold() != _CONFIG:
                what = f"{setting.key} is read before included files are, so not here"
                self.note(NoteKind.TOO_LATE, setting.path, setting.line, what)

    def include(self, path: str, number: int, name: str) -> None:
        if self.filters.hold is False or not self.program.includes:
            return
        if self.includes >= _MAX_INCLUDES:
            if self.includes == _MAX_INCLUDES:
                what = f"includes {name} after {_MAX_INCLUDES} others: is it including itself?"
                self.note(NoteKind.TOO_MUCH, path, number, what)
                self.includes += 1  # said once
            return
        data = self.read(name) if name else None
        if data is None:
            what = f"includes {name or 'nothing'}, which is not there"
            self.note(NoteKind.INCLUDE_MISSING, path, number, what)
        else:
            self.includes += 1
            self.read_lines(name, data)
