"""Every board this program knows: which releases boot it, and what it loads before Linux runs.

In: nothing. Out: one table. Every other list of boards (rack.toml, the releases, the boot
check, the texts for a person, ``overlays/model``) is made from it, or a test compares the two.

Sources. Firmware files, kernel names, sections of config.txt: Raspberry Pi documentation, "boot
folder contents", "config.txt: kernel, start_file, arm_64bit", "conditional filters" and "legacy
boot flow". Which tree the firmware of a Pi 5 asks for: rpi-eeprom, firmware-2712/release-notes.md
(2025-03-27). Trees of a kernel and their ``compatible``: raspberrypi/linux rpi-6.18.y. What a
release brings: the distribution's PKGBUILDs of August 2026 (linux-rpi and linux-rpi-16k 6.18.45,
linux-aarch64 7.2, uboot-raspberrypi 2025.01, raspberrypi-bootloader 20260821); its commits
c1dbe5fc14 (December 2025: the 32-bit kernel lost the Pi 4) and 4ed967da7d (February 2022: no more
ARMv6). What U-Boot asks for: board/raspberrypi/rpi/rpi.c of U-Boot 2025.01, ``fdtfile``. Pages
of memory: ID_AA64MMFR0_EL1 in Arm's Technical Reference Manuals of the Cortex-A53, A72 and A76.
Nothing of it was tried on the boards themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

ALARM_ARMV7 = "alarm-rpi-armv7"
ALARM_AARCH64 = "alarm-rpi-aarch64"
"""The built-in releases: the distribution's 32-bit and 64-bit images."""

AS_IT_IS = ""
"""In the place of a kernel package: the one the release comes with."""
LINUX_RPI = "linux-rpi"
LINUX_RPI_16K = "linux-rpi-16k"
"""Kernel packages that the firmware starts with no U-Boot between. The first is the 32-bit
release's own, and there is one for every 64-bit board; the second is for the processor of the Pi 5
only."""
OWN_KERNEL = {ALARM_AARCH64: ("linux-aarch64", "uboot-raspberrypi")}
"""The packages of a release that such a kernel takes the place of: its kernel, and its loader."""


@dataclass(frozen=True, slots=True)
class DeviceTree:
    """A device tree that is picked by itself on some boards sold under one name.

    ``compatible`` begins the tree's first string on those boards.
    """

    file: str
    compatible: str
    boards: str


@dataclass(frozen=True, slots=True)
class Board:
    """One board. ``name`` is what rack.toml calls it, ``title`` its name in a sentence.

    ``kernels`` are the built-in releases that boot it, each with the kernels it does that with: the
    package names, or AS_IT_IS. ``refused`` are the other releases, each with what a person is told:
    why not, and what to use instead.

    ``needs_bootcode`` says whether the board loads bootcode.bin from the card; ``firmware`` is what
    its start and fixup files have in their names (``"4"`` for start4.elf), None for a board that
    has its firmware in a chip. ``kernels32`` and ``kernels64`` are the default kernel names, each
    tried in order. ``device_trees`` are the firmware's; a kernel behind U-Boot gets
    ``uboot_trees``, empty where the release's U-Boot does not start the board.

    ``wide_boards`` names the boards of ``device_trees`` that have 64 bits where others sold under
    this name have not; empty where all have or none has.

    ``pages_kib`` are the sizes of a page of memory that its processor knows, as a 64-bit kernel is
    built for one of them.

    ``filters`` are the sections of config.txt that apply to it, ``undecided`` those that apply to
    only some of the boards sold under this name. ``memory_key`` is the gpu_mem setting for its
    amount of memory.
    """

    name: str
    title: str
    kernels: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str]
    filters: frozenset[str]
    undecided: frozenset[str]
    needs_bootcode: bool
    firmware: str | None
    kernels32: tuple[str, ...]
    kernels64: tuple[str, ...]
    prefers_64bit: bool
    device_trees: tuple[DeviceTree, ...]
    uboot_trees: tuple[DeviceTree, ...]
    memory_key: str
    wide_boards: str = ""
    pages_kib: tuple[int, ...] = (4, 64)

    def boots(self, release: str, kernel: str = AS_IT_IS) -> bool:
        """Whether a built-in release boots it with ``kernel``, a package in place of its own."""
        return kernel in self.kernels.get(release, ())

    def why_not(self, release: str) -> str:
        """What to tell a person about a built-in release that does not boot it as it is."""
        if release in self.refused:
            return self.refused[release]
        kernel, loader = OWN_KERNEL[release]
        return (
            f"its own kernel does not start a {self.title}; give the board another one: "
            f'[packages] replace = {{ {kernel} = "{self.kernels[release][0]}" }} and '
            f'remove = ["{loader}"]'
        )

    def firmware_pair(self, variant: str) -> tuple[str, str] | None:
        """(start, fixup) file names of a variant: ``""``, ``cd``, ``x`` or ``db``; None for a board
        that loads neither."""
        if self.firmware is None:
            return None
        joined = variant if not variant or self.firmware else f"_{variant}"
        return f"start{self.firmware}{joined}.elf", f"fixup{self.firmware}{joined}.dat"


PI2 = Board(
    name="pi2",
    title="Raspberry Pi 2",
    kernels={ALARM_ARMV7: (AS_IT_IS, LINUX_RPI)},
    refused={
        ALARM_AARCH64: "the Pi 2's BCM2836 has no 64-bit mode; "
        f'use name = "{ALARM_ARMV7}" under [release] for this board'
    },
    filters=frozenset({"pi2"}),
    undecided=frozenset(),
    needs_bootcode=True,
    firmware="",
    kernels32=("kernel7.img", "kernel.img"),
    kernels64=(),
    prefers_64bit=False,
    device_trees=(
        DeviceTree("bcm2709-rpi-2-b.dtb", "raspberrypi,2-model-b", "Pi 2 v1.0 and v1.1 (BCM2836)"),
        DeviceTree("bcm2710-rpi-2-b.dtb", "raspberrypi,2-model-b", "Pi 2 v1.2 (BCM2837)"),
    ),
    uboot_trees=(),
    memory_key="gpu_mem_1024",
    wide_boards="Pi 2 v1.2 (BCM2837)",
)
PI3 = Board(
    name="pi3",
    title="Raspberry Pi 3",
    kernels={ALARM_ARMV7: (AS_IT_IS, LINUX_RPI), ALARM_AARCH64: (AS_IT_IS, LINUX_RPI)},
    refused={},
    filters=frozenset({"pi3"}),
    undecided=frozenset({"pi3+", "cm3", "cm3+"}),
    needs_bootcode=True,
    firmware="",
    kernels32=("kernel7.img", "kernel.img"),
    kernels64=("kernel8.img",),
    prefers_64bit=True,
    device_trees=(
        DeviceTree("bcm2710-rpi-3-b.dtb", "raspberrypi,3-model-b", "Pi 3 B"),
        DeviceTree("bcm2710-rpi-3-b-plus.dtb", "raspberrypi,3-model-b-plus", "Pi 3 B+"),
    ),
    uboot_trees=(
        DeviceTree("bcm2837-rpi-3-b.dtb", "raspberrypi,3-model-b", "Pi 3 B"),
        DeviceTree("bcm2837-rpi-3-b-plus.dtb", "raspberrypi,3-model-b-plus", "Pi 3 B+"),
    ),
    memory_key="gpu_mem_1024",
)
ZERO2W = replace(
    PI3,
    name="zero2w",
    title="Raspberry Pi Zero 2 W",
    filters=frozenset({"pi0", "pi0w", "pi02"}),
    undecided=frozenset(),
    device_trees=(DeviceTree("bcm2710-rpi-zero-2-w.dtb", "raspberrypi,model-zero-2", "Zero 2 W"),),
    uboot_trees=(DeviceTree("bcm2837-rpi-zero-2-w.dtb", "raspberrypi,model-zero-2", "Zero 2 W"),),
    memory_key="gpu_mem_512",
)
PI4 = Board(
    name="pi4",
    title="Raspberry Pi 4",
    kernels={ALARM_AARCH64: (AS_IT_IS, LINUX_RPI)},
    refused={
        ALARM_ARMV7: "its 32-bit kernel lost the Pi 4 in December 2025 (linux-rpi 6.18); "
        f'use name = "{ALARM_AARCH64}" under [release] for this board'
    },
    filters=frozenset({"pi4"}),
    undecided=frozenset({"pi400", "cm4", "cm4s"}),
    needs_bootcode=False,
    firmware="4",
    kernels32=("kernel7l.img", "kernel7.img", "kernel.img"),
    kernels64=("kernel8.img",),
    prefers_64bit=True,
    device_trees=(DeviceTree("bcm2711-rpi-4-b.dtb", "raspberrypi,4-model-b", "Pi 4 B"),),
    uboot_trees=(DeviceTree("bcm2711-rpi-4-b.dtb", "raspberrypi,4-model-b", "Pi 4 B"),),
    memory_key="gpu_mem_1024",
)
PI400 = replace(
    PI4,
    name="pi400",
    title="Raspberry Pi 400",
    filters=frozenset({"pi4", "pi400"}),
    undecided=frozenset(),
    device_trees=(DeviceTree("bcm2711-rpi-400.dtb", "raspberrypi,400", "Pi 400"),),
    uboot_trees=(DeviceTree("bcm2711-rpi-400.dtb", "raspberrypi,400", "Pi 400"),),
)
# U-Boot asks for a tree that is not among those of linux-aarch64, which has bcm2711-rpi-cm4-io.dtb.
CM4 = replace(
    PI400,
    name="cm4",
    title="Compute Module 4",
    kernels={ALARM_AARCH64: (LINUX_RPI,)},
    refused={
        ALARM_ARMV7: "its 32-bit kernel lost this board in December 2025 (linux-rpi 6.18); "
        f'use name = "{ALARM_AARCH64}" under [release] with {LINUX_RPI} in place of its kernel'
    },
    filters=frozenset({"pi4", "cm4"}),
    device_trees=(DeviceTree("bcm2711-rpi-cm4.dtb", "raspberrypi,4-compute-module", "CM4"),),
    uboot_trees=(DeviceTree("bcm2711-rpi-cm4.dtb", "raspberrypi,4-compute-module", "CM4"),),
)
CM4S = replace(
    CM4,
    name="cm4s",
    title="Compute Module 4S",
    filters=frozenset({"pi4", "cm4s"}),
    device_trees=(DeviceTree("bcm2711-rpi-cm4s.dtb", "raspberrypi,4-compute-module-s", "CM4S"),),
    uboot_trees=(),
)
# U-Boot 2025.01 knows the Pi 5, but linux-aarch64 starts on one only behind another loader, which
# its package says (raspberry-pi5-armstub) and which cannot be installed beside U-Boot.
PI5 = Board(
    name="pi5",
    title="Raspberry Pi 5",
    kernels={ALARM_AARCH64: (LINUX_RPI_16K, LINUX_RPI)},
    refused={
        ALARM_ARMV7: "its kernel is a 32-bit one, and this board starts 64-bit kernels only; "
        f'use name = "{ALARM_AARCH64}" under [release] with {LINUX_RPI_16K} in place of its kernel'
    },
    filters=frozenset({"pi5"}),
    undecided=frozenset(),
    needs_bootcode=False,
    firmware=None,
    kernels32=(),
    kernels64=("kernel_2712.img", "kernel8.img"),
    prefers_64bit=True,
    device_trees=(
        DeviceTree("bcm2712-rpi-5-b.dtb", "raspberrypi,5-model-b", "Pi 5 with a BCM2712 C1"),
        DeviceTree("bcm2712d0-rpi-5-b.dtb", "raspberrypi,5-model-b", "Pi 5 with a BCM2712 D0"),
    ),
    uboot_trees=(),
    memory_key="gpu_mem_1024",
    pages_kib=(4, 16, 64),
)
PI500 = replace(
    PI5,
    name="pi500",
    title="Raspberry Pi 500",
    filters=frozenset({"pi5", "pi500"}),
    undecided=frozenset({"pi500+"}),
    device_trees=(DeviceTree("bcm2712-rpi-500.dtb", "raspberrypi,500", "Pi 500 and 500+"),),
)
CM5 = replace(
    PI5,
    name="cm5",
    title="Compute Module 5",
    filters=frozenset({"pi5", "cm5"}),
    device_trees=tuple(
        DeviceTree(
            f"bcm2712-rpi-{module}-{carrier}.dtb",
            "raspberrypi,5-compute-module",
            f"{sold} on a carrier like the {carrier[:3].upper()} IO board",
        )
        for module, sold in (("cm5", "CM5"), ("cm5l", "CM5 Lite"))
        for carrier in ("cm5io", "cm4io")
    ),
)

BOARDS: tuple[Board, ...] = (PI2, PI3, ZERO2W, PI4, PI400, CM4, CM4S, PI5, PI500, CM5)
"""The boot check tries them in this order on a card that does not say which board it is for."""
MODELS = tuple(sorted(board.name for board in BOARDS))
"""The names of all boards, as messages list them."""

ARMV6_NAMES = ("pi", "pi1", "pizero", "rpi", "rpi1", "zero", "zerow")
"""Names that people use for the boards that no release boots."""
NO_ARMV6 = "has an ARMv6 processor, for which there are no releases since 2022"


def kernel_among(packages: Collection[str]) -> str:
    """Which of ``packages`` takes the place of a release's kernel; AS_IT_IS for none."""
    return next((name for name in (LINUX_RPI_16K, LINUX_RPI) if name in packages), AS_IT_IS)


def board_named(name: str) -> Board:
    """The board called ``name``; raises ValueError that lists the known ones."""
    for board in BOARDS:
        if board.name == name:
            return board
    known = ", ".join(board.name for board in BOARDS)
    raise ValueError(f"no boot rules for model {name!r}; known are {known}")
