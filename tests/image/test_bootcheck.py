"""The boot check on card images made by plain tools, whole and broken in every way we know."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imager.base.boards import BOARDS
from imager.base.run import run
from imager.base.units import MiB
from imager.bootcheck.check import BootReport, Severity
from imager.bootcheck.sums import SUMS_PATH, encode_sums
from imager.disk.extents import Extent
from imager.disk.fat.volume import FatVolume
from tests.support import bootfiles
from tests.support.bootdisk import (
    BOOT_KIB,
    BOOT_OFFSET,
    PARTUUID,
    ROOT_OFFSET,
    SIZE,
    Disk,
    make_disk,
    reading,
)
from tests.support.bootfiles import minimal_boot_files
from tests.support.fatdisk import make_fat, tool

pytestmark = pytest.mark.image


@pytest.fixture
def disk(good_pi2: Path, tmp_path: Path) -> Disk:
    return Disk.copy_of(good_pi2, tmp_path)


def codes(report: BootReport, severity: Severity | None = None) -> set[str]:
    return {f.code.value for f in report.findings if severity in (None, f.severity)}


def errors(report: BootReport) -> set[str]:
    return codes(report, Severity.ERROR)


def only(report: BootReport, code: str) -> str:
    """What the one finding says, when it is the only one and of that code."""
    assert [f.code.value for f in report.findings] == [code], [f.what for f in report.findings]
    return report.findings[0].what


# -- good cards --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [board.name for board in BOARDS])
def test_a_whole_set_boots_its_model_and_no_other(tmp_path: Path, model: str) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files(model), node=f"node-{model}")
    report = Disk(image).check()
    assert report.findings == ()
    assert report.bootable
    assert report.models == (model,)
    assert (report.judged_as, report.node, report.partuuid) == (model, f"node-{model}", PARTUUID)


def test_one_card_can_boot_several_models(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi2") | minimal_boot_files("pi3"))
    report = Disk(image).check()
    assert report.models == ("pi2", "pi3")
    assert report.bootable


def test_a_card_for_another_model_says_what_is_missing(disk: Disk) -> None:
    report = disk.check("pi4")
    assert not report.bootable
    assert {"start", "fixup", "device-tree"} <= errors(report)
    assert "start4.elf is missing" in {f.what for f in report.findings}


def test_an_unknown_model_is_refused_by_name(disk: Disk) -> None:
    with pytest.raises(ValueError, match="'pi9'; known are pi2, pi3, "):
        disk.check("pi9")


def test_the_report_becomes_json(disk: Disk) -> None:
    disk.remove("fixup.dat")
    loaded = json.loads(json.dumps(disk.check("pi2").to_json()))
    assert loaded["bootable"] is False
    assert loaded["node"] == "pi7"
    assert loaded["findings"][0]["code"] == "fixup"
    assert set(loaded["findings"][0]) == {
        "code", "severity", "what", "why", "symptom", "mend", "path",
    }  # fmt: skip


def test_an_image_made_by_genimage_boots(tmp_path: Path) -> None:
    if shutil.which("genimage") is None:
        pytest.skip("genimage is not installed")
    inputs = tmp_path / "input"
    for name, content in minimal_boot_files("pi2").items():
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        (inputs / name).write_bytes(content)
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("made-by-genimage\n")
    (root / "etc/init").write_bytes(b"\x7fELF look-alike")
    (root / "etc/init").chmod(0o755)
    top = ", ".join(f'"{path.name}"' for path in sorted(inputs.iterdir()))
    (tmp_path / "genimage.cfg").write_text(
        f"""
        image boot.vfat {{
            vfat {{ files = {{ {top} }} extraargs = "-F 32 -s 1" }}
            size = 34M
        }}
        image root.ext4 {{ ext4 {{ use-mke2fs = true }} size = 8M }}
        image sdcard.img {{
            hdimage {{ }}
            partition boot {{ partition-type = 0xC bootable = "true" image = "boot.vfat" }}
            partition root {{ partition-type = 0x83 image = "root.ext4" }}
        }}
        """
    )
    run(
        [
            "genimage", "--config", tmp_path / "genimage.cfg", "--inputpath", inputs,
            "--outputpath", tmp_path / "out", "--tmppath", tmp_path / "work", "--rootpath", root,
        ]
    )  # fmt: skip
    report = Disk(tmp_path / "out/sdcard.img").check("pi2")
    assert report.findings == ()
    assert report.node == "made-by-genimage"


# -- partition table ---------------------------------------------------------------------------


@pytest.mark.parametrize("type_id", [0x0B, 0x0C])
def test_both_fat32_types_are_fine(disk: Disk, type_id: int) -> None:
    disk.poke(446 + 4, bytes([type_id]))
    assert disk.check("pi2").findings == ()


@pytest.mark.parametrize("type_id", [0x01, 0x04, 0x06, 0x0E])
def test_a_fat_type_that_boots_some_boards_is_a_warning(disk: Disk, type_id: int) -> None:
    disk.poke(446 + 4, bytes([type_id]))
    report = disk.check("pi2")
    assert only(report, "partition-type-unproven") == f"partition 1 has type {type_id:02x}"
    assert report.bootable


@pytest.mark.parametrize("type_id", [0x00, 0x83, 0xEF, 0x1C, 0x1B, 0x07, 0x05, 0x82])
def test_any_other_type_stops_the_boot(disk: Disk, type_id: int) -> None:
    disk.poke(446 + 4, bytes([type_id]))
    report = disk.check("pi2")
    assert only(report, "partition-type-refused") == f"partition 1 has type {type_id:02x}"
    assert not report.bootable


def test_a_first_entry_left_empty_stops_the_boot(disk: Disk) -> None:
    entries = disk.peek(446, 32)
    disk.poke(446, bytes(16) + entries[16:] + entries[:16])
    report = disk.check("pi2")
    assert "boot-partition-missing" in errors(report)


def test_a_missing_second_partition_stops_the_boot(disk: Disk) -> None:
    disk.poke(446 + 16, bytes(16))
    report = disk.check("pi2")
    assert errors(report) == {"root-partition-missing"}
    assert report.partuuid is None


def test_a_card_that_ends_too_early_is_named(disk: Disk) -> None:
    with disk.image.open("r+b") as file:
        file.truncate(SIZE - MiB)
    report = disk.check("pi2")
    assert "partition-outside" in errors(report)
    assert report.findings[0].what == (
        f"cut short at byte {SIZE - MiB} of {SIZE}: partition 2 ends at byte {SIZE}"
    )


def test_partitions_that_overlap_are_named(disk: Disk) -> None:
    disk.poke(446 + 12, struct.pack("<I", (ROOT_OFFSET - BOOT_OFFSET) // 512 + 1))
    report = disk.check("pi2")
    assert "partitions-overlap" in errors(report)
    assert "partitions 1 and 2 overlap" in {f.what for f in report.errors}


def test_a_gpt_card_is_named_as_one(tmp_path: Path) -> None:
    image = tmp_path / "gpt.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    script = f"label: gpt\nstart={BOOT_OFFSET // 512}, size={BOOT_KIB * 2}\n"
    run(["sfdisk", "--quiet", image], stdin=script.encode())
    make_fat(image, minimal_boot_files("pi2"), size_kib=BOOT_KIB, offset_bytes=BOOT_OFFSET)
    report = Disk(image).check("pi2")
    assert errors(report) == {"gpt-only"}
    assert not report.models


@pytest.mark.parametrize("content", [b"", b"\0" * MiB, b"\xff" * MiB, bytes(range(256)) * 4096])
def test_garbage_is_no_card(tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "garbage"
    image.write_bytes(content)
    report = Disk(image).check()
    assert errors(report) == {"mbr-missing"}
    assert (report.models, report.node) == ((), None)


# -- FAT -----------------------------------------------------------------------------------------


def test_no_fat_in_the_first_partition_stops_the_boot(disk: Disk) -> None:
    disk.poke(BOOT_OFFSET, bytes(512))
    report = disk.check("pi2")
    assert only(report, "fat-missing") == (
        "partition 1: not a FAT filesystem: its first sector is all zeros"
    )
    assert report.node == "pi7"


def test_fat16_boots_with_a_warning(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi2"), fat_kind=16, sectors_per_cluster=4)
    report = Disk(image).check("pi2")
    assert only(report, "fat-kind") == "partition 1 is FAT16"
    assert report.bootable


def test_eight_sectors_per_cluster_boot_with_a_warning(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi2"), fat_kind=16, sectors_per_cluster=8)
    assert codes(Disk(image).check("pi2")) == {"fat-kind", "fat-cluster-size"}


def test_fat32_with_too_few_clusters_stops_the_boot(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    # Empty: mtools too goes by the number of clusters and cannot copy anything onto it.
    make_disk(image, {}, fat_kind=32, sectors_per_cluster=4)
    assert "fat-size" in errors(Disk(image).check("pi2"))


def test_sectors_of_4096_bytes_stop_the_boot(disk: Disk) -> None:
    tool(
        "mkfs.vfat", "-F", "32", "-S", "4096", "-s", "1", "--offset", str(BOOT_OFFSET // 4096),
        disk.image, str(BOOT_KIB),
    )  # fmt: skip
    assert "fat-sector-size" in errors(disk.check("pi2"))


def test_a_boot_sector_unlike_its_backup_is_a_warning(disk: Disk) -> None:
    disk.poke(BOOT_OFFSET + 6 * 512 + 100, b"\xa5")
    report = disk.check("pi2")
    assert "first at byte 100" in only(report, "fat-backup-differs")
    assert report.bootable


def test_a_damaged_directory_stops_the_boot(disk: Disk) -> None:
    with reading(disk.image) as read:
        root = next(iter(FatVolume.parse(read, BOOT_OFFSET, BOOT_KIB * 1024).metadata))
    records = disk.peek(BOOT_OFFSET, root.end - BOOT_OFFSET)
    place = records.index("initr".encode("utf-16-le"))
    disk.poke(BOOT_OFFSET + place - place % 32 + 13, b"\0")
    assert "fat-directory" in errors(disk.check("pi2"))


class Tables:
    """The two FATs of a disk, to be edited as a failing card would."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        with reading(disk.image) as read:
            self.volume = FatVolume.parse(read, BOOT_OFFSET, BOOT_KIB * 1024)
        head = disk.peek(BOOT_OFFSET, 64)
        reserved: int = struct.unpack_from("<H", head, 14)[0]
        self.size: int = struct.unpack_from("<I", head, 36)[0] * 512
        self.first = BOOT_OFFSET + reserved * 512

    def cluster(self, path: str) -> int:
        extent: Extent = self.volume.entries[path].extents[0]
        return 2 + (extent.offset - self.first - 2 * self.size) // 512

    def set(self, cluster: int, value: int, *, copies: tuple[int, ...] = (0, 1)) -> None:
        for copy in copies:
            self.disk.poke(self.first + copy * self.size + 4 * cluster, struct.pack("<I", value))


def test_a_cross_linked_chain_names_both_files(disk: Disk) -> None:
    tables = Tables(disk)
    tables.set(tables.cluster("start.elf"), tables.cluster("kernel7.img") + 1)
    report = disk.check("pi2")
    assert "fat-cross-linked" in errors(report)
    (what,) = [f.what for f in report.findings if f.code.value == "fat-cross-linked"]
    assert "start.elf" in what
    assert "kernel7.img" in what
    assert not report.bootable


def test_tables_that_differ_name_the_file(disk: Disk) -> None:
    tables = Tables(disk)
    tables.set(tables.cluster("kernel7.img") + 2, 0, copies=(1,))
    report = disk.check("pi2")
    assert "kernel7.img" in only(report, "fat-copies-differ")
    assert report.findings[0].path == "kernel7.img"
    assert not report.bootable


def test_tables_that_differ_in_free_space_are_a_warning(disk: Disk) -> None:
    Tables(disk).set(60_000, 0x0FFFFFFF, copies=(1,))
    report = disk.check("pi2")
    assert only(report, "fat-copies-differ")
    assert report.bootable


def test_space_that_no_file_owns_is_a_warning(disk: Disk) -> None:
    Tables(disk).set(60_000, 0x0FFFFFFF)
    report = disk.check("pi2")
    assert "1 clusters (512 bytes)" in only(report, "fat-lost-clusters")
    assert report.bootable


def test_a_chain_that_ends_early_stops_the_boot(disk: Disk) -> None:
    tables = Tables(disk)
    tables.set(tables.cluster("kernel7.img") + 2, 0x0FFFFFFF)
    report = disk.check("pi2")
    assert errors(report) == {"fat-chain"}
    assert report.errors[0].path == "kernel7.img"


def test_a_partition_that_was_not_unmounted_is_a_warning(disk: Disk) -> None:
    disk.poke(BOOT_OFFSET + 65, b"\1")
    report = disk.check("pi2")
    assert only(report, "fat-dirty")
    assert report.bootable


# -- files ---------------------------------------------------------------------------------------

UBOOT = {"kernel8.img": bootfiles.uboot()}
FILES = {
    "bootcode.bin": "bootcode",
    "start.elf": "start",
    "fixup.dat": "fixup",
    "kernel7.img": "kernel",
    "bcm2709-rpi-2-b.dtb": "device-tree",
    "initramfs-linux.img": "initramfs",
    "cmdline.txt": "cmdline-missing",
}


@pytest.mark.parametrize(("name", "code"), FILES.items())
def test_a_missing_file_stops_the_boot(disk: Disk, name: str, code: str) -> None:
    disk.remove(name)
    report = disk.check("pi2")
    assert only(report, code) == f"{name} is missing"
    assert not report.bootable


@pytest.mark.parametrize(("name", "code"), FILES.items())
def test_an_empty_file_stops_the_boot(disk: Disk, name: str, code: str) -> None:
    disk.write(name, b"")
    report = disk.check("pi2")
    assert only(report, code) == f"{name} is empty"


@pytest.mark.parametrize(
    ("name", "code"), [(n, c) for n, c in FILES.items() if n not in ("cmdline.txt", "fixup.dat")]
)
@pytest.mark.parametrize("content", [bytes(3000), b"\xff" * 3000], ids=["zeros", "ones"])
def test_a_file_of_one_value_stops_the_boot(
    disk: Disk, name: str, code: str, content: bytes
) -> None:
    disk.write(name, content)
    report = disk.check("pi2")
    assert only(report, code).startswith(f"{name}: ")


@pytest.mark.parametrize(
    "name", ["start.elf", "kernel7.img", "bcm2709-rpi-2-b.dtb", "initramfs-linux.img"]
)
def test_a_file_that_lost_its_last_bytes_stops_the_boot(disk: Disk, name: str) -> None:
    content = minimal_boot_files("pi2")[name]
    disk.write(name, content[:-7])
    report = disk.check("pi2")
    what = only(report, FILES[name])
    assert what.startswith(f"{name}: ")
    assert not report.bootable


def test_fixup_of_zeros_stops_the_boot(disk: Disk) -> None:
    disk.write("fixup.dat", bytes(100))
    assert only(disk.check("pi2"), "fixup") == "fixup.dat: it holds only zeros"


def test_start_elf_from_another_set_is_found_by_its_fixup(disk: Disk) -> None:
    disk.write("start.elf", bootfiles.start_elf(headers=3))
    report = disk.check("pi2")
    what = only(report, "firmware-pair")
    assert what.startswith("start.elf and fixup.dat: ")
    assert not report.bootable


def test_fixup_of_unknown_form_is_a_warning(disk: Disk) -> None:
    disk.write("fixup.dat", b"some future form")
    report = disk.check("pi2")
    assert only(report, "firmware-unproven")
    assert report.bootable


def test_firmware_of_two_releases_on_one_card_is_a_warning(disk: Disk) -> None:
    disk.write("start_x.elf", bootfiles.start_elf(build="a" * 40))
    report = disk.check("pi2")
    assert "start_x.elf of build aaaaaaaaaaaa" in only(report, "firmware-mixed")
    assert report.bootable


def test_a_64_bit_kernel_cannot_run_on_a_pi_2(disk: Disk) -> None:
    disk.write("kernel7.img", bootfiles.arm64_image())
    assert only(disk.check("pi2"), "kernel-width").startswith("kernel7.img is a 64-bit kernel")


def test_the_device_tree_of_another_board_stops_the_boot(disk: Disk) -> None:
    disk.write("bcm2709-rpi-2-b.dtb", bootfiles.fdt("raspberrypi,3-model-b", "brcm,bcm2837"))
    what = only(disk.check("pi2"), "device-tree-model")
    assert what.startswith("bcm2709-rpi-2-b.dtb is for raspberrypi,3-model-b")


def test_a_missing_tree_of_a_later_board_revision_stops_the_boot(disk: Disk) -> None:
    disk.remove("bcm2710-rpi-2-b.dtb")
    report = disk.check("pi2")
    assert "Pi 2 v1.2 (BCM2837)" in only(report, "device-tree-board")
    assert not report.bootable


@pytest.mark.parametrize(
    "damage",
    ["boot.scr", "Image", "dtbs/broadcom/bcm2711-rpi-4-b.dtb", "bcm2711-rpi-4-b.dtb"],
)
def test_a_release_that_boots_through_u_boot_needs_what_u_boot_loads(
    tmp_path: Path, damage: str
) -> None:
    image = tmp_path / "card.img"
    files = minimal_boot_files("pi4")
    make_disk(image, files | {damage: files[damage][:-9] if damage != "Image" else b"x"})
    report = Disk(image).check("pi4")
    assert [f.path for f in report.errors] == [damage]
    expected = {"boot.scr": "boot-script", "Image": "kernel"}.get(damage, "device-tree")
    assert errors(report) == {expected}


def test_a_u_boot_that_knows_no_pi_5_is_named(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi4") | minimal_boot_files("pi5") | UBOOT)
    report = Disk(image).check("pi5")
    what = "kernel8.img is a U-Boot that starts no Raspberry Pi 5"
    assert only(report, "uboot-board") == what
    assert not report.bootable


def test_a_boot_script_left_beside_a_kernel_is_not_run(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi5") | {"boot.scr": b"left over"})
    assert Disk(image).check("pi5").findings == ()


def test_a_32_bit_kernel_cannot_run_on_a_pi_5(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    config = b"kernel=kernel7.img\n" + bootfiles.CONFIG_TXT
    make_disk(
        image,
        minimal_boot_files("pi5") | {"config.txt": config, "kernel7.img": bootfiles.zimage()},
    )
    disk = Disk(image)
    what = "kernel7.img is a 32-bit kernel; a Raspberry Pi 5 cannot run it"
    assert only(disk.check("pi5"), "kernel-width") == what
    disk.write("config.txt", b"arm_64bit=0\n" + bootfiles.CONFIG_TXT)
    assert disk.check("pi5").findings == (), "a Pi 5 knows no such setting"


def test_a_pi_5_takes_the_kernel_of_its_own_first(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi5") | {"kernel_2712.img": b"no kernel"})
    report = Disk(image).check("pi5")
    assert only(report, "kernel").startswith("kernel_2712.img: ")


def test_a_damaged_card_is_not_told_as_one_for_a_board_that_needs_few_files(disk: Disk) -> None:
    disk.remove("bootcode.bin", "start.elf", "fixup.dat", "kernel7.img", "bcm2709-rpi-2-b.dtb")
    assert disk.check().judged_as not in ("pi5", "pi500", "cm5")
    disk.write("bcm2712-rpi-5-b.dtb", bootfiles.fdt("raspberrypi,5-model-b", "brcm,bcm2712"))
    assert disk.check().judged_as == "pi5"


def test_two_kernels_of_different_width_are_a_warning(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi3") | {"kernel8.img": bootfiles.arm64_image()})
    disk = Disk(image)
    report = disk.check("pi3")
    assert only(report, "kernel-choice") == "there are kernel8.img and kernel7.img"
    assert report.bootable
    disk.write("config.txt", bootfiles.CONFIG_TXT + b"arm_64bit=0\n")
    assert disk.check("pi3").findings == ()


def test_a_64_bit_kernel_does_not_stand_in_for_a_32_bit_one_that_config_txt_asks_for(
    tmp_path: Path,
) -> None:
    image = tmp_path / "card.img"
    make_disk(image, minimal_boot_files("pi3") | {"kernel8.img": bootfiles.arm64_image()})
    disk = Disk(image)
    disk.remove("kernel7.img")
    assert "kernel" not in errors(disk.check("pi3"))
    disk.write("config.txt", bootfiles.CONFIG_TXT + b"arm_64bit=0\n")
    (missing,) = [f.what for f in disk.check("pi3").errors if f.code.value == "kernel"]
    assert missing == "kernel7.img is missing"


# -- config.txt ----------------------------------------------------------------------------------


def test_an_initramfs_that_config_txt_names_must_be_there(disk: Disk) -> None:
    disk.write("config.txt", b"initramfs other.img followkernel\n")
    assert only(disk.check("pi2"), "initramfs") == "other.img is missing"


def test_a_kernel_that_config_txt_names_must_be_there(disk: Disk) -> None:
    disk.write("config.txt", b"kernel=special.img\ninitramfs initramfs-linux.img followkernel\n")
    assert only(disk.check("pi2"), "kernel") == "special.img is missing"
    disk.write("special.img", bootfiles.zimage())
    assert disk.check("pi2").bootable


def test_the_cut_down_firmware_is_needed_with_gpu_mem_16(disk: Disk) -> None:
    disk.write("config.txt", bootfiles.CONFIG_TXT + b"gpu_mem=16\n")
    report = disk.check("pi2")
    assert {f.what for f in report.errors} == {"start_cd.elf is missing", "fixup_cd.dat is missing"}
    disk.write("start_cd.elf", bootfiles.start_elf())
    disk.write("fixup_cd.dat", bootfiles.fixup_dat())
    assert disk.check("pi2").findings == ()


def test_an_included_file_counts_and_a_missing_one_is_named(disk: Disk) -> None:
    disk.write("config.txt", bootfiles.CONFIG_TXT + b"include more.txt\n")
    assert "config.txt, line 4: includes more.txt" in only(disk.check("pi2"), "config-line")
    disk.write("more.txt", b"[pi2]\nkernel=absent.img\n")
    assert only(disk.check("pi2"), "kernel") == "absent.img is missing"


def test_os_prefix_without_its_files_falls_back_and_warns(disk: Disk) -> None:
    disk.write("config.txt", b"os_prefix=new/\n" + bootfiles.CONFIG_TXT)
    report = disk.check("pi2")
    assert only(report, "os-prefix")
    assert report.bootable


def test_os_prefix_moves_every_system_file(disk: Disk) -> None:
    files = minimal_boot_files("pi2")
    for name in ("kernel7.img", "bcm2709-rpi-2-b.dtb", "bcm2710-rpi-2-b.dtb", "cmdline.txt"):
        disk.write(f"new/{name}", files[name])
    disk.write("config.txt", b"os_prefix=new/\n" + bootfiles.CONFIG_TXT)
    assert only(disk.check("pi2"), "initramfs") == "new/initramfs-linux.img is missing"
    disk.write("new/initramfs-linux.img", files["initramfs-linux.img"])
    disk.remove("kernel7.img", "cmdline.txt")
    assert disk.check("pi2").findings == ()


def test_what_stands_beyond_column_98_is_named(disk: Disk) -> None:
    line = b"initramfs initramfs-linux.img followkernel" + b" " * 70 + b"lost\n"
    disk.write("config.txt", line)
    report = disk.check("pi2")
    assert "config.txt, line 1: from column 99 on it is ignored" in only(report, "config-line")


def test_a_missing_overlay_is_a_warning(disk: Disk) -> None:
    disk.write(
        "config.txt", bootfiles.CONFIG_TXT + b"dtoverlay=vc4-kms-v3d\ndtoverlay=absent,x=1\n"
    )
    report = disk.check("pi2")
    assert only(report, "overlay") == "config.txt, line 5: overlays/absent.dtbo is missing"
    assert report.bootable


def test_no_config_txt_means_no_initramfs_and_a_warning(disk: Disk) -> None:
    disk.remove("config.txt")
    report = disk.check("pi2")
    assert only(report, "config-missing")


def test_a_file_that_only_some_boards_need_is_a_warning(disk: Disk) -> None:
    disk.write("config.txt", bootfiles.CONFIG_TXT + b"[gpio4=1]\nkernel=rescue.img\n")
    report = disk.check("pi2")
    assert only(report, "config-undecided") == "config.txt, line 5: rescue.img is missing"
    assert report.bootable


@pytest.mark.parametrize("number", [2, 3])
def test_autoboot_txt_that_leads_nowhere_stops_the_boot(disk: Disk, number: int) -> None:
    disk.write("autoboot.txt", f"[all]\nboot_partition={number}\n".encode())
    report = disk.check("pi2")
    assert f"boot_partition={number}: " in only(report, "autoboot")
    assert not report.bootable


def test_a_partition_of_type_00_is_none_to_the_firmware_and_one_to_linux(disk: Disk) -> None:
    disk.poke(446 + 16 + 4, b"\0")
    assert disk.check("pi2").findings == ()
    disk.write("autoboot.txt", b"boot_partition=2\n")
    assert "the card has no partition 2" in only(disk.check("pi2"), "autoboot")


@pytest.mark.parametrize("text", [b"[tryboot]\nboot_partition=3\n", b"boot_partition=1\n", b"\n"])
def test_autoboot_txt_for_the_first_partition_changes_nothing(disk: Disk, text: bytes) -> None:
    disk.write("autoboot.txt", text)
    report = disk.check("pi2")
    assert report.findings == ()
    assert str(report.route) == "bootcode.bin → start.elf → kernel7.img"


# -- cmdline.txt ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [f"root=PARTUUID={PARTUUID}", "root=/dev/mmcblk0p2", "root=LABEL=root",
     '"root=/dev/mmcblk0p2"', 'root="LABEL=root"'],
)  # fmt: skip
def test_every_name_of_the_second_partition_will_do(disk: Disk, word: str) -> None:
    disk.write("cmdline.txt", f"{word} rw rootwait=30\n".encode())
    assert disk.check("pi2").findings == ()


def test_a_partuuid_in_capital_letters_is_for_the_kernel_alone(disk: Disk) -> None:
    disk.write("cmdline.txt", f"root=PARTUUID={PARTUUID.upper()} rw rootwait\n".encode())
    report = disk.check("pi2")
    assert "is the name of partition 2 in other letters" in only(report, "root-unproven")
    assert report.bootable
    disk.write("config.txt", b"[all]\n")
    assert disk.check("pi2").findings == ()


@pytest.mark.parametrize(
    "root",
    ["/dev/mmcblk0p1", "/dev/mmcblk0p3", f"PARTUUID={PARTUUID[:-1]}1",
     "PARTUUID=00000000-02", "UUID=00000000-0000-0000-0000-000000000000", "LABEL=other"],
)  # fmt: skip
def test_root_that_is_elsewhere_stops_the_boot(disk: Disk, root: str) -> None:
    disk.write("cmdline.txt", f"root={root} rw rootwait\n".encode())
    report = disk.check("pi2")
    assert only(report, "root-elsewhere")
    assert not report.bootable


@pytest.mark.parametrize("config", [bootfiles.CONFIG_TXT, b"[all]\n"])
@pytest.mark.parametrize("root", ["/dev/sda2", "/dev/nvme0n1p2", "/dev/nfs", "8:2"])
def test_root_on_another_disk_or_a_server_is_a_warning(
    disk: Disk, root: str, config: bytes
) -> None:
    disk.write("config.txt", config)
    disk.write("cmdline.txt", f"root={root} rw rootwait\n".encode())
    report = disk.check("pi2")
    assert "is another disk or a server" in only(report, "root-elsewhere")
    assert report.bootable
    assert "unless the node has its system on another disk" in report.findings[0].mend


@pytest.mark.parametrize("root", ["gpt-auto", "dhcp", "tmpfs", "nfs:10.0.0.1:/srv", "nonsense"])
def test_a_word_that_only_an_initramfs_reads_is_unproven(disk: Disk, root: str) -> None:
    disk.write("cmdline.txt", f"root={root} rw rootwait\n".encode())
    report = disk.check("pi2")
    assert only(report, "root-unproven")
    assert report.bootable
    disk.write("config.txt", b"[all]\n")
    report = disk.check("pi2")
    assert only(report, "root-elsewhere")
    assert not report.bootable


def test_root_by_filesystem_uuid_needs_an_initramfs(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=LABEL=root rw rootwait\n")
    disk.write("config.txt", b"[all]\n")
    assert "needs an initramfs" in only(disk.check("pi2"), "root-elsewhere")


def test_a_second_line_in_cmdline_txt_is_lost_and_no_more(disk: Disk) -> None:
    disk.write("cmdline.txt", b"console=tty1 rootwait root=/dev/mmcblk0p2\nrw quiet\n")
    report = disk.check("pi2")
    assert only(report, "cmdline-lines") == "cmdline.txt has a second line (line 2): 'rw quiet'"
    assert report.bootable


BUILT_IN = b"console=tty1 root=/dev/mmcblk0p%d rootfstype=ext4 rootwait"


def test_without_cmdline_txt_the_firmware_has_a_line_of_its_own(disk: Disk) -> None:
    disk.remove("cmdline.txt")
    assert "cmdline-missing" in errors(disk.check("pi2"))
    disk.write("start.elf", bootfiles.start_elf(filler=BUILT_IN % 2 + b"\0"))
    report = disk.check("pi2")
    assert only(report, "cmdline-built-in") == (
        "cmdline.txt is missing; the firmware then takes its own: " + (BUILT_IN % 2).decode()
    )
    assert report.bootable
    assert report.node == "pi7"
    disk.write("start.elf", bootfiles.start_elf(filler=BUILT_IN % 3 + b"\0"))
    assert "root-elsewhere" in errors(disk.check("pi2"))
    disk.write("cmdline.txt", b"")
    assert "cmdline-missing" in errors(disk.check("pi2")), "an empty one is there"


@pytest.mark.parametrize("text", [None, b""])
def test_a_pi_5_needs_a_config_txt_that_says_something(tmp_path: Path, text: bytes | None) -> None:
    image, files = tmp_path / "card.img", minimal_boot_files("pi5")
    files.pop("config.txt")
    if text is not None:
        files["config.txt"] = text
    make_disk(image, files)
    report = Disk(image).check("pi5")
    what = "missing" if text is None else "empty"
    assert only(report, "config-needed") == f"config.txt is {what}"
    assert not report.bootable


def test_root_on_the_second_line_is_no_root(disk: Disk) -> None:
    disk.write("cmdline.txt", b"console=tty1 rootwait\nroot=/dev/mmcblk0p2 rw\n")
    assert errors(disk.check("pi2")) == {"cmdline-lines"}
    disk.write("config.txt", b"[all]\n")
    assert errors(disk.check("pi2")) == {"cmdline-lines", "root-missing"}


@pytest.mark.parametrize("words", ["quiet", "rdinit=/sbin/init", "quiet -- root=/dev/mmcblk0p9"])
def test_an_initramfs_needs_no_root_to_be_named(disk: Disk, words: str) -> None:
    disk.write("cmdline.txt", f"console=tty1 {words}\n".encode())
    report = disk.check("pi2")
    assert only(report, "root-unproven").startswith("cmdline.txt has no root=: the initramfs")
    assert report.bootable
    disk.write("config.txt", b"[all]\n")
    report = disk.check("pi2")
    assert only(report, "root-missing") == "cmdline.txt has no root="
    assert not report.bootable


@pytest.mark.parametrize("config", [bootfiles.CONFIG_TXT, b"[all]\n"])
@pytest.mark.parametrize(
    ("kinds", "fits"),
    [("ext4", True), ("squashfs,ext4", True), ("f2fs", False), ("btrfs,xfs", False),
     ("ext3", False), ("", False)],
)  # fmt: skip
def test_a_kind_of_root_that_is_not_there_stops_the_kernel(
    disk: Disk, kinds: str, fits: bool, config: bytes
) -> None:
    """An initramfs may take another way."""
    disk.write("config.txt", config)
    disk.write("cmdline.txt", f"root=/dev/mmcblk0p2 rw rootwait rootfstype={kinds}\n".encode())
    report = disk.check("pi2")
    assert report.bootable is (fits or config == bootfiles.CONFIG_TXT)
    if fits:
        assert report.findings == ()
    else:
        what = f"cmdline.txt: rootfstype={kinds}, and partition 2 holds ext4"
        assert only(report, "root-type") == what


def test_an_initramfs_may_find_out_the_kind_of_the_root(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rw rootwait rootfstype=auto\n")
    assert disk.check("pi2").findings == ()


def test_a_missing_rootwait_is_a_warning(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rw\n")
    report = disk.check("pi2")
    assert only(report, "rootwait")
    assert report.bootable


def test_a_windows_line_end_is_a_warning(disk: Disk) -> None:
    disk.write("cmdline.txt", b"root=/dev/mmcblk0p2 rootwait rw\r\n")
    assert only(disk.check("pi2"), "cmdline-text")


# -- root partition ------------------------------------------------------------------------------


def test_an_empty_root_partition_stops_the_boot(disk: Disk) -> None:
    disk.poke(ROOT_OFFSET, bytes(2 * MiB))
    report = disk.check("pi2")
    assert only(report, "root-filesystem")
    assert report.node is None


def test_another_root_filesystem_is_a_warning(disk: Disk) -> None:
    disk.poke(ROOT_OFFSET, bytes(2 * MiB))
    disk.poke(ROOT_OFFSET + 65536, b"\1" * 64)
    assert only(disk.check("pi2"), "root-unproven")


def test_a_journal_to_be_replayed_is_a_note(disk: Disk) -> None:
    place = f"{disk.image}?offset={ROOT_OFFSET}"
    tool("debugfs", "-w", "-R", "feature needs_recovery", place)
    report = disk.check("pi2")
    assert only(report, "root-journal")
    assert report.bootable
    assert report.node == "pi7"


@pytest.mark.parametrize("at", [1024, 1024 + 0x18, 4096, 5000, 9000])
def test_a_damaged_root_partition_does_not_stop_the_check(disk: Disk, at: int) -> None:
    disk.poke(ROOT_OFFSET + at, b"\xff" * 4096)
    disk.remove("fixup.dat")
    assert "fixup" in errors(disk.check("pi2"))


# -- what was put on the card --------------------------------------------------------------------


def digests() -> dict[str, str]:
    return {n: hashlib.sha256(c).hexdigest() for n, c in minimal_boot_files("pi2").items()}


@pytest.fixture
def listed(disk: Disk) -> Iterator[Disk]:
    """A card that carries its own list of boot files."""
    disk.write(SUMS_PATH, encode_sums(digests()))
    yield disk


def flip(disk: Disk, path: str, at: int = -1) -> None:
    """Flip one bit of a file where it lies on the card."""
    with reading(disk.image) as read:
        entry = FatVolume.parse(read, BOOT_OFFSET, BOOT_KIB * 1024).entries[path]
    place = entry.extents[0].offset + at % entry.size_bytes
    disk.poke(place, bytes([disk.peek(place, 1)[0] ^ 0x10]))


def test_a_card_that_holds_what_was_put_on_it_has_no_findings(listed: Disk) -> None:
    assert listed.check("pi2").findings == ()
    assert listed.check("pi2", expected=digests()).findings == ()


@pytest.mark.parametrize("path", sorted(minimal_boot_files("pi2")))
def test_one_flipped_bit_in_any_boot_file_names_the_file(listed: Disk, path: str) -> None:
    flip(listed, path, 60)
    report = listed.check("pi2")
    changed = [f for f in report.findings if f.code.value == "file-changed"]
    assert [f.path for f in changed] == [path]
    harmless = path.startswith("overlays/")
    assert report.bootable == harmless
    given = listed.check("pi2", expected=digests())
    assert path in {f.path for f in given.findings}


def put_dated(disk: Disk, path: str, content: bytes, date: str) -> None:
    """Put a file onto the boot partition with a date of its own."""
    source = disk.image.with_name("dated")
    source.write_bytes(content)
    tool("touch", "-d", date, source)
    tool("mcopy", "-o", "-m", "-i", disk.fat, source, f"::{path}")


def test_a_file_dated_after_the_list_was_replaced_not_damaged(listed: Disk) -> None:
    put_dated(listed, "kernel7.img", bootfiles.zimage(filler=b"\xbb"), "2099-01-01")
    report = listed.check("pi2")
    assert only(report, "file-replaced").startswith("kernel7.img")
    assert report.bootable
    assert "file-changed" in errors(listed.check("pi2", expected=digests()))


def test_a_file_as_old_as_the_list_was_not_replaced(listed: Disk) -> None:
    put_dated(listed, SUMS_PATH, encode_sums(digests()), "2026-01-01 12:00:00")
    put_dated(listed, "kernel7.img", bootfiles.zimage(filler=b"\xbb"), "2026-01-01 12:00:00")
    assert errors(listed.check("pi2")) == {"file-changed"}


def test_a_listed_file_that_is_gone_is_named(listed: Disk) -> None:
    listed.remove("overlays/README")
    report = listed.check("pi2")
    assert only(report, "file-lost") == "overlays/README is gone"
    assert report.bootable


def test_files_nobody_listed_are_named_but_not_first_boots_own(listed: Disk) -> None:
    listed.write("picloud/firstboot.json", b"{}\n")
    assert listed.check("pi2").findings == ()
    listed.write("kernel.img", b"old")
    assert only(listed.check("pi2"), "file-unlisted").endswith(": kernel.img")


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"not a list\n"])
def test_a_damaged_list_is_a_finding_and_no_crash(listed: Disk, damage: bytes) -> None:
    listed.write(SUMS_PATH, damage)
    report = listed.check("pi2")
    assert only(report, "sums-damaged").startswith(SUMS_PATH)
    assert report.bootable


def test_firmware_proven_by_its_digest_is_not_second_guessed(disk: Disk) -> None:
    odd = bootfiles.start_elf(headers=3)
    disk.write("start.elf", odd)
    known = digests() | {"start.elf": hashlib.sha256(odd).hexdigest()}
    assert disk.check("pi2", expected=known).findings == ()


# -- no damage makes the check fail --------------------------------------------------------------


def scramble(disk: Disk, seed: int) -> None:
    """Overwrite 40 random runs of the first MiB of each partition and of the table."""
    import random

    chance = random.Random(seed)
    for _ in range(40):
        start = chance.choice([0, BOOT_OFFSET, BOOT_OFFSET + 512 * 1024, ROOT_OFFSET])
        at = start + chance.randrange(0, 400_000 if start else 440)
        disk.poke(at, chance.randbytes(chance.choice([1, 2, 16, 200])))


@pytest.mark.parametrize("seed", range(12))
def test_a_scrambled_card_gets_a_report(disk: Disk, seed: int) -> None:
    scramble(disk, seed)
    report = disk.check()
    assert all(found.what and found.mend for found in report.findings)


def test_a_card_is_judged_as_the_model_it_was_made_for(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    made_for = {"picloud/node.json": b'{"format": 1, "model": "pi2"}'}
    files = minimal_boot_files("pi2") | minimal_boot_files("pi3") | made_for
    make_disk(image, files | {"bcm2709-rpi-2-b.dtb": b"damaged"})
    disk = Disk(image)
    report = disk.check()
    assert (report.judged_as, report.models, report.bootable) == ("pi2", ("pi3",), False)
    assert errors(report) == {"device-tree"}
    disk.write("picloud/node.json", b'{"model": 3')
    assert disk.check().judged_as == "pi3"


def test_a_file_that_claims_to_be_huge_is_not_read(disk: Disk) -> None:
    with reading(disk.image) as read:
        root = next(iter(FatVolume.parse(read, BOOT_OFFSET, BOOT_KIB * 1024).metadata))
    records = disk.peek(BOOT_OFFSET, root.end - BOOT_OFFSET)
    place = BOOT_OFFSET + records.index(b"KERNEL7 IMG")
    disk.poke(place + 28, struct.pack("<I", 0xFFFFFFFF))
    report = disk.check("pi2")
    assert {"kernel", "fat-chain"} == errors(report)
    said = [f.what for f in report.errors if f.code.value == "kernel"]
    assert said == ["kernel7.img has 4294967295 bytes, more than a Pi can load"]


def test_a_text_file_longer_than_any_is_read_so_far_and_the_rest_is_named(disk: Disk) -> None:
    lines = minimal_boot_files("pi2")["config.txt"] + b"# nothing\n" * 10_000 + b"kernel=gone.img\n"
    disk.write("config.txt", lines)
    report = disk.check("pi2")
    assert not errors(report)
    (unseen,) = [f for f in report.findings if f.code.value == "not-looked-at"]
    assert unseen.path == "config.txt"
    assert f"it has {len(lines)} bytes; the first 65536 were read" in unseen.what


BREAKS: dict[str, Callable[[Disk], None]] = {
    "fixup": lambda disk: disk.remove("fixup.dat"),
    "kernel": lambda disk: disk.remove("kernel7.img"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_without_a_model_the_report_is_about_the_nearest_one(disk: Disk, name: str) -> None:
    BREAKS[name](disk)
    report = disk.check()
    assert report.judged_as == "pi2"
    assert errors(report) == {name}
    assert report.models == ()
