"""The command line on terminals and streams that cannot do everything, as they really are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import on_terminal

COMMAND = (sys.executable, "-m", "imager")
SHOW = ("rack", "show")


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bücher")
    (folder / "rack.toml").write_text(
        '[rack]\nnodes = "pi[0-3]"\nmaster = "pi0"\nslots = "A[1-4]"\n'
    )
    return folder


def shell(rack: Path, line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """``line`` with $1 as the command and $2 as the rack."""
    known = {"PATH": os.environ["PATH"], "HOME": str(rack), "LANG": "C.UTF-8"}
    words = ["sh", "-c", line, "sh", " ".join(COMMAND), str(rack)]
    return subprocess.run(words, capture_output=True, env=known | env, check=False)


@pytest.mark.parametrize(
    "words", ["rack show", "rack show --json", "--help", "rack nothing --json"]
)
def test_a_full_disk_below_the_output_ends_in_one_sentence(rack: Path, words: str) -> None:
    done = shell(rack, f"$1 --rack $2 {words} > /dev/full")
    what, hint = done.stderr.decode().splitlines()
    assert what == "picloud-image: standard output cannot be written: No space left on device"
    assert hint.startswith("  → ")
    assert done.returncode == 41


def test_a_reader_that_is_gone_is_left_in_peace(rack: Path) -> None:
    done = shell(rack, "{ sleep 1; $1 --rack $2 rack show --json; echo $? >&2; } | true")
    assert done.stderr == b"1\n"


def test_nobody_to_tell_on_standard_error_is_no_reason_to_stop(rack: Path) -> None:
    done = shell(rack, "$1 --rack $2 write x.img --node pi9 2> /dev/full")
    assert (done.returncode, done.stderr) == (10, b"")


def test_closed_streams_are_no_card(rack: Path) -> None:
    """Without a descriptor 1 or 2 the next file that is opened has their number."""
    done = shell(rack, "$1 --rack $2 rack show >&- 2>&-; echo $?")
    assert done.stdout == b"0\n"


@pytest.mark.parametrize("env", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_without_our_letters_there_are_signs_of_ascii(rack: Path, env: dict[str, str]) -> None:
    shown = shell(rack, "$1 --rack $2 rack show", **env)
    assert (shown.returncode, shown.stderr) == (0, b"")
    said = shown.stdout.decode("ascii")
    assert r"/b\xfccher" in said
    assert "|  1 pi0* .o |" in said
    told = shell(rack, "$1 --rack $2 rack show --json", **env).stdout.decode("ascii")
    assert json.loads(told.splitlines()[-1])["folder"].endswith("bücher0")
    failed = shell(rack, "$1 --rack $2 write x.img --node pi9", **env)
    assert "\n  -> " in failed.stderr.decode("ascii")
    page = shell(rack, "$1 --rack $2 rack report --out -", **env)
    assert "·" in page.stdout.decode(), "a page is UTF-8, whatever the locale"


@pytest.mark.parametrize("columns", [60, 80])
def test_every_line_fits_the_terminal(rack: Path, columns: int) -> None:
    for words in (SHOW, ("rack", "plan", "--images", "."), ("explain", "--blinks", "4")):
        said = on_terminal(words, columns, cwd=rack)
        assert said.status == 0, said.text
        longest = max(said.lines, key=len)
        # A path is never broken. Where the tests' own folder has a long one, it stands out.
        path = max(longest.split(), key=len)
        assert len(longest) <= columns or ("/" in path and len(longest) - len(path) < 12), longest
        assert len(said.lines) > 3


@pytest.mark.parametrize(
    ("words", "env", "is_red"),
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        (["--color", "never"], {}, False),
        (["--color", "always"], {"NO_COLOR": "1", "TERM": "dumb"}, True),
    ],
)
def test_colour_is_where_a_terminal_has_it(
    rack: Path, words: list[str], env: dict[str, str], is_red: bool
) -> None:
    line = [*words, "write", "x.img", "--node", "pi9"]
    said = on_terminal(line, 80, cwd=rack, env=env).text
    assert ("\033[1;31mpicloud-image\033[0m:" in said) is is_red
    assert ("\033[" in said) is is_red


def test_json_never_has_colour(rack: Path) -> None:
    asked = shell(rack, "$1 --rack $2 write x.img --node pi9 --json --color always")
    assert asked.returncode == 10
    assert b"\033" not in asked.stdout + asked.stderr


def test_the_bell_rings_only_if_that_was_asked_for(rack: Path) -> None:
    line = ["write", "x.img", "--node", "pi9"]
    assert "\a" not in on_terminal(line, 80, cwd=rack).text
    assert on_terminal([*line, "--notify"], 80, cwd=rack).text.endswith("\a")
