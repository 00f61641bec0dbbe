"""config.txt as the firmware of one model reads it.

In: a way to read files of the boot partition, and a model. Out: the settings that hold there, those
that hold only on some boards, and every line that does not mean what it seems to mean. Rules:
Raspberry Pi documentation, "What is config.txt?" and "Conditional filters".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from imager.base.boards import Board

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

ReadFile = Callable[[str], bytes | None]
"""Gives the content of a file of the boot partition, or None when it is not there."""


class NoteKind(StrEnum):
    """What can be odd about a line."""

    LINE_TOO_LONG = "line-too-long"
    SYNTAX = "syntax"
    INCLUDE_MISSING = "include-missing"
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

    def value(self, key: str, default: str = "") -> str:
        """The value of ``key``."""
        found = self.settings.get(key)
        return default if found is None else found.value

    def number(self, key: str) -> int | None:
        """The value of ``key`` as a whole number, None when it is not set or no number."""
        try:
            return int(self.value(key), 0)
        except ValueError:
            return None


def read_config(read: ReadFile, model: Board) -> Config:
    """What config.txt means on ``model``; a missing file means no settings."""
    parser = _ConfigParser(read, model)
    data = read("config.txt")
    if data is not None:
        parser.read_lines("config.txt", data)
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
    states: dict[str, bool | None] = field(default_factory=dict)

    def enter(self, name: str) -> bool:
        """Apply the filter ``[name]``; False when there is no such filter."""
        folded = name.casefold()
        if folded == "all":
            self.states.clear()
        elif folded in MODEL_FILTERS:
            undecided = folded in self.model.undecided
            self.states["model"] = None if undecided else folded in self.model.filters
        elif folded == "tryboot":
            self.states["tryboot"] = False
        elif match := re.match(r"(edid|gpio\d+|board-type|boot_partition|hdmi:|0x)", folded):
            self.states[match[1].rstrip("0123456789")] = None
        else:
            self.states["unknown"] = None
            return False
        return True

    @property
    def hold(self) -> bool | None:
        """Whether the next lines count: yes, no, or None when it depends on the single board."""
        if False in self.states.values():
            return False
        return None if None in self.states.values() else True


class _ConfigParser:
    def __init__(self, read: ReadFile, model: Board) -> None:
        self.read = read
        self.filters = _Filters(model)
        self.settings: dict[str, Setting] = {}
        self.overlays: list[Setting] = []
        self.undecided: list[Setting] = []
        self.notes: list[Note] = []
        self.includes = 0
        self.lines = 0

    def note(self, kind: NoteKind, path: str, line: int, what: str) -> None:
        self.notes.append(Note(kind, f"{path}, line {line}: {what}", path))

    def read_lines(self, path: str, data: bytes) -> None:
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
            self.line(path, number, text.strip(" \t\0"))

    def line(self, path: str, number: int, text: str) -> None:
        if not text or text.startswith("#"):
            return
        if text.startswith("["):
            name, closed, _ = text[1:].partition("]")
            if not (self.filters.enter(name.strip()) and closed):
                self.note(NoteKind.SYNTAX, path, number, f"no known filter: {text}")
            return
        word, _, rest = text.partition(" ")
        if word == "include":
            self.include(path, number, rest.strip())
            return
        if word == "initramfs":
            name = rest.split()[0] if rest.split() else ""
            self.keep(Setting("initramfs", name, path, number))
            return
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            self.note(NoteKind.SYNTAX, path, number, f"neither a setting nor a filter: {text!r}")
        elif key == "initramfs":
            what = f"initramfs takes no '=' and is ignored so: write 'initramfs {value}"
            self.note(NoteKind.SYNTAX, path, number, f"{what} followkernel'")
        else:
            self.keep(Setting(key, value.strip(), path, number))

    def keep(self, setting: Setting) -> None:
        hold = self.filters.hold
        if hold is None:
            self.undecided.append(setting)
        elif hold and setting.key in ("dtoverlay", "device_tree_overlay"):
            if setting.value:
                self.overlays.append(setting)
        elif hold:
            self.settings[setting.key] = setting

    def include(self, path: str, number: int, name: str) -> None:
        if self.filters.hold is False:
            return
        data = self.read(name) if name else None
        if data is None:
            what = f"includes {name or 'nothing'}, which is not there"
            self.note(NoteKind.INCLUDE_MISSING, path, number, what)
        elif self.includes >= _MAX_INCLUDES:
            what = f"includes {name} after {_MAX_INCLUDES} others: is it including itself?"
            self.note(NoteKind.SYNTAX, path, number, what)
        else:
            self.includes += 1
            self.read_lines(name, data)
