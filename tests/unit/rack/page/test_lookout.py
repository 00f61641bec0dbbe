"""A rack is looked at again only where something has changed, and what is wrong is said."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from imager.base.errors import MissingTool
from imager.config.rack import Rack
from imager.rack.history.events import Standing
from imager.rack.live.snapshot import write_live
from imager.rack.master.presence import Presence, Seen, save_presence
from imager.rack.page import lookout
from imager.rack.page.lookout import Lookout
from tests.support.liverun import at_work, run_at
from tests.support.rackhistory import rack_with_history


@pytest.fixture
def rack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rack:
    monkeypatch.setattr(lookout, "_REST", 0.0)
    return rack_with_history(tmp_path / "rack", 14)


def test_what_has_not_changed_is_not_read_again(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Lookout(rack)
    first = looks.look()
    assert [view.node.name for view in first.views] == [node.name for node in rack.nodes]

    def never(*_: object) -> None:
        raise AssertionError("nothing has changed")

    with monkeypatch.context() as patch:
        patch.setattr(lookout, "overview", never)
        second = looks.look()
    assert all(a is b for a, b in zip(first.views, second.views, strict=True))


def test_receipts_are_read_once(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Lookout(rack)
    first = looks.look()
    monkeypatch.setattr(lookout, "receipt_in", None)
    save_presence(rack.folder, {"pi6": Seen(Presence.JOINED, "2026-11-29T10:00:00Z")})
    second = looks.look()
    assert second.trouble == ""
    assert (first.views[6].is_joined, second.views[6].is_joined) == (False, True)
    assert second.views[1].card.receipt == first.views[1].card.receipt is not None


def test_a_long_reading_is_not_repeated_at_once(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_REST", 1e6)
    looks = Lookout(rack)
    looks.look()
    save_presence(rack.folder, {"pi6": Seen(Presence.JOINED, "2026-11-29T10:00:00Z")})
    assert not looks.look().views[6].is_joined


def test_what_is_out_of_date_goes_by_what_a_card_would_be_made_from(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for rack show: the same function says it."""
    asked: list[str] = []
    answer: dict[str, str] = {}

    def recipes(its: Rack) -> dict[str, str]:
        asked.append(its.name)
        return dict(answer)

    def standing() -> Standing:
        return looks.look().views[1].card.standing

    looks = Lookout(rack, recipes)
    assert standing() is Standing.VERIFIED
    answer["pi1"] = "another recipe"
    assert standing() is Standing.VERIFIED
    assert asked == ["picloud"], "it takes long, so it is not asked each second"
    lock = rack.lock_file.read_bytes()
    rack.lock_file.write_bytes(lock + b"\n")
    assert standing() is Standing.STALE, "what a card is made of has changed"
    del answer["pi1"]
    monkeypatch.setattr(lookout, "_RECIPES_SECONDS", 0.0)
    monkeypatch.setattr(lookout, "_RECIPES_REST", 0.0)
    rack.lock_file.write_bytes(lock)
    looks.look()
    answer["pi1"] = "another recipe"
    with at_work(rack.folder):
        write_live(rack.folder, run_at(rack))
        assert [standing(), standing()] == [Standing.STALE, Standing.STALE], "until the run is seen"
        answer.clear()
        assert standing() is Standing.STALE, "a run has better use for the processor"
    looks.look()
    assert standing() is Standing.VERIFIED


def test_why_it_cannot_be_told_what_is_out_of_date_is_said(rack: Rack) -> None:
    def recipes(_: Rack) -> dict[str, str]:
        raise MissingTool("not installed: mtools", hint="apt install mtools")

    looks = Lookout(rack, recipes)
    now = looks.look()
    said = "whether cards are out of date cannot be told: not installed: mtools: apt install mtools"
    assert now.trouble == said
    assert [view.card.standing for view in now.views[:2]] == [Standing.VERIFIED] * 2


def test_a_reading_is_rested_from_ten_times_as_long_as_it_took(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_REST", 10.0)
    seconds = itertools.count(100.0)
    monkeypatch.setattr("imager.rack.page.lookout.time.monotonic", lambda: next(seconds))
    looks = Lookout(rack)
    looks.look()  # from 100 to 101
    save_presence(rack.folder, {"pi6": Seen(Presence.JOINED, "2026-11-29T10:00:00Z")})
    joined = [looks.look().views[6].is_joined for _ in range(102, 111)]
    assert joined == [False] * 8 + [True]


def test_a_run_is_seen_as_long_as_it_is_at_work(rack: Rack) -> None:
    looks, run = Lookout(rack), run_at(rack)
    assert looks.look().run is None
    with at_work(rack.folder):
        write_live(rack.folder, run)
        assert looks.look().run == run
    assert looks.look().run is None


def test_what_cannot_be_read_is_said_and_the_rest_stays(rack: Rack) -> None:
    looks = Lookout(rack)
    views = looks.look().views
    toml = rack.folder / "rack.toml"
    text = toml.read_text()
    toml.write_text("[rack]\nnodes = 7\n")
    broken = looks.look()
    assert "rack.toml" in broken.trouble
    assert broken.views == views
    toml.write_text(text)
    assert looks.look().trouble == ""
    ledger = rack.folder / ".picloud/ledger.jsonl"
    ledger.rename(rack.folder / "elsewhere")
    ledger.symlink_to(rack.folder / "elsewhere")
    assert "ledger.jsonl" in looks.look().trouble


def test_looking_writes_nothing(rack: Rack) -> None:
    def stamps() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode)
            for path in rack.folder.rglob("*")
        }

    before = stamps()
    looks = Lookout(rack)
    for _ in range(3):
        looks.look()
    assert stamps() == before
    assert os.listdir(rack.folder / ".picloud")
