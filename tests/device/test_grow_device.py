"""An image's last partition fills a larger card, and its filesystem with it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from imager.base.progress import Quiet
from imager.base.run import run
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import KiB, MiB
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.verify import open_target, verify_card
from imager.card.make.order import SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.receipt.receipt import Receipt
from imager.card.source.opened import WantedImage, opened_source
from imager.card.stages import WriteOptions
from imager.card.write import grow
from imager.card.write.pour import Pouring
from imager.card.write.read_back import read_back
from imager.card.write.stream import pour_card
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import InUse
from tests.support.cards import FaultyCard, claimed
from tests.support.loop import loop_over, missing_abilities, sized_file
from tests.support.racks import Heard
from tests.support.sources import MemorySource

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
CARD = 96 * MiB
TABLES = {
    "dos": "label: dos\nstart=2048, size=8192, type=c\nstart=16384, size=65536, type=83\n",
    "gpt": "label: gpt\nstart=2048, size=8192, type=U\nstart=16384, size=65536\n",
}
ROOT = 16384 * 512
RAID = b"\xfc\x4e\x2b\xa9"


def image_of(folder: Path, table: str, options: tuple[str, ...] = ("-t", "ext4")) -> Path:
    """A disk of 48 MiB with a file in its last partition."""
    tree, image = folder / "tree", folder / "any.img"
    (tree / "etc").mkdir(parents=True)
    (tree / "large").write_bytes(os.urandom(3 * MiB))
    (tree / "etc/hostname").write_text("one\n")
    image.write_bytes(bytes(48 * MiB))
    run(["sfdisk", "--quiet", image], stdin=table.encode())
    if options:
        root = folder / "root"
        run(["mke2fs", "-q", "-F", *options, "-d", tree, root, f"{32 * MiB // KiB}k"])
        data = bytearray(image.read_bytes())
        data[ROOT : ROOT + 32 * MiB] = root.read_bytes()
        image.write_bytes(data)
    return image


def grown(folder: Path, image: Path, card: Path, sector_bytes: int = 512) -> tuple[Receipt, Heard]:
    """Write ``image`` to ``card``; it is proven, and verified again."""
    said = Heard()
    receipts = TrustedFolder(folder / "receipts")
    with (
        loop_over(card, sector_bytes=sector_bytes) as loop,
        opened_source(WantedImage(str(image))) as opened,
    ):
        least = opened.source.least_bytes
        accepted = accept(target_at(loop.node), least)
        order = SourceOrder(opened.source, least, accepted, receipts, grow=True)
        made = make_poured_card(order, said)
        with open_target(loop.node) as fresh:
            assert verify_card(fresh, made.receipt, Quiet()).matches
    return made.receipt, said


def last_of(card: Path) -> tuple[int, int]:
    """Where the last partition begins and ends, as sfdisk says."""
    table = json.loads(run(["sfdisk", "--json", card]).stdout)["partitiontable"]
    last = table["partitions"][-1]
    return last["start"] * 512, (last["start"] + last["size"]) * 512


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext2", "-b", "1024")], ids=str)
@pytest.mark.parametrize("table", TABLES)
def test_it_fills_a_card_with_a_past(tmp_path: Path, table: str, options: tuple[str, ...]) -> None:
    image = image_of(tmp_path, TABLES[table], options)
    card = sized_file(tmp_path / "card", CARD, b"\xa5\x5a" * 256)
    end = CARD if table == "dos" else CARD - MiB
    with card.open("r+b") as file:
        file.seek(end - 8192)
        file.write(RAID)
    receipt, said = grown(tmp_path, image, card)
    assert last_of(card) == (ROOT, end)
    assert not said.warned
    assert receipt.manifest.extents.total_bytes < CARD // 2
    run(["sfdisk", "--verify", card])
    root = tmp_path / "grown"
    with card.open("rb") as file, root.open("wb") as copy:
        file.seek(ROOT)
        copy.write(file.read(end - ROOT))
        file.seek(end - 8192)
        assert file.read(len(RAID)) == bytes(len(RAID))
    run(["e2fsck", "-fn", root])
    told = run(["dumpe2fs", "-h", root]).stdout.decode()
    size, count = (
        int(re.findall(rf"{key}: +(\d+)", told)[0]) for key in ("Block size", "Block count")
    )
    assert end - ROOT - size * count < MiB
    content = run(["debugfs", "-R", "cat /large", root]).stdout
    assert content == (tmp_path / "tree/large").read_bytes()


@pytest.mark.parametrize(
    ("table", "options", "why"),
    [
        (TABLES["dos"], (), "no ext"),
        ("label: dos\n", (), "there is no partition"),
        (
            "label: dos\nstart=2048, size=8192, type=5\nstart=16384, size=65536, type=83\n",
            ("-t", "ext4"),
            "extended partition",
        ),
    ],
)
def test_what_cannot_be_is_said_and_the_card_is_good(
    tmp_path: Path, table: str, options: tuple[str, ...], why: str
) -> None:
    image = image_of(tmp_path, table, options)
    card = sized_file(tmp_path / "card", 64 * MiB, b"\xa5\x5a" * 256)
    _, said = grown(tmp_path, image, card)
    (warning,) = said.warned
    assert warning.startswith("the last partition stays as large as it is in the image: ")
    assert why in warning


def test_a_filesystem_that_was_not_unmounted_is_left_alone(tmp_path: Path) -> None:
    image = image_of(tmp_path, TABLES["dos"])
    with image.open("r+b") as file:
        file.seek(ROOT + 1024 + 0x60)
        flags = int.from_bytes(file.read(4), "little") | 4
        file.seek(ROOT + 1024 + 0x60)
        file.write(flags.to_bytes(4, "little"))
    _, said = grown(tmp_path, image, sized_file(tmp_path / "card", 64 * MiB, bytes(512)))
    assert len(said.warned) == 1


def test_structures_that_are_more_than_memory_is_for_are_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_of(tmp_path, TABLES["dos"]).read_bytes()

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length].ljust(length, b"\0")

    most = Ext4.open(read, ROOT).metadata.total_bytes
    monkeypatch.setattr(grow, "_MOST_COPIED", most)
    assert grow.growth(read, CARD).end_bytes == CARD
    monkeypatch.setattr(grow, "_MOST_COPIED", most - 1)
    with pytest.raises(grow.CannotGrow, match="are its structures"):
        grow.growth(read, CARD)


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    """A block of 1 KiB that changes is written with its neighbours."""
    image = image_of(tmp_path, TABLES["dos"], ("-t", "ext4", "-b", "1024"))
    card = sized_file(tmp_path / "card", CARD, b"\xa5\x5a" * 256)
    grown(tmp_path, image, card, 4096)
    assert last_of(card) == (ROOT, CARD)


def test_what_a_card_does_not_keep_of_it_is_mended(tmp_path: Path) -> None:
    """In a MiB of which the source gives a part, and in one of which it gives nothing."""
    image, size = image_of(tmp_path, TABLES["dos"]), 96 * MiB
    data = image.read_bytes()
    ranges = InUse(lambda at, length: data[at : at + length], len(data)).ranges()
    given = MemorySource(
        [(r.offset, data[r.offset : r.end]) for r in ranges if r.length], len(data)
    )
    card = FaultyCard(size)
    pouring = Pouring(given, block_bytes=MiB)
    done = pour_card(pouring, claimed(card), Quiet(), WriteOptions(MiB, 2), grow=True)
    good = bytes(card.data)
    own = done.image.manifest.extents - ExtentMap([Extent(0, 48 * MiB)])
    places = (ROOT + 1024, next(iter(own)).offset)
    for place in places:
        card.data[place] ^= 1
    verified = read_back(done, Quiet())
    assert bytes(card.data) == good
    trouble = verified.proven.card.log.trouble
    assert trouble is not None
    assert [damage.first_byte for damage in trouble.found] == [*places]
