"""Cards coming and going in readers that stay: on a made-up host, with the events udev sends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from imager.base.errors import MissingTool
from imager.card.host.arrivals import Arrivals, arrivals
from imager.card.host.sysfs import HostTrees
from tests.support.sysfs import FakeHost

Event = tuple[str, Callable[[], None]] | tuple[str, Callable[[], None], int]


class Events:
    """In place of pyudev's monitor: each event changes the host first, as the kernel does.

    An event is a name, what happens, and where it has one the number of the medium it is of.
    """

    def __init__(self) -> None:
        self.queue: deque[Event] = deque()

    def poll(self, seconds: float) -> SimpleNamespace | None:
        if not self.queue:
            return None
        name, happen, *diskseq = self.queue.popleft()
        happen()
        properties = {"DISKSEQ": str(diskseq[0])} if diskseq else {}
        return SimpleNamespace(sys_name=name, properties=properties)


def nothing() -> None:
    """What a program that closes a disk changes."""


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.disk("sda", "8:0", gib=100, removable="0")
    host.disk("sdb", "8:16", gib=0, diskseq="1")
    host.disk("sdc", "8:32", gib=32, diskseq="2")
    return host


def put_in(host: FakeHost, name: str, diskseq: int, gib: int = 32) -> Callable[[], None]:
    def happen() -> None:
        host.write(f"sys/class/block/{name}/size", f"{gib * 2**21}\n")
        host.write(f"sys/class/block/{name}/diskseq", f"{diskseq}\n")

    return happen


def changes(host: FakeHost, *events: Event) -> list[tuple[str, bool]]:
    source = Events()
    watch = Arrivals(source, host.kernel)
    source.queue.extend(events)
    found = []
    while source.queue:
        change = watch.wait(0.01)
        if change is not None:
            found.append((change.name, change.disk is not None))
    return found


def test_what_is_in_already_is_known_and_no_fixed_disk_is_a_card(host: FakeHost) -> None:
    watch = Arrivals(Events(), host.kernel)
    assert [Path(disk.node).name for disk in watch.present] == ["sdc"]


def test_an_insertion_is_told_once_however_often_udev_speaks(host: FakeHost) -> None:
    card = ("sdb", put_in(host, "sdb", 3))
    again = ("sdb", nothing)
    assert changes(host, again, card, again, again) == [("sdb", True)]


def test_a_removal_is_told_and_the_slot_is_empty_after_it(host: FakeHost) -> None:
    out = ("sdc", put_in(host, "sdc", 4, gib=0))
    back = ("sdc", put_in(host, "sdc", 5))
    assert changes(host, out, out, back) == [("sdc", False), ("sdc", True)]


def test_a_card_exchanged_between_two_looks_is_another_card(host: FakeHost) -> None:
    assert changes(host, ("sdc", put_in(host, "sdc", 9))) == [("sdc", True)]


def test_an_event_read_late_does_not_tell_of_the_next_card_before_its_links_are_there(
    host: FakeHost,
) -> None:
    out = ("sdc", put_in(host, "sdc", 4), 3)
    back = ("sdc", nothing, 4)
    assert changes(host, out, back, back) == [("sdc", False), ("sdc", True)]


def test_a_reader_plugged_in_and_pulled_out_comes_and_goes(host: FakeHost) -> None:
    def plug() -> None:
        host.disk("sdd", "8:48", diskseq="7")

    def pull() -> None:
        folder = host.root / "sys/class/block/sdd"
        folder.rename(host.root / "gone")

    assert changes(host, ("sdd", plug), ("sdd", pull)) == [("sdd", True), ("sdd", False)]


def test_without_udevd_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostTrees, "udev_runs", property(lambda self: False))
    with pytest.raises(MissingTool, match="udevd does not run"), arrivals():
        raise AssertionError
