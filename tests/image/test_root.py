"""The root filesystem of a card: found wherever root= says, and looked at as a kernel would."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from imager.base.run import run
from imager.base.units import MiB
from imager.bootcheck.check import BootReport
from imager.card.inspect.identity import identity_on, system_on, written_for
from imager.disk.ext4.crc32c import crc32c
from tests.support.bootdisk import (
    BOOT_KIB,
    BOOT_OFFSET,
    DISK_ID,
    INIT,
    ROOT_OFFSET,
    SIZE,
    Disk,
    RootFile,
    make_disk,
    make_root,
    reading,
)
from tests.support.bootfiles import minimal_boot_files
from tests.support.fatdisk import tool
from tests.support.stamps import FACTS

pytestmark = pytest.mark.image
SUPERBLOCK = ROOT_OFFSET + 1024
BLOCK = 1024
"""What mke2fs takes for so small a filesystem."""


@pytest.fixture
def disk(good_pi2: Path, tmp_path: Path) -> Disk:
    return Disk.copy_of(good_pi2, tmp_path)


def said(report: BootReport) -> dict[str, str]:
    return {found.code.value: found.what for found in report.findings}


def root(disk: Disk, files: Mapping[str, RootFile], options: tuple[str, ...] = ()) -> BootReport:
    """The card with another root filesystem."""
    make_root(disk.image, "pi7", files, options=options)
    return disk.check("pi2")


def elf(machine: int, loader: bytes = b"") -> bytes:
    """A 64-bit program of which only the head is there; ``loader`` is what it asks for."""
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHI", 3, machine, 1)
    head += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, 1 if loader else 0, 0, 0, 0)
    entry = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, 0, 1) if loader else b""
    return head + entry + loader + b"\0"


# -- where it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("root_word", ["/dev/mmcblk0p{n}", "PARTUUID=5eed1e57-0{n}", "LABEL=root"])
@pytest.mark.parametrize("name", ["third", "logical"])
def test_the_root_may_be_any_partition(disk: Disk, name: str, root_word: str) -> None:
    head = disk.peek(0, 446)
    boot = f"start={BOOT_OFFSET // 512}, size={BOOT_KIB * 2}, type=c\n"
    root_size = (SIZE - ROOT_OFFSET) // 512
    more = {
        "third": f"start={ROOT_OFFSET // 512 - 512}, size=512, type=82\n"
        f"start={ROOT_OFFSET // 512}, size={root_size}, type=83\n",
        "logical": f"start={ROOT_OFFSET // 512 - 512}, size={root_size + 512}, type=5\n"
        f"start={ROOT_OFFSET // 512}, size={root_size}, type=83\n",
    }
    script = f"label: dos\nlabel-id: {DISK_ID:#x}\n{boot}{more[name]}"
    run(["sfdisk", "--quiet", "--force", "--wipe", "never", disk.image], stdin=script.encode())
    disk.poke(0, head[:440])
    number = 3 if name == "third" else 5
    disk.write("cmdline.txt", f"root={root_word.format(n=number)} rw rootwait\n".encode())
    report = disk.check("pi2")
    assert said(report) == {}
    assert (report.node, report.partuuid) == ("pi7", f"5eed1e57-0{number}")


def test_swap_is_no_root(disk: Disk) -> None:
    page = bytes(4086) + b"SWAPSPACE2"
    disk.poke(ROOT_OFFSET, page)
    assert said(disk.check("pi2")) == {
        "root-filesystem": "partition 2 holds swap space, no filesystem"
    }


@pytest.mark.parametrize(
    "head", [b"LUKS\xba\xbe\0\2", bytes(536) + b"LVM2 001"], ids=["luks", "lvm"]
)
def test_what_an_initramfs_must_open_is_unproven_and_else_no_root(disk: Disk, head: bytes) -> None:
    disk.poke(ROOT_OFFSET, head.ljust(4096, b"\0"))
    disk.write(
        "cmdline.txt", b"cryptdevice=/dev/mmcblk0p2:root root=/dev/mapper/root rw rootwait\n"
    )
    report = disk.check("pi2")
    assert set(said(report)) == {"root-unproven"}
    assert report.bootable
    disk.write("config.txt", b"[all]\n")
    assert "needs an initramfs" in said(disk.check("pi2"))["root-elsewhere"]
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rw rootwait\n")
    assert "only an initramfs can open" in said(disk.check("pi2"))["root-filesystem"]


@pytest.mark.parametrize(
    "line",
    ["boot=UUID=1234-ABCD disk=UUID=0-0 quiet", "modules=loop,squashfs,sd-mod quiet",
     "root=/dev/ram0 quiet", "root=ZFS=pool/root"],
)  # fmt: skip
def test_a_root_that_only_the_initramfs_knows_is_unproven(disk: Disk, line: str) -> None:
    disk.write("cmdline.txt", f"{line} rootwait\n".encode())
    report = disk.check("pi2")
    assert set(said(report)) == {"root-unproven"}
    assert report.bootable


@pytest.mark.parametrize(("magic", "kind"), [(b"hsqs", "squashfs"), (b"XFSB", "XFS")])
def test_another_filesystem_is_called_by_its_name_and_unproven(
    disk: Disk, magic: bytes, kind: str
) -> None:
    disk.poke(ROOT_OFFSET, magic.ljust(2 * MiB, b"\1"))
    assert said(disk.check("pi2")) == {"root-unproven": f"partition 2 holds {kind}"}


@pytest.mark.parametrize(
    ("kinds", "fits"), [("squashfs", True), ("ext4,squashfs", True), ("ext4", False)]
)
def test_another_filesystem_must_be_the_kind_that_is_asked_for_too(
    disk: Disk, kinds: str, fits: bool
) -> None:
    disk.poke(ROOT_OFFSET, b"hsqs".ljust(2 * MiB, b"\1"))
    disk.write("config.txt", b"[all]\n")
    disk.write("cmdline.txt", f"root=/dev/mmcblk0p2 rootwait rootfstype={kinds}\n".encode())
    report = disk.check("pi2")
    assert set(said(report)) == {"root-unproven"} | (set() if fits else {"root-type"})
    assert report.bootable is fits


# -- what a kernel would not mount -----------------------------------------------------------------


def test_a_superblock_with_a_wrong_checksum_stops_the_boot(disk: Disk) -> None:
    disk.poke(SUPERBLOCK + 0x30, b"\x12\x34")
    assert said(disk.check("pi2")) == {
        "root-filesystem": "partition 2: its superblock does not fit its checksum"
    }


def _with_checksum(disk: Disk, at: int, value: bytes) -> None:
    """Change the superblock and make its checksum right again."""
    block = bytearray(disk.peek(SUPERBLOCK, 1024))
    block[at : at + len(value)] = value
    block[1020:] = crc32c(block[:1020]).to_bytes(4, "little")
    disk.poke(SUPERBLOCK, bytes(block))


@pytest.mark.parametrize(
    ("at", "value"),
    [(40, b"\0\0\0\0"), (0, b"\1\0\0\0"), (4, b"\xff\xff\xff\x7f"), (88, b"\x03\0")],
    ids=["inodes per group", "inodes", "blocks", "inode size"],
)
def test_an_impossible_geometry_stops_the_boot(disk: Disk, at: int, value: bytes) -> None:
    _with_checksum(disk, at, value)
    report = disk.check("pi2")
    assert set(said(report)) == {"root-filesystem"}
    assert not report.bootable


@pytest.mark.parametrize("bits", [0x8000, 0x10000, 0x20000])
def test_a_feature_that_is_unknown_here_is_unproven(disk: Disk, bits: int) -> None:
    old = int.from_bytes(disk.peek(SUPERBLOCK + 96, 4), "little")
    _with_checksum(disk, 96, (old | bits).to_bytes(4, "little"))
    report = disk.check("pi2")
    assert set(said(report)) == {"root-unproven"}
    assert report.bootable


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("clri <2>", "root directory"),
        ("set_inode_field <2> mode 0100644", "root directory"),
        ("set_inode_field <2> links_count 0", "root directory"),
        ("set_inode_field <8> mode 0", "journal"),
    ],
)
def test_what_no_kernel_mounts_stops_the_boot(disk: Disk, command: str, reason: str) -> None:
    tool("debugfs", "-w", "-R", command, f"{disk.image}?offset={ROOT_OFFSET}")
    report = disk.check("pi2")
    assert set(said(report)) == {"root-filesystem"}
    assert reason in said(report)["root-filesystem"]
    assert not report.bootable


@pytest.mark.parametrize(
    "options", [(), ("-O", "^metadata_csum,uninit_bg")], ids=["crc32c", "crc16"]
)
def test_a_group_that_does_not_fit_its_checksum_stops_the_boot(
    disk: Disk, options: tuple[str, ...]
) -> None:
    """The kernel mounts no such filesystem for writing, and e2fsck calls it damaged; but that may
    mend it first, where the kernel does not mount the root for writing at once."""
    disk.write("config.txt", b"\n")  # no initramfs
    assert said(root(disk, dict(INIT), options)) == {}
    line = f"root=PARTUUID={DISK_ID:08x}-02 rootwait"
    disk.write("cmdline.txt", f"{line} rw\n".encode())
    disk.poke(ROOT_OFFSET + 2 * BLOCK + 12, b"\x12\x34")  # how many blocks of group 0 are free
    assert said(disk.check("pi2")) == {
        "root-filesystem": "partition 2: the descriptor of its group 0 does not fit its checksum"
    }
    assert "group descriptor 0 checksum is" in e2fsck(disk)
    assert not disk.check("pi2").bootable
    disk.write("cmdline.txt", f"{line}\n".encode())
    assert set(said(disk.check("pi2"))) == {"root-filesystem"}
    assert disk.check("pi2").bootable


@pytest.mark.parametrize(
    ("folder", "code"), [("/", "root-filesystem"), ("/sbin", "root-init")], ids=["root", "sbin"]
)
def test_a_folder_that_does_not_fit_its_checksum_stops_the_boot(
    disk: Disk, folder: str, code: str
) -> None:
    """The kernel looks up nothing in such a block: it finds no init."""
    words = ("debugfs", "-R", f"blocks {folder}", f"{disk.image}?offset={ROOT_OFFSET}")
    block = int(run(words).stdout)
    disk.poke(ROOT_OFFSET + (block + 1) * BLOCK - 1, b"\x12")
    found = said(disk.check("pi2"))
    assert set(found) == {code}
    assert "block 0 of a directory does not fit its checksum" in found[code]
    assert "fails checksum" in e2fsck(disk)


def e2fsck(disk: Disk) -> str:
    """What e2fsck says of the root, without changing it."""
    words = ["e2fsck", "-fn", f"{disk.image}?offset={ROOT_OFFSET}"]
    return run(words, ok=range(16)).output().casefold()


def test_a_filesystem_without_a_journal_is_fine(disk: Disk) -> None:
    assert said(root(disk, dict(INIT), options=("-O", "^has_journal"))) == {}


@pytest.mark.parametrize(
    "options", [("-b", "1024"), ("-O", "^metadata_csum"), ("-O", "^extent,^64bit")]
)
def test_other_forms_of_ext4_are_read_too(disk: Disk, options: tuple[str, ...]) -> None:
    report = root(disk, dict(INIT), options=options)
    assert said(report) == {}
    assert report.node == "pi7"


# -- what it starts --------------------------------------------------------------------------------

LOADER = b"/lib/ld-linux-armhf.so.3"
SHELL: RootFile = (b"#!/bin/sh\n", 0o755)
GOOD: dict[str, dict[str, RootFile]] = {
    "links": {
        "usr/lib/systemd/systemd": (elf(40, LOADER), 0o755),
        "usr/lib/ld-linux-armhf.so.3": (b"\x7fELF", 0o755),
        "lib": "usr/lib",
        "sbin/init": "/lib/systemd/systemd",
    },
    "static": {"sbin/init": (elf(40), 0o755)},
    "script": {"bin/init": (b"#! /bin/sh\nexec x\n", 0o755), "bin/sh": (elf(40), 0o755)},
    "script of a script": {
        "sbin/init": (b"#!/bin/one\t-e\n", 0o755),
        "bin/one": (b"#!\t/bin/sh", 0o755),
        "bin/sh": (elf(40), 0o755),
    },
    "a script by a path from where the kernel starts it": {
        "sbin/init": (b"#!bin/sh\n", 0o755),
        "bin/sh": (elf(40), 0o755),
    },
    "second choice": {"sbin/init": (b"", 0o755), "etc/init": (elf(40), 0o700)},
}
BAD: dict[str, tuple[dict[str, RootFile], str]] = {
    "an empty filesystem": ({}, "there is no /sbin/init"),
    "a shell is no init": ({"bin/sh": (elf(40), 0o755)}, "there is no /sbin/init"),
    "a link to nothing": (
        {"sbin/init": "../lib/systemd/systemd"},
        "/sbin/init leads to /lib/systemd/systemd, which is missing",
    ),
    "links in a circle": ({"sbin/init": "init"}, "/sbin/init cannot be read"),
    "empty": ({"sbin/init": (b"", 0o755)}, "/sbin/init is empty"),
    "zeros": ({"sbin/init": (bytes(5000), 0o755)}, "/sbin/init is no program"),
    "not executable": ({"sbin/init": (elf(40), 0o644)}, "/sbin/init may not be executed"),
    "a folder": ({"sbin/init/x": (b"", 0o644)}, "/sbin/init is no file"),
    "for a PC": ({"sbin/init": (elf(62), 0o755)}, "is a program for a PC"),
    "without its loader": (
        {"sbin/init": (elf(40, LOADER), 0o755)},
        "/sbin/init needs /lib/ld-linux-armhf.so.3, which is missing",
    ),
    "without its shell": ({"sbin/init": SHELL}, "/sbin/init needs /bin/sh, which is missing"),
    "64 bits": (
        {"sbin/init": (elf(183), 0o755)},
        "/sbin/init is a 64-bit program, and the kernel is a 32-bit one",
    ),
    "a shell of 64 bits": (
        {"sbin/init": SHELL, "bin/sh": "busybox", "bin/busybox": (elf(183), 0o755)},
        "/sbin/init needs /bin/sh, which is a 64-bit program",
    ),
    "a loader of 64 bits": (
        {"sbin/init": (elf(40, LOADER), 0o755), LOADER.decode()[1:]: (elf(183), 0o755)},
        "/sbin/init needs /lib/ld-linux-armhf.so.3, which is a 64-bit program",
    ),
    "a shell that may not be executed": (
        {"sbin/init": SHELL, "bin/sh": (elf(40), 0o644)},
        "/sbin/init needs /bin/sh, which may not be executed",
    ),
    "a script of Windows": (
        {"sbin/init": (b"#!/bin/sh\r\necho\r\n", 0o755), "bin/sh": (elf(40), 0o755)},
        "/sbin/init needs /bin/sh\r, which is missing",
    ),
    "a script of itself": ({"sbin/init": (b"#!/sbin/init\n", 0o755)}, "more than a kernel follows"),
    "a script of nothing": ({"sbin/init": (b"#! \n", 0o755)}, "a program that is not named"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_program_that_can_start_is_an_init(disk: Disk, name: str) -> None:
    assert said(root(disk, GOOD[name])) == {}


@pytest.mark.parametrize("name", BAD)
def test_a_root_without_a_program_to_start_stops_the_boot(disk: Disk, name: str) -> None:
    files, why = BAD[name]
    report = root(disk, files)
    assert set(said(report)) == {"root-init"}
    assert why in said(report)["root-init"]
    assert not report.bootable


@pytest.mark.parametrize("machine", [40, 183])
def test_a_64_bit_kernel_may_run_programs_of_either_width(tmp_path: Path, machine: int) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi5"))
    make_root(image, "pi7", {"sbin/init": (elf(machine), 0o755)})
    assert Disk(image).check("pi5").findings == ()


def test_without_a_command_line_the_width_of_the_kernel_counts_too(disk: Disk) -> None:
    disk.remove("cmdline.txt")
    found = said(root(disk, {"sbin/init": (elf(183), 0o755)}))
    assert set(found) == {"cmdline-missing", "root-init"}


def test_words_behind_two_dashes_are_for_the_first_program(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rw rootwait -- init=/nope\n")
    assert said(disk.check("pi2")) == {}


def test_init_of_the_command_line_is_the_only_one_tried(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rw rootwait init=/usr/lib/first\n")
    assert "there is no /usr/lib/first" in said(disk.check("pi2"))["root-init"]
    assert said(root(disk, {"usr/lib/first": (elf(40), 0o755)})) == {}


@pytest.mark.parametrize(
    "word", ["ostree=/ostree/boot.1/x", "loop=/rootfs.squashfs", "rdinit=/sbin/init"]
)
def test_an_initramfs_may_make_the_root_of_a_file(disk: Disk, word: str) -> None:
    disk.write("cmdline.txt", f"root=/dev/mmcblk0p2 rw rootwait {word}\n".encode())
    assert set(said(root(disk, {}))) == {"root-unproven"}


def test_usr_on_a_partition_of_its_own_is_unproven(disk: Disk) -> None:
    fstab = b"/dev/mmcblk0p1 /usr ext4 defaults 0 2\n"
    files: dict[str, RootFile] = {"etc/fstab": (fstab, 0o644), "sbin/init": "/usr/lib/systemd/init"}
    assert set(said(root(disk, files))) == {"root-unproven"}


# -- fstab, and what is told -----------------------------------------------------------------------

SYSTEMD: Mapping[str, RootFile] = {
    "usr/lib/systemd/systemd": (b"\x7fELF look-alike", 0o755),
    "sbin/init": "../usr/lib/systemd/systemd",
}
BUSYBOX: Mapping[str, RootFile] = {
    "bin/busybox": (b"\x7fELF look-alike", 0o755),
    "sbin/init": "../bin/busybox",
}


@pytest.mark.parametrize(
    ("fstab", "bootable"),
    [
        ("PARTUUID=00000000-01 /boot vfat defaults 0 2\nPARTUUID=00000000-02 / ext4 rw 0 1", False),
        ("UUID=DEAD-BEEF /boot/firmware vfat defaults 0 2", False),
        ("UUID=00000000-0000-4000-8000-000000000000 / ext4 rw 0 1", True),
        ("UUID=00000000-0000-4000-8000-000000000000 /mnt/disk ext4 rw 0 1", True),
    ],
)
def test_an_fstab_of_another_card_is_named(disk: Disk, fstab: str, bootable: bool) -> None:
    report = root(disk, {**SYSTEMD, "etc/fstab": (fstab.encode(), 0o644)})
    assert set(said(report)) == {"fstab"}
    assert "line 1" in report.findings[0].what
    assert report.bootable == bootable


@pytest.mark.parametrize("first", [INIT, BUSYBOX])
def test_only_systemd_is_known_to_wait_for_what_fstab_names(
    disk: Disk, first: Mapping[str, RootFile]
) -> None:
    fstab = b"/dev/mmcblk0p5 /boot vfat defaults 0 0\n"
    report = root(disk, {**first, "etc/fstab": (fstab, 0o644)})
    assert set(said(report)) == {"fstab"}
    assert report.bootable
    assert not root(disk, {**SYSTEMD, "etc/fstab": (fstab, 0o644)}).bootable


def test_an_fstab_in_other_letters_says_how_the_card_has_it(disk: Disk) -> None:
    fstab = b"PARTUUID=5EED1E57-01 /boot vfat defaults 0 2\n"
    report = root(disk, {**SYSTEMD, "etc/fstab": (fstab, 0o644)})
    assert said(report)["fstab"].endswith(
        "is no partition of this card; it has 5eed1e57-01, and capital and small letters differ"
    )
    assert not report.bootable


def test_a_root_that_stays_read_only_because_of_its_fstab_stops_the_boot(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rootwait\n")
    fstab = b"PARTUUID=00000000-02 / ext4 defaults 0 1\n"
    assert not root(disk, {**SYSTEMD, "etc/fstab": (fstab, 0o644)}).bootable


def test_an_fstab_of_this_card_is_fine(disk: Disk) -> None:
    fstab = b"PARTUUID=5eed1e57-01 /boot vfat defaults 0 2\n/dev/mmcblk0p2 / ext4 defaults 0 1\n"
    assert said(root(disk, {**INIT, "etc/fstab": (fstab, 0o644)})) == {}


@pytest.mark.parametrize("path", ["etc/os-release", "usr/lib/os-release"])
def test_the_system_is_told_by_its_own_name(disk: Disk, path: str) -> None:
    text = b'NAME="Raspbian"\nPRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"\n'
    report = root(disk, {**INIT, path: (text, 0o644)})
    assert report.to_json()["system"] == "Raspbian GNU/Linux 12 (bookworm)"


def test_a_card_is_called_by_the_name_of_the_system_on_it(disk: Disk) -> None:
    text = b'PRETTY_NAME="Raspberry Pi OS"\n'
    root(disk, {**INIT, "etc/os-release": (text, 0o644)})
    with reading(disk.image) as read:
        assert system_on(read, SIZE) == "Raspberry Pi OS, host pi7"
        assert identity_on(read, SIZE) == "Raspberry Pi OS, host pi7"
    disk.poke(SUPERBLOCK, bytes(1024))
    with reading(disk.image) as read:
        assert system_on(read, SIZE) == ""
    assert written_for(FACTS) == "pi7 of rack attic, written on 2026-09-21"
