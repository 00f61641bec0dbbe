"""Which partition root= means, among all partitions of a card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.root.names import (
    NamedPartition,
    RootFault,
    RootOffCard,
    RootUnproven,
    named_root,
)
from imager.disk.extents import Extent
from imager.disk.signature import Form, Recognised
from imager.disk.table import TablePartition

UUID = "0f0f0f0f-0000-4000-8000-00000000000"
BOOT = Recognised("FAT32", Form.FILESYSTEM, "1234-ABCD")
SWAP = Recognised("swap", Form.SWAP, UUID + "3", "swap")
LUKS = Recognised("LUKS", Form.CONTAINER, UUID + "4")


def part(index: int, holds: Recognised | None, label: str = "") -> NamedPartition:
    where = TablePartition(index, Extent(0, 1), f"1a2b3c4d-{index:02x}", 0x83, label)
    return NamedPartition(where, holds)


def ext4(number: int, label: str = "root") -> Recognised:
    return Recognised("ext4", Form.FILESYSTEM, f"{UUID}{number}", label)


CARD = (part(1, BOOT, "boot"), part(2, SWAP), part(3, ext4(7), "system"), part(5, ext4(8, "data")))


@pytest.mark.parametrize(
    ("root", "index"),
    [
        ("/dev/mmcblk0p3", 3),
        ("/dev/mmcblk1p3", 3),
        ("/dev/mmcblk0p5", 5),
        ("179:3", 3),
        ("179:11", 3),
        ("b303", 3),
        ("0xb303", 3),
        ("PARTUUID=1a2b3c4d-03", 3),
        ("PARTUUID=1a2b3c4d-01/PARTNROFF=2", 3),
        ("PARTLABEL=system", 3),
        (f"UUID={UUID}8", 5),
        (f'UUID="{UUID}8"', 5),
        ("LABEL=data", 5),
        (f"/dev/disk/by-uuid/{UUID}7", 3),
        ("/dev/disk/by-label/data", 5),
        (r"/dev/disk/by-label/d\x61ta", 5),
        ("/dev/disk/by-partuuid/1a2b3c4d-03", 3),
        ("/dev/disk/by-partlabel/system", 3),
    ],
)
def test_every_form_names_its_partition(root: str, index: int) -> None:
    assert named_root(root, CARD, initramfs=True).part.index == index


@pytest.mark.parametrize(
    "root",
    ["/dev/mmcblk0p9", "/dev/mmcblk0",
     "PARTUUID=00000000-03", "PARTUUID=1a2b3c4d-04", "PARTUUID=1a2b3c4d-05/PARTNROFF=2",
     "PARTLABEL=other", "PARTLABEL=System", "LABEL=DATA", f"UUID={UUID}9", "179:4", "b304",
     "/dev/mmcblk0p1x", "/dev/mmcblk0boot0"],
)  # fmt: skip
def test_what_is_not_on_the_card_is_quoted(root: str) -> None:
    with pytest.raises(RootFault) as caught:
        named_root(root, CARD, initramfs=True)
    assert root.partition("=")[2].strip('"') in str(caught.value)


@pytest.mark.parametrize(
    "root",
    ["UUID=" + UUID + "7", "LABEL=root", "/dev/disk/by-uuid/" + UUID + "7", "/dev/mapper/root",
     "/dev/dm-0", "/dev/md0", "/dev/vg0/root", "ZFS=pool/root",
     "gpt-auto", "dhcp", "tmpfs", "mmcblk0p3", "nfs:10.0.0.1:/srv", 'PARTUUID="1a2b3c4d-03"'],
)  # fmt: skip
def test_what_no_kernel_reads_needs_an_initramfs(root: str) -> None:
    with pytest.raises(RootFault):
        named_root(root, CARD, initramfs=False)


@pytest.mark.parametrize(
    "root",
    ["/dev/mapper/root", "/dev/dm-0", "/dev/md0", "/dev/vg0/root", "ZFS=pool/root", "/dev/ram0",
     "live:CDLABEL=x", "/dev/disk/by-id/mmc-x-part2", "gpt-auto", "dhcp", "tmpfs", "fstab",
     "overlay", "aufs", "nfs:10.0.0.1:/srv", "nfs4:10.0.0.1:/srv", "nonsense", "mmcblk0p3"],
)  # fmt: skip
def test_what_an_initramfs_puts_together_is_unproven(root: str) -> None:
    with pytest.raises(RootUnproven):
        named_root(root, CARD, initramfs=True)


@pytest.mark.parametrize(
    "root", ["PARTUUID=1A2B3C4D-03", f"UUID={UUID.upper()}7", "UUID=1234-abcd"]
)
def test_a_name_in_other_letters_is_found_by_the_kernel_and_by_some_initramfs(root: str) -> None:
    with pytest.raises(RootUnproven, match="in other letters") as caught:
        named_root(root, CARD, initramfs=True)
    assert not isinstance(caught.value, RootOffCard)
    if root.startswith("PARTUUID"):
        assert named_root(root, CARD, initramfs=False).part.index == 3


@pytest.mark.parametrize("initramfs", [False, True])
@pytest.mark.parametrize(
    "root",
    ["/dev/sda2", "/dev/nvme0n1p2", "/dev/vda2", "/dev/mmcblk2p2", "/dev/nfs", "/dev/cifs", "8:2"],
)
def test_another_disk_or_a_server_is_not_seen_from_here(root: str, initramfs: bool) -> None:
    with pytest.raises(RootOffCard, match=f"root={root} is another disk or a server"):
        named_root(root, CARD, initramfs=initramfs)


@pytest.mark.parametrize("unseen", [None, LUKS, Recognised("LVM", Form.CONTAINER)])
@pytest.mark.parametrize("root", [f"UUID={UUID}9", "LABEL=other"])
def test_a_name_that_may_lie_on_what_is_not_seen_is_unproven(
    root: str, unseen: Recognised | None
) -> None:
    with pytest.raises(RootUnproven):
        named_root(root, (part(1, BOOT), part(2, unseen)), initramfs=True)


@given(st.text(max_size=60), st.booleans())
def test_any_value_gets_an_answer(root: str, initramfs: bool) -> None:
    try:
        assert named_root(root, CARD, initramfs=initramfs) in CARD
    except (RootFault, RootUnproven) as error:
        assert str(error)
