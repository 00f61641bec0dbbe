"""The one door to other programs, with real programs behind it."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from imager.base.errors import HostStorage, MissingTool, ToolFailed
from imager.base.run import TooMuch, find_tool, require_tools, run, run_bounded, running


def test_output_and_input_pass_through() -> None:
    assert run(["cat"], stdin=b"a\0b").stdout == b"a\0b"


def test_the_environment_is_built_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PICLOUD_SECRET", "x")
    seen = run(["env"], env={"EXTRA": "1"}).stdout.decode().splitlines()
    assert "LC_ALL=C.UTF-8" in seen
    assert "EXTRA=1" in seen
    assert not any(line.startswith("PICLOUD_SECRET") for line in seen)


def test_sbin_is_searched_even_when_path_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find_tool("mke2fs") is not None


def test_every_missing_tool_is_named_with_its_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("imager.base.run._SBIN", ())
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(MissingTool) as caught:
        require_tools("mcopy", "mkfs.vfat")
    assert "mcopy, mkfs.vfat" in caught.value.what
    assert "apt install dosfstools mtools" in caught.value.hint


def test_a_missing_program_of_no_package_gets_words_that_can_be_followed() -> None:
    with pytest.raises(MissingTool, match="not installed: /nowhere/python") as caught:
        require_tools("/nowhere/python")
    assert caught.value.hint == "see that it is there, and that you may run it"


def test_a_failure_carries_the_tools_own_words() -> None:
    with pytest.raises(ToolFailed) as caught:
        run(["sh", "-c", "echo one; echo the reason >&2; exit 3"])
    assert "status 3: the reason" in caught.value.what
    assert caught.value.details == ("one", "the reason")


def test_a_full_disk_is_not_our_bug() -> None:
    with pytest.raises(HostStorage):
        run(["sh", "-c", "echo 'cp: No space left on device' >&2; exit 1"])


def test_expected_statuses_are_no_failure() -> None:
    assert run(["sh", "-c", "exit 1"], ok=(0, 1)).returncode == 1


def test_leaving_early_ends_the_program() -> None:
    with pytest.raises(RuntimeError), running(["sleep", "60"]) as process:
        raise RuntimeError
    assert process.returncode == -9


def test_ctrl_c_at_the_terminal_is_not_for_the_tool() -> None:
    """A terminal signals the whole foreground group; the tool's end would be taken for a fault."""
    ours = run(["sh", "-c", "ps -o pgid= -p $$"]).output()
    assert int(ours) != os.getpgrp()


def test_a_tool_that_ctrl_c_reached_all_the_same_has_not_failed() -> None:
    """Between its birth and its own process group there is a moment."""
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", "kill -INT $$"])


def test_what_a_stranger_says_is_taken_up_to_a_limit() -> None:
    done = run_bounded(["cat"], b"a\0b", most_bytes=3, seconds=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\0b", b"")
    assert run_bounded(["sh", "-s"], b"exit 7", most_bytes=3, seconds=60).returncode == 7
    with pytest.raises(MissingTool):
        run_bounded(["picloud-no-such-tool"], b"", most_bytes=3, seconds=60)


@pytest.mark.parametrize("end", [TooMuch("takes too much"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("streams", ["", "exec >&- 2>&-;"], ids=["talking", "silent"])
def test_a_watch_ends_a_program_with_its_children(
    tmp_path: Path, end: BaseException, streams: str
) -> None:
    """Also Ctrl-C, which may come at any moment of it."""
    child, handles = tmp_path / "child", list[int]()

    def look() -> None:
        if child.exists() and (number := child.read_text()).endswith("\n"):
            handles.append(os.pidfd_open(int(number)))
            raise end

    script = f"{streams} sleep 100 & echo $! >child; sleep 100; true".encode()
    with pytest.raises(type(end)):
        run_bounded(["sh", "-s"], script, most_bytes=1, cwd=tmp_path, watch=look)
    (handle,) = handles
    assert select.select([handle], [], [], 60)[0], "its child is still there"
    os.close(handle)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (b"yes", "says more than 1 MiB"),
        (b"yes >&2", "says more than 1 MiB"),
        (b"timeout 100 yes", "says more than 1 MiB"),  # a process group of its own
        (b"sleep 100; true", "does not end within 1 s"),
        (b"exec >&- 2>&-; sleep 100; true", "does not end within 1 s"),
    ],
)
def test_a_stranger_who_does_not_end_is_ended_with_its_children(script: bytes, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(TooMuch, match=words):
        run_bounded(["sh", "-s"], script, most_bytes=1 << 20, seconds=1 if b"sl" in script else 60)
    assert time.monotonic() - began < 20
