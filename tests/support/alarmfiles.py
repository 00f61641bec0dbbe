"""What the distribution's packages put into /boot, by name; every content is a look-alike.

The names are from its PKGBUILDs of August 2026 (linux-rpi and linux-rpi-16k 6.18.45, linux-aarch64
7.2, uboot-raspberrypi 2025.01, raspberrypi-bootloader 20260821) and from the kernels' own lists of
device trees; ``compatible`` is what those trees say. Overlays that config.txt names stand for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.support import bootfiles

_COMPATIBLE = {
    "2-b": "raspberrypi,2-model-b",
    "3-a-plus": "raspberrypi,3-model-a-plus",
    "3-b": "raspberrypi,3-model-b",
    "3-b-plus": "raspberrypi,3-model-b-plus",
    "zero-2": "raspberrypi,model-zero-2",
    "zero-2-w": "raspberrypi,model-zero-2-w",
    "cm3": "raspberrypi,3-compute-module",
    "4-b": "raspberrypi,4-model-b",
    "400": "raspberrypi,400",
    "cm4": "raspberrypi,4-compute-module",
    "cm4-io": "raspberrypi,4-compute-module-io",
    "cm4s": "raspberrypi,4-compute-module-s",
    "5-b": "raspberrypi,5-model-b",
    "500": "raspberrypi,500",
    **dict.fromkeys(
        ("cm5-cm4io", "cm5-cm5io", "cm5l-cm4io", "cm5l-cm5io"), "raspberrypi,5-compute-module"
    ),
}
_BCM2710 = "2710: 2-b 3-b 3-b-plus cm3 zero-2 zero-2-w"
_BCM2711 = "2711: 4-b 400 cm4 cm4-io cm4s"
_BCM2712 = "2712: 5-b 500 cm5-cm4io cm5-cm5io cm5l-cm4io cm5l-cm5io|2712-d: 5-b|2712d0: 5-b"
_CONFIG_TXT = b"""\
initramfs initramfs-linux.img followkernel
dtparam=audio=on
dtoverlay=vc4-kms-v3d
[cm4]
otg_mode=1
[cm5]
dtoverlay=dwc2,dr_mode=host
[all]
"""
BOOT_TXT = b"""\
part uuid ${devtype} ${devnum}:2 uuid
setenv bootargs console=tty0 root=PARTUUID=${uuid} rw rootwait macaddr="${usbethaddr}"
booti ${kernel_addr_r} - ${fdt_addr_r}
"""


def _trees(text: str, folder: str = "") -> dict[str, bytes]:
    """Device trees: ``2711: 4-b 400`` are bcm2711-rpi-4-b.dtb and bcm2711-rpi-400.dtb."""
    return {
        f"{folder}bcm{chip}-rpi-{board}.dtb": bootfiles.fdt(_COMPATIBLE[board], f"brcm,bcm{chip}")
        for chip, boards in (group.split(": ") for group in text.split("|"))
        for board in boards.split()
    }


def _started_by_firmware(kernel: str, content: bytes, trees: str) -> dict[str, bytes]:
    return {
        kernel: content,
        "config.txt": _CONFIG_TXT,
        "cmdline.txt": bootfiles.CMDLINE_TXT,
        "overlays/README": b"look-alike\n",
        "overlays/vc4-kms-v3d.dtbo": bootfiles.overlay(),
        "overlays/dwc2.dtbo": bootfiles.overlay(),
        **_trees(trees),
    }


def _bootloader() -> dict[str, bytes]:
    """raspberrypi-bootloader, which every one of its releases has."""
    kinds = ("", "_cd", "_db", "_x", "4", "4cd", "4db", "4x")
    files = {f"start{kind}.elf": bootfiles.start_elf() for kind in kinds}
    files |= {f"fixup{kind}.dat": bootfiles.fixup_dat() for kind in kinds}
    return files | {"bootcode.bin": bootfiles.bootcode()}


def _linux_rpi_32() -> dict[str, bytes]:
    trees = f"2709: 2-b|{_BCM2710}|{_BCM2711}|2837: 3-b 3-b-plus zero-2-w"
    return _started_by_firmware("kernel7.img", bootfiles.zimage(), trees)


def _linux_rpi() -> dict[str, bytes]:
    trees = f"{_BCM2710}|{_BCM2711}|{_BCM2712}|2837: 3-a-plus 3-b 3-b-plus zero-2-w"
    return _started_by_firmware("kernel8.img", bootfiles.arm64_image(), trees)


def _linux_rpi_16k() -> dict[str, bytes]:
    return _started_by_firmware("kernel8.img", bootfiles.arm64_image(), _BCM2712)


def _mainline() -> dict[str, bytes]:
    """linux-aarch64 and uboot-raspberrypi, as the 64-bit release has them."""
    loaded = "2711: 4-b 400 cm4-io|2712: 5-b|2712-d: 5-b|2837: 2-b 3-a-plus 3-b 3-b-plus zero-2-w"
    given = f"{_BCM2710}|{_BCM2711}|2712: 5-b 500 cm5-cm4io cm5-cm5io|2712d0: 5-b"
    return {
        "Image": bootfiles.arm64_image(),
        **_trees(loaded, "dtbs/broadcom/"),
        "kernel8.img": bootfiles.uboot(),
        "boot.scr": bootfiles.boot_script(BOOT_TXT),
        "boot.txt": BOOT_TXT,
        "config.txt": b"enable_uart=1\n",
        **_trees(given),
    }


BOOT_FILES: Mapping[tuple[str, str], Callable[[], dict[str, bytes]]] = {
    ("alarm-rpi-armv7", ""): _linux_rpi_32,
    ("alarm-rpi-aarch64", ""): _mainline,
    ("alarm-rpi-aarch64", "linux-rpi"): _linux_rpi,
    ("alarm-rpi-aarch64", "linux-rpi-16k"): _linux_rpi_16k,
}
"""(release, kernel in place of its own) -> what its kernel packages bring."""


def boot_files(release: str, kernel: str = "") -> dict[str, bytes]:
    """Path -> content of the boot partition of a card made from ``release``."""
    kernels = BOOT_FILES[release, kernel]()
    return {**_bootloader(), **kernels, "initramfs-linux.img": bootfiles.initramfs()}
