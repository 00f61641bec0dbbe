"""The way from partition to partition, on card images made by plain tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.bootcheck.check import BootReport
from tests.support import bootfiles
from tests.support.bootdisk import BOOT_KIB, INIT, Disk, make_disk, make_root, partition
from tests.support.bootfiles import minimal_boot_files
from tests.support.fatdisk import make_fat, tool

pytestmark = pytest.mark.image


def codes(report: BootReport) -> set[str]:
    return {found.code.value for found in report.findings}


def errors(report: BootReport) -> set[str]:
    return {found.code.value for found in report.errors}


@pytest.mark.parametrize(
    ("release", "folder", "said"),
    [("5.15.0-1", "usr/lib/modules", False), ("6.1.0-50", "usr/lib/modules", True),
     ("5.15.0-1", "lib/modules", False), ("5.15.0-1+", "lib/modules", True)],
)  # fmt: skip
def test_a_kernel_whose_modules_are_not_on_the_root_is_named(
    tmp_path: Path, release: str, folder: str, said: bool
) -> None:
    image = tmp_path / "card.img"
    banner = f"Linux version {release} (a@b) #1\n\0".encode()
    kernel = bootfiles.zimage()[:4000] + banner
    make_disk(image, minimal_boot_files("pi2") | {"kernel7.img": kernel.ljust(4096, b"\0")})
    make_root(image, "pi7", {f"{folder}/5.15.0-1/modules.dep": (b"\n", 0o644), **INIT})
    report = Disk(image).check("pi2")
    assert codes(report) == ({"kernel-modules"} if said else set())
    assert report.bootable
    if said:
        what = f"kernel7.img is Linux {release}; partition 2 has modules for 5.15.0-1"
        assert report.findings[0].what == what


BOOT2_OFFSET, ROOT3_OFFSET, SIZE3 = 2 * MiB, 36 * MiB, 44 * MiB


def make_ab_disk(image: Path, first: dict[str, bytes], second: dict[str, bytes]) -> Disk:
    """A small FAT with ``first``, one with ``second``, and an ext4 as partition 3."""
    boots, root = ((MiB, MiB), (BOOT2_OFFSET, BOOT_KIB * KiB)), (ROOT3_OFFSET, SIZE3 - ROOT3_OFFSET)
    partition(image, SIZE3, dict.fromkeys(boots, "c") | {root: "83"})
    make_fat(image, first, size_kib=1024, kind=12, sectors_per_cluster=1, offset_bytes=MiB)
    make_fat(image, second, size_kib=BOOT_KIB, kind=32, sectors_per_cluster=1,
             offset_bytes=BOOT2_OFFSET)  # fmt: skip
    make_root(image, "pi7", offset=ROOT3_OFFSET)
    return Disk(image)


def test_a_card_with_one_fault_for_every_board_is_judged_for_the_one_it_has_files_for(
    tmp_path: Path,
) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi4"), type_id="83")
    report = Disk(image).check()
    assert [found.code.value for found in report.errors] == ["partition-type-refused"]
    assert report.judged_as == "pi4"


@pytest.mark.parametrize("number", [2, 3])
def test_an_eeprom_that_autoboot_txt_leads_nowhere_takes_the_first(
    tmp_path: Path, number: int
) -> None:
    """Release notes of the EEPROM, 2022-10-18: failover to partition 1."""
    image, auto = tmp_path / "card.img", {"autoboot.txt": f"boot_partition={number}\n".encode()}
    make_disk(image, minimal_boot_files("cm4") | auto)
    disk = Disk(image)
    report = disk.check("cm4")
    assert codes(report) == {"autoboot"}
    assert report.bootable
    assert str(report.route) == "EEPROM → start4.elf → kernel8.img"
    disk.remove("start4.elf")
    assert "autoboot" in errors(disk.check("cm4")), "there is nothing to fall back on"


@pytest.mark.parametrize("model", ["cm4", "pi5"])
def test_an_eeprom_takes_the_first_fat_that_it_can_boot_from(tmp_path: Path, model: str) -> None:
    line = {"cmdline.txt": b"root=/dev/mmcblk0p3 rw rootwait\n"}
    data = {"photos/1.jpg": b"a picture"}
    disk = make_ab_disk(tmp_path / "card.img", data, minimal_boot_files(model) | line)
    report = disk.check(model)
    assert {"boot-partition-later"} <= codes(report) <= {"boot-partition-later", "fat-kind"}
    assert report.bootable
    assert str(report.route).startswith("EEPROM → partition 2 → ")
    assert report.node == "pi7"
    tool("mdel", "-i", f"{disk.image}@@{BOOT2_OFFSET}", "::kernel8.img")
    (missing,) = [f.what for f in disk.check(model).errors]
    assert missing.startswith("partition 2: kernel") and missing.endswith(".img is missing")
    sign = "start4.elf" if model == "cm4" else "config.txt"
    tool("mdel", "-i", f"{disk.image}@@{BOOT2_OFFSET}", f"::{sign}")
    assert "boot-partition-later" not in codes(disk.check(model))


def test_a_boot_rom_looks_at_the_first_partition_only(tmp_path: Path) -> None:
    line = {"cmdline.txt": b"root=/dev/mmcblk0p3 rw rootwait\n"}
    disk = make_ab_disk(tmp_path / "card.img", {"a": b"b"}, minimal_boot_files("pi2") | line)
    assert "bootcode" in errors(disk.check("pi2"))
    assert "boot-partition-later" not in codes(disk.check("pi2"))


def test_autoboot_txt_leads_to_another_partition_which_is_judged(tmp_path: Path) -> None:
    line = {"cmdline.txt": b"root=/dev/mmcblk0p3 rw rootwait\n"}
    auto = {
        "autoboot.txt": b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
    }
    disk = make_ab_disk(tmp_path / "card.img", auto, minimal_boot_files("cm4") | line)
    report = disk.check("cm4")
    assert codes(report) == {"fat-kind"}, [f.what for f in report.findings]
    assert report.node == "pi7"
    assert str(report.route) == "EEPROM → autoboot.txt → partition 2 → start4.elf → kernel8.img"
    place = f"{disk.image}@@{BOOT2_OFFSET}"
    tool("mdel", "-i", place, "::kernel8.img")
    report = disk.check("cm4")
    assert [f.what for f in report.errors] == ["partition 2: kernel8.img is missing"]


def test_a_board_with_bootcode_bin_finds_it_on_the_first_partition_only(tmp_path: Path) -> None:
    line = {"cmdline.txt": b"root=/dev/mmcblk0p3 rw rootwait\n"}
    files = minimal_boot_files("pi2") | line
    first = {"autoboot.txt": b"boot_partition=2\n"}
    disk = make_ab_disk(tmp_path / "card.img", first, files)
    assert errors(disk.check("pi2")) == {"bootcode"}
    disk.write("bootcode.bin", files["bootcode.bin"])
    assert errors(disk.check("pi2")) == set()


# -- GPT -----------------------------------------------------------------------------------------

BASIC, EFI = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ROOT_GUID = "12345678-9abc-4def-8123-456789abcdef"


def make_gpt_disk(image: Path, model: str, kind: str) -> Disk:
    with image.open("wb") as file:
        file.truncate(SIZE3 + MiB)
    table = (
        f"label: gpt\nstart={MiB // 512}, size={BOOT_KIB * 2}, type={kind}\n"
        f"start={ROOT3_OFFSET // 512}, size={(SIZE3 - ROOT3_OFFSET) // 512}, "
        f"type={LINUX}, uuid={ROOT_GUID.upper()}\n"
    )
    run(["sfdisk", "--quiet", image], stdin=table.encode())
    line = {"cmdline.txt": f"root=PARTUUID={ROOT_GUID} rw rootwait\n".encode()}
    files = minimal_boot_files(model) | line
    make_fat(image, files, size_kib=BOOT_KIB, kind=32, sectors_per_cluster=1, offset_bytes=MiB)
    make_root(image, "pi7", offset=ROOT3_OFFSET)
    return Disk(image)


def test_an_entry_for_a_gpt_that_is_not_there_hides_all_others_from_the_kernel(
    tmp_path: Path,
) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi2"))
    disk = Disk(image)
    assert disk.check("pi2").bootable
    disk.poke(446 + 3 * 16, bytes.fromhex("00000200ee00020001000000ff070000"))
    report = disk.check("pi2")
    assert errors(report) == {"gpt-lost"}
    assert report.findings[0].what.startswith("entry 4 of the table says that there is a GPT, and ")


@pytest.mark.parametrize("kind", [BASIC, EFI])
def test_an_eeprom_boots_from_a_gpt(tmp_path: Path, kind: str) -> None:
    disk = make_gpt_disk(tmp_path / "card.img", "cm4", kind)
    report = disk.check()
    assert report.findings == ()
    assert (report.judged_as, report.models, report.node) == ("cm4", ("cm4",), "pi7")
    assert report.partuuid == ROOT_GUID


def test_a_boot_rom_reads_no_gpt(tmp_path: Path) -> None:
    disk = make_gpt_disk(tmp_path / "card.img", "pi2", BASIC)
    report = disk.check("pi2")
    assert errors(report) == {"gpt-only"}
    assert (report.models, report.node) == ((), "pi7")


def test_an_eeprom_takes_no_partition_for_linux_for_a_fat(tmp_path: Path) -> None:
    disk = make_gpt_disk(tmp_path / "card.img", "cm4", LINUX)
    assert errors(disk.check("cm4")) == {"boot-partition-missing"}
    assert errors(disk.check("pi2")) == {"gpt-only"}
    disk.poke(512, bytes(512))
    disk.poke(SIZE3 + MiB - 512, bytes(512))
    assert "boot-partition-missing" in errors(disk.check("cm4"))


# -- what is not followed ------------------------------------------------------------------------

PAIR4 = {"start4.elf": bootfiles.start_elf(), "fixup4.dat": bootfiles.fixup_dat()}
ELSEWHERE = {
    "UEFI": PAIR4 | {"config.txt": b"armstub=RPI_EFI.fd\n", "RPI_EFI.fd": b"_FVH" * 2000},
    "U-Boot": PAIR4 | {"config.txt": b"kernel=uboot.bin\n", "uboot.bin": bootfiles.uboot()},
    "boot.img": {"config.txt": b"boot_ramdisk=1\n", "boot.img": b"image" * 2000, "boot.sig": b"x"},
}


@pytest.mark.parametrize("what", ELSEWHERE)
@pytest.mark.parametrize("second", [True, False])
def test_a_route_that_is_not_followed_is_asked_for_no_root(
    tmp_path: Path, what: str, second: bool
) -> None:
    image = tmp_path / "card.img"
    make_disk(image, ELSEWHERE[what])
    disk = Disk(image)
    if not second:
        disk.poke(446 + 16, bytes(16))
    for model in ("pi4", None):
        report = disk.check(model)
        assert codes(report) == {"route-not-followed"}
        assert report.bootable
        assert report.route is not None
        assert not report.route.followed
    assert report.models == ("pi4", "pi400", "cm4", "cm4s"), "no file on it is for a Pi 5"
    assert report.to_json()["route"]


def test_the_type_of_an_efi_system_is_judged_by_the_board(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("cm4"), type_id="ef")
    report = Disk(image).check()
    assert (report.judged_as, report.bootable) == ("cm4", True)
    assert codes(report) == {"partition-type-unproven"}
    assert "partition-type-refused" in errors(Disk(image).check("pi3"))
