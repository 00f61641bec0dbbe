"""Nothing in a rack or a cache leads this program, run as root, to what is not theirs.

In: every file and folder of a rack and a cache that were used, each replaced in turn by something
else: a link, a second name, a pipe, a stranger's. Out: every command refuses it by name, or does
not need it, and what lies outside stays as it was. A run draws one of each kind by chance;
``--all`` has them all.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.sampling import one_of_each
from tests.support.workplace import Workplace, workplace

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away"),
]

STRANGER = 65534
LOOKING = (
    "rack show",
    "rack plan --images . --offline",
    "rack report",
    "rack flash pi1 --images . --dry-run --offline",
    "rack known-hosts",
    "rack keys list",
    "receipt --node pi0",
    "verify pi0.img",
    "rack slots show",
)
CHANGING = (
    "rack flash pi1 --images . --size 2GiB --offline",
    "write new.img --node pi0 --size 2GiB --offline",
    "rack keys rotate pi0",
    "rack slots forget A1",
    "fetch --offline",
    "compose --offline",
)
_MOVED = ("PICLOUD_RACK", "PICLOUD_CACHE", "HOME", "XDG_DATA_HOME")
Plant = Callable[[Path, Path], None]


def link(path: Path, victim: Path) -> None:
    away(path)
    path.symlink_to(victim)


def second_name(path: Path, victim: Path) -> None:
    away(path)
    path.hardlink_to(victim / "file")


def link_to_file(path: Path, victim: Path) -> None:
    away(path)
    path.symlink_to(victim / "file")


def pipe(path: Path, victim: Path) -> None:
    away(path)
    os.mkfifo(path)


def stranger(path: Path, victim: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def writable(path: Path, victim: Path) -> None:
    os.chown(path, -1, 4)  # adm: a group with a life of its own
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o020)


PLANTS: tuple[Plant, ...] = (link, link_to_file, second_name, pipe, stranger, writable)
NAMED = ("rack", "cache")
"""What a person names may be a link."""
FOLDERS = (  # each has one name
    *NAMED,
    "rack/overlays",
    "rack/overlays/base",
    "rack/.picloud",
    "rack/.picloud/receipts",
    "rack/.picloud/keys",
    "rack/.picloud/keys/pi0",
    "rack/.picloud/keys/pi0/card",
    "cache/releases",
    "cache/releases/*",
    "cache/golden",
    "cache/work",
    "cache/keys",
)
FILES = (
    "rack/rack.toml",
    "rack/rack.lock",
    "rack/slots.toml",
    "rack/report.html",
    "rack/overlays/base/root/etc/motd",
    "rack/.picloud/.gitignore",
    "rack/.picloud/batch.lock",
    "rack/.picloud/ledger.jsonl",
    "rack/.picloud/presence.json",
    "rack/.picloud/receipts/*.json",
    "rack/.picloud/keys/.lock",
    "rack/.picloud/keys/pi0/card/identity.json",
    "rack/.picloud/keys/pi0/ssh/ssh_host_ed25519_key",
    "rack/.picloud/keys/pi0/ssh/ssh_host_ed25519_key.pub",
    "rack/.picloud/keys/pi0/salt/minion.pem",
    "rack/.picloud/keys/_rack/stamp/stamp.pub",
    "cache/CACHEDIR.TAG",
    "cache/releases/*/release.json",
    "cache/releases/*/release.tar.gz",
    "cache/golden/*/golden.json",
    "cache/golden/*/image",
    "cache/golden/*.lock",
    "cache/work/.guard",
)
HARMLESS = (
    "rack/.picloud/.gitignore",
    "rack/.picloud/batch.lock",
    "rack/report.html",
    "cache/work",
    "cache/work/.guard",
    "cache/keys",
)
"""None of these is needed here, and what must be written anew replaces the name."""


def away(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A workplace whose rack and cache have every kind of file in them."""
    with workplace(tmp_path_factory.mktemp("whose")) as place:
        motd = place.rack / "overlays/base/root/etc/motd"
        motd.parent.mkdir(parents=True)
        motd.write_text("hello\n")
        (place.rack / "slots.toml").write_text('[slots]\nA1 = "pci-0000:00:14.0-usb-0:2.1:1.0"\n')
        (place.rack / ".picloud/presence.json").write_text("{}")
        for words in ("write pi0.img --node pi0 --size 2GiB", "rack report"):
            said = place.run(*words.split())
            assert said.code == 0, said.err
        (place.folder / "images").mkdir()
        said = place.run("rack", "flash", "pi1", "--images", "images", "--size", "2GiB")
        yield place


@pytest.fixture
def place(used: Workplace, tmp_path: Path) -> Workplace:
    """A copy of it, and beside it what must not change."""
    for name in ("rack", "cache", "pi0.img"):
        subprocess.run(
            ["cp", "-a", "--sparse=always", used.folder / name, tmp_path / name], check=True
        )
    (tmp_path / "victim/inner").mkdir(parents=True)
    (tmp_path / "victim/file").write_text("whole line\nhalf a line")
    environment = {
        name: str(tmp_path / Path(value).name) if name in _MOVED else value
        for name, value in used.environment.items()
    }
    return replace(used, folder=tmp_path, environment=environment)


def state_of(folder: Path) -> dict[str, tuple[int, int, int, int, int, bytes]]:
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        about = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        found[str(path.relative_to(folder))] = (
            about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, about.st_size, content
        )  # fmt: skip
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    table = [(where, plant) for where in FILES for plant in PLANTS]
    table += [(where, plant) for where in FOLDERS for plant in PLANTS if plant != second_name]
    table = [row for row in table if row[0] not in NAMED or row[1] in (stranger, writable)]
    if not metafunc.config.getoption("--all"):
        table = one_of_each(table, lambda row: row[1])
    metafunc.parametrize(
        ("where", "plant"), table, ids=[f"{where}-{plant.__name__}" for where, plant in table]
    )


def test_nothing_leads_out_of_a_rack_or_a_cache(place: Workplace, where: str, plant: Plant) -> None:
    found = sorted(place.folder.glob(where))
    assert found, "there is such a file or folder"
    path, victim = found[-1], place.folder / "victim"
    plant(path, victim)
    before = state_of(victim)
    named = 0
    for line in (*LOOKING, *CHANGING):
        done = place.run(*line.split())
        said = done.out + done.err
        assert "Traceback" not in said, (line, said)
        assert done.code in (0, 10, 41), (line, done.code, said)
        if done.code:
            assert str(path) in said, (line, said)
            named += 1
    assert state_of(victim) == before
    is_cards_link = where.endswith("/root/etc/motd") and path.is_symlink()
    assert named or is_cards_link or where in HARMLESS, "no command looked at it"
