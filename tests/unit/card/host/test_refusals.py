"""Every refusal, as a table: a disk that is fine, changed in one way at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import TargetRefused
from imager.base.units import GiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.image_file import ImageFile
from imager.card.host.refusals import AcceptedTarget, accept, refusals
from imager.card.host.target import Limits, RefusalCode
from imager.card.host.targets import Unsuitable, target_at
from imager.card.host.usage import DiskUse, UseKind

GOOD = Disk("/dev/sdb", "8:16", 32 * GiB, Bus.USB, model="STORAGE", removable=True)
NEED = 4 * GiB
Code = RefusalCode
FIXED: Mapping[str, object] = {"removable": False, "bus": Bus.ATA}

CASES: list[tuple[dict[str, object], Limits, set[Code]]] = [
    ({}, Limits(), set()),
    ({"uses": (DiskUse(UseKind.MOUNT, "/dev/sdb1", "/media/x"),)}, Limits(), {Code.MOUNTED}),
    ({"uses": (DiskUse(UseKind.SWAP, "/dev/sdb2", "swap"),)}, Limits(), {Code.SWAP}),
    ({"uses": (DiskUse(UseKind.HOLDER, "/dev/sdb2", "dm-0"),)}, Limits(), {Code.HELD}),
    ({"uses": (DiskUse(UseKind.LOOP, "/dev/sdb", "/dev/loop3"),)}, Limits(), {Code.LOOP_ON_TOP}),
    ({"backs": (Path("/"),)}, Limits(), {Code.SYSTEM}),
    ({"backs": (Path("/var"), Path("/home"))}, Limits(), {Code.SYSTEM}),
    ({"backs": (Path("/srv/rack"),)}, Limits(ours=(Path("/srv/rack"),)), {Code.OURS}),
    ({"read_only": True}, Limits(), {Code.READ_ONLY}),
    ({"size_bytes": 0}, Limits(), {Code.NO_MEDIUM}),
    ({"size_bytes": NEED}, Limits(), set()),
    ({"size_bytes": NEED - 512}, Limits(), {Code.TOO_SMALL}),
    ({"size_bytes": 256 * GiB}, Limits(), set()),
    ({"size_bytes": 256 * GiB + 512}, Limits(), {Code.TOO_LARGE}),
    ({"size_bytes": 2000 * GiB}, Limits(max_size_bytes=2000 * GiB), set()),
    ({"size_bytes": 2048 * GiB}, Limits(max_size_bytes=4000 * GiB), set()),
    ({"size_bytes": 2048 * GiB + 512}, Limits(max_size_bytes=4000 * GiB), {Code.TOO_LARGE}),
    ({"size_bytes": 2100 * GiB}, Limits(), {Code.TOO_LARGE}),
    ({"bus": Bus.VIRTUAL}, Limits(), {Code.VIRTUAL}),
    ({"bus": Bus.LOOP, "removable": False}, Limits(), set()),
    ({"bus": Bus.LOOP, "backing_disk": "/dev/sda"}, Limits(), {Code.LOOP_OVER_DISK}),
    (
        {"bus": Bus.LOOP, "backing_file": Path("/c/golden/k/image")},
        Limits(ours=(Path("/c"),)),
        {Code.OURS},
    ),
    ({**FIXED}, Limits(), {Code.FIXED}),
    ({**FIXED}, Limits(typed_name="STORAGE"), {Code.FIXED}),
    ({**FIXED}, Limits(allow_fixed_disk=True), {Code.NAME_NOT_TYPED}),
    ({**FIXED}, Limits(allow_fixed_disk=True, typed_name="storage"), {Code.NAME_NOT_TYPED}),
    ({**FIXED}, Limits(allow_fixed_disk=True, typed_name="STORAGE"), set()),
    ({**FIXED, "model": ""}, Limits(allow_fixed_disk=True, typed_name=""), {Code.NAME_NOT_TYPED}),
    ({**FIXED, "model": ""}, Limits(allow_fixed_disk=True, typed_name="sdb"), set()),
]


@pytest.mark.parametrize(("change", "limits", "codes"), CASES)
def test_each_reason(change: dict[str, object], limits: Limits, codes: set[Code]) -> None:
    disk = replace(GOOD, **change)  # type: ignore[arg-type]
    assert {reason.code for reason in refusals(disk, NEED, limits)} == codes


def test_every_code_is_in_the_table_or_for_paths_or_for_swap() -> None:
    seen = {code for _, _, codes in CASES for code in codes}
    assert seen | {Code.NOT_A_TARGET, Code.NO_SWAP_ROOM} == set(Code)


def test_all_reasons_come_at_once() -> None:
    disk = replace(
        GOOD,
        size_bytes=GiB,
        read_only=True,
        removable=False,
        uses=(
            DiskUse(UseKind.MOUNT, "/dev/sdb1", "/a"),
            DiskUse(UseKind.SWAP, "/dev/sdb2", "swap"),
        ),
    )
    reasons = refusals(disk, NEED)
    assert len(reasons) == 5
    with pytest.raises(TargetRefused) as caught:
        accept(disk, NEED)
    assert caught.value.what == "/dev/sdb must not be overwritten, for 5 reasons"
    assert caught.value.details == tuple(map(str, reasons))


def test_one_reason_is_the_message_itself() -> None:
    with pytest.raises(TargetRefused) as caught:
        accept(replace(GOOD, read_only=True), NEED)
    assert caught.value.what == "/dev/sdb is read-only"
    assert "LOCK" in caught.value.hint


def test_too_small_names_both_sizes_and_what_is_missing() -> None:
    (reason,) = refusals(replace(GOOD, size_bytes=NEED - 1024 * 1024), NEED)
    for number in (NEED, NEED - 1024 * 1024, 1024 * 1024):
        assert str(number) in reason.message


def test_nobody_is_told_to_unmount_the_root() -> None:
    disk = replace(GOOD, uses=(DiskUse(UseKind.MOUNT, "/dev/sdb1", "/"),), backs=(Path("/"),))
    assert all("umount" not in reason.hint for reason in refusals(disk, NEED))


def test_accepting_keeps_what_was_accepted() -> None:
    assert accept(GOOD, NEED) == AcceptedTarget(GOOD, NEED, Limits())


def file_at(tmp_path: Path, name: str = "pi7.img") -> ImageFile:
    target = target_at(tmp_path / name)
    assert isinstance(target, ImageFile)
    return target


def test_an_image_file_may_be_new_or_there_already(tmp_path: Path) -> None:
    assert refusals(file_at(tmp_path), NEED) == ()
    (tmp_path / "pi7.img").write_bytes(b"old")
    found = file_at(tmp_path)
    assert (found.exists, found.size_bytes) == (True, 3)
    assert refusals(found, NEED) == ()


def test_a_symlink_to_an_image_is_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real.img").write_bytes(b"")
    (tmp_path / "link").symlink_to("real.img")
    assert file_at(tmp_path, "link").path == (tmp_path / "real.img").resolve()


@pytest.mark.parametrize("name", ["pi7.IMG", "pi7.img.gz", "pi7", ".img"])
def test_a_file_that_does_not_end_in_img(tmp_path: Path, name: str) -> None:
    assert isinstance(target_at(tmp_path / name), Unsuitable)


def test_a_symlink_to_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    (tmp_path / "pi7.img").symlink_to("diary.txt")
    target = target_at(tmp_path / "pi7.img")
    assert isinstance(target, Unsuitable)
    assert "diary.txt" in target.reason


def test_a_symlink_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pi7.img").symlink_to("pi7.img")
    assert isinstance(target_at(tmp_path / "pi7.img"), Unsuitable)


def test_pipes_sockets_and_character_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.img")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.img"))
        for path in (tmp_path / "pipe.img", tmp_path / "socket.img", Path("/dev/null")):
            target = target_at(path)
            assert isinstance(target, Unsuitable)
            assert "not a block device" in target.reason


def test_a_misspelt_device_never_becomes_a_file() -> None:
    for name in ("/dev/sdqq", "/dev/sdqq.img", "/dev/disk/by-id/none.img"):
        with pytest.raises(TargetRefused):
            accept(target_at(name), NEED)
        assert not Path(name).exists()


def test_the_golden_image_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    target = target_at(tmp_path / "golden/x.img")
    (reason,) = refusals(target, NEED, Limits(ours=(tmp_path,)))
    assert reason.code is Code.OURS


def test_an_image_that_a_loop_device_shows_is_refused(tmp_path: Path) -> None:
    target = replace(file_at(tmp_path), loops=("/dev/loop3",))
    (reason,) = refusals(target, NEED)
    assert reason.code is Code.LOOP_ON_TOP


def test_a_folder_one_may_not_write_is_refused(tmp_path: Path) -> None:
    target = replace(file_at(tmp_path), folder_writable=False)
    (reason,) = refusals(target, NEED)
    assert reason.code is Code.READ_ONLY


@pytest.mark.parametrize("size", [2048 * GiB + 512, 2100 * GiB, 1 << 60])
def test_what_no_partition_table_describes_is_refused_whatever_it_is(
    tmp_path: Path, size: int
) -> None:
    disk = replace(GOOD, size_bytes=size)
    image = target_at(tmp_path / "card.img")
    for target, need in ((disk, NEED), (image, size)):
        (reason,) = refusals(target, need, Limits(max_size_bytes=size))
        assert reason.code == Code.TOO_LARGE
        assert "2 TiB" in reason.message
        assert "2 TiB or less" in reason.hint
        assert "--max-size" not in reason.hint
    assert refusals(image, 2048 * GiB) == ()
