"""Each step: what it finds, what it does, what it refuses."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from imager.base.run import search_path
from tests.support.fakenode import IMAGED_AT, MIB, STEPS, FakeNode

SECTOR = 512


# --- clock


def test_a_clock_in_1970_is_set_to_the_day_the_card_was_made(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    os.utime(node.root / "var/lib/systemd/timesync/clock", (0, 0))
    boot = node.boot(clock=0)
    assert f"date -s @{IMAGED_AT}" in boot.calls
    assert node.report["time"].startswith("2026-05-28T")
    assert (node.root / "var/lib/systemd/timesync/clock").stat().st_mtime == IMAGED_AT


def test_a_clock_that_is_later_than_the_card_is_left_alone(tmp_path: Path) -> None:
    boot = FakeNode(tmp_path).boot(clock=IMAGED_AT + 86400)
    assert not [call for call in boot.calls if call.startswith("date -s")]


def test_a_release_without_timesyncd_gets_its_clock_set_too(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, IMAGED_AT=str(IMAGED_AT + 5))
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert f"date -s @{IMAGED_AT + 5}" in boot.calls


# --- swap


def test_no_swap_file_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, SWAP_BYTES="0")
    assert node.boot().status == 0
    assert not (node.root / "swapfile").exists()
    assert "swapfile" not in node.read("etc/fstab")


def test_a_root_without_room_says_how_much_there_is_and_stays_free(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, SWAP_BYTES=str(1024 * MIB))
    node.fake_tool("df", "echo head; echo /dev/root 2000000 1700000 300000 85% /\n")
    assert node.boot().status == 1
    assert node.note("30-swap") == (
        "no room: 292 MiB free, 1024 MiB wanted and 256 MiB to stay free"
    )
    assert "[swap] size" in node.hint("30-swap")
    assert not list(node.root.glob("swapfile*"))
    assert "swapfile" not in node.read("etc/fstab")


def test_a_half_made_swap_file_is_made_anew(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.write("swapfile.new", "cut short " * MIB)  # of a larger one, before rack.toml changed
    assert node.boot().status == 0
    assert (node.root / "swapfile").stat().st_size == MIB
    assert not (node.root / "swapfile.new").exists()


def test_a_filesystem_without_fallocate_gets_its_zeros_written(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.fake_tool("fallocate", "echo fallocate: not supported >&2; exit 1\n")
    assert node.boot().status == 0
    swap = (node.root / "swapfile").stat()
    assert swap.st_size == MIB
    assert swap.st_blocks * 512 >= MIB, "the kernel refuses a swap file with holes"
    assert swap.st_mode & 0o777 == 0o600


def test_a_swap_file_of_another_size_is_replaced(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.write("swapfile", "x" * 100)
    assert node.boot().status == 0
    assert (node.root / "swapfile").stat().st_size == MIB


def test_a_missing_fstab_is_made(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    (node.root / "etc/fstab").unlink()
    assert node.boot().status == 0
    assert node.read("etc/fstab") == "/swapfile none swap defaults 0 0\n"


# --- minion


def test_a_release_without_salt_is_said_plainly_and_is_no_failure(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, salt=False)
    assert node.boot().status == 0
    assert node.note("50-salt").startswith("no-salt: Salt is not in this release")
    for step in STEPS[6:9]:
        assert node.note(step).startswith("no-salt: ")
    assert not (node.root / "enabled").exists()


def test_the_minion_is_enabled_and_not_waited_for(tmp_path: Path) -> None:
    calls = FakeNode(tmp_path).boot().calls
    assert "systemctl enable salt-minion.service" in calls
    assert "systemctl start --no-block salt-minion.service" in calls


def test_what_the_minion_says_after_bytes_of_zero_is_heard(tmp_path: Path) -> None:
    """A loss of power leaves them in a log; and firstboot.conf may name no node."""
    node = FakeNode(tmp_path, NODE="")
    words = "\\0\\0\\n The Salt Master has cached the public key for this node\\n"
    logs = "$PICLOUD_ROOT/var/log/salt"
    node.minion_does(f'mkdir -p "{logs}"; printf \'{words}\' >>"{logs}/minion"')
    assert node.boot().status == 1
    assert node.note("80-await-master").endswith("nobody has accepted it yet")
    assert node.hint("80-await-master") == "on pi0 run: salt-key -a NAME"


def test_a_minion_that_is_enabled_is_not_enabled_again(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.write("enabled/salt-minion.service", "")
    calls = node.boot().calls
    assert "systemctl enable salt-minion.service" not in calls
    assert "systemctl start --no-block salt-minion.service" in calls


# --- grow root, on a disk that is a file


class FakeDisk:
    """The node's disk as files: the disk with a real MBR, p2 with a real ext4, and their /sys."""

    def __init__(self, node: FakeNode, table: str = "", p2_mib: int = 16) -> None:
        self.node = node
        self.folder = node.root / "dev"
        self.folder.mkdir()
        self.disk, self.p2 = self.folder / "mmcblk0", self.folder / "mmcblk0p2"
        table = table or f"label: dos\nstart=2048,size=4096,type=c\nstart=8192,size={p2_mib * 2048}"
        self.disk.write_bytes(b"")
        os.truncate(self.disk, 64 * MIB)
        self.run("sfdisk", "-q", self.disk, stdin=table)
        self.p2.write_bytes(b"")
        os.truncate(self.p2, p2_mib * MIB)
        self.run("mke2fs", "-q", "-t", "ext4", self.p2)
        self.sys({"size": 64 * 2048})
        self.sys({"partition": 1, "start": 2048, "size": 4096}, "mmcblk0p1")
        self.sys({"partition": 2, "start": 8192, "size": p2_mib * 2048}, "mmcblk0p2")
        link = node.root / "sys/class/block"
        link.mkdir(parents=True)
        for name in ("mmcblk0", "mmcblk0/mmcblk0p1", "mmcblk0/mmcblk0p2"):
            (link / Path(name).name).symlink_to(f"../../devices/{name}")
        node.fake_tool("findmnt", f"echo {self.p2}\n")
        # The kernel's part: it takes the new size from the table.
        node.fake_tool(
            "partx",
            f"size=$(sfdisk -d {self.disk} | sed -n 's/.*8192, size= *\\([0-9]*\\).*/\\1/p')\n"
            f"echo $size >{node.root}/sys/devices/mmcblk0/mmcblk0p2/size\n"
            f"truncate -s $((size * 512)) {self.p2}\n",
        )

    def sys(self, values: Mapping[str, int], part: str = "") -> None:
        for name, value in values.items():
            self.node.write(f"sys/devices/mmcblk0/{part}/{name}", f"{value}\n")

    def run(self, *words: str | Path, stdin: str = "") -> str:
        done = subprocess.run(
            words,
            input=stdin,
            text=True,
            capture_output=True,
            check=True,
            env={"PATH": search_path(), "LC_ALL": "C"},
        )
        return done.stdout

    @property
    def filesystem_bytes(self) -> int:
        self.run("e2fsck", "-fn", self.p2)
        words = dict(
            line.split(":", 1)
            for line in self.run("dumpe2fs", "-h", self.p2).splitlines()
            if ":" in line
        )
        return int(words["Block count"]) * int(words["Block size"])

    @property
    def before(self) -> bytes:
        return self.disk.read_bytes()[:SECTOR]


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path, GROW_ROOT="yes")


def test_root_grows_to_the_end_of_the_card_and_once_only(node: FakeNode) -> None:
    disk = FakeDisk(node)
    boot = node.boot()
    assert boot.status == 0, node.read("boot/picloud/firstboot.log")
    assert disk.filesystem_bytes == 60 * MIB
    assert node.note("20-grow-root") == "/ has 60 MiB"
    table = disk.before
    (node.root / "var/lib/picloud/firstboot/20-grow-root.done").unlink()
    assert node.boot().status == 0
    assert disk.before == table
    assert disk.filesystem_bytes == 60 * MIB


def test_a_filesystem_cut_before_its_growth_grows_at_the_next_boot(node: FakeNode) -> None:
    disk = FakeDisk(node)
    never_reached = 9_999
    node.fake_tool("resize2fs", "kill -9 0\n")
    node.boot(cut_at=never_reached)
    assert disk.filesystem_bytes == 16 * MIB
    resize2fs = next(f for f in ("/usr/sbin/resize2fs", "/sbin/resize2fs") if Path(f).exists())
    node.fake_tool("resize2fs", f'exec {resize2fs} "$@"\n')
    assert node.boot().status == 0
    assert disk.filesystem_bytes == 60 * MIB


@pytest.mark.parametrize("sectors", [2**32 + 16384, 3 << 31])
def test_a_disk_larger_than_an_mbr_describes_is_used_as_far_as_that_goes(
    node: FakeNode, sectors: int
) -> None:
    """sfdisk wrote the lower half of the number: a partition smaller than its filesystem."""
    disk = FakeDisk(node)
    os.truncate(disk.disk, sectors * SECTOR)
    disk.sys({"size": sectors})
    node.fake_tool("resize2fs", "exit 1\n")  # a first try that fails does not refuse the second
    assert node.boot().status == 1
    node.fake_tool("resize2fs", "")
    assert node.boot().status == 0, node.read("boot/picloud/firstboot.log")
    assert f"size={2**32 - 8192:>12}" in disk.run("sfdisk", "-d", disk.disk)


def test_less_than_ten_mib_to_gain_leave_the_table_alone(node: FakeNode) -> None:
    disk = FakeDisk(node, p2_mib=51)
    table = disk.before
    assert node.boot().status == 0
    assert disk.before == table


@pytest.mark.parametrize(
    ("table", "sys", "reason"),
    [
        ("label: gpt\nstart=8192,size=32768", {}, "has no MBR"),
        ("", {"mmcblk0p2": {"partition": 3}}, "/ is partition 3 of"),
        ("", {"mmcblk0p1": {"start": 50000}}, "lies behind /"),
        ("", {"": {"size": 20000}}, "ends behind the end of"),
    ],
)
def test_anything_unexpected_is_refused_and_nothing_changed(
    node: FakeNode, table: str, sys: Mapping[str, Mapping[str, int]], reason: str
) -> None:
    disk = FakeDisk(node, table)
    for part, values in sys.items():
        disk.sys(values, part)
    before = disk.before
    assert node.boot().status == 1
    assert reason in node.note("20-grow-root")
    assert disk.before == before
    assert disk.filesystem_bytes == 16 * MIB


def test_a_root_that_is_no_partition_is_refused(node: FakeNode) -> None:
    FakeDisk(node)
    node.fake_tool("findmnt", "echo overlay\n")
    assert node.boot().status == 1
    assert "which is not a partition" in node.note("20-grow-root")


def test_a_card_written_at_its_full_size_is_not_touched(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, GROW_ROOT="no")
    node.fake_tool("sfdisk", "exit 1\n")
    assert node.boot().status == 0
