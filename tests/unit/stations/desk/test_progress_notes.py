"""What a station notes while nobody hears it is told to who asks for it, and to one at a time."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import HostStorage
from imager.base.trusted_folder import TrustedFolder
from imager.cli.stations.voice import speaking
from imager.rack.batch.card_progress import Said
from imager.stations.desk import progress_notes as notes_module
from imager.stations.desk.progress_notes import Notes
from imager.stations.wire.report import NodeMoment, StationProgress, Told
from tests.support.liverun import moment_at

PATIENCE_SECONDS = 60.0


def said(job: str, done: float, *ended: str) -> StationProgress:
    return StationProgress(job, (NodeMoment("pi1", moment_at(done)),), (), ended)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.setattr(notes_module, "_EVERY_SECONDS", 0.01)
    return Notes(TrustedFolder(tmp_path / "station/notes"))


def test_what_is_noted_is_told_every_second_and_what_ended_once(notes: Notes) -> None:
    assert list(notes.follow("b")) == [], "its own program is heard"
    notes.write(said("b.1", 0.1, "pi1"))
    notes.write(said("c.1", 0.9))
    follower = notes.follow("b")
    assert next(follower) == said("b.1", 0.1, "pi1")
    assert next(follower) == said("b.1", 0.1)
    notes.write(said("b.1", 0.2, "pi1", "pi2"))
    assert next(follower) == said("b.1", 0.2, "pi2")
    notes.write(said("b.2", 0.5))
    assert [next(follower).job for _ in range(2)] == ["b.1", "b.2"]
    folder = notes.folder.path
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.json")} == {0o600}
    for path in folder.glob("b.*.json"):
        os.utime(path, (time.time() - 11,) * 2)
    assert list(follower) == [], "whoever wrote it is gone"


def test_who_follows_last_is_told(notes: Notes) -> None:
    notes.write(said("b.1", 0.1))
    first, second = notes.follow("b"), notes.follow("b")
    assert next(first) == next(second) == said("b.1", 0.1)
    assert list(first) == []
    assert next(second) == said("b.1", 0.1)


def test_what_another_version_noted_is_passed_over_and_what_is_old_removed(notes: Notes) -> None:
    for name, age in (("b.1.json", 0), ("a.1.json", 90_000), ("a.follower", 90_000)):
        notes.folder.make_private().write(name, b"{}")
        os.utime(notes.folder.path / name, (time.time() - age,) * 2)
    assert list(notes.follow("b")) == []
    assert sorted(notes.folder.names()) == ["b.1.json", "b.follower"]


class Pipe:
    """Standard output, which may have no reader."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.is_broken = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def event(self, _: str, **fields: object) -> None:
        self.goes_on.wait(PATIENCE_SECONDS)
        if self.is_broken:
            raise BrokenPipeError
        self.heard.append(fields["job"])


def test_a_voice_notes_what_nobody_hears_with_all_that_ever_ended() -> None:
    pipe, noted = Pipe(), list[StationProgress]()
    with speaking(pipe.event, noted.append) as voice:
        voice.progress(said("b.1", 0.1, "pi1"))
        until = time.monotonic() + PATIENCE_SECONDS
        while not pipe.heard:
            assert time.monotonic() < until
        assert noted == []
        pipe.is_broken = True
        while not noted:
            voice.progress(said("b.1", 0.2))
            assert time.monotonic() < until
        told = replace(said("b.1", 0.3, "pi2"), told=(Told("pi2", Said("hello", warning=False)),))
        voice.progress(told)
    assert noted[-1] == said("b.1", 0.3, "pi1", "pi2")
    assert pipe.heard == ["b.1"]


def test_a_voice_notes_what_a_reader_that_is_stuck_does_not_take() -> None:
    pipe, noted = Pipe(), list[StationProgress]()
    pipe.goes_on.clear()
    with speaking(pipe.event, noted.append) as voice:
        for _ in range(110):
            voice.progress(said("b.1", 0.5))
        pipe.goes_on.set()
    assert 0 < len(noted) <= 10


def test_a_disk_without_room_for_a_note_costs_no_card() -> None:
    pipe = Pipe()
    pipe.is_broken = True

    def full(_: StationProgress) -> None:
        raise HostStorage("no room", hint="make some")

    with speaking(pipe.event, full) as voice:
        for _ in range(110):
            voice.progress(said("b.1", 0.5))
