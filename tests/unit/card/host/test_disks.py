"""Discovery: what a disk is and who uses it, on a made-up host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk, disk_named, list_disks
from imager.card.host.refusals import refusals
from imager.card.host.sysfs import HostTrees, unescape
from imager.card.host.target import RefusalCode
from imager.card.host.targets import Unsuitable, target_at
from imager.card.host.usage import UseKind
from tests.support.sysfs import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.disk(
        "sdb",
        "8:16",
        diskseq="12",
        device__vendor="Generic ",
        device__model="STORAGE DEVICE",
        queue__logical_block_size="512",
    )
    host.partition("sdb", "sdb1", "8:17", 1)
    host.partition("sdb", "sdb2", "8:18", 2)
    return host


def uses(host: FakeHost, name: str = "sdb") -> set[tuple[UseKind, str, str]]:
    """Kind, kernel name and by whom."""
    disk = disk_named(name, (), host.kernel)
    return {(use.kind, use.node.rpartition("/")[2], use.by) for use in disk.uses}


def test_a_card_reader_with_a_card(host: FakeHost) -> None:
    host.udev["8:16"] = {"ID_BUS": "usb", "ID_SERIAL_SHORT": "0815"}
    host.udev["8:17"] = {"ID_FS_TYPE": "vfat", "ID_FS_LABEL": "BOOT"}
    (host.root / "dev/disk/by-path").mkdir()
    (host.root / "dev/disk/by-path/pci-usb-0:2").symlink_to("../../sdb")
    disk = disk_named("sdb", (), host.kernel)
    assert (disk.bus, disk.vendor, disk.model, disk.serial) == (
        Bus.USB,
        "Generic",
        "STORAGE DEVICE",
        "0815",
    )
    assert (disk.size_bytes, disk.diskseq, disk.removable) == (32 * 2**30, 12, True)
    assert disk.by_path[0].endswith("/disk/by-path/pci-usb-0:2")
    assert [str(part).rpartition("/")[2] for part in disk.partitions] == [
        "sdb1: 268.4 MB, vfat 'BOOT'",
        "sdb2: 268.4 MB, nothing known",
    ]
    assert disk.uses == ()
    assert refusals(disk, 2**30) == ()
    assert "Generic STORAGE DEVICE, serial 0815, 34.4 GB, usb" in disk.title


def test_mounts_count_by_number_and_not_by_name(host: FakeHost) -> None:
    host.disk("sdbb", "65:0")
    host.mount("65:0", "/mnt/other", source="/dev/sdbb")
    assert uses(host) == set()
    host.mount("8:18", "/media/a\\040card", source="/dev/whatever")
    assert uses(host) == {(UseKind.MOUNT, "sdb2", "/media/a card")}


def test_a_btrfs_mount_counts_by_its_source(host: FakeHost) -> None:
    host.mount("0:33", "/data", "btrfs", str(host.root / "dev/sdb2"))
    assert uses(host) == {(UseKind.MOUNT, "sdb2", "/data")}


def test_the_second_disk_of_a_btrfs_is_held(host: FakeHost) -> None:
    host.write("sys/fs/btrfs/f00d/devices/sdb2", "")
    assert uses(host) == {(UseKind.HOLDER, "sdb2", "the btrfs f00d")}


def test_swap_counts_through_a_symlink(host: FakeHost) -> None:
    (host.root / "dev/mapper").mkdir()
    (host.root / "dev/mapper/swap").symlink_to("../sdb2")
    host.add(f"{host.root}/dev/mapper/swap partition 100 0 -2", "proc/swaps")
    assert uses(host) == {(UseKind.SWAP, "sdb2", "swap")}


def test_luks_and_the_filesystem_in_it(host: FakeHost) -> None:
    host.disk("dm-0", "253:0", dm__uuid="CRYPT-LUKS2-abc-home", dm__name="home")
    host.holder("dm-0", "sdb2")
    host.mount("253:0", "/home")
    assert uses(host) == {
        (UseKind.HOLDER, "sdb2", "dm-0 (LUKS, home)"),
        (UseKind.MOUNT, "dm-0", "/home"),
    }
    disk = disk_named("sdb", (), host.kernel)
    assert disk.backs == (Path("/home"),)
    assert {reason.code for reason in refusals(disk, 1)} == {
        RefusalCode.HELD,
        RefusalCode.MOUNTED,
        RefusalCode.SYSTEM,
    }


def test_lvm_on_raid_on_the_whole_disk(host: FakeHost) -> None:
    host.disk("md0", "9:0", md__level="raid1")
    host.disk("dm-1", "253:1", dm__uuid="LVM-xyz", dm__name="vg-root")
    host.holder("md0", "sdb")
    host.holder("dm-1", "md0")
    host.mount("253:1", "/")
    disk = disk_named("sdb", (Path("/srv/rack"),), host.kernel)
    assert (UseKind.HOLDER, "sdb", "md0 (RAID raid1)") in uses(host)
    assert (UseKind.HOLDER, "md0", "dm-1 (LVM, vg-root)") in uses(host)
    assert Path("/") in disk.backs
    assert Path("/srv/rack") in disk.backs


def test_a_partition_of_a_raid_counts(host: FakeHost) -> None:
    host.disk("md0", "9:0", md__level="raid1")
    host.partition("md0", "md0p1", "259:0")
    host.holder("md0", "sdb2")
    host.mount("259:0", "/home")
    assert (UseKind.MOUNT, "md0p1", "/home") in uses(host)
    assert disk_named("sdb", (), host.kernel).backs == (Path("/home"),)


def test_a_zfs_member_is_held_while_its_pool_is_imported(host: FakeHost) -> None:
    host.udev["8:17"] = {"ID_FS_TYPE": "zfs_member", "ID_FS_LABEL": "tank"}
    assert uses(host) == set()
    (host.root / "proc/spl/kstat/zfs/tank").mkdir(parents=True)
    assert uses(host) == {(UseKind.HOLDER, "sdb1", "the ZFS pool tank")}


def test_loops_on_the_disk_and_beside_it(host: FakeHost) -> None:
    host.disk("loop0", "7:0", loop__backing_file="/srv/a.img")
    host.disk("loop1", "7:1", loop__backing_file="/srv/a.img")
    host.disk("loop2", "7:2", loop__backing_file=str(host.root / "dev/sdb2"))
    assert {(kind, by.rpartition("/")[2]) for kind, _, by in uses(host, "loop0")} == {
        (UseKind.LOOP, "loop1")
    }
    assert {(kind, by.rpartition("/")[2]) for kind, _, by in uses(host)} == {
        (UseKind.LOOP, "loop2")
    }
    assert disk_named("loop2", (), host.kernel).backing_disk == str(host.root / "dev/sdb2")


def test_the_nearest_mount_decides_what_a_disk_backs(host: FakeHost) -> None:
    host.mount("254:0", "/")
    host.mount("8:18", "/srv")
    disk = disk_named("sdb", (Path("/srv/cache"), Path("/opt/cache")), host.kernel)
    assert disk.backs == (Path("/srv/cache"),)


def test_of_two_mounts_on_one_folder_the_later_counts(host: FakeHost) -> None:
    host.mount("254:0", "/srv")
    host.mount("8:18", "/srv")
    assert disk_named("sdb", (Path("/srv"),), host.kernel).backs == (Path("/srv"),)


def test_the_list_leaves_out_what_is_no_disk(host: FakeHost) -> None:
    for number, name in enumerate(("dm-0", "md127", "zram0", "sr0", "loop0")):
        host.disk(name, f"250:{number}")
    host.disk("loop1", "7:1", loop__backing_file="/srv/a.img")
    host.disk("mmcblk0", "179:0", removable="0", device__type="SD", device__name="SC16G")
    host.disk("mmcblk1", "179:8", removable="0", device__type="MMC", device__name="BJTD4R")
    found = {disk.node.rpartition("/")[2]: disk for disk in list_disks((), host.kernel)}
    assert set(found) == {"sdb", "loop1", "mmcblk0", "mmcblk1"}
    assert not found["mmcblk0"].is_fixed, "built-in slots report removable=0"
    assert found["mmcblk1"].is_fixed, "eMMC is soldered"
    assert found["mmcblk0"].model == "SC16G"
    assert not found["loop1"].is_fixed


def test_a_reader_with_an_empty_slot(host: FakeHost) -> None:
    host.disk("sdc", "8:32", gib=0)
    disk = disk_named("sdc", (), host.kernel)
    assert not disk.has_medium
    assert "no card in it" in disk.title


def test_an_old_kernel_without_diskseq(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.disk("sda", "8:0")
    assert disk_named("sda", (), host.kernel).diskseq is None


def test_garbage_in_procfs_is_passed_over(host: FakeHost) -> None:
    host.add("", "proc/self/mountinfo")
    host.add("1 2 - x", "proc/self/mountinfo")
    host.add("30 1 8:17 / /a rw - ext4", "proc/self/mountinfo")
    host.add("", "proc/swaps")
    assert isinstance(disk_named("sdb", (), host.kernel), Disk)


def test_escapes_of_procfs() -> None:
    assert unescape("a\\040b\\134c") == "a b\\c"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("dev/sdz", "there is no device"),
        ("dev/sdz.img", "there is no device"),
        ("dev/disk/by-path/pci-0", "there is no device"),
        ("dev/sdb", "a plain file among the devices"),
        ("dev", "a folder"),
        ("pi7.raw", "does not end in .img"),
        ("no/such/pi7.img", "no folder"),
    ],
)
def test_what_can_never_be_a_target(host: FakeHost, path: str, words: str) -> None:
    target = target_at(host.root / path, (), host.kernel)
    assert isinstance(target, Unsuitable)
    assert words in target.reason


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str], HostTrees]:
    def with_device(where: str) -> HostTrees:
        folder = tmp_path / "devices" / where / "block/sdb"
        folder.mkdir(parents=True)
        (tmp_path / "class/block").mkdir(parents=True)
        (tmp_path / "class/block/sdb").symlink_to(folder)
        return HostTrees(sysfs=tmp_path)

    return with_device


@pytest.mark.parametrize(
    ("where", "bus", "port"),
    [
        (
            "pci0000:00/0000:00:14.0/usb2/2-1/2-1.3/2-1.3:1.0/host6/target6:0:0/6:0:0:0",
            Bus.USB,
            "usb2/2-1",
        ),
        ("pci0000:00/0000:00:14.0/usb1/1-12/1-12:1.0/host6/6:0:0:0", Bus.USB, "usb1/1-12"),
        ("pci0000:00/0000:00:1d.0/mmc_host/mmc0/mmc0:0001", Bus.MMC, None),
        ("platform/vhci_hcd.0", Bus.USB, None),
    ],
)
def test_the_root_port_of_a_reader(
    kernel: Callable[[str], HostTrees], where: str, bus: Bus, port: str | None
) -> None:
    disk = Disk(node="/dev/sdb", number="8:16", size_bytes=1, bus=bus)
    assert disk.root_port(kernel(where)) == port
