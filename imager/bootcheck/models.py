"""What each model loads before Linux runs: one table.

Sources: Raspberry Pi documentation, "boot folder contents", "config.txt: kernel, start_file,
fixup_file, arm_64bit", "conditional filters" and "legacy boot flow".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceTree:
    """A device tree the firmware picks by itself on some boards of a model.

    ``compatible`` begins the tree's first string on those boards.
    """

    file: str
    compatible: str
    boards: str


@dataclass(frozen=True, slots=True)
class Model:
    """The needs of one model.

    ``kernels32`` and ``kernel64`` are the default kernel names, each tried in order;
    ``filters`` are the config.txt sections that hold on it and ``undecided`` those that hold on
    some boards of it. ``memory_key`` is the gpu_mem variant for its amount of memory.
    """

    name: str
    title: str
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


PI2 = Model(
    name="pi2",
    title="Raspberry Pi 2",
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
PI3 = Model(
    name="pi3",
    title="Raspberry Pi 3",
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
ZERO2W = Model(
    name="zero2w",
    title="Raspberry Pi Zero 2 W",
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
PI4 = Model(
    name="pi4",
    title="Raspberry Pi 4",
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

MODELS: tuple[Model, ...] = (PI2, PI3, ZERO2W, PI4)
MODEL_FILTERS = frozenset(
    {"none", "pi0", "pi0w", "pi02", "pi1", "pi2", "pi3", "pi3+", "pi4", "pi400", "pi5"}
    | {"pi500", "pi500+", "cm0", "cm1", "cm3", "cm3+", "cm4", "cm4s", "cm5"}
)
"""Every section name that speaks of the board's model; they replace one another."""


def model_named(name: str) -> Model:
    """The model called ``name``; raises ValueError that lists the known ones."""
    for model in MODELS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in MODELS)
    raise ValueError(f"no boot rules for model {name!r}; known are {known}")
