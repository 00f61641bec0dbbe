"""What is started in the place of Linux: told, and followed or not."""

from __future__ import annotations

import gzip

import pytest

from imager.bootcheck.route.chain import Chain
from tests.support import bootfiles
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.bootmemory import errors_of, found, judged

PI2, CM4 = minimal_boot_files("pi2"), minimal_boot_files("cm4")
PAIR4 = {"start4.elf": bootfiles.start_elf(), "fixup4.dat": bootfiles.fixup_dat()}
PAIR = {name: PI2[name] for name in ("bootcode.bin", "start.elf", "fixup.dat")}
VOLUME = bytes(40) + b"_FVH" + bytes(4000)
PROGRAM = b"\x14\0\0\xea" + bytes(range(256)) * 20
FAT_IMAGE = b"\xeb\x3c\x90".ljust(510, b"\1") + b"\x55\xaa" + bytes(4096)
WITHOUT_KERNEL = {name: data for name, data in CM4.items() if name not in ("kernel8.img",)}


def not_followed(files: dict[str, bytes], model: str, chain: Chain) -> str:
    """The one sentence that ends such a route."""
    seen = judged(files, model)
    (finding,) = list(seen.findings())
    assert (finding.code, finding.severity) == ("route-not-followed", "warning")
    assert seen.route.chain is chain
    assert finding.what.endswith("not checked from here")
    return finding.what


@pytest.mark.parametrize(
    ("config", "files"),
    [(b"armstub=RPI_EFI.fd\n", {"RPI_EFI.fd": PROGRAM}),
     (b"arm_64bit=1\narmstub=firmware.bin\n", {"firmware.bin": VOLUME}),
     (b"armstub=/EFI.FD\n", {"efi.fd": PROGRAM}),
     (b"kernel=RPI_EFI.fd\n", {"RPI_EFI.fd": PROGRAM}),
     (b"kernel=program.bin\n", {"program.bin": VOLUME})],
)  # fmt: skip
@pytest.mark.parametrize("model", ["cm4", "pi4", "pi3"])
def test_uefi_needs_neither_kernel_nor_command_line(
    config: bytes, files: dict[str, bytes], model: str
) -> None:
    pair = PAIR if model == "pi3" else PAIR4
    said = not_followed({"config.txt": config, **pair, **files}, model, Chain.UEFI)
    assert "UEFI" in said


def test_a_stub_without_a_kernel_is_started_alone_and_one_with_a_kernel_before_it() -> None:
    stub = {"bl31.bin": PROGRAM, "config.txt": CONFIG_TXT + b"armstub=bl31.bin\n"}
    not_followed(WITHOUT_KERNEL | stub, "cm4", Chain.STUB)
    assert found(CM4 | stub, "cm4") == []


def test_a_stub_that_is_missing_is_told_and_what_stands_without_it_is_judged() -> None:
    config = {"config.txt": CONFIG_TXT + b"armstub=RPI_EFI.fd\n"}
    (finding,) = found(CM4 | config, "cm4")
    assert (finding.code, finding.severity) == ("program-missing", "warning")
    assert errors_of(WITHOUT_KERNEL | config, "cm4") == ["kernel"]


@pytest.mark.parametrize("model", ["pi4", "cm4", "pi5"])
def test_a_system_inside_boot_img_needs_nothing_else(model: str) -> None:
    files = {"config.txt": b"boot_ramdisk=1\n", "boot.img": FAT_IMAGE, "boot.sig": b"x"}
    not_followed(files, model, Chain.RAMDISK)


@pytest.mark.parametrize("content", [b"", bytes(4096), b"\xff" * 4096])
def test_a_boot_img_that_is_lost_stops_the_boot(content: bytes) -> None:
    assert errors_of({"config.txt": b"boot_ramdisk=1\n", "boot.img": content}, "pi4") == [
        "boot-image"
    ]


def test_boot_ramdisk_without_its_image_is_told() -> None:
    codes = [one.code.value for one in found(CM4 | {"config.txt": b"boot_ramdisk=1\n"}, "cm4")]
    assert codes == ["program-missing"]


def test_a_board_with_bootcode_bin_knows_no_boot_ramdisk() -> None:
    files = {"config.txt": CONFIG_TXT + b"boot_ramdisk=1\n", "boot.img": FAT_IMAGE}
    assert found(PI2 | files, "pi2") == []


UBOOTS = {
    "by name": ("uboot.bin", PROGRAM),
    "by another name": ("u-boot-rpi3.bin", PROGRAM),
    "by content": ("loader.bin", bootfiles.uboot()),
    "packed": ("loader.gz", gzip.compress(bootfiles.uboot())),
    "with the head of a kernel": ("loader.img", bootfiles.arm64_image() + bootfiles.uboot()),
    "by its script": ("loader.img", PROGRAM),
}


@pytest.mark.parametrize("how", UBOOTS)
@pytest.mark.parametrize("model", ["pi2", "pi3", "pi4", "pi5"])
def test_a_foreign_u_boot_is_known_on_every_board(how: str, model: str) -> None:
    name, content = UBOOTS[how]
    files = {"config.txt": f"kernel={name}\n".encode(), name: content}
    files |= PAIR if model in ("pi2", "pi3") else PAIR4
    if how == "by its script":
        files["boot.scr"] = bootfiles.boot_script()
    not_followed(files, model, Chain.UBOOT)


@pytest.mark.parametrize("content", [b"", bytes(5000), b"\xff" * 5000])
def test_a_u_boot_that_is_lost_stops_the_boot(content: bytes) -> None:
    files = PAIR | {"config.txt": b"kernel=uboot.bin\n", "uboot.bin": content}
    assert errors_of(files, "pi2") == ["kernel"]


def test_a_script_for_a_foreign_u_boot_must_be_whole_unless_extlinux_comes_first() -> None:
    script = bootfiles.boot_script()[:-3]
    files = PAIR | {"config.txt": b"kernel=uboot.bin\n", "uboot.bin": PROGRAM, "boot.scr": script}
    assert errors_of(files, "pi2") == ["boot-script"]
    assert errors_of(files | {"extlinux/extlinux.conf": b"label a\n"}, "pi2") == []


def test_a_program_that_is_no_linux_is_not_judged() -> None:
    files = PAIR | {"config.txt": b"kernel=RISCOS.IMG\n", "RISCOS.IMG": PROGRAM}
    not_followed({**files, "config.txt": b"kernel=riscos\n", "riscos": PROGRAM}, "pi2", Chain.OTHER)
    for name in ("kernel7.img", "vmlinuz-6.1", "zImage"):
        broken = {**files, "config.txt": f"kernel={name}\n".encode(), name: PROGRAM}
        assert "kernel" in errors_of(broken, "pi2"), "a kernel that is damaged is no other program"


def test_an_installer_is_started_before_any_firmware() -> None:
    for files, model, name in ((PI2, "pi2", "recovery.elf"), (CM4, "cm4", "recover4.elf")):
        other = {"recovery.elf": "recover4.elf", "recover4.elf": "recovery.elf"}[name]
        not_followed(files | {name: bootfiles.start_elf()}, model, Chain.RECOVERY)
        assert found(files | {other: bootfiles.start_elf()}, model) == []
    lost = {"recovery.elf": bootfiles.start_elf(), "config.txt": b""}
    assert errors_of(lost, "pi2") == ["bootcode"]


def test_the_distributions_u_boot_is_followed() -> None:
    seen = judged(minimal_boot_files("pi4"), "pi4")
    assert list(seen.findings()) == []
    assert seen.route.followed
    assert str(seen.route).endswith("kernel8.img (U-Boot) → boot.scr → Image")
