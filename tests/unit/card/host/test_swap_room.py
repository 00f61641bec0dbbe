"""A disk on which the swap file would have no room is refused, and told what has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import TargetRefused
from imager.base.units import GiB, MiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.swap_room import SPARE_BYTES, free_bytes, require_swap_room, swap_refusals
from imager.card.host.target import Limits, RefusalCode
from imager.card.host.targets import target_at
from imager.config.rack import Rack
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import plan_layout
from imager.disk.manifest import Manifest
from imager.image.compose.golden import GoldenImage
from imager.rack.plan.candidates import reasons_against, sort_disks
from imager.rack.plan.slots import load_slots
from tests.support.racks import rack_in

ROOT = Path(__file__).resolve().parents[4]
LAYOUT = plan_layout(0, GiB)
USED = 400 * MiB
CARD = Disk("/dev/sdb", "8:16", 2 * GiB, Bus.USB, model="STORAGE", removable=True)


def golden(used_bytes: int = USED) -> GoldenImage:
    """A golden image whose root filesystem uses so much, behind a boot partition that is full."""
    boot, root = LAYOUT.boot, LAYOUT.root
    extents = ExtentMap([Extent(0, boot.end), Extent(root.offset, used_bytes)])
    manifest = Manifest(LAYOUT.size_bytes, extents, ())
    return GoldenImage(Path("golden"), "k", "hand-made", "0" * 64, ("pi2",), LAYOUT, manifest, {})


def rack_with(folder: Path, size: str) -> Rack:
    return rack_in(folder, f'[rack]\nnodes = "pi[0-3]"\n[swap]\nsize = "{size}"\n')


@pytest.mark.parametrize(
    ("size_bytes", "swap", "fits"),
    [
        (2 * GiB, "1GiB", True),
        (2 * GiB, "1088MiB", False),
        (LAYOUT.size_bytes, "1GiB", False),
        (LAYOUT.size_bytes, "320MiB", True),
        (LAYOUT.size_bytes, "0", True),
        (LAYOUT.size_bytes - 512, "1GiB", True),  # which says so itself: it is too small anyway
        (4 * GiB, "4GiB", False),
        (64 * GiB, "32GiB", True),
    ],
)
def test_what_fits(tmp_path: Path, size_bytes: int, swap: str, fits: bool) -> None:
    card = replace(CARD, size_bytes=size_bytes)
    reasons = swap_refusals(card, [golden()], rack_with(tmp_path, swap))
    assert [reason.code for reason in reasons] == ([] if fits else [RefusalCode.NO_SWAP_ROOM])


def test_size_room_and_remedy_are_named(tmp_path: Path) -> None:
    with pytest.raises(TargetRefused) as caught:
        require_swap_room(CARD, golden(), rack_with(tmp_path, "2GiB"))
    assert caught.value.exit_code == 20
    assert caught.value.what == (
        "/dev/sdb has no room for a swap file of 2 GiB ([swap] size): 1.4 GB are free beside the "
        "system, and 268.4 MB must stay so"
    )
    assert caught.value.hint == (
        'use a larger card, or set [swap] size in rack.toml to "1056MiB" or less, or "0" for none'
    )
    require_swap_room(CARD, golden(), rack_with(tmp_path, "1056MiB"))


def test_where_nothing_is_left_none_is_proposed(tmp_path: Path) -> None:
    full = golden(GiB - 100 * MiB)
    (reason,) = swap_refusals(
        replace(CARD, size_bytes=LAYOUT.size_bytes), [full], rack_with(tmp_path, "1MiB")
    )
    assert reason.hint == 'use a larger card, or set [swap] size in rack.toml to "0" for none'


def test_the_fullest_image_decides(tmp_path: Path) -> None:
    rack = rack_with(tmp_path, "1GiB")
    assert swap_refusals(CARD, [golden(), golden(GiB)], rack)
    assert not swap_refusals(CARD, [], rack), "before an image is composed nothing is known"


def test_an_image_file_is_for_a_card_nobody_knows_yet(tmp_path: Path) -> None:
    target = target_at(tmp_path / "pi0.img")
    assert not swap_refusals(target, [golden()], rack_with(tmp_path, "64GiB"))


def test_a_batch_leaves_such_a_card_alone_and_takes_the_others(tmp_path: Path) -> None:
    rack = rack_with(tmp_path, "2GiB")
    large = replace(CARD, node="/dev/sdc", size_bytes=8 * GiB)
    slots = load_slots(rack.folder)
    fit, unfit = sort_disks(
        [CARD, large], slots, lambda card: reasons_against(card, [golden()], rack, Limits())
    )
    assert fit == [large]
    assert [card.target for card in unfit] == [CARD]
    assert "[swap] size" in unfit[0].reasons[0]


def test_first_boot_wants_as_much_to_stay_free() -> None:
    step = (ROOT / "firstboot/steps/30-swap").read_text()
    found = re.search(r"^reserve_kib=(\d+)", step, re.MULTILINE)
    assert found is not None
    assert int(found[1]) * 1024 == SPARE_BYTES


def test_a_larger_card_has_more_room() -> None:
    sizes = [LAYOUT.size_bytes, 2 * GiB, 4 * GiB, 256 * GiB]
    free = [free_bytes(golden(), size) for size in sizes]
    assert free == sorted(free)
    assert free[0] < LAYOUT.root.length - USED
