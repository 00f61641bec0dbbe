"""``verify``, ``inspect`` and ``rack show`` with nothing but a card, and with its rack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imager.node.stamp.stamp import STAMP_AREA, encode_stamp, parse_stamp
from tests.support.usedcard import UsedCard, copied
from tests.support.workplace import Said, Workplace, workplace

pytestmark = pytest.mark.image

LARGE = "/usr/odd/large"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("workplace")) as found:
        yield found


@pytest.fixture(scope="module")
def card(place: Workplace) -> Path:
    return place.pi7()


@pytest.fixture
def copy(card: Path, tmp_path: Path) -> Iterator[UsedCard]:
    with copied(card, tmp_path / "copy.img") as found:
        yield found


@pytest.fixture
def stranger(place: Workplace, tmp_path: Path) -> Workplace:
    """Somebody with the card and nothing else: no rack, no cache, an empty home."""
    kept = {name: value for name, value in place.environment.items() if "PICLOUD" not in name}
    homes = {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "data")}
    (tmp_path / "elsewhere").mkdir()
    return Workplace(tmp_path / "elsewhere", place.mirror, kept | homes)


def two_lines(said: Said, code: int) -> str:
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    lines = said.err.splitlines()
    assert lines[-1].startswith("  → ")
    return next(line for line in lines if line.startswith("picloud-image: "))


def test_a_card_alone_is_verified_and_nothing_is_made_for_it(
    stranger: Workplace, card: Path, tmp_path: Path
) -> None:
    said = stranger.json("verify", card)
    assert said.code == 0, said.err
    result = said.result
    assert (result["proof"], result["node"], result["receipt"]) == ("stamp", "pi7", None)
    assert (result["matches"], result["sound"], result["used"]) == (True, True, False)
    assert result["stamp"]["key_known"] is None
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "home").exists()
    assert [*stranger.folder.iterdir()] == []


def test_a_stranger_is_told_whose_key_it_is_not(stranger: Workplace, card: Path) -> None:
    said = stranger.run("verify", card)
    assert said.code == 0
    assert "byte for byte as its stamp says" in said.out
    assert "not known here" in said.out


def test_with_the_rack_at_hand_the_key_is_known_and_shown(place: Workplace, card: Path) -> None:
    shown = place.json("rack", "show").result["key"]
    assert shown.startswith("SHA256:")
    assert shown in place.run("rack", "show").out
    result = place.json("verify", card).result
    assert (result["stamp"]["key"], result["stamp"]["key_known"]) == (shown, True)
    assert f"signed by this rack's key {shown}" in place.run("inspect", card).out


def test_another_racks_key_is_told_apart(place: Workplace, card: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert place.run("rack", "init", "--rack", other).code == 0
    assert place.json("rack", "show", "--rack", other).result["key"] is None
    url = (place.rack / "rack.toml").read_text()
    (other / "rack.toml").write_text(url)
    made = place.run(
        "write", tmp_path / "o.img", "--node", "pi1", "--size", "2GiB", "--rack", other
    )
    assert made.code == 0, made.err
    said = place.run("verify", card, "--rack", other)
    assert "which is not this rack's" in two_lines(said, 23)
    assert place.json("verify", card, "--rack", other).result["ok"] is False
    key = place.json("rack", "show").result["key"]
    assert key in said.err
    assert place.run("verify", card, "--rack", other, "--key", key).code == 0
    inspected = place.run("inspect", card, "--rack", other)
    assert inspected.code == 0, "it would boot"
    assert "not this rack's: somebody else wrote this card, or altered it" in inspected.out


def test_a_key_can_be_demanded(stranger: Workplace, place: Workplace, card: Path) -> None:
    key = place.json("rack", "show").result["key"]
    assert stranger.run("verify", card, "--key", key).code == 0
    other = key[:-4] + ("AAAA" if key[-4:] != "AAAA" else "BBBB")
    assert f"not by {other}" in two_lines(stranger.run("verify", card, "--key", other), 23)
    two_lines(place.run("verify", card, "--key", other), 23)
    two_lines(stranger.run("verify", card, "--key", "SHA256:short"), 2)
    receipt = next((place.rack / ".picloud/receipts").glob("*pi7.json"))
    said = place.run("verify", card, "--receipt", receipt, "--key", key)
    assert "no key signed" in two_lines(said, 23)


def test_a_stranger_who_signs_a_card_anew_is_found_out(place: Workplace, copy: UsedCard) -> None:
    """The stamp is whole and fits the card; only its key is another one."""
    with copy.path.open("r+b") as file:
        file.seek(STAMP_AREA.offset)
        stamp = parse_stamp(file.read(STAMP_AREA.length))
        key = Ed25519PrivateKey.generate()
        forged = encode_stamp(
            stamp.facts, stamp.manifest, stamp.files, key.public_key().public_bytes_raw(), key.sign
        )
        file.seek(STAMP_AREA.offset)
        file.write(forged)
    said = place.json("verify", copy.path)
    assert (said.code, said.result["ok"]) == (23, False)
    copy.flip_in(LARGE)
    repair = place.run("verify", copy.path, "--repair", "--yes")
    assert "which is not this rack's" in two_lines(repair, 23)


def test_inspect_tells_the_stamp_of_a_card_alone(stranger: Workplace, card: Path) -> None:
    said = stranger.json("inspect", card)
    assert said.code == 0, said.err
    stamp = said.result["stamp"]
    assert (stamp["state"], stamp["node"], stamp["rack"]) == ("signed", "pi7", "picloud")
    assert len(stamp["release_sha256"]) == 64
    text = stranger.run("inspect", card).out
    assert "stamp: pi7 (pi2) of rack picloud" in text
    assert "UTC, by picloud-image" in text
    assert text.startswith(f"{card}: would boot on pi2 as pi7")
    assert "imaged_at 20" in text, "a date, no number of seconds"


def test_a_flipped_byte_in_the_stamp_is_said(
    place: Workplace, stranger: Workplace, copy: UsedCard
) -> None:
    copy.flip(STAMP_AREA.offset + 300)
    assert "stamp is unusable" in two_lines(stranger.run("verify", copy.path), 23)
    inspected = stranger.json("inspect", copy.path)
    assert inspected.code == 0, "it would still boot"
    assert inspected.result["stamp"]["state"] == "unusable"
    assert "stamp: unusable: its signature does not fit" in stranger.run("inspect", copy.path).out
    with_receipt = place.run("verify", copy.path)
    two_lines(with_receipt, 23)
    assert "using its receipt instead" in with_receipt.err
    assert "stamp (first MiB)" in with_receipt.err


def test_a_receipt_can_still_be_asked_for(place: Workplace, card: Path) -> None:
    receipt = next((place.rack / ".picloud/receipts").glob("*pi7.json"))
    result = place.json("verify", card, "--receipt", receipt).result
    assert (result["proof"], result["matches"]) == ("receipt", True)


def test_a_blank_card_is_no_image_of_ours(stranger: Workplace, tmp_path: Path) -> None:
    (tmp_path / "blank.img").write_bytes(bytes(1 << 20))
    assert "no image of ours" in two_lines(stranger.run("verify", tmp_path / "blank.img"), 23)


def test_use_is_told_from_damage(stranger: Workplace, copy: UsedCard, tmp_path: Path) -> None:
    copy.live_on(int(time.time()) + 3600, tmp_path / "source")
    said = stranger.run("verify", copy.path)
    assert said.code == 0, said.err
    assert "a Pi has run from it; nothing is damaged" in said.out
    result = stranger.json("verify", copy.path).result
    assert (result["used"], result["matches"], result["sound"]) == (True, False, True)
    assert result["use"]["files_changed"] >= 3
    copy.flip_in(LARGE)
    damaged = stranger.run("verify", copy.path)
    assert "had no reason to change is damaged" in two_lines(damaged, 23)
    assert f"{LARGE} is not what was written" in damaged.err
    events = stranger.json("verify", copy.path).events
    assert [event["path"] for event in events if event["event"] == "finding"] == [LARGE]
