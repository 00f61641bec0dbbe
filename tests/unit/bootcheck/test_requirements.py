"""What is told from the content of boot files: kernels, device trees, firmware, initramfs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imager.bootcheck.formats import firmware
from imager.bootcheck.formats.device_tree import FdtError, root_compatible
from imager.bootcheck.formats.initramfs import initramfs_fault
from imager.bootcheck.formats.kernel import boot_script_fault, inspect_kernel
from imager.bootcheck.route.needs import tree_fault
from tests.support import bootfiles

CPIO = bootfiles.cpio({"init": b"#!/bin/sh\n", "lib/modules/x.ko": bytes(range(256)) * 40})
PACKED: dict[str, bytes] = {
    "plain": CPIO,
    "gzip": gzip.compress(CPIO),
    "xz": lzma.compress(CPIO, check=lzma.CHECK_CRC32),
    "lzma": lzma.compress(CPIO, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress(CPIO),
    "early": bootfiles.initramfs(),
}


def kernel_fault(data: bytes) -> str | None:
    return inspect_kernel(data).fault


WHOLE: dict[str, tuple[bytes, Callable[[bytes], str | None]]] = {
    "zimage": (bootfiles.zimage(), kernel_fault),
    "arm64.gz": (gzip.compress(bootfiles.arm64_image()), kernel_fault),
    "dtb": (bootfiles.fdt("raspberrypi,2-model-b", "brcm,bcm2836"), tree_fault),
    "start.elf": (bootfiles.start_elf(), firmware.start_fault),
    "boot.scr": (bootfiles.boot_script(), boot_script_fault),
    **{f"initramfs {name}": (data, initramfs_fault) for name, data in PACKED.items()},
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_has_no_fault(name: str) -> None:
    data, judge = WHOLE[name]
    assert judge(data) is None


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_file_cut_off_anywhere_has_a_fault(name: str, part: float) -> None:
    data, judge = WHOLE[name]
    assert judge(data[: int(len(data) * part)])


@pytest.mark.parametrize("name", WHOLE)
@given(edits=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6))
@settings(max_examples=60, deadline=None)
def test_no_damage_makes_a_judge_raise(name: str, edits: list[tuple[int, int]]) -> None:
    data, judge = WHOLE[name]
    damaged = bytearray(data)
    for place, value in edits:
        damaged[place % len(damaged)] = value
    fault = judge(bytes(damaged))
    assert fault is None or fault


@pytest.mark.parametrize(
    "judge",
    [kernel_fault, tree_fault, firmware.start_fault, firmware.bootcode_fault, boot_script_fault,
     initramfs_fault],
)  # fmt: skip
@given(data=st.binary(min_size=1, max_size=200))
@settings(max_examples=60)
def test_garbage_has_a_fault(judge: Callable[[bytes], str | None], data: bytes) -> None:
    assume(b"_FVH" not in data)  # the mark of a UEFI, which is not judged from here
    assert judge(data)


# -- kernels -------------------------------------------------------------------------------------


def test_kernels_tell_their_width() -> None:
    assert inspect_kernel(bootfiles.zimage()).bits == 32
    assert inspect_kernel(bootfiles.arm64_image()).bits == 64
    assert inspect_kernel(gzip.compress(bootfiles.arm64_image())).bits == 64
    assert inspect_kernel(bootfiles.uboot()).bits is None
    assert inspect_kernel(bootfiles.uboot()).fault is None


def test_a_truncated_zimage_says_how_much_is_there() -> None:
    assert inspect_kernel(bootfiles.zimage(size=5000)[:4999]).fault == (
        "it is cut off: 4999 bytes of 5000"
    )


def test_gzip_data_that_is_no_kernel_is_none() -> None:
    assert "no arm64 kernel" in (kernel_fault(gzip.compress(b"hello")) or "")


def test_boot_scr_with_a_changed_byte_is_found() -> None:
    data = bytearray(bootfiles.boot_script())
    data[-1] ^= 1
    assert boot_script_fault(bytes(data)) == "the checksum of its content is wrong"
    data = bytearray(bootfiles.boot_script())
    data[40] ^= 1
    assert boot_script_fault(bytes(data)) == "the checksum of its header is wrong"


# -- device trees --------------------------------------------------------------------------------


def test_the_boards_of_a_device_tree_are_read() -> None:
    assert root_compatible(bootfiles.fdt("a,b", "c,d")) == ("a,b", "c,d")


def test_a_tree_that_lost_its_last_byte_says_so() -> None:
    data = bootfiles.fdt("a,b")
    assert tree_fault(data[:-1]) == (
        f"it is {len(data) - 1} bytes long and says it should be {len(data)}"
    )


def test_a_tree_by_the_device_tree_compiler_is_read() -> None:
    if shutil.which("dtc") is None:
        pytest.skip("dtc is not installed")
    source = b"""/dts-v1/; / {
        compatible = "raspberrypi,2-model-b", "brcm,bcm2836";
        soc { compatible = "simple-bus"; uart@7e201000 { status = "okay"; }; }; };"""
    made = subprocess.run(
        ["dtc", "-q", "-I", "dts", "-O", "dtb", "-"], input=source, capture_output=True, check=True
    )
    assert root_compatible(made.stdout) == ("raspberrypi,2-model-b", "brcm,bcm2836")


@given(st.binary(max_size=400))
def test_a_tree_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    head = bootfiles.fdt("a")[:40]
    for candidate in (data, head + data):
        try:
            root_compatible(candidate)
        except FdtError as error:
            assert str(error)


# -- firmware ------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [1, 2, 22])
def test_a_start_and_its_fixup_are_a_pair(headers: int) -> None:
    start, fixup = bootfiles.start_elf(headers=headers), bootfiles.fixup_dat(headers=headers)
    assert firmware.knows_fixup(fixup)
    assert firmware.pair_fault(start, fixup) is None


@pytest.mark.parametrize(("headers", "fixed"), [(1, 2), (3, 2), (22, 23)])
def test_a_fixup_for_another_firmware_is_found(headers: int, fixed: int) -> None:
    start, fixup = bootfiles.start_elf(headers=headers), bootfiles.fixup_dat(headers=fixed)
    fault = firmware.pair_fault(start, fixup) or ""
    assert "program headers" in fault or "holds no address" in fault


def test_a_fixup_that_would_change_no_address_is_found() -> None:
    # One more place to change, 256 bytes on, where the firmware holds text.
    fixup = bootfiles.fixup_dat(headers=2)[:5] + b"\x01\x20\0\0" + b"\0rest"
    start = bootfiles.start_elf(headers=2, filler=b"text" * 50)
    assert "which holds no address" in (firmware.pair_fault(start, fixup) or "")


@given(st.binary(max_size=200))
def test_any_fixup_gets_an_answer(data: bytes) -> None:
    firmware.pair_fault(bootfiles.start_elf(), data)
    firmware.pair_fault(bootfiles.start_elf(), bootfiles.fixup_dat()[:5] + data)


def test_a_program_for_a_pc_is_no_firmware() -> None:
    data = bytearray(bootfiles.start_elf())
    data[18] = 62
    assert "another processor" in (firmware.start_fault(bytes(data)) or "")


def test_the_build_of_a_firmware_is_read() -> None:
    assert firmware.build_id(bootfiles.start_elf(build="c0ffee0")) == "c0ffee0"
    assert firmware.build_id(b"nothing") is None


def test_a_bootcode_too_large_for_the_rom_is_named() -> None:
    assert "131072" in (firmware.bootcode_fault(bootfiles.bootcode() + bytes(200_000)) or "")


# -- initramfs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [["zstd", "-q"], ["lz4", "-l", "-q"]], ids=["zstd", "lz4"])
def test_archives_packed_by_other_tools_are_followed(tool: list[str]) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    packed = subprocess.run([*tool, "-c"], input=CPIO, capture_output=True, check=True).stdout
    assert initramfs_fault(packed) is None
    assert initramfs_fault(packed + bytes(1000)) is None
    assert "cut off" in (initramfs_fault(packed[:-40]) or "")


@pytest.mark.parametrize("name", PACKED)
def test_zeros_between_and_after_archives_are_fine(name: str) -> None:
    assert initramfs_fault(CPIO + bytes(512) + PACKED[name] + bytes(777)) is None


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_one_wrong_bit_in_a_packed_archive_is_found(name: str) -> None:
    data = bytearray(PACKED[name])
    data[len(data) // 2] ^= 4
    assert "damaged" in (initramfs_fault(bytes(data)) or "")


def test_an_archive_without_its_end_mark_is_incomplete() -> None:
    assert "no complete cpio" in (initramfs_fault(gzip.compress(CPIO[:-200])) or "")
    assert "no complete cpio" in (initramfs_fault(gzip.compress(b"")) or "")


def test_an_early_archive_alone_is_no_initramfs() -> None:
    early = bootfiles.cpio({"early_cpio": b"1\n"})
    assert "it has no init" in (initramfs_fault(early + bytes(300)) or "")


def test_what_follows_an_archive_must_be_one() -> None:
    assert "begins no archive" in (initramfs_fault(CPIO + b"rubbish") or "")
