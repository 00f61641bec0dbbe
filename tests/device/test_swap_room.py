"""A card on which the swap file of rack.toml has no room is refused before it is touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loop import missing_abilities, udevd_running
from tests.support.rackcards import blank_cards, first_mib, flash_words
from tests.support.workplace import Said, Workplace, workplace

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with udevd_running(), workplace(tmp_path_factory.mktemp("workplace")) as found:
        toml = found.rack / "rack.toml"
        toml.write_text(re.sub(r"\[swap\][^\[]*", '[swap]\nsize = "2GiB"\n', toml.read_text()))
        yield found


def refused_for_swap(said: Said) -> bool:
    return "no room for a swap file of 2 GiB ([swap] size)" in said.out + said.err


def test_first_and_later_runs_refuse_it_and_leave_it_as_it_was(
    place: Workplace, tmp_path: Path
) -> None:
    with blank_cards(tmp_path, 1) as (loop,):
        write = ("write", loop.node, "--node", "pi1", "--no-probe", "--yes")
        flash = flash_words("pi1", [loop.node])
        planned = place.run(*write, "--dry-run")
        assert planned.code == 0, "how much is free is known once the release is composed"
        first = place.run(*flash)
        assert (first.code, refused_for_swap(first)) == (30, True), first.err
        for words in (write, (*write, "--dry-run"), flash, (*flash, "--dry-run")):
            said = place.run(*words)
            assert (said.code, refused_for_swap(said)) == (20, True), said.err
        assert not any(first_mib(loop.backing))
        assert place.run("write", tmp_path / "pi1.img", "--node", "pi1").code == 0, "no card yet"
