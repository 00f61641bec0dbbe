"""TAB: what may come next, told to real shells; a line that is only half typed is never carried
out, and whatever is wrong, nobody is disturbed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from imager.cli.about.completion import answers
from imager.cli.about.shells import SCRIPTS
from imager.cli.about.values import VALUES
from imager.cli.main import cli, run
from imager.release.catalogue import RELEASES

RACK = '[rack]\nnodes = "pi[0-11]"\nslots = "A[1-12]"\n'
FREE = {
    "--addresses",
    "--block-size",
    "--countdown",
    "--depth",
    "--host",
    "--jobs",
    "--key",
    "--listen",
    "--master",
    "--max-size",
    "--port",
    "--sha256",
    "--size",
    "--slots",
    "--stations",
    "stations",
    "--user",
    "--wait",
}
"""Options whose value nobody can guess."""
BIN = Path(sys.executable).parent


def words(*line: str, whole: bool = False) -> list[str]:
    """What may come next, without what it means; what the shell looks for itself stands in <>."""
    told = [answer.split("\t") for answer in answers(cli, line, whole=whole)]
    return [parts[1] if parts[0] == "word" else f"<{parts[0]}>" for parts in told]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, beside a rack."""
    for name in [name for name in os.environ if name.startswith(("PICLOUD_", "XDG_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "rack").mkdir()
    (tmp_path / "rack/rack.toml").write_text(RACK)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [
    "flash", "init", "keys", "known-hosts", "plan", "report", "restore", "save", "serve", "show",
    "slots", "stations", "status",
]  # fmt: skip
NODES = [f"pi{number}" for number in range(12)]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ra", ["rack"]),
        ("rack ", [*COMMANDS, "watch"]),
        ("rack f", ["flash"]),
        ("--rack rack rack f", ["flash"]),
        ("--rack=rack rack f", ["flash"]),
        ("-q rack keys ", ["export", "list", "rotate"]),
        ("rack nosuch ", []),
        ("--o", ["--offline"]),
        ("--offline --o", []),
        ("rack keys rotate pi1 --s", ["--salt", "--ssh"]),
        ("rack keys rotate pi1 -- --s", []),
        ("rack flash --target a --ta", ["--target"]),
        ("explain --off", []),
        (
            "completion bash --",
            ["--json", "--quiet", "--verbose", "--color", "--version", "--help"],
        ),
        ("--color a", ["auto", "always"]),
        ("--rack rack write x.img --node ", NODES),
        ("write --rack rack --node pi1", ["pi1", "pi10", "pi11"]),
        ("write --rack=rack --node=pi1", ["pi1", "pi10", "pi11"]),
        ("--rack rack rack flash pi1", ["pi1", "pi10", "pi11"]),
        ("--rack rack rack flash pi10,pi2,pi1", ["pi10,pi2,pi1", "pi10,pi2,pi11"]),
        ("--rack rack rack flash pi1 ", []),
        ("--rack rack rack save saves --nodes pi10,pi1", ["pi10,pi1", "pi10,pi11"]),
        ("--rack rack rack keys rotate pi3", ["pi3"]),
        ("rack keys rotate pi3", ["pi3"]),
        ("--rack rack rack slots forget A1,A1", ["A1,A10", "A1,A11", "A1,A12"]),
        ("write x.img --size ", []),
        ("inspect x.img --model pi40", ["pi400"]),
        ("write --release ", ["alarm-rpi-armv7", "alarm-rpi-aarch64"]),
        ("explain --blinks 3+", ["3+1", "3+2", "3+3", "3+4"]),
        ("lock ", ["promote", "undo"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("help rack keys ", ["export", "list", "rotate"]),
        ("help wri", ["write"]),
        ("--rack ", ["<folder>"]),
        ("verify x.img --receipt ", ["<file>"]),
        ("archive list a ", ["<folder>"]),
    ],
)
def test_what_may_come_next(home: Path, line: str, wanted: list[str]) -> None:
    assert words(*line.split(" ")) == wanted


def test_a_value_joined_to_its_option_is_told_whole_to_a_shell_that_wants_it(home: Path) -> None:
    assert words("--release=alarm-rpi-a", whole=True)[1] == "--release=alarm-rpi-aarch64"
    assert words("--release", "alarm-rpi-a", whole=True)[1] == "alarm-rpi-aarch64"


def test_the_rack_of_the_environment_counts_unless_another_is_typed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "other").mkdir()
    (home / "other/rack.toml").write_text('[rack]\nnodes = "head,desk"\n')
    monkeypatch.setenv("PICLOUD_RACK", str(home / "other"))
    assert words("write", "--node", "") == ["head", "desk"]
    assert words("--rack", "rack", "write", "--node", "") == NODES
    assert words("--rack", "rack", "write", "--rack=other", "--node", "") == ["head", "desk"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_text_for_a_shell_is_printed(
    shell: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PICLOUD_JSON", raising=False)
    assert run(["completion", shell]) == 0
    assert capfd.readouterr() == (SCRIPTS[shell], "")


@pytest.mark.parametrize(
    ("shell", "typed", "wanted"),
    [
        ("bash", "picloud-image --release=alarm-rpi-aa", "alarm-rpi-aarch64"),
        ("zsh", "picloud-image\0--release=alarm-rpi-aa\0", "alarm-rpi-aarch64"),
        ("fish", "picloud-image\0--release=alarm-rpi-aa\0", "--release=alarm-rpi-aarch64"),
    ],
)
def test_an_answer_is_what_the_shell_wants(
    shell: str,
    typed: str,
    wanted: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, shell, typed)
    assert capfd.readouterr() == (f"word\t{wanted}\t\n", "")


def test_a_target_is_a_disk_or_a_file(home: Path) -> None:
    found = words("write", "")
    assert found[-1] == "<file>"
    assert all(word.startswith("/dev/") for word in found[:-1])
    assert words("write", "nosuch") == ["<file>"]


def test_a_strange_word_is_left_out_and_what_it_means_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imager.cli.about.next_words import NextWord

    strange = ["$(reboot)", "a b", "a\nword\tb", "*", "`id`", "a;b", "a\x1b[2J", "", "größer"]
    found = [NextWord(word, "means\n\tmuch \x1b[2J") for word in [*strange, "pi7"]]
    monkeypatch.setitem(VALUES, "--node", lambda *_: found)
    assert list(answers(cli, ["write", "--node", ""], whole=False)) == [
        r"word	pi7	means\n\tmuch \x1b[2J"
    ]


@pytest.mark.parametrize(
    "spoilt",
    [b"[rack]\nnodes = 7\n", b"\xff\xfe", b"", None],
    ids=["faulty", "no text", "empty", "not readable"],
)
def test_a_rack_that_is_wrong_disturbs_nobody(
    home: Path,
    spoilt: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    toml = home / "rack/rack.toml"
    toml.unlink()
    if spoilt is None:
        toml.mkdir()
    else:
        toml.write_bytes(spoilt)
    answer(monkeypatch, "zsh", "picloud-image\0--rack\0rack\0write\0--node\0\0")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("shell", "typed"),
    [
        ("bash", ""),
        ("bash", "picloud-image 'unfinished"),
        ("bash", "picloud-image \\"),
        ("zsh", ""),
        ("zsh", "picloud-image\0"),
        ("fish", "picloud-image\0\udcff\0"),
        ("fish", "\0\0\0--\0-\0=\0--=\0"),
    ],
)
def test_an_odd_line_disturbs_nobody(
    home: Path,
    shell: str,
    typed: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, shell, typed)
    said = capfd.readouterr()
    assert said.err == ""
    assert all(line.split("\t")[0] in ("word", "file", "folder") for line in said.out.splitlines())


def answer(monkeypatch: pytest.MonkeyPatch, shell: str, typed: str) -> None:
    reading, writing = os.pipe()
    os.write(writing, typed.encode(errors="surrogateescape"))
    os.close(writing)
    with open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(["completion", shell, "--answer"]) == 0


def test_tab_writes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(map(str, home.rglob("*")))
    for typed in ("picloud-image write --node ", "picloud-image rack slots forget "):
        answer(monkeypatch, "bash", typed)
    assert "pi13" in capfd.readouterr().out, "the default rack is told as it would be made"
    assert sorted(map(str, home.rglob("*"))) == before


def parameters(group: click.Group) -> list[click.Parameter]:
    context = click.Context(group)
    found: list[click.Parameter] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += parameters(command) if isinstance(command, click.Group) else command.params
    return found


def test_of_every_value_it_is_said_what_it_may_be() -> None:
    wanting = {
        param.opts[0]
        for param in parameters(cli)
        if isinstance(param, click.Argument)
        or (isinstance(param, click.Option) and not (param.is_flag or param.count))
        if not isinstance(param.type, click.Path)
    }
    assert wanting <= set(VALUES) | FREE
    assert not set(VALUES) & FREE


# ── real shells ─────────────────────────────────────────────────────────────────────────────────

BASH = r"""
source <(picloud-image completion bash)
tab() {
    COMP_LINE=$1 COMP_POINT=${#1}
    $(complete -p picloud-image | grep -o -- '-F [^ ]*' | cut -c 4-) picloud-image
    printf '%s ' "${COMPREPLY[@]}"
    echo
}
tab 'picloud-image --rack=rack inspect x.img --model=pi50'
tab "picloud-image --rack 'rack' rack fl"
"""
FISH = r"""
picloud-image completion fish | source
complete -C 'picloud-image --rack=rack rack fl'
complete -C 'picloud-image --rack ra'
complete -C 'picloud-image --release=alarm'
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb"}


def told(*words: str) -> list[str]:
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    return [line.split("\t")[0].rstrip() for line in done.stdout.splitlines()]


def test_bash(home: Path) -> None:
    assert told("bash", "--norc", "-c", BASH) == ["pi500", "flash"]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(home: Path) -> None:
    releases = [f"--release={name}" for name in RELEASES]
    assert told("fish", "--no-config", "-c", FISH) == ["flash", "rack/", *releases]


class Typist:
    """Somebody at a terminal, and what is shown there."""

    def __init__(self, *shell: str) -> None:
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.execvpe(shell[0], shell, environment())
        self.seen = ""

    def types(self, keys: str, until: str) -> None:
        """Type ``keys``, then wait until ``until`` is shown after them."""
        self.seen = ""
        os.write(self.terminal, keys.encode())
        deadline = time.monotonic() + 60
        while until not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.terminal], [], [], 1.0)[0]:
                self.seen += os.read(self.terminal, 4096).decode(errors="replace")

    def goes(self) -> None:
        os.kill(self.process, 9)
        os.waitpid(self.process, 0)
        os.close(self.terminal)


@pytest.mark.long(minutes=1)
@pytest.mark.parametrize(
    ("shell", "start"),
    [
        (("bash", "--norc"), "source <(picloud-image completion bash)"),
        (
            ("zsh", "-f"),
            "autoload -Uz compinit; compinit -u -D; source <(picloud-image completion zsh)",
        ),
    ],
    ids=["bash", "zsh"],
)
def test_a_person_at_a_terminal(home: Path, shell: tuple[str, ...], start: str) -> None:
    """TAB finishes one word, and shows the rest where there are several."""
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    person = Typist(*shell)
    try:
        person.types(f"{start}; echo rea''dy\n", until="\nready")
        person.types("picloud-image --rack rack rack keys ro\t", until="tate")
        person.types(" pi1\t\t", until="pi11")
        assert person.seen.index("pi10") < person.seen.index("pi11")
    finally:
        person.goes()


def test_the_text_for_bash_is_clean() -> None:
    done = subprocess.run(
        ["shellcheck", "-s", "bash", "-"], input=SCRIPTS["bash"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
