"""What a run says of itself is read as it was written, and only while that run is at work."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError
from imager.base.json_fields import JsonFault
from imager.rack.history.lock import batch_lock
from imager.rack.live.snapshot import (
    LiveCard,
    LiveRun,
    decode_live,
    encode_live,
    read_live,
    remove_live,
    write_live,
)
from tests.support.liverun import at_work, run_at
from tests.support.racks import rack_in

LIVE = ".picloud/live.json"


@pytest.fixture
def run(tmp_path: Path) -> LiveRun:
    return run_at(rack_in(tmp_path, '[rack]\nnodes = "pi[0-9]"\n'), stations=("", "desk1"))


@contextmanager
def locking(rack: Path, kind: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock for so long, as a run has it."""
    program = (
        "import fcntl, os, sys, time\n"
        "with open(sys.argv[1], 'r+') as file:\n"
        "    fcntl.flock(file, int(sys.argv[2]))\n"
        "    file.write(f'process {os.getpid()}, since ')\n"
        "    print('held', file=file.flush() or sys.stdout, flush=True)\n"
        "    time.sleep(float(sys.argv[3]))\n"
    )
    lock = str(rack / ".picloud/batch.lock")
    words = [sys.executable, "-S", "-c", program, lock, str(kind), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


def test_what_was_written_is_read(tmp_path: Path, run: LiveRun) -> None:
    with at_work(tmp_path):
        write_live(tmp_path, run)
        assert read_live(tmp_path) == run
        write_live(tmp_path, replace(run, cards=()))
        assert read_live(tmp_path) == replace(run, cards=())
        assert (tmp_path / LIVE).stat().st_mode & 0o777 == 0o600
        remove_live(tmp_path)
        assert read_live(tmp_path) is None
    assert read_live(tmp_path) is None
    assert not (tmp_path / LIVE).exists()


def test_what_a_killed_run_left_counts_for_nothing(tmp_path: Path, run: LiveRun) -> None:
    """Also while another run holds the lock and has not said anything yet."""
    with batch_lock(tmp_path):
        pass
    with locking(tmp_path, fcntl.LOCK_EX, seconds=60) as other:
        theirs = replace(run, process=other.pid)
        write_live(tmp_path, theirs)
        assert read_live(tmp_path) == theirs
        other.kill()
    assert (tmp_path / LIVE).exists()
    assert read_live(tmp_path) is None
    with batch_lock(tmp_path):
        assert read_live(tmp_path) is None
        write_live(tmp_path, run)
        assert read_live(tmp_path) == run


def test_to_look_keeps_nobody_from_beginning(tmp_path: Path) -> None:
    """Whoever looks has the lock for an instant, and a run that begins then waits for that."""
    with batch_lock(tmp_path):
        pass
    with locking(tmp_path, fcntl.LOCK_SH, seconds=0.03), batch_lock(tmp_path):
        pass


def test_a_link_in_its_place_is_refused(tmp_path: Path, run: LiveRun) -> None:
    with at_work(tmp_path):
        write_live(tmp_path, run)
        kept = (tmp_path / LIVE).rename(tmp_path / "elsewhere")
        (tmp_path / LIVE).symlink_to(kept)
        with pytest.raises(ConfigurationError, match=r"live\.json"):
            read_live(tmp_path)
        (tmp_path / LIVE).unlink()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_run_or_a_fault(noise: bytes) -> None:
    with pytest.raises(JsonFault):
        decode_live(noise)


@pytest.mark.parametrize(
    "name", ["command", "process", "began_at", "cardless", "cards", "offers", "said"]
)
def test_a_field_of_another_type_is_a_fault(run: LiveRun, name: str) -> None:
    document = json.loads(encode_live(run))
    wrongs: tuple[object, ...] = (None, {}, -1, [1], 1.5)
    for wrong in wrongs:
        with pytest.raises(JsonFault, match=name):
            decode_live(json.dumps(document | {name: wrong}).encode())
    del document[name]
    with pytest.raises(JsonFault, match=name):
        decode_live(json.dumps(document).encode())


def test_a_later_version_may_say_more_but_not_otherwise(run: LiveRun) -> None:
    document = json.loads(encode_live(run))
    assert (document["format"], document["v"]) == ("picloud-image live", 1)
    assert decode_live(json.dumps(document | {"more": 1}).encode()) == run
    for other in ({"v": 2}, {"format": "something"}):
        with pytest.raises(JsonFault):
            decode_live(json.dumps(document | other).encode())


def test_names_that_are_no_text_are_written_all_the_same(run: LiveRun) -> None:
    """A file's name may have bytes that are no UTF-8."""
    strange = replace(run, said=("pi1: /media/\udcff",))
    assert decode_live(encode_live(strange)) == strange


def test_what_is_too_much_is_cut(run: LiveRun) -> None:
    plain, long = LiveCard("pi1", "/dev/sdb"), LiveCard("pi0", "/dev/sda", "A" * 10_000)
    large = replace(run, cards=(long, *[plain] * 4096), said=("x" * 10_000,))
    read = decode_live(encode_live(large))
    assert read.cards == (replace(long, slot="A" * 4096), *[plain] * 4095)
    assert read.said == ("x" * 4096,)
