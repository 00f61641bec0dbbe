"""What a station says of itself: its cards, those it may not write, its images, its room."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.durable import free_bytes
from imager.base.json_fields import JsonFault, JsonObject
from imager.base.programs import tool_version
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import GiB, MiB
from imager.node.stamp.stamp import STAMP_AREA
from imager.rack.plan.candidates import Holds
from imager.stations.desk.records import Records
from imager.stations.desk.survey import survey
from imager.stations.wire.golden import lay_out_pieces, take_golden, wanted_golden
from imager.stations.wire.survey import NO_KEY
from tests.support.deskcard import ordered_card
from tests.support.stamps import FACTS, PUBLIC, by_hand
from tests.support.sysfs import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A blank card of 4 GiB in slot A1, one of 32 GiB that is too large, one that is mounted."""
    host = FakeHost(tmp_path / "host")
    by_path = host.root / "dev/disk/by-path"
    by_path.mkdir()
    for number, (name, gib) in enumerate((("sdb", 4), ("sdc", 32), ("sdd", 4))):
        minor = 16 * (number + 1)
        host.disk(name, f"8:{minor}", gib=gib, diskseq="7", device__model="STORAGE")
        host.udev[f"8:{minor}"] = {"ID_BUS": "usb"}
        (by_path / f"pci-{name}").symlink_to(f"../../{name}")
        os.truncate(host.root / "dev" / name, gib * GiB)
    host.partition("sdd", "sdd1", "8:49")
    host.mount("8:49", "/media/photos")
    return host


@pytest.fixture
def records(tmp_path: Path) -> Records:
    folder = tmp_path / "station"
    folder.mkdir()
    (folder / "slots.toml").write_text('[slots]\nA1 = "pci-sdb"\nA3 = "pci-sdd"\n')
    return Records(TrustedFolder(folder))


def asked(**changes: object) -> JsonObject:
    document = {"rack": PUBLIC.hex(), "goldens": [], "need_bytes": GiB, "max_size_bytes": 8 * GiB}
    return JsonObject(document | changes)


def test_the_cards_of_a_station(host: FakeHost, records: Records, tmp_path: Path) -> None:
    before = time.time()
    found = survey(asked(), records, Cache(tmp_path / "none/yet"), host.kernel)
    assert found.version == tool_version()
    assert before <= found.clock <= time.time()
    (card,) = found.cards
    assert (card.facts.path, card.facts.size_bytes) == (str(host.root / "dev/sdb"), 4 * GiB)
    assert (card.holds, card.slot, card.stamp) == (Holds.BLANK, "A1", None)
    assert card.title
    assert card.about
    assert card.first_mib is not None
    unfit = {one.path.rpartition("/")[2]: one for one in found.unfit}
    assert unfit.keys() == {"sdc", "sdd"}
    assert unfit["sdd"].slot == "A3"
    assert any("/media/photos" in reason for reason in unfit["sdd"].reasons)
    assert unfit["sdc"].slot is None
    assert abs(found.free_bytes - free_bytes(tmp_path)) < GiB
    assert not (tmp_path / "none").exists(), "looking writes nothing"
    assert not list(records.folder.path.glob("[!s]*"))


def test_only_the_racks_own_stamp_makes_a_card_its_own(
    host: FakeHost, records: Records, tmp_path: Path
) -> None:
    with (host.root / "dev/sdb").open("r+b") as card:
        card.seek(STAMP_AREA.offset)
        card.write(by_hand())
    (ours,) = survey(asked(), records, Cache(tmp_path / "cache"), host.kernel).cards
    assert (ours.holds, ours.stamp) == (Holds.OURS, FACTS)
    other = asked(rack="0" * 64)
    (foreign,) = survey(other, records, Cache(tmp_path / "cache"), host.kernel).cards
    assert (foreign.holds, foreign.stamp) == (Holds.FOREIGN, None)


def test_a_rack_without_a_key_has_no_cards_of_its_own(
    host: FakeHost, records: Records, tmp_path: Path
) -> None:
    found = survey(asked(rack=NO_KEY), records, Cache(tmp_path / "cache"), host.kernel)
    assert [card.holds for card in found.cards] == [Holds.BLANK]


def test_a_station_says_which_of_the_images_it_has(
    host: FakeHost, records: Records, tmp_path: Path
) -> None:
    golden, cache = ordered_card(tmp_path / "head").golden, Cache(tmp_path / "cache")
    (tmp_path / "pieces").mkdir()
    lay_out_pieces(golden, tmp_path / "pieces")
    wanted = wanted_golden(golden)
    take_golden(wanted, cache, lambda name: tmp_path / "pieces" / name, Quiet())
    named = {"key": wanted.key, "digest": wanted.digest, "release_sha256": wanted.release_sha256}
    goldens = [named, named | {"key": "9" * 32}]
    found = survey(asked(goldens=goldens), records, cache, host.kernel)
    assert found.goldens == {wanted.key: wanted.digest}
    with pytest.raises(JsonFault, match="257 values"):
        survey(asked(goldens=[named] * 257), records, cache, host.kernel)


def test_a_station_with_more_cards_than_it_may_offer_counts_the_others(
    host: FakeHost, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.stations.desk.survey.MOST_CARDS", 1)
    found = survey(asked(), records, Cache(tmp_path / "cache"), host.kernel)
    assert (len(found.cards), len(found.unfit), found.more) == (1, 1, 1)
    roomy = asked(max_size_bytes=64 * GiB)
    found = survey(roomy, records, Cache(tmp_path / "cache"), host.kernel)
    assert [card.slot for card in found.cards] == ["A1"]
    assert (len(found.unfit), found.more) == (1, 1)


def test_a_card_that_is_too_small_is_not_for_this_rack(
    host: FakeHost, records: Records, tmp_path: Path
) -> None:
    needs = asked(need_bytes=4 * GiB + MiB)
    found = survey(needs, records, Cache(tmp_path / "cache"), host.kernel)
    assert found.cards == ()
    assert len(found.unfit) == 3
