"""A rack on a head, and desks with blank cards in their readers: what a person begins with.

In: how many desks, and how many cards each. Out: a ``DeskRack``: the real command on the head, real
Salt, loop devices as readers whose slots have labels on their own desk only. The desks are minions
and nothing more, until ``rack stations install`` makes stations of them. The head is the Salt
master, or, ``from_afar``, a computer of the same network that reaches it by ssh.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.config.load import load_rack
from imager.image.compose.cache import DESCRIPTION, IMAGE, decode_golden
from imager.node.personalise import personalise
from tests.support.laboratory import MASTER_ADDRESS, Desk, Laboratory, laboratory
from tests.support.loop import Loop
from tests.support.rackcards import blank_cards
from tests.support.salt import SaltPrograms
from tests.support.sshd import sshd_in
from tests.support.workplace import Said, Workplace, workplace

_SECONDS = 1800
_OF_A_WORKPLACE = 14
"""So many nodes its rack has."""


@dataclass(frozen=True, slots=True)
class DeskRack:
    """``cards`` are those of all desks, in the order in which nodes get them. ``entering`` are the
    words before a command that is run where the head is, ``path`` is its PATH, ``way`` are the
    words behind it that say how the master is reached from there."""

    lab: Laboratory
    place: Workplace
    programs: SaltPrograms
    cards: tuple[Loop, ...]
    entering: tuple[str, ...]
    path: str
    way: tuple[str, ...] = ("--local",)

    def command(self, *words: str, as_json: bool = True) -> list[str]:
        """The command with ``words``, as it is run on the head."""
        env = {**self.place.environment, "PATH": self.path}
        entering = [*self.entering, "env", "--chdir", os.fspath(self.place.folder)]
        program = [sys.executable, "-m", "imager", *(["--json"] if as_json else []), "--offline"]
        return [*entering, *(f"{k}={v}" for k, v in env.items()), *program, *words, *self.way]

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
    desk1 has the slots D1S0, D1S1, … The rack has a node for each card, and fourteen at least: as
    many in each of its towers as there are cards at a desk."""
    names = [f"desk{number + 1}" for number in range(desks)]
    with ExitStack() as held:
        place = held.enter_context(workplace(folder))
        if desks * cards > _OF_A_WORKPLACE:
            _has_towers(place, desks, cards)
        composed = place.run("compose")
        assert composed.code == 0, composed.err
        lab = held.enter_context(laboratory(folder / "lab", programs, names))
        all_cards: list[Loop] = []
        for name in names:
            loops = held.enter_context(blank_cards(folder / name, cards))
            put_in_slots(lab.desks[name], loops)
            all_cards += loops
        yield on_head(lab, place, programs, tuple(all_cards))


def _has_towers(place: Workplace, towers: int, nodes: int) -> None:
    """Let the rack have so many towers, with so many nodes in each."""
    slots = ",".join(f"{letter}[1-{nodes}]" for letter in ascii_uppercase[:towers])
    toml = place.rack / "rack.toml"
    text = re.sub(r'(?m)^nodes = ".*"$', f'nodes = "pi[0-{towers * nodes - 1}]"', toml.read_text())
    toml.write_text(re.sub(r'(?m)^slots = ".*"$', f'slots = "{slots}"', text))


def on_head(
    lab: Laboratory, place: Workplace, programs: SaltPrograms, cards: tuple[Loop, ...]
) -> DeskRack:
    """The rack of ``place`` on the master itself."""
    path = f"{programs.folder}:{os.environ['PATH']}"
    return DeskRack(lab, place, programs, cards, lab.head.entering, path)


@contextmanager
def from_afar(near: DeskRack) -> Iterator[DeskRack]:
    """The same rack on a computer that has neither Salt nor a folder of the master's: a real sshd
    there lets in who has the key of the rack's person, as the master's finished card says."""
    place, key = near.place, near.place.folder / "me"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    toml = (place.rack / "rack.toml").read_text()
    login = '[login]\nauthorized_keys_files = ["../me.pub"]'
    (place.rack / "rack.toml").write_text(toml.replace("[login]", login, 1))
    (entry,) = (place.cache / "golden").glob(f"*/{DESCRIPTION}")
    golden = decode_golden(entry.read_bytes(), entry.parent / IMAGE)
    rack = load_rack(place.rack)
    size = golden.layout.size_bytes + 64 * MiB
    card = personalise(golden, rack, rack.node(rack.master.name), size, Quiet())
    with sshd_in(near.lab.head, card, near.programs.folder):
        way = ("--ssh", "--host", MASTER_ADDRESS, "--identity", os.fspath(key))
        there = near.lab.hub.entering
        yield replace(near, entering=there, path=os.environ["PATH"], way=way)


def put_in_slots(desk: Desk, loops: Sequence[Loop]) -> None:
    """Put a card into each reader of ``desk``: desk1 has the slots D1S0, D1S1, …"""
    name = desk.name
    state = desk.folder / "lib/station"
    state.mkdir(parents=True)
    label = name.replace("desk", "D")
    lines = (f'{label}S{slot} = "pci-{name}-{slot}"\n' for slot in range(len(loops)))
    (state / "slots.toml").write_text("[slots]\n" + "".join(lines))
    for slot, loop in enumerate(loops):
        desk.put(f"pci-{name}-{slot}", loop.node)
