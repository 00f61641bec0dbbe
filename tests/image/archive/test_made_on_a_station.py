"""A station that has in its archive what a golden image is made of makes it itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import HostStorage
from imager.base.progress import Quiet
from imager.card.host.target import Limits
from imager.cli.choice import golden_images_at_hand
from imager.cli.console import Console
from imager.cli.session import Session
from imager.cli.settings import Settings
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.rack.plan.survey import GoldenImages
from imager.stations.desk.golden import can_make, made_golden
from imager.stations.head.roll_call import call_roll
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.made_of import made_of
from imager.stations.wire.survey import Survey
from tests.image.archive.conftest import Exported
from tests.support.pipebus import PipeBus, stations

pytestmark = [pytest.mark.image, pytest.mark.long(minutes=1)]


@pytest.fixture(scope="module")
def head(exported: Exported) -> tuple[Rack, GoldenImages]:
    place = exported.place
    session = Session(
        Settings(
            rack=place.rack,
            cache=place.cache,
            signing_key=place.folder / "signing-key.asc",
            offline=True,
        ),
        Console(),
    )
    rack = load_rack(place.rack)
    return rack, golden_images_at_hand(session, rack, rack.nodes)


@pytest.fixture
def bus(exported: Exported, tmp_path: Path) -> Iterator[PipeBus]:
    """A station with the archive of the head, and no golden image."""
    with stations(tmp_path) as bus:
        bus.state("desk1").mkdir(parents=True)
        for name in ("releases", "packages"):
            shutil.copytree(exported.place.cache / name, bus.cache("desk1") / name)
        yield bus


def surveyed(bus: PipeBus, head: tuple[Rack, GoldenImages]) -> Survey:
    return call_roll(bus, ["desk1"], *head, Limits()).surveys["desk1"]


def test_it_becomes_the_very_image_of_the_head(
    bus: PipeBus, head: tuple[Rack, GoldenImages]
) -> None:
    golden = head[1]["pi1"]
    found = surveyed(bus, head)
    assert (dict(found.goldens), golden.key in found.makes) == ({}, True)
    its, cache = made_of(golden), Cache(bus.cache("desk1"))
    assert its is not None
    assert len(its.salt) == 2
    assert len(its.packages) > 3
    made = made_golden(wanted_golden(golden), its, cache, Quiet())
    assert made.path.is_relative_to(cache.root)
    assert made.path.read_bytes() == golden.path.read_bytes()
    again = surveyed(bus, head)
    assert again.goldens[golden.key] == golden.manifest.digest
    assert golden.key not in again.makes


def test_other_programs_or_less_room_or_a_file_less(
    bus: PipeBus, head: tuple[Rack, GoldenImages], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever keeps it from being the head's image is seen before it is promised."""
    golden = head[1]["pi1"]
    its, cache = made_of(golden), Cache(bus.cache("desk1"))
    assert its is not None
    wanted = wanted_golden(golden)
    assert can_make(wanted, its, cache)
    with monkeypatch.context() as patch:
        patch.setattr("imager.stations.desk.golden.free_bytes", lambda _: 1 << 20)
        assert not can_make(wanted, its, cache)
    (tmp_path / "bin").mkdir()
    other = tmp_path / "bin/mke2fs"
    other.write_text('#!/bin/sh\necho "mke2fs 1.99 (1-Jan-2099)" >&2\n')
    other.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
        assert surveyed(bus, head).makes == ()
    for folder in (
        f"releases/{its.release}",
        f"packages/{its.packages[0]}",
        f"packages/{its.salt[1]}",
    ):
        place = cache.root / folder
        place.rename(tmp_path / "away")
        assert not can_make(wanted, its, cache), folder
        (tmp_path / "away").rename(place)
    assert can_make(wanted, its, cache)
    assert not (cache.root / "golden").exists(), "looking makes nothing"


@pytest.mark.parametrize("what", ["release", "package", "salt"])
def test_an_altered_archive_makes_no_image_and_the_next_one_is_fetched(
    bus: PipeBus, head: tuple[Rack, GoldenImages], what: str
) -> None:
    golden = head[1]["pi1"]
    its, cache = made_of(golden), Cache(bus.cache("desk1"))
    assert its is not None
    place = {
        "release": f"releases/{its.release}",
        "package": f"packages/{its.packages[0]}",
        "salt": f"packages/{its.salt[0]}",
    }[what]
    suffixes = (".tar.gz", ".pkg.tar.xz", ".pkg.tar.gz", ".pkg.tar")
    (file,) = (p for p in (cache.root / place).iterdir() if p.name.endswith(suffixes))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    with pytest.raises(HostStorage, match="could not be made of this station's archive") as caught:
        made_golden(wanted_golden(golden), its, cache, Quiet())
    assert "run the same command again" in caught.value.hint
    assert surveyed(bus, head).makes == ()


def test_a_cache_whose_path_is_no_utf_8_fails_as_any_other(
    bus: PipeBus, head: tuple[Rack, GoldenImages], tmp_path: Path
) -> None:
    golden = head[1]["pi1"]
    its = made_of(golden)
    assert its is not None
    cache = Cache(tmp_path / os.fsdecode(b"caf\xe9"))
    shutil.copytree(bus.cache("desk1"), cache.root)
    (release,) = (cache.root / "releases" / its.release).glob("*.tar.gz")
    release.chmod(0o644)
    os.truncate(release, 4096)
    wanted = wanted_golden(golden)
    with pytest.raises(HostStorage, match="could not be made of this station's archive"):
        made_golden(wanted, its, cache, Quiet())
    (failed,) = (cache.root / "golden").glob("*.failed")
    assert r"caf\udce9" in failed.read_text()
