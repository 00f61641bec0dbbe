"""A desk to which somebody carried the rack's archive makes the golden image itself: what
docs/stations.md says is typed, over real Salt."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.deskrack import DeskRack, desk_rack
from tests.support.loop import missing_abilities
from tests.support.rackcards import is_whole
from tests.support.salt import SaltPrograms
from tests.support.workplace import ROOT

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=7),
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
PAGE = ROOT / "docs/stations.md"
_COMMANDS = re.compile(r"^    (picloud-image archive export .*)\n    sudo (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def rack(
    salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeskRack]:
    with desk_rack(tmp_path_factory.mktemp("carried"), salt_programs, desks=2, cards=1) as made:
        said = made.run("rack", "stations", "install", "desk[1-2]")
        assert said.code == 0, said.err + said.out
        yield made


def images(rack: DeskRack) -> dict[str, list[str]]:
    """The keys that each desk can make."""
    said = rack.run("rack", "stations", "list", "desk[1-2]")
    assert said.code == 0, said.err
    return {one["station"]: one["makes"] for one in said.result["stations"]}


def test_the_page_followed(rack: DeskRack) -> None:
    found = _COMMANDS.search(PAGE.read_text())
    assert found is not None
    export, taking_in = (line.split() for line in found.groups())
    assert images(rack) == {"desk1": [], "desk2": []}
    said = rack.place.run(*export[1:])
    assert said.code == 0, said.err
    copy = rack.place.folder / "copy"
    copy.mkdir()
    for name in ("rack.toml", "rack.lock"):
        shutil.copy(rack.place.rack / name, copy)
    shutil.move(rack.place.folder / export[-1], copy)
    desk = rack.lab.desks["desk1"]
    enter = [*desk.box.entering, "env", "--chdir", str(copy), *taking_in, "--yes"]
    done = subprocess.run(enter, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    makes = images(rack)
    assert (len(makes["desk1"]), makes["desk2"]) == (1, [])

    said = rack.run("rack", "flash", "pi0", "--stations", "desk1", "--yes")
    assert said.code == 0, said.err + said.out
    served = rack.lab.folder / "head/srv/salt/picloud-image"
    assert not list(served.glob("golden-*")), "nothing of the image was sent"
    assert is_whole(rack.cards[0].backing, rack.place, said.result["nodes"][0]["receipt"])
    assert images(rack)["desk1"] == [], "it has it"
    said = rack.run("rack", "flash", "pi1", "--stations", "desk2", "--yes")
    assert said.code == 0, said.err + said.out
    assert list(served.glob("golden-*"))
