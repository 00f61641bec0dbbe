"""No private key is said, logged, passed as an argument or left in a file of the cache."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.forking import run_each
from tests.support.pypi import index, tree_with_python
from tests.support.secrets import data_of, leaks, private_files
from tests.support.workplace import Workplace, workplace

pytestmark = [pytest.mark.image, pytest.mark.long(minutes=2)]

COMMANDS = (
    "fetch",
    "compose",
    "write pi0.img --node pi0 --size 2GiB --dry-run",
    "write pi0.img --node pi0 --size 2GiB",
    "write pi7.img --node pi7 --size 2GiB --json",
    "rack keys rotate pi7 --salt --ssh",
    "rack keys rotate pi7 --undo",
    "rack keys rotate pi0 --master --yes --json",
    "write pi7.img --node pi7 --size 2GiB --yes",
    "verify pi7.img",
    "verify pi0.img --json",
    "inspect pi0.img",
    "inspect pi7.img --json",
    "receipt --node pi7",
    "receipt --node pi7 --json",
    "rack plan --images cards --size 2GiB",
    "rack flash --images cards --size 2GiB --yes",
    "rack flash --images cards --size 2GiB --yes --again --json",
    "rack show",
    "rack report",
    "rack keys list --json",
    "rack keys export --pki pki --master-key",
    "rack keys export --pki pki --master-key --replace --json",
    "rack known-hosts",
)


class Watched:
    """A workplace whose commands are watched: what they say and which programs they run."""

    def __init__(self, place: Workplace) -> None:
        self.place = place
        self.places: dict[str, bytes] = {}

    @property
    def store(self) -> Path:
        return self.place.rack / ".picloud/keys"

    def run(self, lines: Sequence[str]) -> None:
        """The commands, with every argument and environment variable of whatever they start."""
        record = self.place.folder / "programs"
        # The kernel sorts out what is looked for: else each call of anything stops the program.
        strace = ("strace", "-f", "--seccomp-bpf", "-qq", "-v", "-s", "1000000")
        words = (*strace, "-e", "trace=execve", "-o", record)
        ended = run_each(words, lines, cwd=self.place.folder, env=self.place.environment)
        for line, (code, said) in zip(lines, ended, strict=True):
            assert code == 0, f"{line}: {said}"
            self.places[f"{line}: said"] = said.encode()
        self.places["programs"] = record.read_bytes()

    def read_files(self, folder: Path) -> None:
        """Take every file in ``folder`` that is no card and not of the key store."""
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_relative_to(self.store):
                self.places[str(path)] = data_of(path)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """After every command above."""
    folder = tmp_path_factory.mktemp("secrets")
    with index() as pypi, workplace(folder, tree=tree_with_python(), pypi=pypi) as place:
        toml = place.rack / "rack.toml"
        text = re.sub(r"(?m)^slots = .*", "", toml.read_text())
        toml.write_text(re.sub(r"(?m)^nodes = .*", 'nodes = "pi0,pi7"', text))
        (place.folder / "cards").mkdir()
        made = Watched(place)
        made.run([f"{line} --verbose" for line in COMMANDS])
        made.read_files(place.rack)
        made.read_files(place.cache)
        yield made


def test_no_private_key_shows_anywhere(watched: Watched) -> None:
    assert leaks(watched.store, watched.places) == []


def test_the_places_are_the_real_ones(watched: Watched) -> None:
    """Receipts, lock file, golden image, the tools' arguments: all of them were looked at."""
    names = "\n".join(watched.places)
    for part in ("receipts/", "rack.lock", "/golden/", "rack.toml", "ledger.jsonl", "report.html"):
        assert part in names
    programs = watched.places["programs"]
    for tool in (b"debugfs", b"resize2fs", b"mcopy"):
        assert tool in programs
    assert b'"pip"' in programs, "Salt came from a PyPI"
    said = watched.places["write pi0.img --node pi0 --size 2GiB --verbose: said"]
    assert b"+ debugfs" in said, "--verbose shows the commands"
    kept = [path for path in private_files(watched.store) if ".old/" in str(path)]
    assert kept, "keys kept aside are looked for as well"


def as_der(text: bytes) -> bytes:
    return base64.b64decode(b"".join(text.splitlines()[1:-1]))


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda text: text,
    "in JSON": lambda text: json.dumps({"key": text.decode()}).encode(),
    "as Python shows bytes": lambda text: repr(text).encode(),
    "the file in hexadecimal": lambda text: text.hex().encode(),
    "the file in base64": base64.b64encode,
    "binary": as_der,
    "hexadecimal": lambda text: as_der(text).hex().encode(),
    "hexadecimal with colons": lambda text: as_der(text).hex(":").encode(),
    "base64 of the binary form": lambda text: base64.b64encode(as_der(text)),
    "base64 behind one byte": lambda text: base64.b64encode(b"x" + as_der(text)),
    "base64 behind two bytes": lambda text: base64.b64encode(b"xx" + as_der(text)),
    "the second half of it": lambda text: text[len(text) // 2 :],
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_planted_key_is_found_however_it_is_written(watched: Watched, disguise: str) -> None:
    planted = {
        str(path.relative_to(watched.store)): b"before %b after" % DISGUISES[disguise](text)
        for path in private_files(watched.store)
        for text in [path.read_bytes()]
    }
    found = leaks(watched.store, planted)
    assert {f"{name}: {name}" for name in planted} <= set(found)


def test_a_key_on_the_card_itself_is_found(watched: Watched) -> None:
    """The one place where it belongs."""
    card = data_of(watched.place.folder / "pi7.img")
    found = leaks(watched.store, {"pi7.img": card})
    assert "pi7/salt/minion.pem: pi7.img" in found
    assert not [leak for leak in found if not leak.startswith("pi7/")]


def test_a_key_among_the_arguments_of_a_program_is_found(watched: Watched) -> None:
    # The file begins with numbers that are public.
    line = (watched.store / "pi7/salt/minion.pem").read_text().splitlines()[-5]
    code = f"import subprocess; subprocess.run(['true', {line!r}])"
    record = watched.place.folder / "planted"
    strace = ("strace", "-f", "-s", "100000", "-e", "trace=execve", "-o", record)
    subprocess.run([*strace, sys.executable, "-c", code], check=True)
    assert leaks(watched.store, {"planted": record.read_bytes()}) == [
        "pi7/salt/minion.pem: planted"
    ]
