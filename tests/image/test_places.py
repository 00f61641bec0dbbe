"""A damaged byte is named by the file it lies in, on real FAT and ext4 filesystems."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, StampMismatch
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.diagnosis.places import Places
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.verify import open_target, verify_card
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.receipt.receipt import Receipt
from imager.card.write.read_back import read_back
from imager.card.write.write import write_card
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, claimed, make_image
from tests.support.racks import tool

TOOLS = ("mkfs.vfat", "mcopy", "mke2fs")
pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(
        any(shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None for tool in TOOLS),
        reason=f"needs {', '.join(TOOLS)}",
    ),
]

SIZE = 64 * MiB
LAYOUT = Layout(SIZE, Extent(8 * MiB, 16 * MiB), Extent(24 * MiB, 40 * MiB))
KERNEL = bytes(range(256)) * 8000
LIBRARY = b"\x7fELF" + b"salt" * (MiB // 2)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> NodeImage:
    folder = tmp_path_factory.mktemp("places")
    boot, root = folder / "boot.fat", folder / "root.ext4"
    (folder / "kernel7.img").write_bytes(KERNEL)
    (folder / "tree/usr/lib").mkdir(parents=True)
    (folder / "tree/usr/lib/libsalt.so").write_bytes(LIBRARY)
    boot.write_bytes(bytes(LAYOUT.boot.length))
    for words in (
        ["mkfs.vfat", "-F", "16", str(boot)],
        ["mcopy", "-i", str(boot), str(folder / "kernel7.img"), "::kernel7.img"],
        ["mke2fs", "-q", "-t", "ext4", "-d", str(folder / "tree"), str(root), "40M"],
    ):
        subprocess.run(
            words, check=True, capture_output=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
        )
    whole = ((LAYOUT.boot.offset, boot.read_bytes()), (LAYOUT.root.offset, root.read_bytes()))
    made = make_image(
        folder, SIZE, ExtentMap([LAYOUT.boot, LAYOUT.root]), pieces=whole, layout=LAYOUT
    )
    return replace(made, boot_files={"kernel7.img": hashlib.sha256(KERNEL).hexdigest()})


def place_of(image: NodeImage, extent: Extent) -> str:
    with image.open() as reader:
        return " | ".join(
            map(str, Places(image.layout, reader.read, image.layout.size_bytes).of(extent))
        )


def kernel_extent(image: NodeImage) -> Extent:
    with image.open() as reader:
        volume = FatVolume.parse(reader.read, LAYOUT.boot.offset, LAYOUT.boot.length)
    entry = volume.find("kernel7.img")
    assert entry is not None
    return entry.extents[0]


def library_extent(image: NodeImage) -> Extent:
    with image.open() as reader:
        inode = Ext4.open(reader.read, LAYOUT.root.offset).lookup("/usr/lib/libsalt.so")
    assert inode is not None
    return inode.extents[0]


def test_each_region_is_named(image: NodeImage) -> None:
    assert place_of(image, Extent(440, 4)) == "partition table (first MiB)"
    assert place_of(image, Extent(5 * MiB, 1)) == "gap before the boot partition"
    assert place_of(image, Extent(LAYOUT.boot.offset, 1)) == (
        "boot partition (p1): FAT tables or folders"
    )
    assert "filesystem structures" in place_of(image, Extent(LAYOUT.root.offset + 1024, 1))


def test_files_are_named_by_their_path_on_the_node(image: NodeImage) -> None:
    kernel, library = kernel_extent(image), library_extent(image)
    assert place_of(image, Extent(kernel.offset, 1)) == "boot partition (p1): /boot/kernel7.img"
    assert place_of(image, Extent(kernel.end - 1, 1)) == "boot partition (p1): /boot/kernel7.img"
    assert "kernel7" not in place_of(image, Extent(kernel.offset - 512, 512))
    assert place_of(image, Extent(library.offset, 1)) == (
        "root partition (p2): /usr/lib/libsalt.so"
    )


def test_a_range_over_both_partitions_names_both(image: NodeImage) -> None:
    words = place_of(image, Extent(LAYOUT.boot.end - 512, 4096))
    assert words.startswith("boot partition (p1)")
    assert "| root partition (p2): filesystem structures" in words


def test_the_journal_is_named(image: NodeImage) -> None:
    with image.open() as reader:
        journal = next(iter(Ext4.open(reader.read, LAYOUT.root.offset).journal))
    assert place_of(image, Extent(journal.offset, 1)) == "root partition (p2): journal"


def test_a_filesystem_too_damaged_to_read_leaves_the_partition(image: NodeImage) -> None:
    def noise(offset: int, length: int) -> bytes:
        return b"\xff" * length

    places = Places(image.layout, noise, image.layout.size_bytes)
    kernel, library = kernel_extent(image), library_extent(image)
    assert [str(place) for place in places.of(kernel)] == ["boot partition (p1)"]
    assert [str(place) for place in places.of(library)] == ["root partition (p2)"]


def test_read_back_names_the_file(image: NodeImage) -> None:
    bad = library_extent(image).offset + 70_000
    card = FaultyCard(SIZE, flips={bad: 1})
    with pytest.raises(CardFaulty, match="/usr/lib/libsalt") as caught:
        read_back(write_card(image, claimed(card), Quiet()), Quiet())
    assert f"byte {bad}," in caught.value.what


@pytest.fixture
def receipt(image: NodeImage, tmp_path: Path) -> Receipt:
    target = accept(target_at(tmp_path / "pi7.img"), SIZE)
    return make_card(
        CardOrder(image, target, TrustedFolder(tmp_path / "receipts")), Quiet()
    ).receipt


@pytest.mark.parametrize("inside", [0, 1_000_000, len(KERNEL) - 1])
def test_verify_names_the_boot_file(
    image: NodeImage, receipt: Receipt, tmp_path: Path, inside: int
) -> None:
    with (tmp_path / "pi7.img").open("r+b") as file:
        file.seek(kernel_extent(image).offset + inside)
        file.write(b"?")
    with open_target(tmp_path / "pi7.img") as fresh:
        found = verify_card(fresh, receipt, Quiet())
    assert found.boot_files == ("kernel7.img",)
    with pytest.raises(StampMismatch) as caught:
        found.require_sound()
    assert caught.value.details[0] == "boot file kernel7.img is not what was written"
    assert "/boot/kernel7.img" in caught.value.details[1]


def test_verify_of_a_damaged_fat_still_names_the_place(receipt: Receipt, tmp_path: Path) -> None:
    with (tmp_path / "pi7.img").open("r+b") as file:
        file.seek(LAYOUT.boot.offset)
        file.write(b"\xff" * 4096)
    with open_target(tmp_path / "pi7.img") as fresh:
        found = verify_card(fresh, receipt, Quiet())
    assert "boot partition" in str(found.mismatches[0])


def test_verify_names_a_boot_file_that_is_a_folder_now(receipt: Receipt, tmp_path: Path) -> None:
    boot = f"{tmp_path / 'pi7.img'}@@{LAYOUT.boot.offset}"
    tool("mdel", "-i", boot, "::kernel7.img")
    tool("mmd", "-i", boot, "::kernel7.img")
    with open_target(tmp_path / "pi7.img") as fresh:
        found = verify_card(fresh, receipt, Quiet())
    assert found.boot_files == ("kernel7.img",)
