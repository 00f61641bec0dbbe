"""A rack on a head, and desks with blank cards in their readers: what a person begins with.

In: how many desks, and how many cards each. Out: a ``DeskRack``: the real command on the head, real
Salt, loop devices as readers whose slots have labels on their own desk only. The desks are minions
and nothing more, until ``rack stations install`` makes stations of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.laboratory import Laboratory, laboratory
from tests.support.loop import Loop
from tests.support.rackcards import blank_cards
from tests.support.salt import SaltPrograms
from tests.support.workplace import Said, Workplace, workplace

_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class DeskRack:
    """``cards`` are those of all desks, in the order in which nodes get them."""

    lab: Laboratory
    place: Workplace
    programs: SaltPrograms
    cards: tuple[Loop, ...]

    def command(self, *words: str, as_json: bool = True) -> list[str]:
        """The command with ``words``, as it is run on the head."""
        path = f"{self.programs.folder}:{os.environ['PATH']}"
        env = {**self.place.environment, "PATH": path}
        entering = [*self.lab.head.entering, "env", "--chdir", os.fspath(self.place.folder)]
        program = [sys.executable, "-m", "imager", *(["--json"] if as_json else []), "--offline"]
        return [*entering, *(f"{k}={v}" for k, v in env.items()), *program, *words, "--local"]

    def run(self, *words: str) -> Said:
        """Run it to its end."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)


@contextmanager
def desk_rack(
    folder: Path, programs: SaltPrograms, *, desks: int, cards: int
) -> Iterator[DeskRack]:
    """A rack whose golden image is composed, and ``desks`` desks with ``cards`` blank cards each:
    desk1 has the slots D1S0, D1S1, …"""
    names = [f"desk{number + 1}" for number in range(desks)]
    with ExitStack() as held:
        place = held.enter_context(workplace(folder))
        composed = place.run("compose")
        assert composed.code == 0, composed.err
        lab = held.enter_context(laboratory(folder / "lab", programs, names))
        all_cards: list[Loop] = []
        for number, name in enumerate(names):
            loops = held.enter_context(blank_cards(folder / name, cards))
            state = lab.desks[name].folder / "lib/station"
            state.mkdir(parents=True)
            lines = (f'D{number + 1}S{slot} = "pci-{name}-{slot}"\n' for slot in range(cards))
            (state / "slots.toml").write_text("[slots]\n" + "".join(lines))
            for slot, loop in enumerate(loops):
                lab.desks[name].put(f"pci-{name}-{slot}", loop.node)
            all_cards += loops
        yield DeskRack(lab, place, programs, tuple(all_cards))
