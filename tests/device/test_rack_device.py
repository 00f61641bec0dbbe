"""A rack of 14 cards on loop devices: all at once, one vanishing, two runs, a full disk, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from imager.base.errors import HostStorage
from imager.rack.history.events import BatchEnded, Standing
from imager.rack.history.ledger import append, read_ledger
from tests.support.loop import (
    Loop,
    call,
    loop_over,
    missing_abilities,
    mounted,
    sized_file,
    socket_links,
    udevd_running,
)
from tests.support.rackcards import SIZE, blank_cards, first_mib, flash_words, forget, is_whole
from tests.support.racks import KEY
from tests.support.workplace import Said, Workplace, workplace

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
Event = dict[str, Any]
FOURTEEN = [f"pi{n}" for n in range(14)]
_LEFT_BLANK = ("blank", "nothing was written", "not begun", "before its card was touched")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with udevd_running(), workplace(tmp_path_factory.mktemp("workplace")) as found:
        assert found.run("compose").code == 0
        yield found


@pytest.fixture(autouse=True)
def forgetful(place: Workplace) -> Iterator[None]:
    """Each test begins with a rack that never wrote a card."""
    yield
    forget(place)


def nodes_of(loops: Sequence[Loop]) -> list[Path]:
    return [loop.node for loop in loops]


def struck(
    place: Workplace,
    words: Sequence[str | Path],
    strike: Callable[[Event, subprocess.Popen[str]], bool],
) -> Said:
    """A batch in whose middle something happens: ``strike`` is shown each event until it has."""
    process = subprocess.Popen(
        place.command(*words, "--json"),
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if strike(json.loads(line), process):
            break
    rest, errors = process.communicate(timeout=300)
    return Said(process.returncode, "".join(lines) + rest, errors)


def outcomes(said: Said) -> dict[str, str]:
    assert "Traceback" not in said.err, said.err
    return {node["node"]: node["outcome"] for node in said.result["nodes"]}


def standing(place: Workplace, node: str) -> Standing:
    return read_ledger(place.rack).state_of(node).standing()


def most_at_once(events: Sequence[Event]) -> int:
    """How many cards were between the beginning of their writing and their end."""
    begun: set[str] = set()
    most = 0
    for event in events:
        if event["event"] == "progress" and event["phase"] == "write":
            begun.add(event["node"])
        elif event["event"] == "card":
            begun.discard(event["node"])
        most = max(most, len(begun))
    return most


def test_14_cards_at_once_and_none_of_them_twice(place: Workplace, tmp_path: Path) -> None:
    with blank_cards(tmp_path, 14) as loops:
        words = flash_words("pi[0-13]", nodes_of(loops))
        said = place.json(*words)
        assert said.code == 0, said.err + said.out
        assert outcomes(said) == dict.fromkeys(FOURTEEN, "verified")
        for node, loop in zip(said.result["nodes"], loops, strict=True):
            assert node["target"] == str(loop.node), "cards go to the nodes in order"
            assert is_whole(loop.backing, place, node["receipt"])
        began = [e for e in said.events if e["event"] == "progress" and e["state"] == "begin"]
        assert {(e["node"], e["phase"]) for e in began} >= {
            (node, phase) for node in FOURTEEN for phase in ("write", "read back")
        }
        assert most_at_once(said.events) > 1, "they are written side by side"
        assert {standing(place, node) for node in FOURTEEN} == {Standing.VERIFIED}

        again = place.json(*words)
        assert again.code == 0, again.err
        assert [step["action"] for step in again.result["steps"]] == ["nothing"] * 14
        stamps = [first_mib(loop.backing) for loop in loops]
        anew = place.json(*flash_words("pi3", [loops[3].node], "--again"))
        assert outcomes(anew) == {"pi3": "verified"}
        assert first_mib(loops[3].backing) != stamps[3]
        assert [first_mib(loop.backing) for loop in loops[4:]] == stamps[4:]


def test_a_change_in_rack_toml_makes_cards_stale_and_they_are_updated(
    place: Workplace, tmp_path: Path
) -> None:
    toml = place.rack / "rack.toml"
    text = toml.read_text()
    with blank_cards(tmp_path, 2) as loops:
        words = flash_words("pi[1-2]", nodes_of(loops))
        assert place.json(*words).code == 0
        try:
            toml.write_text(f'{text}\n[nodes.pi2]\nauthorized_keys = ["{KEY}"]\n')
            said = place.json(*words)
        finally:
            toml.write_text(text)
    actions = {step["node"]: step["action"] for step in said.events[0]["steps"]}
    assert actions == {"pi1": "nothing", "pi2": "update"}
    assert outcomes(said) == {"pi2": "verified"}


def test_a_card_that_vanishes_costs_no_other(place: Workplace, tmp_path: Path) -> None:
    """The third card's device is taken away while all are written."""
    with blank_cards(tmp_path, 6) as loops:

        def pulled(event: Event, _: subprocess.Popen[str]) -> bool:
            if event.get("phase") != "write" or event.get("node") != "pi3":
                return False
            # The kernel detaches a device in use when its last user is gone; to take the
            # bytes away from under it is what pulling a card comes to.
            loops[2].backing.write_bytes(b"")
            os.truncate(loops[2].backing, SIZE // 4)
            call("losetup", "--set-capacity", str(loops[2].node))
            return True

        said = struck(place, flash_words("pi[1-6]", nodes_of(loops)), pulled)
    found = outcomes(said)
    assert said.code == 30
    assert found.pop("pi3") in ("io-error", "faulty")
    assert set(found.values()) == {"verified"}
    assert standing(place, "pi3") is Standing.FAILED
    assert standing(place, "pi4") is Standing.VERIFIED


def test_a_second_run_is_told_who_is_at_it(place: Workplace, tmp_path: Path) -> None:
    with blank_cards(tmp_path, 2) as loops:
        first = subprocess.Popen(
            place.command(*flash_words("pi[1-2]", nodes_of(loops)), "--json"),
            cwd=place.folder,
            env=place.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert first.stdout is not None
        first.stdout.readline()
        second = place.run(*flash_words("pi[3-4]", nodes_of(loops)))
        first.communicate(timeout=300)
    assert first.returncode == 0
    assert second.code == 20
    assert f"another run (process {first.pid}, since " in second.err


def test_ctrl_c_leaves_every_card_blank_or_whole_and_says_so(
    place: Workplace, tmp_path: Path
) -> None:
    with blank_cards(tmp_path, 4) as loops:

        def stopped(event: Event, process: subprocess.Popen[str]) -> bool:
            if event.get("phase") != "write":
                return False
            process.send_signal(signal.SIGINT)
            return True

        said = struck(place, flash_words("pi[1-4]", nodes_of(loops), "--jobs", "3"), stopped)
        assert said.code == 130, said.err
        for node in said.result["nodes"]:
            loop = next(loop for loop in loops if str(loop.node) == node["target"])
            if node["outcome"] == "verified":
                assert is_whole(loop.backing, place, node["receipt"])
            else:
                assert node["outcome"] == "interrupted"
                assert not any(first_mib(loop.backing))
                told = " ".join([node["reason"], node["hint"], *node["details"]])
                assert any(words in told for words in _LEFT_BLANK), told
        assert outcomes(said)["pi4"] == "interrupted"
        again = place.json(*flash_words("pi[1-4]", nodes_of(loops)))
        assert again.code == 0, again.out
    assert {standing(place, f"pi{n}") for n in range(1, 5)} == {Standing.VERIFIED}


def test_a_full_disk_is_found_before_any_card_is_touched(place: Workplace, tmp_path: Path) -> None:
    rack = tmp_path / "rack"
    rack.mkdir()
    with (
        blank_cards(tmp_path / "cards", 2) as loops,
        mounted(Path("none"), rack, "-t", "tmpfs", "-o", "size=3M,mode=755"),
    ):
        for name in ("rack.toml", "rack.lock"):
            shutil.copy(place.rack / name, rack / name)
        said = place.json("--rack", rack, *flash_words("pi[1-2]", nodes_of(loops)))
        assert said.code == 41, said.out
        assert not any(any(first_mib(loop.backing)) for loop in loops)


def test_a_disk_that_fills_up_meanwhile_costs_the_ledger_no_line(tmp_path: Path) -> None:
    rack = tmp_path / "rack"
    with mounted(Path("none"), rack, "-t", "tmpfs", "-o", "size=64k,mode=755"):
        written = 0
        with pytest.raises(HostStorage, match="No space left"):
            for written in range(1000):
                append(rack, BatchEnded("t", "b" * 1000, written))
        ledger = read_ledger(rack)
        assert len(ledger.events) == written
        assert ledger.unread == 0


def test_slots_say_which_card_is_whose_and_strangers_cards_are_asked_for(
    place: Workplace, tmp_path: Path
) -> None:
    """Readers found by themselves: pi2's slot holds a stranger's card, which it may take; another
    stranger's card lies in a slot of nobody."""
    files = [sized_file(tmp_path / f"{n}.raw", SIZE) for n in range(3)]
    names = {file: f"pci-0000:00:14.0-usb-0:{n}:1.0-test" for n, file in enumerate(files)}
    for file in files[1:]:
        call("mkfs.ext4", "-q", "-L", "holiday", str(file))
    slots = "\n".join(
        f'{label} = "{names[file]}"' for label, file in zip(("A2", "A3", "Z1"), files, strict=True)
    )
    (place.rack / "slots.toml").write_text(f"[slots]\n{slots}\n")
    try:
        with socket_links(names), loop_over(files[0]), loop_over(files[1]), loop_over(files[2]):
            call("udevadm", "settle")
            said = place.json("rack", "flash", "pi[1-4]", "--yes")
    finally:
        (place.rack / "slots.toml").unlink()
    assert said.code == 30, said.err + said.out
    assert outcomes(said) == {"pi1": "verified", "pi2": "verified", "pi3": "refused"}
    third = next(node for node in said.result["nodes"] if node["node"] == "pi3")
    assert "holiday" in third["reason"]
    assert said.result["without_card"] == ["pi4"]
