"""What Salt carries between a head and stations: real master, real minions, one of which listens
to all it can and lies."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from imager.base.errors import NetworkError
from imager.stations.salt.listening import listener
from imager.stations.salt.on_minion import PILLAR
from imager.stations.salt.salt_bus import SaltBus, opened_bus
from imager.stations.salt.scripts import PILLAR_FOLDER
from imager.stations.wire.reports import PIECE_LETTERS
from tests.support.eavesdropping import found_in, memory_of, places_with
from tests.support.fakedesk import ROOT, fake_desk
from tests.support.laboratory import Laboratory, laboratory
from tests.support.salt import SaltPrograms

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=7),  # with all other tests beside it
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]
ASK_SECONDS = 20


@pytest.fixture(scope="module")
def lab(
    salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    """Two desks, and eve, who is a minion, too."""
    folder = tmp_path_factory.mktemp("lab")
    with laboratory(
        folder, salt_programs, ["desk1", "desk2", "eve"], path=str(fake_desk(folder / "bin"))
    ) as made:
        modules = folder / "head/srv/salt/_modules"
        modules.mkdir(parents=True)
        shutil.copy(ROOT / "imager/stations/salt/on_minion.py", modules / "picloud_image.py")
        pillar(made).mkdir(parents=True)
        made.head.run("salt", "--static", "*", "saltutil.sync_modules")
        yield made


@pytest.fixture(scope="module")
def bus(lab: Laboratory) -> Iterator[SaltBus]:
    with opened_bus(lab.door) as opened:
        yield opened


def pillar(lab: Laboratory) -> Path:
    return lab.folder / f"head{PILLAR_FOLDER}"


def heard_until(bus: SaltBus, key: str, *, seconds: float = 60) -> list[dict[str, object]]:
    """All that is heard up to the line that has ``key``."""
    found: list[dict[str, object]] = []
    end = time.monotonic() + seconds
    while not any(key in line for line in found):
        assert time.monotonic() < end, found
        try:
            found += [dict(heard.document) for heard in bus.heard(1.0)]
        except NetworkError:
            found.append({"event": "deaf"})
    return found


def test_all_are_asked_at_once_and_who_is_silent_is_named(bus: SaltBus, lab: Laboratory) -> None:
    asked = {"word": "ä'\" $(x) {y} =1"}
    began = time.monotonic()
    with lab.unplugged("desk2"):
        said = bus.ask(["desk1", "desk2", "nobody"], "survey", asked, seconds=5)
    assert time.monotonic() - began < 60
    assert said["desk1"].document == {"arguments": asked}
    assert {name for name in said if "does not answer" in said[name].fault} == {"desk2", "nobody"}
    assert (
        "it ended with 1: it is broken" in bus.ask(["desk1"], "fail", {}, seconds=60)["desk1"].fault
    )
    much = bus.ask(["desk1"], "much", {}, seconds=ASK_SECONDS)["desk1"]
    assert much.document is None and "too much" in much.fault


def test_an_answer_carries_a_piece_and_salt_cuts_off_what_is_larger(bus: SaltBus) -> None:
    own = {"desk1": {"number": 1}, "desk2": {"number": 2}}
    asked = {"piece": "x" * PIECE_LETTERS}
    said = bus.ask(["desk1", "desk2"], "survey", asked, seconds=ASK_SECONDS, own=own)
    assert {name: one.document for name, one in said.items()} == {
        name: {"arguments": {**asked, **its}} for name, its in own.items()
    }
    large = bus.ask(["desk1"], "survey", {"piece": "x" * (1 << 20)}, seconds=ASK_SECONDS)["desk1"]
    assert large.document is None, "if this fails, pieces are needed no more"


def test_a_secret_reaches_one_station_and_lies_nowhere(bus: SaltBus, lab: Laboratory) -> None:
    secret = secrets.token_bytes(200_000)
    needles = [secret[at : at + 24] for at in range(0, len(secret), 5_000)]
    bus.ask(["desk1", "eve"], "survey", {}, seconds=ASK_SECONDS)
    words, said = set(), list[dict[str, object]]()
    with lab.wiretapped() as wire:
        bus.hand("desk1", "delta", secret)
        (place,) = pillar(lab).rglob("delta")
        sealed = place.read_bytes()[:64]
        bus.begin("desk1", "work", {}, ["delta"])
        while not (said and "secrets" in said[-1]):
            said += [dict(heard.document) for heard in bus.heard(0.3)]
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    words.add(path.read_bytes())
        eves = [*memory_of(lab.desks["eve"].box.pid)]
    assert said[-1] == {"secrets": {"delta": hashlib.sha256(secret).hexdigest()}}
    assert [line["number"] for line in said[:-1]] == list(range(30))
    tokens = [path.read_bytes().strip() for path in pillar(lab).glob("hosts/desk1/*/*/token")]
    private = (*needles, *tokens)
    assert tokens and not any(found_in((*private, sealed), memory) for memory in eves)
    assert any(b"picloud_image" in memory for memory in eves), "there is something to look through"
    assert wire.stat().st_size > len(secret)
    assert not found_in(private, wire.read_bytes())
    assert not any(found_in(private, word) for word in words)
    assert places_with(needles, lab.folder) == set()
    # The master keeps pillars that it compiled, which is why secrets are sealed.
    assert places_with([sealed], *(desk.folder for desk in lab.desks.values())) == set()

    bus.take_back("desk1", "delta")
    bus.begin("desk1", "work", {}, ["delta"])
    assert heard_until(bus, "secrets")[-1] == {"secrets": {}}


def test_how_a_program_ended_is_heard_with_the_job_it_had(bus: SaltBus) -> None:
    bus.begin("desk1", "fail", {"job": "b.1"})
    fault = "it ended with 1: it is broken"
    assert heard_until(bus, "fault")[-1] == {"event": "ended", "job": "b.1", "fault": fault}


def test_what_a_minion_says_in_another_name_is_not_believed(bus: SaltBus, lab: Laboratory) -> None:
    bus.begin("desk1", "work", {})
    session = next(pillar(lab).glob("hosts/desk1/*/*")).name
    said = {"station": "desk1", "request": "0", "number": 99, "lines": ['{"forged": 1}']}
    forged = json.dumps({"text": json.dumps(said), "mac": "0" * 64})
    with listener(lab.door, session, lambda _: True) as all_events:
        lab.desks["eve"].box.run(
            "salt-call", "event.fire_master", forged, f"{PILLAR}/{session}/forged"
        )
        while True:
            event = all_events.next(60)
            assert event is not None, "the master passed it on"
            if "forged" in json.dumps(dict(event.values)):
                break
    assert not any("forged" in line for line in heard_until(bus, "secrets"))


def test_a_master_that_starts_anew_costs_no_line_in_silence(bus: SaltBus, lab: Laboratory) -> None:
    """Killed, it may have taken what it never passed on."""
    bus.begin("desk1", "work", {"lines": 400})
    before = heard_until(bus, "number")
    lab.restart(lab.head, "salt-master")
    after = heard_until(bus, "secrets", seconds=180)
    lines = (*before, *after)
    numbers = [int(str(line["number"])) for line in lines if "number" in line]
    assert numbers == sorted(set(numbers)), "each once"
    assert (numbers[0], numbers[-1]) == (0, 399)
    assert ({"event": "missed"} in lines) == (len(numbers) < 400)
    lab.head.wait_until_answering(set(lab.desks), seconds=180)


def test_events_are_heard_again_when_the_listener_died(bus: SaltBus, lab: Laboratory) -> None:
    bus.begin("desk1", "work", {"lines": 300})
    before = heard_until(bus, "number")
    assert lab.kill(lab.head, b"state.event")
    after = heard_until(bus, "secrets", seconds=120)
    numbers = [line["number"] for line in (*before, *after) if "number" in line]
    assert numbers == sorted({*map(int, map(str, numbers))}), "each once"
    assert numbers[-1] == 299
    events = [line["event"] for line in after if "event" in line]
    assert events == ["deaf", *(["missed"] if len(numbers) < 300 else [])]


def test_files_are_offered_to_all(bus: SaltBus, lab: Laboratory, tmp_path: Path) -> None:
    piece = secrets.token_bytes(3 << 20)
    (tmp_path / "0000").write_bytes(piece)
    bus.publish("golden/key", tmp_path)
    said = bus.ask(["desk2"], "fetch", {"name": "golden/key/0000"}, seconds=ASK_SECONDS)
    assert said["desk2"].document == {"bytes": len(piece)}
    assert places_with([piece[:100]], lab.folder / "desk2") == set()
    gone = bus.ask(["desk2"], "fetch", {"name": "golden/key/0001"}, seconds=ASK_SECONDS)
    assert "the master does not offer golden/key/0001" in gone["desk2"].fault


def test_nothing_stays_when_the_bus_is_closed(lab: Laboratory) -> None:
    with opened_bus(lab.door) as opened:
        opened.ask(["desk1"], "survey", {}, seconds=ASK_SECONDS)
        opened.hand("desk1", "delta", b"secret")
        left = {path.parent for path in pillar(lab).rglob("delta")}
        assert len(left) == 1
    assert not left.pop().exists()
