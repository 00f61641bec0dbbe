"""``verify --repair`` on real block devices: what was lost comes back, and nothing else changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imager.base.units import MiB
from imager.node.stamp.stamp import STAMP_AREA
from tests.support.loop import Loop, loop_over, missing_abilities, udevd_running
from tests.support.usedcard import UsedCard, content_of, copied
from tests.support.workplace import Said, Workplace, workplace

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

KERNEL = "/boot/kernel7.img"
LARGE = "/usr/odd/large"
LATER = 2_000_000_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with udevd_running(), workplace(tmp_path_factory.mktemp("workplace")) as found:
        yield found


@pytest.fixture(scope="module")
def whole(place: Workplace) -> Path:
    """The image of pi7 as it was written."""
    return place.pi7()


@dataclass
class Card:
    """A card in a reader: what it holds, and its device."""

    held: UsedCard
    loop: Loop
    place: Workplace

    def repair(self, *words: str) -> Said:
        said = self.place.json("verify", self.loop.node, "--repair", "--yes", *words)
        assert "Traceback" not in said.err, said.err
        return said

    def error(self, *words: str) -> dict[str, Any]:
        said = self.repair(*words)
        (error,) = (event for event in said.events if event["event"] == "error")
        return error

    def holds_the_same_as(self, other: Path) -> bool:
        return content_of(self.held.path) == content_of(other)

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """The card as it is now, to compare it with later."""
        with copied(self.held.path, self.held.path.with_name("before.raw")) as kept:
            yield kept.path


@pytest.fixture
def card(place: Workplace, whole: Path, tmp_path: Path) -> Iterator[Card]:
    with copied(whole, tmp_path / "card.raw") as held, loop_over(held.path) as loop:
        yield Card(held, loop, place)


def test_a_whole_card_is_left_alone(card: Card, whole: Path) -> None:
    said = card.repair()
    assert said.code == 0, said.err
    assert said.result["matches"] is True
    assert "repaired" not in said.result


def test_a_fresh_card_is_restored_to_the_last_bit(card: Card, whole: Path) -> None:
    card.held.flip_in(KERNEL)
    card.held.flip_in(LARGE, 1_000_000)
    card.held.write(card.held.layout.boot.offset + 4096, bytes(4096))
    said = card.repair()
    assert said.code == 0, said.out
    assert card.holds_the_same_as(whole)
    assert said.result["repaired"] == "card"
    trouble = said.result["trouble"]
    assert trouble["attempts"] == 1
    found = {(damage["kind"], damage["places"][0]) for damage in trouble["found"]}
    assert ("flipped-bits", f"boot partition (p1): {KERNEL}") in found
    assert ("flipped-bits", f"root partition (p2): {LARGE}") in found
    receipt = json.loads(Path(said.result["receipt"]).read_text())
    assert receipt["trouble"] == trouble
    assert receipt["result"] == "verified"
    kinds = [event["event"] for event in said.events]
    assert kinds.count("finding") >= 3
    assert card.place.json("verify", card.loop.node).result["matches"] is True


def test_a_damaged_stamp_is_restored_from_the_receipt(card: Card, whole: Path) -> None:
    card.held.flip(STAMP_AREA.offset + 300)
    card.held.flip(MiB - 1)
    said = card.repair()
    assert said.code == 0, said.out
    assert card.holds_the_same_as(whole)


def test_a_boot_file_is_put_back_on_a_card_in_use(card: Card, tmp_path: Path) -> None:
    card.held.live_on(LATER, tmp_path / "source")
    with card.copy() as lived:
        card.held.flip_in(KERNEL, 5)
        said = card.repair()
        assert said.code == 0, said.out
        assert card.holds_the_same_as(lived)
    assert said.result["repaired"] == "boot files"
    assert said.result["boot_files"] == ["kernel7.img"]
    assert card.place.json("verify", card.loop.node).result["sound"] is True


def test_what_a_node_may_have_changed_is_not_touched_and_the_way_out_is_told(
    card: Card, tmp_path: Path
) -> None:
    card.held.live_on(LATER, tmp_path / "source")
    card.held.flip_in(LARGE, 1_000_000)
    with card.copy() as before:
        error = card.error()
        assert card.holds_the_same_as(before)
    assert error["exit_code"] == 23
    assert "its boot files are whole" in error["what"]
    assert any(LARGE in line for line in error["details"])
    assert f"picloud-image write {card.loop.node} --node pi7" in error["hint"]


def test_a_boot_file_that_was_written_anew_is_not_overwritten(card: Card, tmp_path: Path) -> None:
    card.held.mark_mounted(LATER)
    (tmp_path / "kernel7.img").write_bytes(b"a newer kernel")
    drive = f"{card.held.path}@@{card.held.layout.boot.offset}"
    subprocess.run(["mcopy", "-o", "-i", drive, tmp_path / "kernel7.img", "::"], check=True)
    with card.copy() as before:
        error = card.error()
        assert card.holds_the_same_as(before)
    assert error["exit_code"] == 23
    assert "written anew by somebody" in error["what"]
    assert error["details"] == [KERNEL]


def test_a_rack_that_has_changed_cannot_make_the_same_bytes(card: Card) -> None:
    card.held.flip_in(KERNEL)
    extra = card.place.rack / "overlays/base/root/etc/motd"
    extra.parent.mkdir(parents=True)
    extra.write_text("hello\n")
    try:
        error = card.error()
    finally:
        extra.unlink()
    assert error["exit_code"] == 23
    assert "have changed since this card was written" in error["what"]
    assert f"picloud-image write {card.loop.node} --node pi7" in error["hint"]


def test_a_file_is_written_anew_instead(card: Card, tmp_path: Path, place: Workplace) -> None:
    with copied(card.held.path, tmp_path / "other.img") as other:
        other.flip_in(KERNEL)
        said = place.run("verify", other.path, "--repair", "--yes")
    assert said.code == 20
    assert f"picloud-image write {other.path} --node pi7" in said.err


def test_without_a_yes_and_nobody_to_ask_nothing_is_written(card: Card) -> None:
    card.held.flip_in(KERNEL)
    with card.copy() as before:
        said = card.place.run("verify", card.loop.node, "--repair")
        assert said.code == 2, said.err
        assert card.holds_the_same_as(before)
