"""Looking never writes, also where there are cards, keys, an archive and a golden image to look at.

The counterpart without any of these is tests/unit/cli/test_looking.py.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.served import ask, serving
from tests.support.workplace import Workplace, workplace

pytestmark = pytest.mark.image

LOOKING = (
    "devices",
    "inspect pi0.img",
    "verify pi0.img",
    "receipt --node pi0",
    "write pi0.img --node pi0 --dry-run",
    "write new.img --node pi1 --size 2GiB --dry-run --offline",
    "rack show",
    "rack plan --images .",
    "rack plan --images . --offline",
    "rack flash --images . --dry-run",
    "rack slots show",
    "rack keys list",
    "rack keys rotate pi0 --master --dry-run",
    "rack keys export --pki pki --master-key --dry-run",
    "rack known-hosts",
    "rack report --out -",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A workplace with the card of pi0, the master, and a node that came to the rack after it."""
    with workplace(tmp_path_factory.mktemp("looking")) as place:
        said = place.run("write", "pi0.img", "--node", "pi0", "--size", "2GiB")
        assert said.code == 0, said.err
        toml = place.rack / "rack.toml"
        text = toml.read_text()
        assert 'nodes = "pi[0-13]"' in text
        text = text.replace('nodes = "pi[0-13]"', 'nodes = "pi[0-14]"')
        toml.write_text(text.replace('slots = "A[1-7],B[1-7]"', 'slots = "A[1-8],B[1-7]"'))
        yield place


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every name below ``folder`` with mode, time of change and size, and small files whole."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        small = stat.S_ISREG(status.st_mode) and status.st_size <= 1 << 20
        content = path.read_bytes() if small else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_size, content)
    return found


@pytest.mark.parametrize("line", LOOKING)
def test_nothing_is_made_or_changed(place: Workplace, line: str) -> None:
    before = snapshot(place.folder)
    said = place.run(*line.split())
    after = snapshot(place.folder)
    assert said.code == 0, said.err
    assert not {name for name in before | after if before.get(name) != after.get(name)}


def test_the_master_s_card_is_out_of_date_once_a_node_was_added(place: Workplace) -> None:
    nodes = {node["node"]: node for node in place.json("rack", "show").result["nodes"]}
    assert nodes["pi0"]["card"]["standing"] == "stale"
    before = snapshot(place.folder)
    with serving(place.rack, "--listen", "127.0.0.1:0", environment=place.environment) as (
        _,
        address,
    ):
        page = ask(int(address.rstrip("/\n").rpartition(":")[2]), "/").body
    assert "is another one since" in page
    assert snapshot(place.folder) == before
    steps = place.json("rack", "plan", "pi0", "--images", ".").result["steps"]
    assert [(step["node"], step["action"]) for step in steps] == [("pi0", "write")]


@pytest.mark.parametrize("line", ["rack show", "rack plan --images .", "rack report --out -"])
def test_what_is_known_is_shown_without_the_programs_that_make_cards(
    place: Workplace, tmp_path: Path, line: str
) -> None:
    """Without mtools nobody can tell which golden image this computer would make."""
    whole = place.run(*line.split())
    without = replace(place, environment={**place.environment, "PATH": str(tmp_path)})
    said = without.run(*line.split())
    assert said.code == 0, said.err
    assert "whether cards are out of date cannot be told: not installed: " in said.err
    assert "cannot be told" not in whole.err
    assert "pi14" in said.out
