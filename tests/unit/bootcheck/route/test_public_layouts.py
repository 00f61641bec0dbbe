"""Boot partitions as public systems lay them out: each boots, so none may be called broken.

Each is rebuilt small from the system's public description: the settings that choose files, and
look-alikes of the files they choose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.support import bootfiles
from tests.support.bootmemory import errors_of, judged

K32, K64, INITRD = bootfiles.zimage(), bootfiles.arm64_image(), bootfiles.initramfs()
UBOOT = bootfiles.uboot()
SCRIPT = bootfiles.boot_script()
PROGRAM = b"\x14\0\0\xea" + bytes(range(256)) * 20
PARTUUID = b"root=PARTUUID=5eed1e57-02 rootfstype=ext4 fsck.repair=yes rootwait\n"


def _pair(name: str) -> dict[str, bytes]:
    return {
        f"start{name}.elf": bootfiles.start_elf(),
        f"fixup{name}.dat": bootfiles.fixup_dat(),
    }


OLDER = {"bootcode.bin": bootfiles.bootcode(), **_pair(""), **_pair("_x"), **_pair("_cd")}
NEWER = {**_pair("4"), **_pair("4x"), **_pair("4cd")}
TREES = {
    name: bootfiles.fdt(compatible)
    for name, compatible in {
        "bcm2708-rpi-b.dtb": "raspberrypi,model-b",
        "bcm2709-rpi-2-b.dtb": "raspberrypi,2-model-b",
        "bcm2710-rpi-2-b.dtb": "raspberrypi,2-model-b-rev2",
        "bcm2710-rpi-3-b.dtb": "raspberrypi,3-model-b",
        "bcm2710-rpi-3-b-plus.dtb": "raspberrypi,3-model-b-plus",
        "bcm2710-rpi-zero-2-w.dtb": "raspberrypi,model-zero-2-w",
        "bcm2711-rpi-4-b.dtb": "raspberrypi,4-model-b",
        "bcm2712-rpi-5-b.dtb": "raspberrypi,5-model-b",
        "bcm2712d0-rpi-5-b.dtb": "raspberrypi,5-model-b",
    }.items()
}
UPSTREAM = {
    name.replace("bcm2709", "bcm2836").replace("bcm2710", "bcm2837"): data
    for name, data in TREES.items()
}
ALL = {**OLDER, **NEWER, **TREES}
MOST = ("pi2", "pi3", "zero2w", "pi4")


@dataclass(frozen=True)
class Layout:
    """A boot partition: config.txt, the line for the kernel, other files, and the boards that it
    boots."""

    models: tuple[str, ...]
    config: str
    files: dict[str, bytes] = field(default_factory=dict)
    cmdline: bytes | None = PARTUUID
    firmware: dict[str, bytes] = field(default_factory=lambda: ALL)

    def content(self) -> dict[str, bytes]:
        found = {**self.firmware, **self.files, "config.txt": self.config.encode()}
        return found if self.cmdline is None else {**found, "cmdline.txt": self.cmdline}


def under(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {prefix + name: data for name, data in files.items()}


KERNELS = {"kernel.img": K32, "kernel7.img": K32, "kernel7l.img": K32}
WIDE = {"kernel8.img": K64, "kernel_2712.img": K64}
AUTO = {f"initramfs{name}": INITRD for name in ("", "7", "7l", "8", "_2712")}
PI_OS = """dtparam=audio=on
camera_auto_detect=1
display_auto_detect=1
auto_initramfs=1
dtoverlay=vc4-kms-v3d
max_framebuffers=2
disable_fw_kms_setup=1
disable_overscan=1
arm_boost=1
[cm4]
otg_mode=1
[cm5]
dtoverlay=dwc2,dr_mode=host
[all]
"""
UBUNTU = """[all]
kernel=vmlinuz
cmdline=cmdline.txt
initramfs initrd.img followkernel
[pi4]
max_framebuffers=2
arm_boost=1
[all]
arm_64bit=1
dtparam=i2c_arm=on
[cm4]
dtoverlay=dwc2,dr_mode=host
[all]
"""
PFTF = """arm_64bit=1
arm_boost=1
enable_uart=1
enable_gic=1
armstub=RPI_EFI.fd
disable_commandline_tags=1
disable_overscan=1
device_tree_address=0x1f0000
device_tree_end=0x200000
dtoverlay=miniuart-bt
"""
LINUX64 = {"vmlinuz": K64, "initrd.img": INITRD}
LAYOUTS = {
    "Raspberry Pi OS, 64 bits": Layout(
        ("pi3", "zero2w", "pi4", "pi5"), PI_OS + "arm_64bit=1\n", {**WIDE, **AUTO}
    ),
    "Raspberry Pi OS, 32 bits": Layout(MOST, PI_OS, {**KERNELS, **AUTO}),
    "Raspberry Pi OS of before 2023": Layout(
        MOST,
        "dtparam=audio=on\n[pi4]\ndtoverlay=vc4-fkms-v3d\nmax_framebuffers=2\n[all]\n",
        KERNELS,
    ),
    "Raspberry Pi OS with the old camera": Layout(("pi3",), "start_x=1\ngpu_mem=128\n", KERNELS),
    "Ubuntu, 64 bits": Layout(("pi3", "pi4", "pi5"), UBUNTU, LINUX64),
    "Ubuntu with a system on trial": Layout(
        ("pi4", "pi5"),
        UBUNTU + "os_prefix=current/\n[tryboot]\nos_prefix=new/\n[all]\n",
        under("current/", {**LINUX64, **TREES, "cmdline.txt": PARTUUID}),
        None,
        {**OLDER, **NEWER},
    ),
    "Ubuntu, 32 bits, with U-Boot": Layout(
        ("pi2", "pi3"),
        "[pi2]\nkernel=uboot_rpi_2.bin\n[pi3]\nkernel=uboot_rpi_3.bin\n[all]\n"
        "device_tree_address=0x03000000\n",
        {"uboot_rpi_2.bin": PROGRAM, "uboot_rpi_3.bin": PROGRAM, "boot.scr": SCRIPT},
        None,
    ),
    "Ubuntu Core": Layout(
        ("pi2", "pi3", "pi4"),
        "[all]\nkernel=uboot.bin\ndevice_tree_address=0x02000000\nos_prefix=/\n",
        {"uboot.bin": UBOOT, "uboot.env": b"\0" * 512},
        b"dwc_otg.lpm_enable=0 console=tty0\n",
    ),
    "Ubuntu Core without U-Boot": Layout(
        ("pi4",),
        "[all]\narm_64bit=1\nos_prefix=/piboot/ubuntu/pi-kernel_1.snap/\nkernel=kernel.img\n"
        "initramfs initrd.img followkernel\n",
        under(
            "piboot/ubuntu/pi-kernel_1.snap/",
            {"kernel.img": K64, "initrd.img": INITRD, "cmdline.txt": PARTUUID, **TREES},
        ),
        None,
        NEWER,
    ),
    "Home Assistant OS": Layout(
        ("pi3", "pi4"),
        "disable_splash=1\nkernel=u-boot.bin\narm_64bit=1\n[pi4]\ndtoverlay=x\n[all]\n",
        {"u-boot.bin": UBOOT, "boot.scr": SCRIPT, "haos-config.txt": b""},
        b"zram.enabled=1 zram.num_devices=3\n",
    ),
    "LibreELEC": Layout(
        ("pi2", "pi3"),
        "include distroconfig.txt\n[all]\nhdmi_force_hotplug=1\n",
        {"kernel.img": K32, "SYSTEM": b"hsqs",
         "distroconfig.txt": b"kernel=kernel.img\ngpu_mem=76\nstart_x=1\ndtoverlay=vc4-kms-v3d\n"},
        b"root=LABEL=x boot=LABEL=LIBREELEC disk=LABEL=STORAGE quiet\n",
    ),
    "Alpine": Layout(
        ("pi3", "pi4"),
        "[pi02]\nkernel=boot/vmlinuz-rpi\n[pi3]\nkernel=boot/vmlinuz-rpi\n"
        "initramfs boot/initramfs-rpi\n[pi4]\nenable_gic=1\nkernel=boot/vmlinuz-rpi\n"
        "initramfs boot/initramfs-rpi\n[all]\narm_64bit=1\ninclude usercfg.txt\n",
        {"boot/vmlinuz-rpi": K64, "boot/initramfs-rpi": INITRD, "usercfg.txt": b"enable_uart=1\n"},
    ),
    "DietPi": Layout(
        MOST,
        "#-------Display---------\n#max_framebuffers=0\n#----RAM----\ngpu_mem_256=16\n"
        "gpu_mem_512=16\ngpu_mem_1024=16\ndisable_splash=1\n[pi4]\n#arm_freq=1500\n[all]\n",
        KERNELS,
    ),
    "Arch Linux ARM": Layout(
        ("pi2", "pi3"),
        "initramfs initramfs-linux.img followkernel\n[cm5]\ndtoverlay=dwc2\n[all]\n",
        {**KERNELS, "initramfs-linux.img": INITRD},
    ),
    "Debian": Layout(
        ("pi3", "zero2w", "pi4"),
        "arm_64bit=1\nenable_uart=1\nupstream_kernel=1\nkernel=vmlinuz-6.1.0-13-arm64\n"
        "initramfs initrd.img-6.1.0-13-arm64\n",
        {"vmlinuz-6.1.0-13-arm64": K64, "initrd.img-6.1.0-13-arm64": INITRD},
        firmware={**OLDER, **NEWER, **UPSTREAM},
    ),
    "Fedora": Layout(
        ("pi3", "pi4"),
        "[pi3]\nkernel=rpi3-u-boot.bin\n[pi4]\nkernel=rpi4-u-boot.bin\n[all]\narm_64bit=1\n",
        {"rpi3-u-boot.bin": UBOOT, "rpi4-u-boot.bin": UBOOT, "EFI/BOOT/BOOTAA64.EFI": b"MZ"},
        None,
    ),
    "openSUSE": Layout(
        ("pi3", "pi4"),
        "[all]\narm_64bit=1\nkernel=u-boot.bin\n[pi4]\narmstub=armstub8-rpi4.bin\n[all]\n"
        "include extraconfig.txt\n",
        {"u-boot.bin": UBOOT, "armstub8-rpi4.bin": PROGRAM, "extraconfig.txt": b"gpu_mem=128\n"},
        None,
    ),
    "NixOS": Layout(
        ("pi3", "zero2w", "pi4"),
        "[pi3]\nkernel=u-boot-rpi3.bin\n[pi02]\nkernel=u-boot-rpi3.bin\n[pi4]\n"
        "kernel=u-boot-rpi4.bin\nenable_gic=1\narmstub=armstub8-gic.bin\n[all]\narm_64bit=1\n",
        {"u-boot-rpi3.bin": PROGRAM, "u-boot-rpi4.bin": PROGRAM, "armstub8-gic.bin": PROGRAM},
        None,
    ),
    "FreeBSD": Layout(
        ("pi3", "pi4"),
        "[all]\narm_64bit=1\nkernel=u-boot.bin\n[pi4]\nhdmi_safe=1\narmstub=armstub8-gic.bin\n",
        {"u-boot.bin": UBOOT, "armstub8-gic.bin": PROGRAM, "armstub8.bin": PROGRAM},
        None,
    ),
    "NetBSD": Layout(("pi2", "pi3"), "kernel=netbsd.img\nos_prefix=\n", {"netbsd.img": PROGRAM}),
    "UEFI for a Pi 4": Layout(("pi4",), PFTF, {"RPI_EFI.fd": PROGRAM}, None, {**NEWER, **TREES}),
    "UEFI for a Pi 3": Layout(("pi3",), PFTF, {"RPI_EFI.fd": PROGRAM}, None, {**OLDER, **TREES}),
    "RISC OS": Layout(("pi2", "pi3"), "kernel=RISCOS.IMG\n", {"riscos.img": PROGRAM}, None),
    "buildroot, a Pi 2 with 64 bits": Layout(
        ("pi2",),
        "start_file=start.elf\nfixup_file=fixup.dat\nkernel=Image\ngpu_mem_1024=100\n"
        "dtoverlay=miniuart-bt\narm_64bit=1\n",
        {"Image": K64},
        b"root=/dev/mmcblk0p2 rootwait console=tty1 console=ttyAMA0,115200\n",
    ),
    "buildroot, a Pi 4": Layout(
        ("pi4",),
        "start_file=start4.elf\nfixup_file=fixup4.dat\nkernel=Image\ndisable_overscan=1\n"
        "gpu_mem_1024=100\ndtoverlay=miniuart-bt\narm_64bit=1\n",
        {"Image": K64},
        b"root=/dev/mmcblk0p2 rootwait console=tty1 console=ttyAMA0,115200\n",
        {**NEWER, **TREES},
    ),
    "OpenWrt": Layout(
        ("pi3", "pi4"),
        "include distroconfig.txt\n[all]\n",
        {"kernel8.img": K64,
         "distroconfig.txt": b"[pi4]\nkernel=kernel8.img\n[all]\narm_64bit=1\n"},
        b"console=serial0,115200 root=/dev/mmcblk0p2 rootfstype=squashfs,ext4 rootwait\n",
    ),
    "balenaOS": Layout(
        ("pi3",),
        "gpu_mem=32\ndtparam=i2c_arm=on\nkernel=u-boot.bin\narm_64bit=1\navoid_warnings=1\n",
        {"u-boot.bin": UBOOT},
        b"dwc_otg.lpm_enable=0 rootwait\n",
    ),
    "NOOBS": Layout(
        ("pi2", "pi3"),
        "",
        {"bootcode.bin": bootfiles.bootcode(), "recovery.elf": bootfiles.start_elf(),
         "recovery.img": K32, "recovery7.img": K32, "recovery.rfs": b"hsqs",
         "recovery.cmdline": b"quiet\n"},
        None,
        {},
    ),
    "piCore": Layout(
        ("pi2", "pi3"),
        "[pi2]\ninitramfs rootfs.gz,modules.gz followkernel\nkernel=piccore7.img\n[pi3]\n"
        "initramfs rootfs.gz,modules.gz followkernel\nkernel=piccore7.img\n[all]\n",
        {"piccore7.img": K32, "rootfs.gz": INITRD,
         "modules.gz": bootfiles.cpio({"lib/modules/x.ko": b"x" * 300})},
    ),
    "a secured Pi 4": Layout(
        ("pi4",),
        "boot_ramdisk=1\n",
        {"boot.img": bytes(510) + b"\x55\xaa" + bytes(512), "boot.sig": b"x"},
        None,
        {},
    ),
    "Windows on ARM, kept by a loader in a kernel's place": Layout(
        ("pi3",), "arm_64bit=1\n", {"kernel8.img": bytes(40) + b"_FVH" * 99}, None
    ),
}  # fmt: skip
EACH = [(name, model) for name, layout in LAYOUTS.items() for model in layout.models]


@pytest.mark.parametrize(("name", "model"), EACH, ids=lambda value: value)
def test_a_public_system_is_not_called_broken(name: str, model: str) -> None:
    files = LAYOUTS[name].content()
    said = [f"{one.code}: {one.what}" for one in judged(files, model).findings()]
    assert errors_of(files, model) == [], said


def test_the_same_systems_without_their_firmware_are_called_broken() -> None:
    for name, layout in LAYOUTS.items():
        files = layout.content()
        seen = judged(files, layout.models[0])
        if seen.settings.pair is not None and seen.settings.pair[0] in files:
            del files[seen.settings.pair[0]]
            assert "start" in errors_of(files, layout.models[0]), name
