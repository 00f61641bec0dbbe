"""Boot files small enough to write in a test and whole enough to pass the boot check.

None of them runs. They carry exactly the marks, sizes and checksums by which a damaged, cut-off or
foreign file is told from a whole one. ``minimal_boot_files("pi2")`` is a bootable set.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping

CONFIG_TXT = b"initramfs initramfs-linux.img followkernel\n\n[all]\n"
CMDLINE_TXT = b"root=/dev/mmcblk0p2 rw rootwait console=ttyAMA0,115200 console=tty1\n"
_LOAD_ADDRESS = 0x0EC00000


def bootcode() -> bytes:
    """A bootcode.bin: begins with the 512 zeros of the real one, names what it loads."""
    return bytes(512) + b"bootcode look-alike: START   ELF start.elf".ljust(4096, b".")


def start_elf(*, build: str = "0" * 40, headers: int = 2, filler: bytes = b"") -> bytes:
    """A VideoCore program with ``headers`` segments; ``filler`` tells two of them apart."""
    table_end = 52 + 32 * headers
    body = f"VC_BUILD_ID_VERSION: {build} (clean)".encode() + b"\0" + filler
    total = table_end + len(body)
    head = b"\x7fELF\1\1\1".ljust(16, b"\0")
    head += struct.pack("<HHIIIIIHHHHHH", 2, 137, 1, _LOAD_ADDRESS | 0xC0000000, 52, 0, 0,
                        52, 32, headers, 40, 0, 0)  # fmt: skip
    segment = struct.pack("<8I", 1, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, total, total, 5, 32)
    return head + segment * headers + body


def fixup_dat(*, headers: int = 2) -> bytes:
    """The fixup for ``start_elf(headers=headers)``: entry point, then two addresses a header."""
    steps = [28, 36, 4] + [28, 4] * (headers - 1)
    return bytes(step // 2 + 1 for step in steps) + b"\0" + bytes(range(1, 65))


def zimage(*, size: int = 4096, filler: bytes = b"\xaa") -> bytes:
    """A 32-bit ARM kernel of ``size`` bytes."""
    head = struct.pack("<8I", *[0xE1A00000] * 8) + struct.pack(
        "<IIII", 0xEA000000, 0x016F2818, 0, size
    )
    return head.ljust(size, filler)


def arm64_image(*, size: int = 4096, page_kib: int = 4) -> bytes:
    """A 64-bit ARM kernel of ``size`` bytes, for pages of memory of ``page_kib``."""
    flags = 8 | {4: 1, 16: 2, 64: 3}[page_kib] << 1
    head = struct.pack("<IIQQQQQQ4sI", 0, 0, 0, size, flags, 0, 0, 0, b"ARM\x64", 0)
    return head.ljust(size, b"\x55")


def uboot() -> bytes:
    """U-Boot, as kernel8.img of the distribution's 64-bit release."""
    return b"\0\0\0\x14" + b"U-Boot 2026.01 (look-alike)".ljust(2000, b"\0")


def boot_script(text: bytes = b"booti ${kernel_addr_r}\n") -> bytes:
    """A boot.scr with both checksums right."""
    payload = struct.pack(">II", len(text), 0) + text
    fields = (0x27051956, 0, 0, len(payload), 0, 0, zlib.crc32(payload), 5, 22, 6, 0)
    head = struct.pack(">7I4B32s", *fields, b"boot")
    return head[:4] + struct.pack(">I", zlib.crc32(head)) + head[8:] + payload


def fdt(*compatible: str, model: str = "look-alike") -> bytes:
    """A device tree whose root node has ``compatible`` and one child."""
    strings = b"compatible\0model\0"
    blocks = struct.pack(">II", 1, 0)
    for name_at, value in (
        (0, b"".join(text.encode() + b"\0" for text in compatible)),
        (11, model.encode() + b"\0"),
    ):
        blocks += struct.pack(">III", 3, len(value), name_at) + padded(value)
    blocks += struct.pack(">I", 1) + padded(b"soc\0") + struct.pack(">III", 2, 2, 9)
    at = 40 + 16
    total = at + len(blocks) + len(strings)
    head = (0xD00DFEED, total, at, at + len(blocks), 40, 17, 16, 0, len(strings), len(blocks))
    return struct.pack(">10I", *head) + bytes(16) + blocks + strings


def cpio(files: Mapping[str, bytes]) -> bytes:
    """A newc archive, as the kernel unpacks it."""
    return b"".join(
        _cpio_member(name, content) for name, content in [*files.items(), ("TRAILER!!!", b"")]
    )


def _cpio_member(name: str, content: bytes) -> bytes:
    raw = name.encode() + b"\0"
    fields = (1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(f"{field:08X}".encode() for field in fields)
    return padded(head + raw) + padded(content)


def padded(data: bytes) -> bytes:
    """``data`` with zeros up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)


def initramfs() -> bytes:
    """A gzip'd archive behind a plain one, as mkinitcpio makes it."""
    early = cpio({"early_cpio": b"1\n"})
    return early + bytes(-len(early) % 512) + gzip.compress(cpio({"init": b"#!/bin/sh\n"}), mtime=0)


def overlay() -> bytes:
    """A device tree overlay."""
    return fdt("brcm,bcm2835")


def minimal_boot_files(model: str = "pi2") -> dict[str, bytes]:
    """Path → content of a boot partition that passes the boot check for ``model``."""
    if model in _BEHIND_UBOOT:
        tree = _BEHIND_UBOOT[model]
        return {
            "start4.elf": start_elf(),
            "fixup4.dat": fixup_dat(),
            "config.txt": b"enable_uart=1\narm_64bit=1\n",
            "kernel8.img": uboot(),
            "boot.scr": boot_script(),
            "Image": arm64_image(),
            "initramfs-linux.img": initramfs(),
            **tree,
            **{f"dtbs/broadcom/{name}": content for name, content in tree.items()},
        }
    if model in _64BIT:
        pair = {"start4.elf": start_elf(), "fixup4.dat": fixup_dat()}
        return {
            **(pair if model.startswith("cm4") else {}),
            "config.txt": CONFIG_TXT,
            "cmdline.txt": CMDLINE_TXT,
            "kernel8.img": arm64_image(),
            "initramfs-linux.img": initramfs(),
            **_64BIT[model],
        }
    trees = {
        "pi2": {
            "bcm2709-rpi-2-b.dtb": fdt("raspberrypi,2-model-b", "brcm,bcm2836"),
            "bcm2710-rpi-2-b.dtb": fdt("raspberrypi,2-model-b-rev2", "brcm,bcm2837"),
        },
        "pi3": {
            "bcm2710-rpi-3-b.dtb": fdt("raspberrypi,3-model-b", "brcm,bcm2837"),
            "bcm2710-rpi-3-b-plus.dtb": fdt("raspberrypi,3-model-b-plus", "brcm,bcm2837"),
        },
        "zero2w": {"bcm2710-rpi-zero-2-w.dtb": fdt("raspberrypi,model-zero-2-w", "brcm,bcm2837")},
    }
    return {
        "bootcode.bin": bootcode(),
        "start.elf": start_elf(),
        "fixup.dat": fixup_dat(),
        "config.txt": CONFIG_TXT,
        "cmdline.txt": CMDLINE_TXT,
        "kernel7.img": zimage(),
        "initramfs-linux.img": initramfs(),
        "overlays/README": b"look-alike\n",
        "overlays/vc4-kms-v3d.dtbo": overlay(),
        **trees[model],
    }


_BEHIND_UBOOT = {
    "pi4": {"bcm2711-rpi-4-b.dtb": fdt("raspberrypi,4-model-b", "brcm,bcm2711")},
    "pi400": {"bcm2711-rpi-400.dtb": fdt("raspberrypi,400", "brcm,bcm2711")},
}
_64BIT = {
    "cm4": {"bcm2711-rpi-cm4.dtb": fdt("raspberrypi,4-compute-module", "brcm,bcm2711")},
    "cm4s": {"bcm2711-rpi-cm4s.dtb": fdt("raspberrypi,4-compute-module-s", "brcm,bcm2711")},
    "pi5": {
        name: fdt("raspberrypi,5-model-b", "brcm,bcm2712")
        for name in ("bcm2712-rpi-5-b.dtb", "bcm2712d0-rpi-5-b.dtb")
    },
    "pi500": {"bcm2712-rpi-500.dtb": fdt("raspberrypi,500", "brcm,bcm2712")},
    "cm5": {
        f"bcm2712-rpi-{kind}.dtb": fdt("raspberrypi,5-compute-module", "brcm,bcm2712")
        for kind in ("cm5-cm5io", "cm5-cm4io", "cm5l-cm5io", "cm5l-cm4io")
    },
}
