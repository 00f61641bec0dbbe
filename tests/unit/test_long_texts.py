"""Readers of strangers' texts, each given texts as long as it takes that go on in one way: blanks,
quotes, brackets, commas, lines. None may take more than its length is worth.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from imager.base.below import Below
from imager.base.boards import BOARDS
from imager.base.errors import ConfigurationError, PicloudError
from imager.base.text import MOST_LINES
from imager.base.units import KiB, MiB
from imager.bootcheck.formats.config import Program, read_config
from imager.bootcheck.root.fstab import mounts_in
from imager.cli.terminal.folding import folded
from imager.config.load import parse_rack
from imager.image.packages.units import parse_install
from imager.image.salt.needs import distribution_of
from imager.node.files.overlay import OverlayFolder
from imager.node.files.overlay_files import LARGEST_CONFIG, OverlayRoom
from imager.packages.carry.form import parse_sums
from imager.packages.metadata import parse_description, parse_pkginfo
from imager.rack.plan.slots import parse_slots
from imager.release.lock import parse_lock
from imager.release.mirror import parse_md5
from tests.fuzz import targets
from tests.support.sampling import a_part_of

SECONDS = 2.0
LONG = 64 * KiB
"""What takes the square of its length takes more than SECONDS at this one, and the whole table of
what does not a few of them."""

ON_AND_ON = (
    *(
        " ",
        "\n",
        "a",
        "0",
        "é",
        '"',
        "'",
        '\\"',
        "\\\n",
        "[",
        "]",
        "[]",
        "{",
        '{"a":',
        "<a>",
        ",",
        "a,",
    ),
    *("1,", '"a",', "a.", "1.1 ", "-", "/", "=", "a = 1\n", "a=1 ", "#", "[a]\n", "*", "[0-1]"),
    *("ssh-rsa a ", "SHA256 (", f"{64 * 'a'}  a\n", '"a" . ', "0 0 ?\n", "%A%\na\n"),
)
NUMBERED = ("a{} = 1\n", "[a{}]\n", "a{},", '"a{}" = "a-{}"\n')


@dataclass(frozen=True, slots=True)
class Reader:
    """``read`` takes texts of ``most_bytes``; what goes on and on comes between ``frames``, too."""

    read: Callable[[bytes], object]
    most_bytes: int = LONG
    frames: Sequence[tuple[str, str]] = ()

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Texts with what to call them."""
        most = min(self.most_bytes, LONG)
        for unit in ON_AND_ON:
            longest = unit * (most // len(unit.encode()))
            yield f"{unit!r} …", longest.encode()
            yield f"{unit!r} …!", f"x = {longest[: most - 6]}\n!".encode()
            for before, after in self.frames:
                room = max(0, most - len(before) - len(after))
                yield f"{before!r}, {unit!r} …", f"{before}{longest[:room]}{after}".encode()
        for unit in NUMBERED:
            lines = "".join(unit.replace("{}", str(n)) for n in range(most // (len(unit) + 3)))
            yield unit, lines.encode()
            for before, after in self.frames:
                yield f"{before!r}, {unit!r} …", f"{before}{lines}{after}".encode()


def text_of(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode(errors="replace"))


def overlay(folder: Path, data: bytes) -> None:
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base/overlay.toml").write_bytes(data)
    OverlayFolder(Below(folder) / "base", OverlayRoom()).read()


def key_file(folder: Path, data: bytes) -> object:
    (folder / "k").write_bytes(data)
    return parse_rack(
        folder,
        '[rack]\nnodes = "a"\nmaster = "m"\n[login]\nauthorized_keys_files = ["k"]\n'
        '[salt]\nmaster_public_key = "k"\n',
    )


def fuzzed(name: str, _: Path) -> Reader:
    return Reader(targets.TARGETS[name].read)


def values(table: str, *keys: str) -> tuple[tuple[str, str], ...]:
    """Frames in which a text is the value of each of ``keys``; in a list for one that ends in
    ``[]``."""
    return tuple(
        (f'{table}{key[:-2]} = ["', '"]') if key.endswith("[]") else (f'{table}{key} = "', '"')
        for key in keys
    )


UNKNOWN_KEYS = (
    ("y = 1\n", "\n"),
    ("y = [\n[", "\n]]\n"),
    ("y = '''\n", "\n'''\n"),
    ('y = """\n', '\n"""\n'),
)
"""What is wrong with a key is told with its line, which is looked for in the text."""
RACK_VALUES = (
    *UNKNOWN_KEYS,
    *values("[rack]\n", "nodes", "name", "model", "master", "slots", "timezone"),
    *values('[rack]\nnodes = "a[0-3]"\n[network]\n', "addresses", "gateway", "dns[]"),
    *values("[network]\n", "interface", "prefix"),
    *values("[release]\n", "name", "url", "signing_key"),
    *values("[salt]\n", "version", "master_version", "packages", "master_address", "highstate"),
    *values("[login]\n", "authorized_keys[]", "authorized_keys_files[]"),
    *values("[packages]\n", "install[]", "remove[]", "enable[]", "hold[]", "canary[]", "check"),
    *values("[swap]\n", "size"),
    ('[swap]\nsize = "1', '"'),
    *values('[rack]\nnodes = "a"\n[nodes.a]\n', "roles[]", "slot", "address", "model"),
)
KEY_FRAMES = (
    ("-----BEGIN PUBLIC KEY-----\n", "x!"),
    ("-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----\n"),
    ("ssh-ed25519 ", "!"),
    ("ssh-ed25519 A", "!"),
)
OVERLAY_VALUES = (
    *UNKNOWN_KEYS,
    *values('[files."root/a"]\n', "mode", "owner"),
    *values("", "enable[]", "kernel_words[]"),
    *values("[links]\n", '"root/a"'),
    *values("[include]\n", '"root/a"'),
    ('[files]\n"root/', '" = { mode = "0600" }'),
)
LOCK_VALUES = values("[release.a]\n", "url", "sha256", "fetched_at") + values(
    "[pacman.a]\n", "version", "file", "wanted[]"
)
MOST_TEXTS = 2000
"""No reader has more; of those with frames a quarter is tried without --all."""
FUZZED = (
    *("bmap", "cmdline", "ledger", "live", "master", "notes", "receipt", "rescue-map", "settings"),
    *("sums", "told-sums", "wire"),
)
"""Called as in ``tests.fuzz.targets``."""
READERS: Mapping[str, Callable[[Path], Reader]] = {
    "rack.toml": lambda folder: Reader(text_of(partial(parse_rack, folder)), frames=RACK_VALUES),
    "key files": lambda folder: Reader(partial(key_file, folder), frames=KEY_FRAMES),
    "overlay.toml": lambda folder: Reader(partial(overlay, folder), LARGEST_CONFIG, OVERLAY_VALUES),
    "slots.toml": lambda _: Reader(
        text_of(lambda text: parse_slots(text)[1].lines),
        frames=(*UNKNOWN_KEYS, *values("[slots]\n", "A1")),
    ),
    "rack.lock": lambda _: Reader(parse_lock, frames=LOCK_VALUES),
    "unit": lambda _: Reader(
        text_of(partial(parse_install, "a.service")), frames=(("[Install]\nWantedBy=", "\n"),)
    ),
    "fstab": lambda _: Reader(text_of(mounts_in)),
    "config.txt": lambda _: Reader(
        lambda data: read_config({"config.txt": data}.get, BOARDS[0], Program())
    ),
    "PKGINFO": lambda _: Reader(text_of(parse_pkginfo)),
    "desc": lambda _: Reader(text_of(parse_description)),
    "os-release": lambda _: Reader(text_of(distribution_of), frames=(("ID=", "\n"),)),
    "sums of an archive": lambda _: Reader(parse_sums),
    "md5 of a mirror": lambda _: Reader(parse_md5),
    "a line for a terminal": lambda _: Reader(text_of(lambda text: folded(text, 80))),
    **{name: partial(fuzzed, name) for name in FUZZED},
}


@pytest.mark.parametrize("name", READERS)
def test_a_long_text_costs_no_more_than_its_length(
    name: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    reader = READERS[name](tmp_path)
    drawn: Container[int] = range(MOST_TEXTS)
    if reader.frames and not pytestconfig.getoption("--all"):
        drawn = frozenset(a_part_of(range(MOST_TEXTS), 1 / 4))
    for number, (called, text) in enumerate(reader.texts()):
        if number not in drawn:
            continue
        began = time.process_time()
        with suppress(PicloudError, ValueError):
            reader.read(text)
        took = time.process_time() - began
        assert took < SECONDS, f"{called}: {took:.1f} s"


def costs(seconds: float, read: Callable[[], object]) -> object:
    """What ``read`` returns, or the error that it raises."""
    began = time.process_time()
    try:
        return read()
    except PicloudError as error:
        return error
    finally:
        took = time.process_time() - began
        assert took < seconds, f"{took:.1f} s"


def test_a_slots_file_of_many_lines(tmp_path: Path) -> None:
    lines = "".join(f'A{n} = "usb-{n}"\n' for n in range(40_000))
    slots, faults = parse_slots(f"[slots]\n{lines}")
    assert (len(slots.names), faults.lines) == (40_000, ())
    costs(SECONDS, lambda: parse_slots(f"[slots]\n{lines}"))


def test_of_many_faults_the_first_are_told_and_how_many_more_there_are(tmp_path: Path) -> None:
    tables = "".join(f"[pj{n}]\n" for n in range(10_000))
    text = f'[rack]\nnodes = "a"\n{tables}'
    error = costs(SECONDS, lambda: parse_rack(tmp_path, text))
    assert isinstance(error, ConfigurationError)
    assert error.what == f"{tmp_path}/rack.toml: 10000 faults"
    assert error.details[0].startswith("rack.toml:3: pj0: no such key; known: login, network")
    assert len(error.details) == MOST_LINES + 1
    assert error.details[-1] == f"and {10_000 - MOST_LINES} more"


def test_many_names_are_not_all_compared_with_many_wrong_ones(tmp_path: Path) -> None:
    tables = "".join(f"[nodes.pj{n}]\n" for n in range(500))
    text = f'[rack]\nnodes = "pi[0-4095]"\n{tables}'
    error = costs(SECONDS, lambda: parse_rack(tmp_path, text))
    assert isinstance(error, ConfigurationError)
    first, second = error.details[:2]
    assert first.endswith("nodes.pj0: is not one of the nodes under [rack]; did you mean pi0?")
    assert second.endswith("nodes.pj1: is not one of the nodes under [rack]; 4096 are known")


def test_a_long_name_is_neither_kept_nor_told_for_each_of_its_keys(tmp_path: Path) -> None:
    keys = "".join(f"a{n} = 1\n" for n in range(20_000))
    text = f'[rack]\nnodes = "a"\n[nodes.{"n" * (MiB // 4)}]\n{keys}'
    tracemalloc.start()
    try:
        error = costs(3 * SECONDS, lambda: parse_rack(tmp_path, text))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 100 * MiB
    assert isinstance(error, ConfigurationError)
    assert all(len(line) < 1200 for line in error.details)
