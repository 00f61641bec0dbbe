"""What is said before and after a card is saved: is there room, what was lost."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from imager.base.errors import HostStorage, MissingTool, TargetRefused, UsageError
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.diagnosis.damage import Damage, DamageKind
from imager.card.medium.reopen import FreshRead
from imager.card.save.card_map import CardMap, map_card
from imager.card.save.save import SavedCard, SaveOrder, require_room, save_card
from imager.card.save.saved_file import SavedFile
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import Area
from imager.disk.rescue_map import BlockState, RescueMap
from tests.support.cards import FaultyCard
from tests.support.syncing import Sync, fsyncs

USED = 100 * MiB
SPARE = 16 * MiB
CARD = CardMap(
    200 * MiB,
    ExtentMap([Extent(MiB, USED)]),
    (),
    200 * MiB,
    0,
    has_gpt=False,
    note="",
    marks=("a",),
)


def free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    room = SimpleNamespace(f_bavail=free_bytes // 512, f_bfree=free_bytes // 512, f_frsize=512)
    monkeypatch.setattr(os, "statvfs", lambda _: room)


def test_what_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    free(monkeypatch, USED - SPARE)
    require_room(CARD, files, SaveOrder())
    free(monkeypatch, USED - SPARE - 512)
    with pytest.raises(
        HostStorage, match=r": 88\.1 MB free, and what is in use on the card takes at least 88\.1"
    ) as caught:
        require_room(CARD, files, SaveOrder())
    assert "free some space" in str(caught.value.hint)


def test_what_an_earlier_run_has_saved_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.write_bytes(os.urandom(MiB))
    files.partial_map.write_bytes(RescueMap(CARD.size_bytes).encode())
    have = files.partial.stat().st_blocks * 512
    assert have >= MiB
    free(monkeypatch, USED - SPARE - have)
    require_room(CARD, files, SaveOrder())
    free(monkeypatch, USED - SPARE - have - 512)
    with pytest.raises(HostStorage):
        require_room(CARD, files, SaveOrder())


@pytest.mark.parametrize(
    ("name", "order", "needed"),
    [
        ("saved.img", SaveOrder(replay=True), "e2fsck, resize2fs"),
        ("saved.img", SaveOrder(shrink=True), "e2fsck, resize2fs"),
        ("saved.img.zst", SaveOrder(), "zstd"),
        ("saved.img.xz", SaveOrder(), "xz"),
    ],
)
def test_programs_that_are_missing_are_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, order: SaveOrder, needed: str
) -> None:
    monkeypatch.setattr("imager.base.run.find_tool", lambda _: None)
    require_room(CARD, SavedFile.at(tmp_path / "saved.img"), SaveOrder())
    with pytest.raises(MissingTool, match=f"not installed: {needed}"):
        require_room(CARD, SavedFile.at(tmp_path / name), order)


def test_what_cannot_be_made_smaller_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    card = replace(CARD, areas=(Area("p1", Extent(MiB, USED), "FAT16", USED),))
    require_room(card, files, SaveOrder())
    with pytest.raises(UsageError, match="it holds FAT16"):
        require_room(card, files, SaveOrder(shrink=True))


def test_a_second_reading_tries_nothing_that_was_lost(tmp_path: Path) -> None:
    """A piece of 4 MiB with a bad sector is not lost as a whole because it fails again."""
    raw = FaultyCard(8 * MiB, read_errors={5 * MiB: errno.EIO})
    card = map_card(raw)
    files = SavedFile.at(tmp_path / "saved.img")
    found = save_card(FreshRead(raw, True), card, files, SaveOrder(verify=True), Quiet())
    assert found.lost == ExtentMap([Extent(5 * MiB, 512)])
    state = RescueMap.parse(files.map.read_bytes())
    assert state.having(BlockState.BAD) == found.lost
    wanted = bytearray(raw.data)
    wanted[5 * MiB : 5 * MiB + 512] = bytes(512)
    assert files.path.read_bytes() == wanted


def test_what_a_run_left_that_saved_nothing_is_in_no_image(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.write_bytes(b"x" * 8192)
    files.put_beside(files.partial_map, RescueMap(8192).encode())
    with files.hold(8192) as held:
        assert held.read(0, 8192) == bytes(8192)


def test_an_image_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    raw = FaultyCard(MiB)
    files = SavedFile.at(tmp_path / "saved.img")
    with fsyncs() as done:
        save_card(FreshRead(raw, True), map_card(raw), files, SaveOrder(), Quiet())
    assert Sync(files.partial, MiB) in done


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*/none") as caught:
        SavedFile.at(tmp_path / "none/saved.img")
    assert caught.value.hint == f"make it: mkdir -p {tmp_path}/none"


def test_a_file_that_has_another_name_too_is_not_gone_on_with(tmp_path: Path) -> None:
    """What is written to it would be read, or kept, under that name."""
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.touch()
    os.link(files.partial, tmp_path / "another")
    with pytest.raises(TargetRefused, match="is no file of its own"):
        files.hold(MiB).__enter__()


def test_what_is_unfinished_is_nobody_elses(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.touch(0o644)
    with files.hold(MiB):
        assert files.partial.stat().st_mode & 0o777 == 0o600


def test_an_image_that_lacks_something_is_gone_on_with(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    files.path.write_bytes(b"x" * MiB)
    state = RescueMap(MiB)
    state.put(Extent(0, 4096), BlockState.SAVED)
    files.put_beside(files.map, state.encode())
    with files.hold(MiB) as held:
        assert held.state.having(BlockState.SAVED) == ExtentMap([Extent(0, 4096)])
        assert held.read(0, 4096) == b"x" * 4096
    assert not files.path.exists() and not files.map.exists()


def test_a_file_that_is_refused_is_closed_and_named_as_it_is_to_be_removed(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.touch()
    os.link(files.partial, tmp_path / "another")
    held = os.listdir("/proc/self/fd")
    with pytest.raises(TargetRefused) as caught:
        files.hold(MiB).__enter__()
    assert str(caught.value.hint).endswith(f"rm {files.partial} {files.partial_map}")
    files.put_beside(files.bmap, b"")
    assert os.listdir("/proc/self/fd") == held
    files.partial.unlink()
    files.map.write_bytes(RescueMap(MiB).encode())
    files.path.symlink_to(tmp_path / "another")
    with pytest.raises(TargetRefused, match="is a link") as caught:
        files.hold(MiB).__enter__()
    assert str(caught.value.hint).endswith(f"rm {files.path} {files.map}")


def test_a_link_that_comes_in_between_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts it there after it was looked for."""
    files = SavedFile.at(tmp_path / "saved.img")
    (tmp_path / "ours").touch()
    about = (tmp_path / "ours").lstat()
    files.partial.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(Path, "lstat", lambda _: about)
    with pytest.raises(HostStorage):
        files.hold(MiB).__enter__()
    assert not (tmp_path / "elsewhere").exists()


def test_what_reads_otherwise_the_second_time_is_bad(tmp_path: Path) -> None:
    raw = FaultyCard(8 * MiB, lies={5 * MiB: 1})
    files = SavedFile.at(tmp_path / "saved.img")
    card = map_card(FaultyCard(8 * MiB))
    found = save_card(FreshRead(raw, True), card, files, SaveOrder(verify=True), Quiet())
    assert 5 * MiB in found.lost
    assert RescueMap.parse(files.map.read_bytes()).having(BlockState.BAD) == found.lost


def test_what_was_read_wrongly_is_right_when_it_is_read_again(tmp_path: Path) -> None:
    """Also where it is zeros: they are written over what was there."""
    size, zeros = 8 * MiB, Extent(4 * MiB, 4 * MiB)
    raw = FaultyCard(size, lies={5 * MiB: 1})
    raw.data[zeros.offset : zeros.end] = bytes(zeros.length)
    honest = FaultyCard(size)
    honest.data[:] = raw.data
    files, card = SavedFile.at(tmp_path / "saved.img"), map_card(honest)
    first = save_card(FreshRead(raw, True), card, files, SaveOrder(verify=True), Quiet())
    assert first.lost == ExtentMap([zeros])
    second = save_card(FreshRead(honest, True), card, files, SaveOrder(), Quiet())
    assert second.went_on and not second.lost
    assert files.path.read_bytes() == honest.data


def test_what_a_killed_run_wrote_and_did_not_note_is_written_anew(tmp_path: Path) -> None:
    """Its state is up to two seconds older than its file."""
    size = 8 * MiB
    raw = FaultyCard(size)
    raw.data[4 * MiB :] = bytes(4 * MiB)
    files = SavedFile.at(tmp_path / "saved.img")
    with files.hold(size) as held:
        held.state.put(Extent(0, 4 * MiB), BlockState.SAVED)
        held.keep_state(held.state.encode())
        os.pwrite(held.fd, b"\xa5" * 4 * MiB + b"wrong", 0)
    save_card(FreshRead(raw, True), map_card(raw), files, SaveOrder(), Quiet())
    assert files.path.read_bytes() == raw.data


def test_a_map_that_is_none_is_not_gone_on_with(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.write_bytes(b"hello")
    files.partial_map.write_text("hello")
    with pytest.raises(TargetRefused, match="is no map: it does not begin with a status line"):
        files.hold(MiB).__enter__()


@pytest.mark.parametrize("left", [True, False])
def test_a_map_whose_image_is_gone_says_nothing_of_the_next(tmp_path: Path, left: bool) -> None:
    """A power cut leaves one, or who removes a large hidden file to have room."""
    raw, files = FaultyCard(MiB), SavedFile.at(tmp_path / "saved.img")
    whole = RescueMap(raw.size_bytes)
    whole.put(Extent(0, raw.size_bytes), BlockState.SAVED)
    files.put_beside(files.partial_map, whole.encode())
    if left:
        files.partial.touch()
    with files.hold(raw.size_bytes):
        assert not files.partial_map.exists(), "a run that is killed now leaves zeros"
    save_card(FreshRead(raw, True), map_card(raw), files, SaveOrder(), Quiet())
    assert files.path.read_bytes() == raw.data


def saved(folder: Path, lost: int, known: int) -> SavedCard:
    ranges = [Extent(number * MiB, 512) for number in range(lost)]
    losses = [Damage(one, DamageKind.UNREADABLE, one.offset, places=()) for one in ranges[:known]]
    return SavedCard(
        files=SavedFile(folder / "saved.img"),
        card=CARD,
        size_bytes=CARD.size_bytes,
        mapped_bytes=USED,
        cache_bypassed=True,
        phases=(),
        lost=ExtentMap(ranges),
        losses=tuple(losses),
        map_sha256="",
        sha256="",
        replayed=(),
        went_on=False,
    )


def test_a_card_of_which_nothing_was_lost_is_no_error(tmp_path: Path) -> None:
    assert saved(tmp_path, 0, 0).error() is None


@pytest.mark.parametrize(
    ("lost", "said", "more"),
    [
        (1, "one range of the card", 0),
        (20, "20 ranges of the card", 0),
        (21, "21 ranges of the card", 1),
        (300, "300 ranges of the card", 280),
    ],
)
def test_twenty_losses_are_told_and_the_others_counted(
    tmp_path: Path, lost: int, said: str, more: int
) -> None:
    error = saved(tmp_path, lost, min(lost, 200)).error()
    assert error is not None and said in error.what
    rest = [f"and {more} more ranges, see {tmp_path}/saved.img.map"] if more else []
    assert len(error.details) == min(lost, 20) + len(rest)
    assert [*error.details[20:]] == rest


def test_only_what_is_not_packed_can_be_tried_again(tmp_path: Path) -> None:
    plain = saved(tmp_path, 1, 1)
    packed = replace(plain, files=SavedFile(tmp_path / "saved.img.zst"))
    for one, hint in ((plain, "to the same file"), (packed, "to a file that is not packed")):
        error = one.error()
        assert error is not None and hint in str(error.hint)


def test_an_image_is_gone_on_with_that_lacks_something(tmp_path: Path) -> None:
    """There is a map beside it. An unfinished one comes first; a packed one cannot be mended."""
    files, found = SavedFile.at(tmp_path / "saved.img"), []
    for made in (files.path, files.map, files.partial, files.partial_map):
        made.touch()
        found.append(files.goes_on_with)
    assert found == [None, files.path, files.path, files.partial]
    packed = SavedFile.at(tmp_path / "saved.img.gz")
    packed.path.touch()
    packed.map.touch()
    assert packed.goes_on_with is None


def test_a_file_is_gone_on_with_by_one_run_at_a_time(tmp_path: Path) -> None:
    files = SavedFile.at(tmp_path / "saved.img")
    with files.hold(MiB) as held:
        held.state.put(Extent(0, 512), BlockState.SAVED)
        held.keep_state(held.state.encode())
        with pytest.raises(TargetRefused, match="is being made by"):
            files.hold(MiB).__enter__()
    with files.hold(MiB) as held:
        assert held.state.having(BlockState.SAVED).total_bytes == 512
