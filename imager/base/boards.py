"""Every board this program knows: which releases boot it, and what it loads before Linux runs.

In: nothing. Out: one table. What names a board anywhere else (rack.toml, the releases, the boot
check, the texts for a person, ``overlays/model``) is taken from here or held against it by a test.

Sources: Raspberry Pi documentation, "boot folder contents", "config.txt: kernel, start_file,
fixup_file, arm_64bit", "conditional filters" and "legacy boot flow"; for what a release boots, the
distribution's PKGBUILD of linux-rpi (commit c1dbe5fc14, December 2025: the 32-bit kernel of
Linux 6.18 lost the Pi 4) and its removal of linux-rpi-legacy (commit 4ed967da7d, February 2022: no
more ARMv6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALARM_ARMV7 = "alarm-rpi-armv7"
ALARM_AARCH64 = "alarm-rpi-aarch64"
"""The built-in releases: the distribution's 32-bit and 64-bit images."""


@dataclass(frozen=True, slots=True)
class DeviceTree:
    """A device tree the firmware picks by itself on some boards sold under one name.

    ``compatible`` begins the tree's first string on those boards.
    """

    file: str
    compatible: str
    boards: str


@dataclass(frozen=True, slots=True)
class Board:
    """One board. ``name`` is what rack.toml calls it, ``title`` its name in a sentence.

    ``releases`` are the built-in releases that boot it, ``refused`` the others, each with the
    reason and what to do. ``kernels32`` and ``kernel64`` are the default kernel names, each tried
    in order; ``filters`` are the config.txt sections that hold on it and ``undecided`` those that
    hold on some boards of this name. ``memory_key`` is the gpu_mem variant for its amount of
    memory.
    """

    name: str
    title: str
    releases: tuple[str, ...]
    refused: Mapping[str, str]
    filters: frozenset[str]
    undecided: frozenset[str]
    needs_bootcode: bool
    firmware: str
    kernels32: tuple[str, ...]
    kernel64: str | None
    prefers_64bit: bool
    device_trees: tuple[DeviceTree, ...]
    memory_key: str

    def firmware_pair(self, variant: str) -> tuple[str, str]:
        """(start, fixup) file names of a variant: ``""``, ``cd``, ``x`` or ``db``."""
        joined = variant if not variant or self.firmware else f"_{variant}"
        return f"start{self.firmware}{joined}.elf", f"fixup{self.firmware}{joined}.dat"


PI2 = Board(
    name="pi2",
    title="Raspberry Pi 2",
    releases=(ALARM_ARMV7,),
    refused={
        ALARM_AARCH64: "the Pi 2's BCM2836 has no 64-bit mode; "
        f'use release = "{ALARM_ARMV7}" for this board'
    },
    filters=frozenset({"pi2"}),
    undecided=frozenset(),
    needs_bootcode=True,
    firmware="",
    kernels32=("kernel7.img", "kernel.img"),
    kernel64=None,
    prefers_64bit=False,
    device_trees=(
        DeviceTree("bcm2709-rpi-2-b.dtb", "raspberrypi,2-model-b", "Pi 2 v1.0 and v1.1 (BCM2836)"),
        DeviceTree("bcm2710-rpi-2-b.dtb", "raspberrypi,2-model-b", "Pi 2 v1.2 (BCM2837)"),
    ),
    memory_key="gpu_mem_1024",
)
PI3 = Board(
    name="pi3",
    title="Raspberry Pi 3",
    releases=(ALARM_ARMV7, ALARM_AARCH64),
    refused={},
    filters=frozenset({"pi3"}),
    undecided=frozenset({"pi3+", "cm3", "cm3+"}),
    needs_bootcode=True,
    firmware="",
    kernels32=("kernel7.img", "kernel.img"),
    kernel64="kernel8.img",
    prefers_64bit=True,
    device_trees=(
        DeviceTree("bcm2710-rpi-3-b.dtb", "raspberrypi,3-model-b", "Pi 3 B"),
        DeviceTree("bcm2710-rpi-3-b-plus.dtb", "raspberrypi,3-model-b-plus", "Pi 3 B+"),
    ),
    memory_key="gpu_mem_1024",
)
ZERO2W = Board(
    name="zero2w",
    title="Raspberry Pi Zero 2 W",
    releases=(ALARM_ARMV7,),
    refused={ALARM_AARCH64: f'use release = "{ALARM_ARMV7}" for this board'},
    filters=frozenset({"pi0", "pi0w", "pi02"}),
    undecided=frozenset(),
    needs_bootcode=True,
    firmware="",
    kernels32=("kernel7.img", "kernel.img"),
    kernel64="kernel8.img",
    prefers_64bit=True,
    device_trees=(DeviceTree("bcm2710-rpi-zero-2-w.dtb", "raspberrypi,model-zero-2", "Zero 2 W"),),
    memory_key="gpu_mem_512",
)
PI4 = Board(
    name="pi4",
    title="Raspberry Pi 4",
    releases=(ALARM_AARCH64,),
    refused={
        ALARM_ARMV7: "its 32-bit kernel lost the Pi 4 in December 2025 (linux-rpi 6.18); "
        f'use release = "{ALARM_AARCH64}" for this board'
    },
    filters=frozenset({"pi4"}),
    undecided=frozenset({"pi400", "cm4", "cm4s"}),
    needs_bootcode=False,
    firmware="4",
    kernels32=("kernel7l.img", "kernel7.img", "kernel.img"),
    kernel64="kernel8.img",
    prefers_64bit=True,
    device_trees=(DeviceTree("bcm2711-rpi-4-b.dtb", "raspberrypi,4-model-b", "Pi 4 B"),),
    memory_key="gpu_mem_1024",
)

BOARDS: tuple[Board, ...] = (PI2, PI3, ZERO2W, PI4)
"""In this order the boot check tries them on a card that does not say what it was made for."""
MODELS = tuple(sorted(board.name for board in BOARDS))
"""The names of all boards, as messages list them."""

ARMV6_NAMES = ("pi", "pi1", "pizero", "rpi", "rpi1", "zero", "zerow")
"""What people call the boards no release boots."""
NO_ARMV6 = "has an ARMv6 processor, for which there are no releases since 2022"


def board_named(name: str) -> Board:
    """The board called ``name``; raises ValueError that lists the known ones."""
    for board in BOARDS:
        if board.name == name:
            return board
    known = ", ".join(board.name for board in BOARDS)
    raise ValueError(f"no boot rules for model {name!r}; known are {known}")
