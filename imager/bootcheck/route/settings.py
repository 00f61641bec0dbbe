"""config.txt, read twice: as the program that loads start*.elf reads it, and as start*.elf does.

In: the files of a boot partition and a board. Out: both readings, and the firmware files that the
first one chooses. The loader is bootcode.bin of the first partition, or one in a chip; what it does
not see, as an included file, does not choose a firmware. Which filters each of the two knows stands
in it; sources: Raspberry Pi documentation, "include", "start_file" and "start_x".
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.boards import Board
from imager.base.units import MiB
from imager.bootcheck.contents import Contents
from imager.bootcheck.formats import firmware
from imager.bootcheck.formats.config import (
    KIND_FILTERS,
    MODEL_FILTERS,
    Config,
    Program,
    read_config,
)
from imager.disk.budget import Budget

BOOTCODE = "bootcode.bin"
_FILTERS = MODEL_FILTERS | KIND_FILTERS
_START_MOST = 16 * MiB
"""Three times the largest start*.elf of today; a larger one is not searched for what it knows."""
_CUT_DOWN_MEMORY = 16


@dataclass(frozen=True, slots=True)
class BootSettings:
    """Both readings of config.txt. ``pair`` are the start and fixup file, None for a board that
    loads neither from a card."""

    loader: Config
    firmware: Config
    pair: tuple[str, str] | None

    @property
    def is_cut(self) -> bool:
        """Whether config.txt, or a file it includes, has lines that were not looked at."""
        return self.loader.is_cut or self.firmware.is_cut

    @classmethod
    def of(cls, contents: Contents, first: Contents, model: Board) -> BootSettings:
        """The settings on the partition ``contents``; ``first`` is the card's first one, from which
        bootcode.bin comes."""
        knows = _known(first, BOOTCODE, firmware.BOOTCODE_MAX) if model.needs_bootcode else None
        read = read_config(contents.text, model, Program(False, knows or _FILTERS))
        pair = _pair(read, model)
        knows = _known(contents, pair[0], _START_MOST) if pair else None
        return cls(read, read_config(contents.text, model, Program(True, knows or _FILTERS)), pair)


def _filters_in(data: bytes, budget: Budget) -> frozenset[str] | None:
    return firmware.known_filters(data, _FILTERS, budget)


def _known(contents: Contents, path: str, most_bytes: int) -> frozenset[str] | None:
    """Which filters the program in the file ``path`` knows; None where that cannot be told."""
    entry = contents.entry(path)
    if entry is None or entry.size_bytes > most_bytes:
        return None
    return contents.about(path, _filters_in)


def has_little_memory(loader: Config, model: Board) -> bool:
    """Whether config.txt gives the GPU so little memory that it gets the cut-down firmware."""
    memory = loader.number(model.memory_key)
    memory = loader.number("gpu_mem") if memory is None else memory
    return memory is not None and memory <= _CUT_DOWN_MEMORY


def _pair(loader: Config, model: Board) -> tuple[str, str] | None:
    variant = ""
    if has_little_memory(loader, model):
        variant = "cd"
    elif loader.number("start_debug"):
        variant = "db"
    elif loader.number("start_x"):
        variant = "x"
    pair = model.firmware_pair(variant)
    if pair is None:
        return None
    return loader.value("start_file") or pair[0], loader.value("fixup_file") or pair[1]
