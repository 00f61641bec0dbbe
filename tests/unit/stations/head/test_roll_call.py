"""Who can take part, with which cards; whoever cannot is named with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import TargetRefused
from imager.base.programs import tool_version
from imager.base.units import MiB
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, TargetFacts
from imager.config.rack import Rack
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest
from imager.image.compose.golden import GoldenImage
from imager.node.keys.signing import rack_key
from imager.rack.plan.candidates import Holds
from imager.stations.head.roll_call import RollCall, call_roll, looked_round
from imager.stations.wire.bus import StationAnswer
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.survey import NO_KEY, Survey, SurveyedCard, UnfitCard
from tests.support.racks import rack_in
from tests.support.scriptbus import ScriptBus
from tests.support.stamps import FACTS

SIZE = 64 * MiB
CARD = SurveyedCard(
    TargetFacts("/dev/sdb", SIZE, "usb", model="SD"),
    "SD of 64 MB",
    Holds.OURS,
    "pi7 of today",
    "A1",
    FACTS,
    "f" * 64,
)
BAD = UnfitCard("/dev/sdc", "A2", ("it is mounted",))


def golden(key: str = "5", size_bytes: int = 16 * MiB) -> GoldenImage:
    layout = Layout(size_bytes, Extent(MiB, 8 * MiB), Extent(9 * MiB, size_bytes - 9 * MiB))
    manifest = Manifest(size_bytes, ExtentMap([Extent(0, 4096)]), (b"1" * 32,))
    return GoldenImage(
        Path("golden"), key * 32, "made-up", "6" * 64, ("pi2",), layout, manifest, {}
    )


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\n[swap]\nsize = "0"\n')


def survey(**changes: object) -> StationAnswer:
    found = Survey(tool_version(), time.time(), 5, {"5" * 32: "a" * 64}, (CARD,), (BAD,))
    return StationAnswer(replace(found, **changes).to_json())  # type: ignore[arg-type]


def call(rack: Rack, bus: ScriptBus, *names: str) -> RollCall:
    images = {"pi0": golden(), "pi1": golden(), "pi2": golden("7", 32 * MiB)}
    return looked_round(bus, names or list(bus.answers), rack, images, Limits(max_size_bytes=2**40))


def test_the_cards_of_all_stations_by_the_stations_names(rack: Rack) -> None:
    bus = ScriptBus({"desk1": survey(), "desk2": survey()})
    found = call(rack, bus)
    assert list(found.surveys) == ["desk1", "desk2"]
    assert found.surveys["desk1"].free_bytes == 5
    assert found.absent == {}
    assert list(found.cards) == ["desk1:/dev/sdb", "desk2:/dev/sdb"]
    first = found.candidates[0]
    assert (first.holds, first.about, first.slot, first.stamp) == (
        Holds.OURS,
        "pi7 of today",
        "A1",
        FACTS,
    )
    target = found.cards["desk1:/dev/sdb"]
    assert first.target == target
    assert (target.station, target.title) == ("desk1", "desk1: SD of 64 MB")
    assert (target.size_bytes, target.capacity_bytes) == (SIZE, SIZE)
    assert target.facts == replace(CARD.facts, path="desk1:/dev/sdb")
    assert target.first_mib == "f" * 64
    assert list(target.against(SIZE, Limits())) == []
    with pytest.raises(TargetRefused, match="is a card of desk1"):
        target.hold(SIZE, Limits(), HostTrees())
    assert [(one.target.node, one.slot, one.reasons) for one in found.unfit] == [
        ("desk1:/dev/sdc", "A2", ("it is mounted",)),
        ("desk2:/dev/sdc", "A2", ("it is mounted",)),
    ]


def test_a_station_is_told_what_it_is_asked_for(rack: Rack) -> None:
    bus = ScriptBus({"desk1": survey()})
    call(rack, bus)
    rack_key(rack)
    call(rack, bus)
    (_, action, first), (_, _, second) = bus.asked
    assert action == "survey"
    assert (first["rack"], second["rack"]) == (NO_KEY, rack_key(rack).public.hex())
    assert (first["need_bytes"], first["max_size_bytes"]) == (32 * MiB, 2**40)
    digests = [wanted_golden(golden()).digest, wanted_golden(golden("7", 32 * MiB)).digest]
    goldens = first["goldens"]
    assert isinstance(goldens, list)
    assert [one["digest"] for one in goldens] == digests, "each once"


def test_no_image_is_composed_yet(rack: Rack) -> None:
    bus = ScriptBus({"desk1": survey()})
    assert looked_round(bus, ["desk1"], rack, {}, Limits()).candidates
    assert (bus.asked[0][2]["need_bytes"], bus.asked[0][2]["goldens"]) == (0, [])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: StationAnswer(fault="it does not answer"), "it does not answer"),
        (lambda: StationAnswer({"version": 7}), "its answer cannot be understood: goldens"),
        (
            lambda: survey(version="0.0"),
            f"it has picloud-image 0.0, and this is {tool_version()}; "
            "install this one there (rack stations install)",
        ),
        (lambda: survey(clock=time.time() + 90), "s ahead of this one; let it keep time"),
        (lambda: survey(clock=time.time() - 90), "s behind this one; let it keep time"),
    ],
)
def test_who_cannot_take_part_is_named_with_the_reason(
    rack: Rack, answer: Callable[[], StationAnswer], why: str
) -> None:
    found = call(rack, ScriptBus({"desk1": survey(), "desk2": answer()}))
    assert list(found.surveys) == ["desk1"]
    assert why in found.absent["desk2"]
    assert list(found.cards) == ["desk1:/dev/sdb"]
    assert {one.target.node for one in found.unfit} == {"desk1:/dev/sdc"}


def test_a_station_with_more_cards_than_it_may_offer_takes_part_and_says_so(rack: Rack) -> None:
    found = call(rack, ScriptBus({"desk1": survey(), "desk2": survey(more=44)}))
    assert found.absent == {}
    assert found.crowded == ("desk2: it offers 256 cards at a time, and leaves out 44",)


def test_one_of_whom_the_bus_says_nothing_is_absent(rack: Rack) -> None:
    found = call(rack, ScriptBus({"desk1": survey()}), "desk1", "desk2")
    assert found.absent == {"desk2": "it was not asked"}


@pytest.mark.parametrize("seconds", [-60.0, 60.0])
def test_clocks_may_differ_by_a_minute(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("imager.stations.head.roll_call.time.time", lambda: 1e9)
    good = call(rack, ScriptBus({"desk1": survey(clock=1e9 + seconds)}))
    assert good.absent == {}
    bad = call(rack, ScriptBus({"desk1": survey(clock=1e9 + seconds * 61 / 60)}))
    assert bad.absent["desk1"].startswith("its clock is 61 s ")


def test_a_card_without_room_for_the_swap_file_is_unfit(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\n[swap]\nsize = "1GiB"\n')
    found = call(rack, ScriptBus({"desk1": survey()}))
    assert found.candidates == ()
    assert found.cards == {}
    (mounted, small) = found.unfit
    assert mounted.reasons == BAD.reasons
    assert (small.target.node, small.slot) == ("desk1:/dev/sdb", "A1")
    assert "no room for a swap file" in small.reasons[0]


def test_where_none_can_take_part_it_is_refused(rack: Rack) -> None:
    bus = ScriptBus({"desk1": StationAnswer(fault="silent"), "desk2": StationAnswer(fault="away")})
    images = {"pi0": golden()}
    with pytest.raises(TargetRefused, match="no station can take part") as refused:
        call_roll(bus, ["desk1", "desk2"], rack, images, Limits())
    assert refused.value.details == ("desk1: silent", "desk2: away")
    with pytest.raises(TargetRefused, match="desk1 cannot take part"):
        call_roll(bus, ["desk1"], rack, images, Limits())
    bus.answers["desk2"] = survey()
    assert call_roll(bus, ["desk1", "desk2"], rack, images, Limits()).cards
