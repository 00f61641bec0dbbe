"""Cards in readers are saved and put back: ``rack save`` and ``rack restore`` on loop devices."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imager.base.units import MiB
from imager.card.receipt.store import load_receipt
from imager.card.save.original import opened_original
from imager.disk.extents import Extent, ExtentMap
from imager.disk.rescue_map import BlockState, RescueMap
from imager.rack.history.events import NodeState, Standing
from imager.rack.history.ledger import read_ledger
from tests.fault.dying import first_differing
from tests.support.faultcard import Fault, fault_card, why_not
from tests.support.loop import Loop, missing_abilities, udevd_running
from tests.support.rackcards import SIZE, blank_cards, first_mib, flash_words
from tests.support.sampling import SEED
from tests.support.workplace import Workplace, workplace

pytestmark = [
    pytest.mark.device,
    pytest.mark.long(minutes=1),
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

_ROUNDS = 4
_LONGEST_SECONDS = 6.0
"""Two cards are saved in about that."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with udevd_running(), workplace(tmp_path_factory.mktemp("workplace")) as found:
        assert found.run("compose").code == 0
        yield found


def named(*loops: Loop) -> list[str | Path]:
    return [word for loop in loops for word in ("--target", loop.node)]


def state_of(place: Workplace, node: str) -> NodeState:
    return read_ledger(place.rack).state_of(node)


def bytes_of(loop: Loop) -> bytes:
    return loop.backing.read_bytes()


def spoil(loop: Loop) -> None:
    """What an upgrade did to the card: the stamp is as it was, and half of the rest is gone."""
    with loop.node.open("r+b") as card:
        card.seek(MiB)
        card.write(os.urandom(8 * MiB))
        os.fsync(card.fileno())


def test_cards_are_saved_and_put_back(place: Workplace, tmp_path: Path) -> None:
    saves = place.folder / "saves" / "today"
    with blank_cards(tmp_path, 3) as (one, two, spare):
        assert place.run(*flash_words("pi[1-2]", [one.node, two.node])).code == 0
        looked = place.json("rack", "save", saves, "--dry-run", *named(one))
        assert looked.code == 0 and not saves.parent.exists()

        said = place.json("rack", "save", saves, *named(one, two, spare))
        assert said.code == 0, said.err + said.out
        assert said.result["saved"] == ["pi1", "pi2"]
        assert said.events[0]["left"][0]["because"] == "there is nothing to save"
        names = [f"pi{n}.img.zst{end}" for n in (1, 2) for end in ("", ".bmap")]
        assert sorted(path.name for path in saves.iterdir()) == names
        assert {stat.S_IMODE(path.stat().st_mode) for path in saves.iterdir()} == {0o600}
        assert stat.S_IMODE(saves.stat().st_mode) == 0o700
        saved = state_of(place, "pi1").saved
        assert saved is not None and saved.file == str(saves / "pi1.img.zst")

        before = [(path, path.stat().st_mtime_ns) for path in saves.iterdir()]
        again = place.json("rack", "save", saves, *named(one))
        assert (again.code, again.result["failed"]) == (30, ["pi1"])
        assert "not overwritten" in again.result["cards"][0]["reason"]
        assert before == [(path, path.stat().st_mtime_ns) for path in saves.iterdir()]

        was, first = first_mib(one.backing), state_of(place, "pi1").last
        spoil(one)
        assert place.run("verify", one.node).code == 23
        back = place.json("rack", "restore", saves, "--nodes", "pi1", "--yes", *named(one))
        assert back.code == 0, back.err + back.out
        assert first_mib(one.backing) == was
        assert place.run("verify", one.node).code == 0
        on_spare = place.json("rack", "restore", saves, "--nodes", "pi2", "--yes", *named(spare))
        assert on_spare.code == 0, on_spare.err + on_spare.out
        verified = place.run("verify", spare.node)
        assert verified.code == 0, verified.err

        now = state_of(place, "pi1")
        assert now.restored is not None and now.last is not None and first is not None
        assert (now.restored.file, now.restored.saved_at) == (saved.file, saved.at)
        assert now.standing(first.recipe) is Standing.CURRENT, "as it was when it was saved"
        assert now.last.image_id == first.image_id
        receipt = load_receipt(place.rack / ".picloud/receipts" / now.last.receipt)
        assert receipt.node == "pi1" and receipt.image.source is not None
        shown = place.run("rack", "show").out
        day = saved.at[:10]
        assert f"pi[1-2]: restored from {saves}, saved on {day}" in shown
        assert f"pi[1-2]: saved to {saves} on {day}" in shown
        refusals_are_named(place, saves, tmp_path / "bad", one)


def refusals_are_named(place: Workplace, saves: Path, bad: Path, card: Loop) -> None:
    """What is no whole card of its node is said before anything is written."""
    bad.mkdir(mode=0o700)
    image = saves / "pi1.img.zst"
    for node in ("pi1", "pi2", "pi3", "pi7"):
        shutil.copy(image, bad / f"{node}.img.zst")
    lost = RescueMap(SIZE)
    lost.put(Extent(MiB, 4096), BlockState.BAD)
    (bad / "pi3.img.zst.map").write_bytes(lost.encode())
    (bad / "pi7.img.zst.map").write_bytes(b"torn")
    (bad / "pi4.img").write_bytes(bytes(2 * MiB))
    (bad / "pi5.img").write_bytes(b"")
    (bad / "pi5.img.xz").write_bytes(b"")
    whole = bytes_of(card)
    said = place.json("rack", "restore", bad, "--nodes", "pi[1-7]", "--dry-run", *named(card))
    assert said.code == 0, said.err
    cannot: dict[str, Any] = {one["node"]: one["refused"] for one in said.result["cannot"]}
    assert [step["node"] for step in said.result["steps"]] == ["pi1"]
    assert "is pi1's card, not pi2's" in cannot["pi2"]
    assert "is not whole: 4.1 kB of its card could not be read" in cannot["pi3"]
    assert "whether it is whole cannot be told" in cannot["pi7"]
    assert "no card of ours" in cannot["pi4"]
    assert "several saved cards of pi5" in cannot["pi5"]
    assert "has no saved card of pi6" in cannot["pi6"]
    assert bytes_of(card) == whole


@pytest.mark.long(minutes=7)
def test_killed_at_any_moment_a_save_is_whole_or_has_no_name(
    place: Workplace, tmp_path: Path
) -> None:
    chance = random.Random(os.environ[SEED])
    with blank_cards(tmp_path, 2) as cards:
        assert place.run(*flash_words("pi[1-2]", [card.node for card in cards])).code == 0
        in_use = [_in_use(card) for card in cards]
        for number in range(_ROUNDS):
            saves = place.folder / "saves" / f"killed-{number}"
            words = place.command("rack", "save", saves, *named(*cards))
            null = subprocess.DEVNULL
            with subprocess.Popen(words, env=place.environment, stdout=null, stderr=null) as begun:
                time.sleep(chance.uniform(0.5, _LONGEST_SECONDS))
                begun.kill()
            made = {path.name for path in saves.glob("*.img.zst")}
            again = place.json("rack", "save", saves, *named(*cards))
            assert again.code == (30 if made else 0), again.out
            assert {f"{node}.img.zst" for node in again.result["failed"]} == made
            _require_saved(saves, cards, in_use)
            shutil.rmtree(saves)


@pytest.mark.long(minutes=7)
def test_of_two_at_once_one_is_refused(place: Workplace, tmp_path: Path) -> None:
    saves = place.folder / "saves" / "twice"
    with blank_cards(tmp_path, 2) as cards:
        assert place.run(*flash_words("pi[1-2]", [card.node for card in cards])).code == 0
        in_use = [_in_use(card) for card in cards]
        with ThreadPoolExecutor(2) as pool:
            words = "rack", "save", saves, *named(*cards)
            both = [*pool.map(lambda _: place.json(*words), range(2))]
        assert sorted(said.code for said in both) == [0, 20], [said.out for said in both]
        assert [said.result["saved"] for said in both if not said.code] == [["pi1", "pi2"]]
        _require_saved(saves, cards, in_use)
        assert len([*saves.iterdir()]) == 4, [*saves.iterdir()]


@pytest.mark.long(minutes=7)
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_card_pulled_out_fails_alone_and_the_next_run_saves_it(
    place: Workplace, tmp_path: Path
) -> None:
    saves = place.folder / "saves" / "pulled"
    with blank_cards(tmp_path, 1) as (one,), fault_card(tmp_path / "other", SIZE) as other:
        assert place.run(*flash_words("pi[1-2]", [one.node, other.node])).code == 0
        in_use = [_in_use(one), _in_use(other.loop)]
        place_of_pull = [*in_use[1].split(MiB)][len(in_use[1]) // 2 + 20]
        other.arm([Fault("vanish", place_of_pull, ("",), on="read")])
        other.phase("")
        said = place.json("rack", "save", saves, *named(one, other.loop))
        assert (said.code, said.result["saved"], said.result["failed"]) == (30, ["pi1"], ["pi2"])
        assert not (saves / "pi2.img.zst").exists()
        other.arm()
        again = place.json("rack", "save", saves, "--nodes", "pi2", *named(one, other.loop))
        assert again.code == 0, again.out
        store = replace(other.loop, backing=other.store)
        _require_saved(saves, [one, store], in_use)


def _require_saved(saves: Path, cards: Sequence[Loop], in_use: Sequence[ExtentMap]) -> None:
    """Each image is its card in all that counts."""
    for card, counts, node in zip(cards, in_use, ("pi1", "pi2"), strict=True):
        image = card.backing.with_name(f"{node}.unpacked")
        with image.open("wb") as file:
            packed = saves / f"{node}.img.zst"
            subprocess.run(["zstd", "-dc", "--sparse", packed], stdout=file, check=True)
        assert first_differing(card.backing, image, counts) is None
        image.unlink()


def _in_use(card: Loop) -> ExtentMap:
    with opened_original(card.node) as original:
        return original.card.extents


def test_a_card_that_is_too_small_is_refused(place: Workplace, tmp_path: Path) -> None:
    saves = place.folder / "saves" / "today"
    with blank_cards(tmp_path, 1, SIZE // 2) as (small,):
        said = place.json("rack", "restore", saves, "--nodes", "pi1", "--yes", *named(small))
        assert said.code == 20, said.out
        assert "too small" in said.events[0]["cannot"][0]["refused"]
        assert not any(first_mib(small.backing))
