"""Hints that only root can follow: disks, readers' slots, full disks, folders of other people.

Disks are loop devices.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from imager.base.units import GiB, MiB
from tests.hints.following import Row, follow, typed
from tests.support.loop import (
    call,
    loop_over,
    missing_abilities,
    sized_file,
    socket_links,
    udevd_running,
)
from tests.support.workplace import Said

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]


@dataclass
class Readers:
    """A folder with a rack of two nodes, and the files of cards for two readers' sockets; ``held``
    is what is undone at the end."""

    folder: Path
    cards: list[Path]
    held: ExitStack
    card: Path = Path("no card is in")

    def typed(self, line: str) -> Said:
        """Type ``line``, in which ``CARD`` is the device of a card that is in."""
        return typed(self.folder, line.replace("CARD", str(self.card)), "rack")


def _come_and_go(place: Readers) -> None:
    """Put in one card after the other, each in its socket, over and over, while the next line is
    obeyed."""
    sockets = {card: f"picloud-{os.getpid()}-usb-0:{n}" for n, card in enumerate(place.cards)}
    place.held.enter_context(socket_links(sockets))
    over = threading.Event()

    def come_and_go() -> None:
        stay_s = 0.3
        while not over.is_set():
            for card in place.cards:
                with loop_over(card):
                    over.wait(stay_s)
            stay_s = min(2 * stay_s, 10)  # udevd of a busy computer tells it late

    thread = threading.Thread(target=come_and_go)
    thread.start()
    place.held.callback(thread.join)
    place.held.callback(over.set)


def _without_slots(place: Readers) -> None:
    toml = place.folder / "rack/rack.toml"
    lines = toml.read_text().splitlines()
    toml.write_text("\n".join(line for line in lines if not line.startswith("slots = ")))


def _learned(place: Readers) -> None:
    names = "".join(f'A{n} = "socket-{n}"\n' for n in (1, 2))
    (place.folder / "rack/slots.toml").write_text(f"[slots]\n{names}")


def _in(place: Readers, size_bytes: int = 8 * MiB) -> Path:
    """Put in a card of that size."""
    path = sized_file(place.folder / "in.raw", size_bytes)
    place.card = place.held.enter_context(loop_over(path)).node
    return path


def _mounted(place: Readers) -> None:
    call("mke2fs", "-q", str(_in(place)))
    disk = place.folder / "disk"
    disk.mkdir()
    call("mount", str(place.card), str(disk))
    place.held.callback(_quietly, "umount", disk)


def _swapped_to(place: Readers) -> None:
    _in(place)
    call("mkswap", str(place.card))
    call("swapon", str(place.card))
    place.held.callback(_quietly, "swapoff", place.card)


def _quietly(*words: str | Path) -> None:
    """For what a row has done already when all goes well."""
    subprocess.run(words, check=False, stderr=subprocess.DEVNULL)


def _seen_through(place: Readers) -> None:
    """Look at the card through another loop device, as who looks at a part of it does."""
    _in(place)
    place.held.enter_context(loop_over(place.card))


READERS = {
    "chown -R {} {}": Row(
        "rack show",
        "chown -R .*",
        "rack show",
        10,
        before=("$ chown -R 1234 rack",),
        between=("$ {said}",),
    ),
    "if it is the right one, say --max-size {}": Row(
        "write CARD --node pi1 --dry-run",
        r"--max-size \d+",
        "write CARD --node pi1 --dry-run {said}",
        20,
        before=(partial(_in, size_bytes=300 * GiB),),
    ),
    "leave --size out, or name a file ending in .img": Row(
        "write CARD --node pi1 --size 8GiB --dry-run",
        "leave --size out",
        "write CARD --node pi1 --dry-run",
        before=(_in,),
    ),
    "Every slot has its label already; --replace learns them anew.": Row(
        "rack slots learn",
        "--replace",
        "rack slots learn {said}",
        0,
        before=(_learned,),
        between=(_come_and_go,),
    ),
    "then picloud-image rack slots learn": Row(
        "rack slots show",
        'slots = "A.*"',
        "rack slots learn",
        0,
        section="rack",
        before=(_without_slots,),
        between=(_come_and_go,),
    ),
    'write slots = "{}" under [rack], or name the labels here: {}': Row(
        "rack slots learn",
        "(?<=here: ).*",
        "rack slots learn {said}",
        before=(_without_slots,),
        between=(_come_and_go,),
    ),
    "mend what is named here, or remove the file and run picloud-image rack slots learn": Row(
        "rack slots show",
        "picloud-image rack slots learn",
        code=10,
        before=("$ echo A1 > rack/slots.toml",),
        between=("$ rm rack/slots.toml", _come_and_go),
    ),
    "unmount it: umount {by}": Row(
        "write CARD --node pi1 --dry-run",
        "umount .*",
        "write CARD --node pi1 --dry-run",
        20,
        before=(_mounted,),
        between=("$ {said}",),
    ),
    "stop swapping to it: swapoff {node}": Row(
        "write CARD --node pi1 --dry-run",
        "swapoff .*",
        "write CARD --node pi1 --dry-run",
        20,
        before=(_swapped_to,),
        between=("$ {said}",),
    ),
    "stop using it first: swapoff {}": Row(
        "read CARD saved.img",
        "swapoff .*",
        "read CARD saved.img",
        20,
        before=(_swapped_to,),
        between=("$ {said}",),
    ),
    "detach it: losetup -d {}": Row(
        "write card.img --node pi1 --dry-run",
        "losetup -d .*",
        "write card.img --node pi1 --dry-run",
        20,
        before=(lambda place: place.held.enter_context(loop_over(place.folder / "card.img")),),
        between=("$ {said}",),
    ),
    "detach it: losetup -d {by}": Row(
        "write CARD --node pi1 --dry-run",
        "losetup -d .*",
        "write CARD --node pi1 --dry-run",
        20,
        before=(_seen_through,),
        between=("$ {said}",),
    ),
}


@pytest.fixture(scope="module")
def udevd() -> Iterator[None]:
    with udevd_running():
        yield


@pytest.fixture
def readers(here: Path, udevd: None) -> Iterator[Readers]:
    cards = [sized_file(here / f"card{number}.raw", 8 * MiB) for number in (1, 2)]
    with ExitStack() as held:
        yield Readers(here, cards, held)


@pytest.mark.parametrize("text", READERS)
def test_it_works_with_a_card(readers: Readers, text: str) -> None:
    follow(READERS[text], readers, readers.folder, readers.typed)
