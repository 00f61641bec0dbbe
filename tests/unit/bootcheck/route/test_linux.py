"""Kernel, initramfs, device trees and command line of a Linux that the firmware starts itself."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess

import pytest

from imager.bootcheck.formats.initramfs import inspect_initramfs
from imager.bootcheck.formats.kernel import inspect_kernel
from imager.bootcheck.route.needs import tree_fault
from tests.support import bootfiles
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.bootmemory import errors_of, found

PI2, CM4 = minimal_boot_files("pi2"), minimal_boot_files("cm4")
MAIN = bootfiles.initramfs()
EXTRA = bootfiles.cpio({"lib/firmware/edid/edid.bin": b"\xff" * 300})
OWN = bootfiles.cpio({"dev": b"", "init": b"#!/bin/sh\n"})
NONE_OF_ITS_OWN = bootfiles.cpio({"dev": b"", "root": b""})
BANNER = b"Linux version 6.1.0-50-armmp (a@b) (gcc 12) #1 SMP\n\0"

# -- initramfs -----------------------------------------------------------------------------------


def with_initramfs(line: str, **files: bytes) -> dict[str, bytes]:
    given = {name.replace("_", "."): data for name, data in files.items()}
    return PI2 | {"config.txt": line.encode()} | given


@pytest.mark.parametrize(
    ("line", "files"),
    [("initramfs a.img,b.img followkernel", {"a_img": MAIN, "b_img": EXTRA}),
     ("initramfs b.img,a.img followkernel", {"a_img": MAIN, "b_img": EXTRA}),
     ("initramfs a.img,b.img followkernel", {"a_img": MAIN, "b_img": gzip.compress(EXTRA * 9)}),
     ("initramfs a.img,b.img followkernel", {"a_img": lzma.compress(EXTRA), "b_img": OWN}),
     ("ramfsfile=b.img,a.img", {"a_img": MAIN, "b_img": EXTRA}),
     ("initramfs a.img,,b.img followkernel", {"a_img": MAIN, "b_img": EXTRA}),
     ("initramfs b.img followkernel\nramfsfile=a.img", {"a_img": MAIN, "b_img": EXTRA})],
)  # fmt: skip
def test_any_file_of_an_initramfs_may_have_the_init(line: str, files: dict[str, bytes]) -> None:
    assert errors_of(with_initramfs(line, **files), "pi2") == []


@pytest.mark.parametrize("packed", [EXTRA, EXTRA + bytes(500), lzma.compress(EXTRA)])
def test_one_init_is_asked_of_all_files_together(packed: bytes) -> None:
    files = with_initramfs("initramfs a.img,b.img followkernel", a_img=EXTRA, b_img=packed)
    (finding,) = found(files, "pi2")
    assert (finding.code, finding.path) == ("initramfs", "a.img")
    assert "a.img and b.img" in finding.what
    for part in (b"", OWN):
        kernel = bootfiles.zimage(size=len(OWN) * 2 + 4096, filler=b"\0")
        files["kernel7.img"] = kernel[:3000] + part + kernel[3000 + len(part) :]
        assert errors_of(files, "pi2") == ([] if part else ["initramfs"])


@pytest.mark.parametrize("name", ["init", "./init", "/init", "//init", ".//init"])
def test_the_init_may_stand_in_an_archive_by_any_path_from_its_root(name: str) -> None:
    archive = bootfiles.cpio({"dev": b"", name: b"#!/bin/sh\n"})
    for data in (archive, gzip.compress(archive)):
        assert inspect_initramfs(data).has_init is True
    assert inspect_initramfs(bootfiles.cpio({"x/init": b"", "..init": b""})).has_init is False


def test_another_first_program_of_the_initramfs_is_no_init() -> None:
    archive = bootfiles.cpio({"sbin/init": b"#!/bin/sh\n"})
    files = with_initramfs("initramfs a.img followkernel", a_img=archive)
    assert errors_of(files, "pi2") == ["initramfs"]
    files["cmdline.txt"] = b"rdinit=/sbin/init root=/dev/mmcblk0p2 rootwait\n"
    assert found(files, "pi2") == []


@pytest.mark.parametrize(("length", "said"), [(64, False), (65, True)])
def test_a_name_of_an_initramfs_that_the_firmware_cuts_is_a_warning(
    length: int, said: bool
) -> None:
    name = "i" * (length - 4) + ".img"
    files = PI2 | {"config.txt": f"initramfs {name} followkernel\n".encode(), name: MAIN}
    findings = found(files, "pi2")
    assert [(one.code, one.severity) for one in findings] == (
        [("config-line", "warning")] if said else []
    )
    if said:
        assert f"{name} has 65 bytes; of initramfs the firmware reads 64" in findings[0].what


@pytest.mark.parametrize("name", ["a.img", "b.img"])
def test_each_file_of_an_initramfs_must_be_whole(name: str) -> None:
    files = with_initramfs("initramfs a.img,b.img followkernel", a_img=MAIN, b_img=EXTRA)
    (finding,) = found(files | {name: files[name][:-20]}, "pi2")
    assert (finding.code, finding.path) == ("initramfs", name)
    del files[name]
    (finding,) = found(files, "pi2")
    assert finding.what == f"{name} is missing"


def test_auto_initramfs_takes_the_one_of_its_kernel() -> None:
    files = PI2 | {"config.txt": b"auto_initramfs=1\n", "initramfs7": MAIN[:-30]}
    assert errors_of(files, "pi2") == ["initramfs"]
    del files["initramfs7"]
    assert errors_of(files, "pi2") == []


def test_an_init_in_a_packed_archive_is_seen() -> None:
    assert inspect_initramfs(gzip.compress(OWN)).has_init is True
    assert inspect_initramfs(gzip.compress(EXTRA)).has_init is False
    assert inspect_initramfs(EXTRA).has_init is False
    assert inspect_initramfs(EXTRA + bytes(8) + MAIN).has_init is True


# -- kernel --------------------------------------------------------------------------------------


def zimage_with(payload: bytes) -> bytes:
    head = bootfiles.zimage(size=4096 + len(payload))
    return head[:4096] + payload


KERNELS = {
    "arm64": bootfiles.arm64_image() + BANNER,
    "arm64.gz": gzip.compress(bootfiles.arm64_image() + BANNER),
    "zimage": zimage_with(BANNER),
    "zimage gzip": zimage_with(gzip.compress(bytes(9000) + BANNER) + b"behind"),
    "zimage xz": zimage_with(lzma.compress(bytes(9000) + BANNER) + b"behind"),
    "zimage lzma": zimage_with(lzma.compress(bytes(9000) + BANNER, format=lzma.FORMAT_ALONE)),
    "zimage, a mark that means nothing": zimage_with(
        b"\x1f\x8b\x08 no gzip" + gzip.compress(bytes(9000) + BANNER)
    ),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_a_kernel_says_its_release(kind: str) -> None:
    assert inspect_kernel(KERNELS[kind]).release == "6.1.0-50-armmp"
    assert inspect_kernel(KERNELS[kind]).fault is None


def test_a_kernel_packed_in_an_unknown_way_says_none() -> None:
    assert inspect_kernel(zimage_with(b"\x89LZO" * 40)).release == ""


@pytest.mark.parametrize(("inside", "seen"), [(OWN, True), (NONE_OF_ITS_OWN, False)])
def test_an_initramfs_of_the_kernels_own_is_seen(inside: bytes, seen: bool) -> None:
    content = bytes(5000) + BANNER + inside
    for kernel in (zimage_with(gzip.compress(content)), bootfiles.arm64_image() + content,
                   gzip.compress(bootfiles.arm64_image() + content)):  # fmt: skip
        assert inspect_kernel(kernel).own_init is seen


# -- device trees: what dtc refuses --------------------------------------------------------------

TREE = bootfiles.fdt("raspberrypi,2-model-b", "brcm,bcm2836")
STRUCT_AT, STRINGS_AT = struct.unpack_from(">II", TREE, 8)
(STRINGS_SIZE,) = struct.unpack_from(">I", TREE, 32)


def assembled(
    blocks: bytes, *, strings: bytes = b"compatible\0", reserved: bytes = bytes(16)
) -> bytes:
    at = 40 + len(reserved)
    total = at + len(blocks) + len(strings)
    head = (0xD00DFEED, total, at, at + len(blocks), 40, 17, 16, 0, len(strings), len(blocks))
    return struct.pack(">10I", *head) + reserved + blocks + strings


ROOT = struct.pack(">II", 1, 0) + struct.pack(">III4s", 3, 4, 0, b"a,b\0") + struct.pack(">I", 2)
END = struct.pack(">I", 9)
REFUSED = {
    "two roots": assembled(ROOT + ROOT + END),
    "no root": assembled(END),
    "a property outside of every node": assembled(ROOT + ROOT[8:24] + END),
    "a property name with no end": assembled(ROOT + END, strings=b"compatible"),
    "a property name behind the strings": assembled(ROOT + END, strings=b""),
    "a reservation list with no end": assembled(ROOT + END, reserved=b"\0\0\0\1" * 8),
    "a node that is not closed": assembled(ROOT[:-4] + END),
    "a node closed twice": assembled(ROOT + struct.pack(">I", 2) + END),
    "no end": assembled(ROOT),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_dtc_refuses_is_refused(kind: str) -> None:
    assert tree_fault(REFUSED[kind])
    if kind == "two roots":
        assert "a second root node" in (tree_fault(REFUSED[kind]) or "")
    if shutil.which("dtc") and "reservation" not in kind:  # dtc reads what lies behind as well
        read = subprocess.run(
            ["dtc", "-q", "-I", "dtb", "-O", "dts", "-"], input=REFUSED[kind], capture_output=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert read.returncode != 0


@pytest.mark.parametrize("end", [0, 0x2000])
def test_a_list_of_reservations_ends_with_a_size_of_zero_as_for_libfdt(end: int) -> None:
    reserved = struct.pack(">4Q", 0x1000, 0x1000, end, 0)
    assert tree_fault(assembled(ROOT + END, reserved=reserved)) is None


# -- command line --------------------------------------------------------------------------------

LINE = "root=/dev/mmcblk0p2 rootwait rw\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\xef\xbb\xbf" + LINE.encode(), "byte order mark"), (LINE.encode("utf-16"), "UTF-16"),
     (LINE.encode("utf-16-le"), "UTF-16"), (LINE.encode("utf-16-be"), "UTF-16"),
     (b"quiet\0" + LINE.encode(), "zero byte")],
)  # fmt: skip
def test_a_root_that_is_lost_in_what_is_no_text_is_told_as_that(data: bytes, said: str) -> None:
    (finding,) = found(PI2 | {"cmdline.txt": data}, "pi2")
    assert (finding.code, finding.severity) == ("text-form", "error")
    assert said in finding.what
    assert "root= is lost" in finding.what


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfquiet " + LINE.encode(), LINE.encode() + bytes(30),
             LINE.encode()[:-1] + b"\0" * 3]
)  # fmt: skip
def test_what_is_no_text_and_loses_nothing_is_a_warning(data: bytes) -> None:
    (finding,) = found(PI2 | {"cmdline.txt": data}, "pi2")
    assert (finding.code, finding.severity) == ("text-form", "warning")


def test_a_line_end_of_windows_is_called_that() -> None:
    (finding,) = found(PI2 | {"cmdline.txt": LINE.encode()[:-1] + b"\r\n"}, "pi2")
    assert (finding.code, finding.severity) == ("cmdline-text", "warning")
    assert "carriage return" in finding.what


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\xef\xbb\xbfkernel=other.img\n", "byte order mark"), (b"\0\0\0\0\0", "zero byte"),
     ("kernel=x\n".encode("utf-16"), "UTF-16"), (b"a=1\rb=2\n", "carriage return")],
)  # fmt: skip
def test_a_config_txt_that_is_no_text_is_told(data: bytes, said: str) -> None:
    (finding,) = found(PI2 | {"config.txt": data}, "pi2")
    assert (finding.code, finding.path) == ("text-form", "config.txt")
    assert said in finding.what


def test_what_is_cut_at_column_98_is_looked_for_as_it_is_cut() -> None:
    long = "k" * 120 + ".img"
    files = PI2 | {"config.txt": CONFIG_TXT + f"kernel={long}\n".encode(), long: PI2["kernel7.img"]}
    assert [one.code.value for one in found(files, "pi2")] == ["config-line", "kernel"]
