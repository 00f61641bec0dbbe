"""Where each file of the system is looked for."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping

import pytest

from imager.base.units import MiB
from imager.bootcheck.formats.device_tree import overlay_map as read_overlay_map
from imager.bootcheck.formats.device_tree import root_compatible
from imager.disk.budget import OverBudget
from tests.support import bootfiles
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.bootmemory import errors_of, found, judged

PI2, PI3, CM4 = (minimal_boot_files(model) for model in ("pi2", "pi3", "cm4"))
SYSTEM = ("kernel7.img", "bcm2709-rpi-2-b.dtb", "bcm2710-rpi-2-b.dtb", "cmdline.txt",
          "initramfs-linux.img")  # fmt: skip


def moved(files: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    """The system's files under ``prefix``."""
    return {prefix + name if name in SYSTEM else name: data for name, data in files.items()}


@pytest.mark.parametrize("prefix", ["new/", "test-", "a/b/"])
def test_os_prefix_moves_every_file_of_the_system(prefix: str) -> None:
    config = {"config.txt": f"os_prefix={prefix}\n".encode() + CONFIG_TXT}
    assert found(moved(PI2, prefix) | config, "pi2") == []
    for name in SYSTEM[1:]:
        files = moved(PI2, prefix) | config
        del files[prefix + name]
        said = " ".join(one.what for one in found(files, "pi2"))
        assert f"{prefix}{name} is missing" in said


@pytest.mark.parametrize(
    ("line", "old"),
    [("kernel=/kernel7.img", "kernel7.img"), ("cmdline=/cmdline.txt", "cmdline.txt"),
     ("initramfs /initramfs-linux.img followkernel", "initramfs-linux.img"),
     ("device_tree=/bcm2709-rpi-2-b.dtb", "bcm2709-rpi-2-b.dtb")],
)  # fmt: skip
def test_a_leading_slash_bypasses_the_prefix(line: str, old: str) -> None:
    files = moved(PI2, "new/") | {old: PI2[old]}
    config = CONFIG_TXT.decode() + f"os_prefix=new/\n{line}\n"
    files["config.txt"] = config.encode()
    files.pop(f"new/{old}")
    assert errors_of(files, "pi2") == []


def test_a_prefix_without_kernel_and_tree_is_dropped() -> None:
    files = PI2 | {"config.txt": b"os_prefix=new/\n" + CONFIG_TXT, "new/kernel7.img": b"x"}
    assert [one.code.value for one in found(files, "pi2")] == ["os-prefix"]


def upstream(prefix: str = "") -> dict[str, bytes]:
    """A Pi 3's card as Debian lays it out, with the kernel's own names of the trees."""
    files = {name: data for name, data in PI3.items() if not name.endswith((".dtb", "7.img"))}
    lines = b"arm_64bit=1\nkernel=vmlinuz-6.1.0\ninitramfs initrd.img-6.1.0 followkernel\n"
    return files | {
        "config.txt": b"upstream_kernel=1\n" + lines,
        f"{prefix}vmlinuz-6.1.0": bootfiles.arm64_image(),
        f"{prefix}initrd.img-6.1.0": bootfiles.initramfs(),
        f"{prefix}cmdline.txt": PI3["cmdline.txt"],
        f"{prefix}bcm2837-rpi-3-b.dtb": PI3["bcm2710-rpi-3-b.dtb"],
        f"{prefix}bcm2837-rpi-3-b-plus.dtb": PI3["bcm2710-rpi-3-b-plus.dtb"],
    }


@pytest.mark.parametrize("prefix", ["", "upstream/"])
def test_an_upstream_kernel_has_the_trees_that_linux_calls_so(prefix: str) -> None:
    files = upstream(prefix)
    assert found(files, "pi3") == []
    del files[f"{prefix}bcm2837-rpi-3-b.dtb"]
    assert "device-tree" in errors_of(files, "pi3") or prefix
    files["config.txt"] = files["config.txt"].replace(b"upstream_kernel=1\n", b"")
    assert "device-tree" in errors_of(files, "pi3")


def test_an_upstream_kernel_has_fewer_trees() -> None:
    files = upstream()
    del files["bcm2837-rpi-3-b-plus.dtb"]
    (finding,) = found(files, "pi3")
    assert (finding.code, finding.severity) == ("device-tree-board", "warning")


def test_an_upstream_kernel_does_with_the_other_trees() -> None:
    files = upstream() | {name: data for name, data in PI3.items() if name.endswith(".dtb")}
    del files["bcm2837-rpi-3-b.dtb"], files["bcm2837-rpi-3-b-plus.dtb"]
    assert found(files, "pi3") == []


# -- overlays ------------------------------------------------------------------------------------


def overlay_map(nodes: Mapping[str, Mapping[str, str]]) -> bytes:
    """An overlay_map.dtb."""
    names = sorted({name for said in nodes.values() for name in said})
    strings = b"".join(name.encode() + b"\0" for name in names)
    blocks = struct.pack(">II", 1, 0)
    for node, said in nodes.items():
        blocks += struct.pack(">I", 1) + bootfiles.padded(node.encode() + b"\0")
        for name, value in said.items():
            data = value.encode() + b"\0" if value else b""
            at = strings.index(name.encode() + b"\0")
            blocks += struct.pack(">III", 3, len(data), at) + bootfiles.padded(data)
        blocks += struct.pack(">I", 2)
    blocks += struct.pack(">II", 2, 9)
    head = (0xD00DFEED, 56 + len(blocks) + len(strings), 56, 56 + len(blocks), 40, 17, 16, 0,
            len(strings), len(blocks))  # fmt: skip
    return struct.pack(">10I", *head) + bytes(16) + blocks + strings


def test_properties_that_all_name_one_megabyte_cost_no_gigabytes() -> None:
    """Each of them takes twelve bytes; their names would be ten thousand MiB, or minutes."""
    blocks = struct.pack(">IIII", 1, 0, 1, 0x61000000)
    blocks += b"".join(struct.pack(">III", 3, 0, at) for at in range(20_000))
    blocks += struct.pack(">III", 2, 2, 9)
    strings = b"n" * MiB + b"\0"
    head = (0xD00DFEED, 56 + len(blocks) + len(strings), 56, 56 + len(blocks), 40, 17, 16, 0,
            len(strings), len(blocks))  # fmt: skip
    data = struct.pack(">10I", *head) + bytes(16) + blocks + strings
    tracemalloc.start()
    try:
        assert root_compatible(data) == ()
        with pytest.raises(OverBudget, match="it maps more than 10000 names"):
            read_overlay_map(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * MiB
    finally:
        tracemalloc.stop()


MAP = overlay_map(
    {
        "pi3-disable-bt": {"renamed": "disable-bt"},
        "older-bt": {"renamed": "pi3-disable-bt"},
        "with-words": {"renamed": "disable-bt,krnbt"},
        "vc4-kms": {"bcm2835": "", "bcm2711": "vc4-kms-pi4"},
        "uart5": {"bcm2711": ""},
        "gone": {"deprecated": "no longer necessary"},
        "round": {"renamed": "robin"},
        "robin": {"renamed": "round"},
    }
)
OVERLAYS = {"overlays/overlay_map.dtb": MAP} | {
    f"overlays/{name}.dtbo": bootfiles.overlay()
    for name in ("disable-bt", "vc4-kms", "vc4-kms-pi4", "uart5")
}


def overlay_findings(line: str, model: str, files: dict[str, bytes] = OVERLAYS) -> list[str]:
    card = {"pi2": PI2, "cm4": CM4}[model]
    config = {"config.txt": CONFIG_TXT + line.encode() + b"\n"}
    seen = found(card | files | config, model)
    assert {one.code.value for one in seen} <= {"overlay"}
    return [one.what for one in seen]


@pytest.mark.parametrize("model", ["pi2", "cm4"])
@pytest.mark.parametrize(
    "line",
    ["dtoverlay=disable-bt", "dtoverlay=pi3-disable-bt", "dtoverlay=older-bt,x=1",
     "dtoverlay=vc4-kms:x=1", "device_tree_overlay=overlays/disable-bt.dtbo",
     "dtoverlay=/overlays/disable-bt", "dtoverlay=overlays/disable-bt.dtbo",
     "dtoverlay=with-words", "dtoverlay=\ndtoverlay=disable-bt"],
)  # fmt: skip
def test_an_overlay_is_found_by_each_of_its_names(line: str, model: str) -> None:
    assert overlay_findings(line, model) == []


def test_the_overlay_map_gives_each_board_its_own() -> None:
    without = {name: data for name, data in OVERLAYS.items() if "pi4" not in name}
    assert overlay_findings("dtoverlay=vc4-kms", "pi2", without) == []
    (what,) = overlay_findings("dtoverlay=vc4-kms", "cm4", without)
    assert what.endswith("overlays/vc4-kms-pi4.dtbo is missing")
    assert overlay_findings("dtoverlay=uart5", "cm4") == []
    assert "not for a Raspberry Pi 2" in overlay_findings("dtoverlay=uart5", "pi2")[0]
    assert "no longer necessary" in overlay_findings("dtoverlay=gone", "pi2")[0]


@pytest.mark.parametrize(
    "line", ["dtoverlay=absent", "dtoverlay=round", "dtoverlay=pi3-disable-wifi"]
)
def test_a_missing_overlay_is_told(line: str) -> None:
    (what,) = overlay_findings(line, "pi2")
    assert what.endswith("is missing")


def test_a_damaged_map_maps_nothing() -> None:
    files = OVERLAYS | {"overlays/overlay_map.dtb": MAP[:-30]}
    assert overlay_findings("dtoverlay=disable-bt", "pi2", files) == []
    assert len(overlay_findings("dtoverlay=pi3-disable-bt", "pi2", files)) == 1


@pytest.mark.parametrize("readme", [True, False])
def test_overlays_are_shared_unless_the_prefix_has_its_own(readme: bool) -> None:
    own = "new/overlays/" if readme else "overlays/"
    files = moved(PI2, "new/") | {f"{own}mine.dtbo": bootfiles.overlay()}
    files["config.txt"] = b"os_prefix=new/\ndtoverlay=mine\n" + CONFIG_TXT
    if readme:
        files["new/overlays/README"] = b"look-alike\n"
    assert found(files, "pi2") == []


def test_overlay_prefix_names_another_folder() -> None:
    files = PI2 | {"mine/a.dtbo": bootfiles.overlay()}
    files["config.txt"] = b"overlay_prefix=mine/\ndtoverlay=a\n" + CONFIG_TXT
    assert found(files, "pi2") == []


# -- 64 bits on some boards ----------------------------------------------------------------------


def test_a_64_bit_card_for_a_pi_2_says_which_boards_start() -> None:
    files = PI2 | {
        "config.txt": b"arm_64bit=1\n" + CONFIG_TXT,
        "kernel8.img": bootfiles.arm64_image(),
    }
    del files["bcm2709-rpi-2-b.dtb"]
    (finding,) = found(files, "pi2")
    assert (finding.code, finding.severity) == ("kernel-board", "warning")
    assert "v1.2 (BCM2837)" in finding.what
    assert errors_of({**files, "kernel8.img": bootfiles.zimage()}, "pi2") == ["kernel-width"]
    del files["kernel8.img"]
    assert errors_of(files, "pi2") == ["kernel"]


def test_each_older_way_to_ask_for_64_bits_counts() -> None:
    files = PI3 | {
        "config.txt": b"arm_control=0x200\n" + CONFIG_TXT,
        "kernel8.img": bootfiles.arm64_image(),
    }
    assert judged(files, "pi3").paths.kernel == "kernel8.img"
    assert found(files, "pi3") == []


@pytest.mark.parametrize(
    ("model", "config", "kernel", "said"),
    [("pi2", b"kernel=a.img\n", bootfiles.arm64_image(), "a Raspberry Pi 2 cannot run it"),
     ("pi3", b"kernel=a.img\narm_64bit=1\n", bootfiles.zimage(), "asks for 64-bit mode"),
     ("pi5", b"kernel=a.img\n", bootfiles.zimage(), "a Raspberry Pi 5 cannot run it")],
)  # fmt: skip
def test_a_kernel_for_another_processor_is_told(
    model: str, config: bytes, kernel: bytes, said: str
) -> None:
    files = minimal_boot_files(model) | {"config.txt": CONFIG_TXT + config, "a.img": kernel}
    (finding,) = found(files, model)
    assert (finding.code, finding.path) == ("kernel-width", "a.img")
    assert said in finding.what


def test_a_map_that_was_not_read_leaves_every_overlay_without_a_file() -> None:
    mapped = overlay_map({"old": {"renamed": "new"}})
    files = {
        **PI2,
        "config.txt": CONFIG_TXT + b"dtoverlay=old\n",
        "overlays/overlay_map.dtb": mapped,
    }
    (what,) = (one.what for one in found(files, "pi2"))
    assert what.endswith("overlays/new.dtbo is missing")
    seen = judged(files, "pi2", unseen={"overlays/overlay_map.dtb": "why"})
    assert not list(seen.findings())
