"""Cards coming and going in readers that stay: on a made-up host, with the events udev sends."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from imager.base.errors import MissingTool
from imager.card.host.arrivals import Arrivals, Change, arrivals
from imager.card.host.disks import Disk, disk_named
from imager.card.host.sysfs import HostTrees
from tests.support.sysfs import FakeHost

Event = tuple[str, Callable[[], None]] | tuple[str, Callable[[], None], int]


class Events:
    """In place of pyudev's monitor: each event changes the host first, as the kernel does.

    An event is a name, what happens, and where it has one the number of the medium it is of. They
    come one by one, as they are waited for; with ``at_once`` all of them are there already.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.queue: deque[Event] = deque()
        self.at_once = at_once

    def poll(self, seconds: float) -> SimpleNamespace | None:
        if not self.queue or not (seconds or self.at_once):
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


def changes(host: FakeHost, *events: Event, at_once: bool = False) -> list[tuple[str, bool]]:
    source = Events(at_once=at_once)
    watch = Arrivals(source, host.kernel)
    source.queue.extend(events)
    found: list[tuple[str, bool] | None] = []
    while source.queue or found[-1:] != [None]:
        change = watch.wait(0.01)
        found.append((change.name, change.disk is not None) if change is not None else None)
    return [change for change in found if change is not None]


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


def test_events_that_pile_up_cost_one_look_at_each_disk(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strange disks that come and go faster than they can be looked at hold no card up."""
    looks = []

    def counted(name: str, *, kernel: HostTrees) -> Disk:
        looks.append(name)
        return disk_named(name, kernel=kernel)

    monkeypatch.setattr("imager.card.host.arrivals.disk_named", counted)
    strange = [("sdb", put_in(host, "sdb", 3 + n), 3 + n) for n in range(500)]
    card = ("sdc", put_in(host, "sdc", 999), 999)
    assert changes(host, *strange, card, at_once=True) == [("sdb", True), ("sdc", True)]
    assert looks == ["sdb", "sdc"]


def test_an_event_of_a_medium_that_went_already_costs_no_look(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("imager.card.host.arrivals.disk_named")
    assert changes(host, ("sdb", put_in(host, "sdb", 4), 3)) == []


def test_a_card_exchanged_while_it_is_looked_at_is_told_by_its_own_event(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(name: str, *, kernel: HostTrees) -> Disk:
        disk = disk_named(name, kernel=kernel)
        if disk.diskseq == 3:
            put_in(host, "sdb", 4)()
        return disk

    monkeypatch.setattr("imager.card.host.arrivals.disk_named", slow)
    first, second = ("sdb", put_in(host, "sdb", 3), 3), ("sdb", nothing, 4)
    assert changes(host, first) == []
    put_in(host, "sdb", 1, gib=0)()
    assert changes(host, first, second) == [("sdb", True)]


def test_a_card_told_without_its_slot_is_told_again_when_udev_has_named_it(host: FakeHost) -> None:
    def name() -> None:
        folder = host.root / "dev/disk/by-path"
        folder.mkdir()
        (folder / "usb-0:2").symlink_to("../../sdc")

    again = ("sdc", nothing, 2)
    assert changes(host, again, ("sdc", name, 2), again) == [("sdc", True)]


class Clock:
    """The time, which goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Is there while udevd is busy; this computer's own may be."""
    path = tmp_path / "udevd's queue"
    monkeypatch.setattr("imager.card.host.sysfs._UDEVD_QUEUE", path)
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, queue: Path) -> Clock:
    clock = Clock()
    monkeypatch.setattr("imager.card.host.arrivals.time", clock)
    return clock


def test_a_card_no_event_told_of_is_asked_about_and_told_in_the_end(
    host: FakeHost, clock: Clock
) -> None:
    uevent = host.root / "sys/class/block/sdb/uevent"
    watch = Arrivals(Events(), host.kernel)
    put_in(host, "sdb", 3)()
    asked, told = [], []
    for _ in range(20):
        clock.now += 1
        change = watch.wait(0)
        told += [(clock.now, change.name)] if change is not None else []
        asked += [clock.now] if uevent.exists() else []
    assert asked[0] == 104  # udev gets the time to speak by itself
    assert uevent.read_text() == "change"
    assert told == [(112, "sdb")]


def test_a_udevd_that_is_busy_is_waited_for_as_its_links_may_be_of_the_card_before(
    host: FakeHost, clock: Clock, queue: Path
) -> None:
    queue.touch()
    watch = Arrivals(Events(), host.kernel)
    put_in(host, "sdb", 3)()
    clock.now += 2
    for _ in range(30):  # of those in which it gives no event up
        assert watch.wait(0) is None
        clock.now += 6
    queue.unlink()
    assert watch.wait(0) == Change("sdb", disk_named("sdb", kernel=host.kernel))
    queue.touch()
    put_in(host, "sdb", 4)()
    for _ in range(101):  # killed in the middle of its work, it says for ever that it is busy
        clock.now += 2
        change = watch.wait(0)
    assert change is not None


def test_a_card_that_udev_speaks_of_when_asked_is_told_once(host: FakeHost, clock: Clock) -> None:
    uevent = host.root / "sys/class/block/sdb/uevent"
    source = Events(at_once=True)
    watch = Arrivals(source, host.kernel)
    put_in(host, "sdb", 3)()
    told = []
    for _ in range(20):
        clock.now += 1
        if uevent.exists():
            source.queue.append(("sdb", uevent.unlink, 3))
        change = watch.wait(0)
        told += [(clock.now, change.name)] if change is not None else []
    assert told == [(105, "sdb")]


def test_a_disk_that_cannot_be_looked_at_ends_nothing_and_is_told_when_it_can(
    host: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = iter([OSError(errno.ENODEV, "No such device")])

    def failing(name: str, *, kernel: HostTrees) -> Disk:
        for error in fails:
            raise error
        return disk_named(name, kernel=kernel)

    monkeypatch.setattr("imager.card.host.arrivals.disk_named", failing)
    source = Events(at_once=True)
    watch = Arrivals(source, host.kernel)
    source.queue.append(("sdb", put_in(host, "sdb", 3), 3))
    told = []
    for _ in range(20):
        clock.now += 1
        change = watch.wait(0)
        told += [change.name] if change is not None else []
    assert told == ["sdb"]


def test_a_removal_no_event_told_of_is_told(host: FakeHost, clock: Clock) -> None:
    watch = Arrivals(Events(), host.kernel)
    put_in(host, "sdc", 3, gib=0)()
    clock.now += 2
    assert watch.wait(0) == Change("sdc", None)


def test_events_that_were_too_many_for_the_socket_end_nothing(host: FakeHost, clock: Clock) -> None:
    class Overrun(Events):
        def poll(self, seconds: float) -> SimpleNamespace | None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    watch = Arrivals(Overrun(), host.kernel)
    put_in(host, "sdc", 3, gib=0)()
    assert watch.wait(0) == Change("sdc", None)


def test_without_udevd_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostTrees, "udev_runs", property(lambda self: False))
    with pytest.raises(MissingTool, match="udevd does not run"), arrivals():
        raise AssertionError
