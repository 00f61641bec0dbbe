"""Keys of many nodes made at the same time: with every core, and each folder whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imager.base.trusted_folder import TrustedFolder
from imager.node.keys import making
from imager.node.keys.making import make_missing
from imager.node.keys.store import KeyFile, KeyFolder, folders_of, store_locked

PAIR = {"key": KeyFile(b"1", private=True), "key.pub": KeyFile(b"2", private=False)}


@pytest.fixture
def keys(tmp_path: Path) -> TrustedFolder:
    return TrustedFolder(tmp_path / "keys")


def salt_of(keys: TrustedFolder, count: int) -> list[KeyFolder]:
    return [folders_of(keys, f"pi{number}").salt for number in range(count)]


def test_every_core_makes_keys(keys: TrustedFolder) -> None:
    cores = len(os.sched_getaffinity(0))
    together = threading.Barrier(cores, timeout=60)

    def make() -> dict[str, KeyFile]:
        together.wait()  # passes only when as many threads as there are cores are in here
        return PAIR

    folders = salt_of(keys, 2 * cores)
    make_missing(keys, dict.fromkeys(folders, make))
    assert all(folder.at_hand(("key",)) == {"key": b"1"} for folder in folders)


def test_what_is_there_is_not_made_again(keys: TrustedFolder) -> None:
    first, second = salt_of(keys, 2)

    def other() -> dict[str, KeyFile]:
        return {"key": KeyFile(b"other", private=True)}

    def make() -> dict[str, KeyFile]:
        # Another run is quicker: its key must stay.
        make_missing(keys, {second: other})
        return PAIR

    make_missing(keys, {first: lambda: PAIR})
    make_missing(keys, {first: other, second: make})
    assert first.at_hand(("key",)) == {"key": b"1"}
    assert second.at_hand(("key",)) == {"key": b"other"}


def test_after_an_interruption_nothing_more_is_begun(keys: TrustedFolder) -> None:
    """Ctrl-C ends the work after the keys that are just being made."""
    begun: list[int] = []

    def stopped() -> dict[str, KeyFile]:
        raise KeyboardInterrupt

    def make() -> dict[str, KeyFile]:
        begun.append(1)
        threading.Event().wait(0.05)
        return PAIR

    first, *rest = folders = salt_of(keys, 200)
    with pytest.raises(KeyboardInterrupt):
        make_missing(keys, {first: stopped, **dict.fromkeys(rest, make)})
    assert len(begun) < 100
    made = [folder for folder in folders if folder.is_there]
    assert len(made) == len(begun)
    assert all(len(folder.folder.names()) == 2 for folder in made)


KILLED = """
import os, signal, sys
from imager.base.trusted_folder import TrustedFolder
from tests.unit.node.keys.test_making import PAIR, Path, make_missing, salt_of
real, count = TrustedFolder.write, 0
def write(*words, **rest):
    global count
    count += 1
    real(*words, **rest)
    if count == 6:
        os.kill(os.getpid(), signal.SIGKILL)
TrustedFolder.write = write
keys = TrustedFolder(Path(sys.argv[1]))
make_missing(keys, dict.fromkeys(salt_of(keys, 9), lambda: PAIR))
"""


def test_a_kill_leaves_whole_pairs_and_absent_ones(keys: TrustedFolder) -> None:
    root = Path(making.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", KILLED, keys.path], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    made = [folder for folder in salt_of(keys, 9) if folder.is_there]
    assert 0 < len(made) < 9
    assert all(folder.folder.names() == ["key", "key.pub"] for folder in made)
    with store_locked(keys):
        assert not list(keys.path.glob("*/.new-*")), "what was half made is swept away"
    make_missing(keys, dict.fromkeys(salt_of(keys, 9), lambda: PAIR))
    assert all(folder.folder.names() == ["key", "key.pub"] for folder in salt_of(keys, 9))
