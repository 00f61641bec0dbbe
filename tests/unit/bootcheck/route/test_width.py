"""The mode a processor is started in and the kernel it is started with, and pages of memory."""

from __future__ import annotations

import gzip

import pytest

from tests.support import bootfiles
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.bootmemory import errors_of, found

KERNELS = {32: bootfiles.zimage(), 64: bootfiles.arm64_image()}
PI4 = {
    "start4.elf": bootfiles.start_elf(),
    "fixup4.dat": bootfiles.fixup_dat(),
    "config.txt": CONFIG_TXT,
    "cmdline.txt": bootfiles.CMDLINE_TXT,
    "initramfs-linux.img": bootfiles.initramfs(),
    "bcm2711-rpi-4-b.dtb": bootfiles.fdt("raspberrypi,4-model-b", "brcm,bcm2711"),
}


def files_for(model: str, name: str, kernel: bytes, config: str) -> dict[str, bytes]:
    """A partition for ``model`` with one kernel, called ``name``."""
    files = dict(PI4 if model == "pi4" else minimal_boot_files(model))
    for other in ("kernel7.img", "kernel8.img"):
        files.pop(other, None)
    return {**files, name: kernel, "config.txt": config.encode() + CONFIG_TXT}


NAMED = "kernel=Image\n"
CANNOT = [
    ("pi3", "kernel7.img", 64, "", "under the name of a 32-bit one"),
    ("pi3", "kernel7.img", 64, "arm_64bit=0\n", "asks for 32-bit mode"),
    ("pi3", "kernel8.img", 32, "", "under the name of a 64-bit one"),
    ("pi3", "Image", 64, NAMED, "neither its name nor config.txt asks for 64-bit mode"),
    ("zero2w", "Image", 64, NAMED, "neither its name nor config.txt asks for 64-bit mode"),
    ("pi3", "Image", 64, NAMED + "arm_64bit=0\n", "asks for 32-bit mode"),
    ("pi3", "Image", 32, NAMED + "arm_64bit=1\n", "asks for 64-bit mode"),
    ("pi4", "Image", 64, NAMED + "arm_64bit=0\n", "asks for 32-bit mode"),
    ("pi4", "Image", 32, NAMED + "arm_64bit=1\n", "asks for 64-bit mode"),
    ("pi4", "kernel7l.img", 64, "", "under the name of a 32-bit one"),
    ("pi2", "kernel8.img", 32, "kernel=kernel8.img\n", "under the name of a 64-bit one"),
    ("pi2", "Image", 64, NAMED, "a Raspberry Pi 2 cannot run it"),
    ("pi5", "Image", 32, NAMED, "a Raspberry Pi 5 cannot run it"),
]
DEPENDS = [
    ("pi4", "Image", 64, NAMED, "the firmware's age"),
    ("pi4", "Image", 32, NAMED, "the firmware's age"),
    ("pi3", "kernel8.img", 64, "kernel=kernel8.img\narm_64bit=0\n", "as its name says"),
    ("pi4", "kernel7l.img", 32, "kernel=kernel7l.img\narm_64bit=1\n", "as its name says"),
]
GOOD = [
    ("pi3", "kernel7.img", 32, ""),
    ("pi3", "kernel8.img", 64, ""),
    ("pi3", "Image", 32, NAMED),
    ("pi3", "Image", 64, NAMED + "arm_64bit=1\n"),
    ("pi3", "Image", 64, NAMED + "arm_control=0x200\n"),
    ("pi3", "my-kernel8.img", 64, "kernel=my-kernel8.img\n"),
    ("pi3", "kernel8_rt.img", 64, "kernel=kernel8_rt.img\n"),
    ("pi3", "kernel8-32.img", 32, "kernel=kernel8-32.img\n"),
    ("pi3", "kernel.img", 64, "kernel=kernel.img\narm_64bit=1\n"),
    ("pi4", "kernel7l.img", 32, ""),
    ("pi4", "kernel8.img", 64, ""),
    ("pi4", "Image", 64, NAMED + "arm_64bit=1\n"),
    ("pi4", "Image", 32, NAMED + "arm_64bit=0\n"),
    ("pi5", "Image", 64, NAMED),
    ("pi5", "Image", 64, NAMED + "arm_64bit=0\n"),
]


@pytest.mark.parametrize(("model", "name", "bits", "config", "said"), CANNOT)
def test_a_kernel_of_another_width_than_its_processor_is_started_in_stops_the_boot(
    model: str, name: str, bits: int, config: str, said: str
) -> None:
    (finding,) = found(files_for(model, name, KERNELS[bits], config), model)
    assert (finding.code, finding.severity, finding.path) == ("kernel-width", "error", name)
    assert said in finding.what


@pytest.mark.parametrize(("model", "name", "bits", "config", "said"), DEPENDS)
def test_a_mode_that_depends_on_the_firmware_is_a_warning(
    model: str, name: str, bits: int, config: str, said: str
) -> None:
    (finding,) = found(files_for(model, name, KERNELS[bits], config), model)
    assert (finding.code, finding.severity, finding.path) == ("kernel-width", "warning", name)
    assert said in finding.what


@pytest.mark.parametrize(("model", "name", "bits", "config"), GOOD)
def test_a_kernel_of_the_width_its_processor_is_started_in_is_fine(
    model: str, name: str, bits: int, config: str
) -> None:
    assert found(files_for(model, name, KERNELS[bits], config), model) == []


def test_a_prefix_is_no_part_of_the_name() -> None:
    files = files_for("pi4", "kernel7l.img", KERNELS[32], "os_prefix=new-\n")
    moved = {f"new-{name}": data for name, data in files.items() if not name.startswith("con")}
    assert found({**files, **moved}, "pi4") == []


def test_of_a_kernel_under_the_names_of_both_widths_the_loaded_one_counts() -> None:
    files = files_for("pi3", "kernel8.img", KERNELS[64], "arm_64bit=1\n")
    assert found({**files, "kernel7.img": KERNELS[64]}, "pi3") == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("model", ["pi3", "zero2w", "pi4", "pi5"])
@pytest.mark.parametrize("page_kib", [4, 16, 64])
def test_pages_of_16_kib_are_for_the_processor_of_a_pi_5(
    model: str, page_kib: int, packed: bool
) -> None:
    kernel = bootfiles.arm64_image(page_kib=page_kib)
    files = files_for(model, "kernel_2712.img", gzip.compress(kernel) if packed else kernel,
                      "kernel=kernel_2712.img\n")  # fmt: skip
    findings = found(files, model)
    if page_kib != 16 or model == "pi5":
        assert findings == []
        return
    assert [(one.code, one.severity) for one in findings] == [("kernel-width", "error")]
    assert "kernel_2712.img is a kernel for pages of 16 KiB" in findings[0].what


def test_u_boot_starts_no_kernel_for_other_pages_either() -> None:
    files = minimal_boot_files("pi4") | {"Image": bootfiles.arm64_image(page_kib=16)}
    assert errors_of(files, "pi4") == ["kernel-width"]
