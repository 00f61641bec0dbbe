"""The Salt that PyPI publishes, as it lies on a card: it runs, and its master and minions join."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.disk.ext4.filesystem import Ext4
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.release.lock import RackLock
from imager.release.salt.salt import fetch_salt
from imager.release.terms import FetchTerms
from tests.support.fetching import Heard
from tests.support.release import release_of
from tests.support.salt import SaltPrograms
from tests.support.saltrack import rack_of, running
from tests.support.standin import ROOT, StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=3),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
    pytest.mark.timeout(900),
]

VERSION = "3008.3"
JOIN_SECONDS = 300
FOLDER = "/opt/picloud/salt"
MINION = ROOT / "overlays/role/salt-minion/root/usr/lib/picloud/salt-minion"
AWAIT = "/usr/lib/picloud/await-address"


@pytest.fixture(scope="module")
def golden(
    stand_in: StandIn, boot_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> GoldenImage:
    """The stand-in release with the real Salt, fetched from PyPI by pip: what the cards hold that
    are booted, so one image is made for both."""
    cache, lock = Cache(boot_cache), RackLock.load(tmp_path_factory.mktemp("lock") / "rack.lock")
    salt = fetch_salt(VERSION, lock, FetchTerms(cache, Heard()))
    return compose(release_of(stand_in.tarball), cache, Heard(), salt)


@pytest.fixture(scope="module")
def programs(
    golden: GoldenImage, salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> SaltPrograms:
    """The commands of the card, with this computer's Python and the modules Salt needs of it."""
    tree = tmp_path_factory.mktemp("card-salt")
    descriptor = os.open(golden.path, os.O_RDONLY)
    root = Ext4.open(
        lambda offset, length: os.pread(descriptor, length, offset), golden.layout.root.offset
    )
    for path, inode in root.walk():
        if path.startswith(f"{FOLDER}/") and inode.is_file:
            target = tree / path.removeprefix(f"{FOLDER}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(root.content(inode))
    os.close(descriptor)
    folder = tmp_path_factory.mktemp("programs")
    python = salt_programs("python")
    for script in sorted((tree / "bin").iterdir()):
        place = folder / script.name
        place.write_text(f'#!/bin/sh\nPYTHONPATH={tree} exec {python} {script} "$@"\n')
        place.chmod(0o755)
    # As the minion's unit runs it, but for the wait: a box has no address but its loopback's.
    minion = tree / "unit" / MINION.name
    minion.parent.mkdir()
    minion.write_text(MINION.read_text().replace(FOLDER, os.fspath(tree)).replace(AWAIT, "true"))
    words = f'{python} {minion} --disable-keepalive "$@"'
    (folder / MINION.name).write_text(f"#!/bin/sh\nexec {words}\n")
    (folder / "where").write_text(f'#!/bin/sh\nPYTHONPATH={tree} exec {python} "$@"\n')
    (folder / "where").chmod(0o755)
    return SaltPrograms(folder)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Salt leaves nothing in the checkout."""
    monkeypatch.chdir(tmp_path)
    yield


def test_the_command_runs_that_no_join_needs(programs: SaltPrograms) -> None:
    """A master and a minion that join, below, run the others: salt-master, salt-minion, salt and
    salt-key."""
    done = subprocess.run(
        [programs("salt-call"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"salt-call {VERSION} (")


def test_it_is_the_cards_salt_that_ran(programs: SaltPrograms) -> None:
    question = (
        "import importlib.metadata, salt; print(salt.__file__, importlib.metadata.version('salt'))"
    )
    done = subprocess.run(
        [programs("where"), "-c", question], capture_output=True, text=True, check=True
    )
    path, version = done.stdout.split()
    assert "card-salt" in path
    assert version == VERSION


def test_a_master_and_a_minion_of_the_card_join(
    golden: GoldenImage,
    programs: SaltPrograms,
    tmp_path: Path,
    tell: Tell,
) -> None:
    with running(tmp_path, rack_of(tmp_path / "rack", 2), golden, programs) as rack:
        for name in ("pi0", "pi1"):
            rack.image(name)
        rack.switch_on("pi0", "pi1")
        seconds = rack.master.wait_until_answering({"pi0", "pi1"}, seconds=JOIN_SECONDS)
        tell(f"both answered in {seconds:.0f} s")
        assert rack.master.keys()["minions_denied"] == []
