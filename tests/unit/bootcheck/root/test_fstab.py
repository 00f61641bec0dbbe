"""fstab: which of its lines name a partition that the card has not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.root.fstab import lost_mounts, mounts_in
from imager.disk.signature import Form, Recognised
from tests.unit.bootcheck.root.test_names import BOOT, CARD, UUID, part

HERE = [
    "/dev/mmcblk0p1", "PARTUUID=1a2b3c4d-01", "UUID=1234-ABCD", 'UUID="1234-ABCD"',
    f"UUID={UUID}7", "LABEL=data", "PARTLABEL=boot", "/dev/disk/by-uuid/1234-ABCD",
    "/dev/disk/by-partuuid/1a2b3c4d-03", r"/dev/disk/by-label/d\x61ta", "tmpfs", "proc",
    "server:/export", "//server/share", "/swapfile", "/dev/sda1", "/dev/mapper/x",
]  # fmt: skip
ELSEWHERE = [
    "/dev/mmcblk0p4", "PARTUUID=00000000-01", "UUID=9999-9999", f"UUID={UUID}9",
    "PARTLABEL=none", "/dev/disk/by-uuid/9999-9999", "/dev/disk/by-partuuid/00000000-01",
]  # fmt: skip


@pytest.mark.parametrize("source", HERE)
def test_what_is_on_the_card_or_no_partition_is_not_lost(source: str) -> None:
    assert list(lost_mounts(mounts_in(f"{source} /boot vfat defaults 0 2\n"), CARD)) == []


@pytest.mark.parametrize(
    ("source", "alike"),
    [("UUID=1234-abcd", "1234-ABCD"), ("PARTUUID=1A2B3C4D-01", "1a2b3c4d-01"),
     ("/dev/disk/by-uuid/1234-abcd", "1234-ABCD"), ("PARTLABEL=Boot", "boot"),
     (f"UUID={UUID.upper()}7", f"{UUID}7")],
)  # fmt: skip
def test_a_name_in_other_letters_is_another_name(source: str, alike: str) -> None:
    (lost,) = lost_mounts(mounts_in(f"{source} /boot vfat defaults 0 2\n"), CARD)
    assert (lost.source, lost.alike) == (source, alike)


@pytest.mark.parametrize("source", ELSEWHERE)
@pytest.mark.parametrize("target", ["/", "/boot", "/boot/firmware", "/efi"])
def test_what_another_card_has_is_lost(source: str, target: str) -> None:
    (lost,) = lost_mounts(mounts_in(f"# one\n\n{source}\t{target} auto defaults 0 2\n"), CARD)
    assert (lost.line, lost.source, lost.target, lost.is_system) == (3, source, target, True)
    assert lost.alike == ""


@pytest.mark.parametrize(
    "options", ["nofail", "noauto", "rw,nofail,noatime", "x-systemd.automount"]
)
def test_a_line_that_nothing_waits_for_is_not_lost(options: str) -> None:
    assert list(lost_mounts(mounts_in(f"UUID=9999-9999 /boot vfat {options} 0 2\n"), CARD)) == []


@pytest.mark.parametrize(
    "line",
    ["UUID=9999-9999 /mnt/disk ext4", "UUID=9999-9999 none swap sw", "UUID=9999-9999 /var ext4"],
)
def test_a_further_disk_is_no_part_of_the_system(line: str) -> None:
    (lost,) = lost_mounts(mounts_in(line), CARD)
    assert not lost.is_system


@pytest.mark.parametrize("unseen", [None, Recognised("LUKS", Form.CONTAINER)])
def test_a_name_that_may_lie_on_what_is_not_seen_is_not_lost(unseen: Recognised | None) -> None:
    assert (
        list(lost_mounts(mounts_in("UUID=9999-9999 /boot vfat"), (part(1, BOOT), part(2, unseen))))
        == []
    )


def test_spaces_in_names_are_read() -> None:
    (mount,) = mounts_in(r"LABEL=my\040disk /mnt/my\040disk ext4 defaults" + "\n")
    assert (mount.source, mount.target) == ("LABEL=my disk", "/mnt/my disk")


@given(st.text(max_size=200))
def test_any_text_gets_an_answer(text: str) -> None:
    assert all(lost.source for lost in lost_mounts(mounts_in(text), CARD))
