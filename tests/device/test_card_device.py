"""The card engine on real block devices: loop devices, udevd, partition nodes, two sector sizes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imager.base.errors import (
    CardFaulty,
    CardIOError,
    HostStorage,
    Interrupted,
    StampMismatch,
    TargetRefused,
)
from imager.base.progress import Phase, Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.claim.claim import claim
from imager.card.host import exclusive
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk, list_disks
from imager.card.host.refusals import AcceptedTarget, accept, refusals
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, RefusalCode
from imager.card.host.targets import Unsuitable, target_at
from imager.card.inspect.verify import disk_id_of, open_target, verify_card
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.medium.raw import RawCard, aligned_buffer
from imager.card.receipt.receipt import ReceiptResult
from imager.card.receipt.store import all_receipts, by_disk_id, find_receipt
from imager.card.write.read_back import read_back
from imager.card.write.write import write_card
from imager.node.image import NodeImage
from tests.support.cardwriter import SIZE, card_image
from tests.support.loop import (
    Loop,
    call,
    exchanged,
    free_device,
    loop_over,
    missing_abilities,
    mounted,
    sized_file,
    udevd_running,
)
from tests.support.sampling import one_of_each

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def udevd() -> Iterator[None]:
    with udevd_running():
        yield


@pytest.fixture(params=[512, 4096])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loop]:
    """A card full of old bytes, with each sector size."""
    backing = sized_file(tmp_path / "card.raw", SIZE, b"\xa5" * 4096)
    with loop_over(backing, sector_bytes=request.param) as made:
        yield made


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Loop]:
    """A card full of old bytes, 512-byte sectors."""
    with loop_over(sized_file(tmp_path / "card.raw", SIZE, b"\xa5" * 4096)) as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return card_image(tmp_path)


def accepted(loop: Loop) -> AcceptedTarget:
    return accept(target_at(loop.node), SIZE)


def codes(path: Path, limits: Limits | None = None) -> set[RefusalCode]:
    return {reason.code for reason in refusals(target_at(path), SIZE, limits)}


def on(loop: Loop, offset: int, length: int) -> bytes:
    with loop.backing.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def is_whole(loop: Loop, image: NodeImage) -> bool:
    with image.open() as reader:
        return all(
            on(loop, e.offset, e.length) == reader.read(e.offset, e.length)
            for e in image.manifest.extents
        )


def is_blank(loop: Loop) -> bool:
    return not any(on(loop, 0, MiB))


def test_a_card_is_made_and_proven(loop: Loop, image: NodeImage, tmp_path: Path) -> None:
    made = make_card(
        CardOrder(image, accepted(loop), TrustedFolder(tmp_path / "receipts")), Quiet()
    )
    assert is_whole(loop, image)
    assert set(on(loop, 30 * MiB, MiB)) == {0xA5}, "what is not mapped is not touched"
    receipt = made.receipt
    assert receipt.result is ReceiptResult.VERIFIED
    assert receipt.cache_bypassed
    assert receipt.fallbacks == ()
    assert receipt.target.bus == "loop"
    assert receipt.target.diskseq > 0
    with open_target(loop.node) as fresh:
        newest = find_receipt(
            TrustedFolder(tmp_path / "receipts"), by_disk_id(disk_id_of(fresh.raw))
        )
        assert newest is not None
        path, found = newest
        assert path == made.receipt_path
        assert verify_card(fresh, found, Quiet()).matches


def test_discovery_shows_the_card_and_what_is_on_it(card: Loop, image: NodeImage) -> None:
    with claim(accepted(card), SIZE) as held:
        write_card(image, held, Quiet())
    disk = next(disk for disk in list_disks() if disk.node == str(card.node))
    assert (disk.bus, disk.size_bytes, disk.backing_file) == (Bus.LOOP, SIZE, card.backing)
    assert disk.diskseq
    assert disk.content is not None
    assert disk.content.kind == "dos"


def test_a_filesystem_is_named_with_its_label(card: Loop) -> None:
    call("mkfs.ext4", "-q", "-L", "holiday", str(card.node))
    exclusive.settle(HostTrees())
    disk = target_at(card.node)
    assert isinstance(disk, Disk)
    assert disk.holds == ("ext4 'holiday'",)


def test_a_mounted_partition_refuses_the_disk(card: Loop, image: NodeImage, tmp_path: Path) -> None:
    with claim(accepted(card), SIZE) as held:
        write_card(image, held, Quiet())
    first, second = card.partition_nodes()
    for node in (first, second):
        call("mkfs.ext4", "-q", "-F", str(node))
        with mounted(node, tmp_path / "mnt"):
            assert codes(card.node) == {RefusalCode.MOUNTED}
            with pytest.raises(TargetRefused, match=f"{node} is mounted on {tmp_path}/mnt"):
                accepted(card)
        assert codes(card.node) == set()


def test_a_partition_is_no_target_and_names_its_disk(card: Loop, image: NodeImage) -> None:
    with claim(accepted(card), SIZE) as held:
        write_card(image, held, Quiet())
    first, _ = card.partition_nodes()
    target = target_at(first)
    assert isinstance(target, Unsuitable)
    assert str(card.node) in target.hint


def test_a_mount_after_the_look_is_caught_by_the_claim(
    card: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive, "_PATIENCE_SECONDS", 0.2)
    call("mkfs.ext4", "-q", str(card.node))
    target = accepted(card)
    with (
        mounted(card.node, tmp_path / "mnt"),
        pytest.raises(TargetRefused) as caught,
        claim(target, SIZE),
    ):
        pass
    assert f"{card.node} is mounted on {tmp_path}/mnt" in caught.value.details


def test_swap_refuses_the_disk(card: Loop) -> None:
    call("mkswap", str(card.node))
    done = subprocess.run(["swapon", str(card.node)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this kernel has no swap")
    try:
        assert codes(card.node) == {RefusalCode.SWAP}
    finally:
        call("swapoff", str(card.node))


def test_a_read_only_card_is_refused(tmp_path: Path) -> None:
    with loop_over(sized_file(tmp_path / "card.raw", SIZE), read_only=True) as loop:
        assert codes(loop.node) == {RefusalCode.READ_ONLY}


def test_a_loop_on_top_of_the_card_refuses_it(card: Loop) -> None:
    with loop_over(card.node) as upper:
        assert codes(card.node) == {RefusalCode.LOOP_ON_TOP}
        assert codes(upper.node) == {RefusalCode.LOOP_OVER_DISK}


def test_two_loops_over_one_file_refuse_each_other(card: Loop) -> None:
    with loop_over(card.backing) as other:
        assert codes(card.node) == {RefusalCode.LOOP_ON_TOP}
        assert codes(other.node) == {RefusalCode.LOOP_ON_TOP}


def test_an_image_file_shown_by_a_loop_is_refused(tmp_path: Path) -> None:
    with loop_over(sized_file(tmp_path / "pi7.img", SIZE)):
        assert codes(tmp_path / "pi7.img") == {RefusalCode.LOOP_ON_TOP}


def test_a_loop_over_our_own_files_is_refused(card: Loop) -> None:
    assert codes(card.node, Limits(ours=(card.backing.parent,))) == {RefusalCode.OURS}


def test_a_card_one_mib_too_small_is_refused(tmp_path: Path) -> None:
    with loop_over(sized_file(tmp_path / "card.raw", SIZE - MiB)) as loop:
        assert codes(loop.node) == {RefusalCode.TOO_SMALL}


def test_a_loop_device_without_a_file_has_no_medium() -> None:
    with free_device() as free:
        assert RefusalCode.NO_MEDIUM in codes(free)


def test_a_symlink_to_a_disk_is_followed_once(card: Loop, tmp_path: Path) -> None:
    (tmp_path / "slot3").symlink_to(card.node)
    target = accept(target_at(tmp_path / "slot3"), SIZE)
    (tmp_path / "slot3").unlink()
    (tmp_path / "slot3").symlink_to("/dev/null")
    with claim(target, SIZE) as held:
        assert held.raw.name == str(card.node)


def test_the_disk_of_this_computer_is_refused() -> None:
    number = os.stat("/").st_dev
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not folder.exists():
        pytest.skip("the root filesystem is on no disk of its own")
    real = folder.resolve()
    name = real.parent.name if (real / "partition").exists() else real.name
    assert {RefusalCode.SYSTEM, RefusalCode.MOUNTED} <= codes(Path("/dev") / name)


def test_a_card_locked_after_the_look_is_refused(card: Loop) -> None:
    target = accepted(card)
    call("blockdev", "--setro", str(card.node))
    try:
        with pytest.raises(TargetRefused, match="turned read-only"), claim(target, SIZE):
            pass
    finally:
        call("blockdev", "--setrw", str(card.node))  # it would outlive the loop device


def test_a_loop_attached_after_the_look_is_refused(card: Loop) -> None:
    target = accepted(card)
    with (
        loop_over(card.node) as upper,
        pytest.raises(TargetRefused, match=f"{upper.node} is attached to"),
        claim(target, SIZE),
    ):
        pass


def test_a_device_that_knows_no_locks_is_a_recorded_fallback(
    card: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claim(accepted(card), SIZE) as held:
        assert held.held.fallbacks == (exclusive.NO_LOCK,)


def test_an_ordinary_user_is_told_what_to_do(card: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if path == str(card.node):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(path, flags, mode)

    target = accepted(card)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TargetRefused, match="may not write") as caught, claim(target, SIZE):
        pass
    assert "sudo" in caught.value.hint


def test_a_card_exchanged_after_confirmation_is_refused(tmp_path: Path) -> None:
    first = sized_file(tmp_path / "a.raw", SIZE)
    second = sized_file(tmp_path / "b.raw", SIZE, b"\xbb" * 4096)
    with loop_over(first) as loop:
        target = accepted(loop)
        with (
            exchanged(loop, second),
            pytest.raises(TargetRefused, match="no longer the disk") as caught,
            claim(target, SIZE),
        ):
            pass
    assert any("diskseq" in line for line in caught.value.details)
    assert set(second.read_bytes()) == {0xBB}


def test_the_claim_keeps_mounts_and_other_claims_away(
    card: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("mkfs.ext4", "-q", str(card.node))
    (tmp_path / "mnt").mkdir()
    target = accepted(card)
    with claim(target, SIZE):
        monkeypatch.setattr(exclusive, "_PATIENCE_SECONDS", 0.2)
        done = subprocess.run(
            ["mount", str(card.node), str(tmp_path / "mnt")], capture_output=True, check=False
        )
        assert done.returncode != 0
        with pytest.raises(TargetRefused, match="in use"), claim(target, SIZE):
            pass
    with mounted(card.node, tmp_path / "mnt"):
        pass


HOLD_THE_LOCK = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""


def test_a_card_locked_by_another_program_is_refused(
    card: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive, "_PATIENCE_SECONDS", 0.2)
    target = accepted(card)
    words = [sys.executable, "-c", HOLD_THE_LOCK, str(card.node)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(TargetRefused, match="locked by another") as caught, claim(target, SIZE):
            pass
        holder.kill()
    assert any(f"process {holder.pid} (python" in line for line in caught.value.details)
    assert not any(f"process {os.getpid()} " in line for line in caught.value.details)


def test_no_probe_can_begin_while_a_card_is_held(card: Loop) -> None:
    """udev asks for a shared lock before it looks at a disk: it must not get one."""
    held = claim(accepted(card), SIZE)
    with held, card.node.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_passing_probe_is_waited_for(card: Loop) -> None:
    """udev holds a shared lock while it probes."""
    target = accepted(card)
    probe = subprocess.Popen(["flock", "--shared", str(card.node), "sleep", "0.5"])
    try:
        time.sleep(0.1)
        with claim(target, SIZE) as held:
            assert held.held.fallbacks == ()
    finally:
        probe.wait()


def test_ctrl_c_between_two_steps_blanks_the_card(card: Loop, image: NodeImage) -> None:
    with pytest.raises(Interrupted) as caught, claim(accepted(card), SIZE) as held:
        write_card(image, held, Quiet())
        raise KeyboardInterrupt
    assert "visibly blank" in caught.value.hint
    assert is_blank(card)


def test_ctrl_c_before_the_first_write_changes_nothing(card: Loop) -> None:
    with pytest.raises(Interrupted) as caught, claim(accepted(card), SIZE):
        raise KeyboardInterrupt
    assert "nothing was written" in caught.value.hint
    assert set(on(card, 0, SIZE)) == {0xA5}


def test_damage_under_the_engine_is_found_and_mended(loop: Loop, image: NodeImage) -> None:
    with claim(accepted(loop), SIZE) as held:
        written = write_card(image, held, Quiet())
        with loop.backing.open("r+b") as file:
            for byte in (446, 41 * MiB + 77):
                file.seek(byte)
                file.write(b"!")
        read_back(written, Quiet())
        assert held.log.trouble is not None
        assert [damage.first_byte for damage in held.log.trouble.found] == [446, 41 * MiB + 77]
    assert is_whole(loop, image)


def test_damage_that_comes_back_condemns_the_card(card: Loop, image: NodeImage) -> None:
    class Gnawed(Quiet):
        """Damages the same byte whenever something is about to be read."""

        @contextmanager
        def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
            if name.startswith("read"):
                with card.backing.open("r+b") as file:
                    file.seek(41 * MiB + 77)
                    file.write(b"!")
            with super().phase(name, total_bytes) as phase:
                yield phase

    with claim(accepted(card), SIZE) as held:
        written = write_card(image, held, Quiet())
        with pytest.raises(CardFaulty, match=f"2 times: .* first at byte {41 * MiB + 77}"):
            read_back(written, Gnawed())
    assert is_blank(card)


def test_verify_names_a_byte_changed_later(card: Loop, image: NodeImage, tmp_path: Path) -> None:
    receipt = make_card(
        CardOrder(image, accepted(card), TrustedFolder(tmp_path / "receipts")), Quiet()
    ).receipt
    with card.backing.open("r+b") as file:
        file.seek(9 * MiB)
        file.write(b"!!")
    with open_target(card.node) as fresh:
        found = verify_card(fresh, receipt, Quiet())
    with pytest.raises(StampMismatch) as caught:
        found.require_sound()
    assert "boot partition" in caught.value.details[0]


def test_direct_io_refused_by_the_device_is_a_recorded_fallback(
    card: Loop, image: NodeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def without_direct(
        path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real_open(path, flags, mode, dir_fd=dir_fd)

    target = accepted(card)
    monkeypatch.setattr(os, "open", without_direct)
    made = make_card(CardOrder(image, target, TrustedFolder(tmp_path / "receipts")), Quiet())
    assert made.receipt.fallbacks == (exclusive.NO_DIRECT,)
    assert not made.receipt.cache_bypassed
    assert is_whole(card, image)


def test_a_full_disk_under_an_image_file(image: NodeImage, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    with mounted(Path("tmpfs"), tmp_path / "small", "-t", "tmpfs", "-o", "size=6m"):
        target = accept(target_at(tmp_path / "small/pi7.img"), SIZE)
        with pytest.raises(CardIOError) as caught:
            make_card(CardOrder(image, target, TrustedFolder(tmp_path / "receipts")), Quiet())
        assert "small/pi7.img: writing at byte" in caught.value.what
        assert "No space left" in caught.value.what
        assert list((tmp_path / "small").iterdir()) == []
    ((_, receipt),) = all_receipts(TrustedFolder(tmp_path / "receipts"))
    assert receipt.result is ReceiptResult.IO_ERROR


def start_writer(folder: Path, target: Path, waits_in: str = "") -> subprocess.Popen[str]:
    """Each block of the phase ``waits_in`` takes long: there the signal hits, however late."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.cardwriter", str(folder), str(target), waits_in],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_in(process: subprocess.Popen[str], phase: str, delay: float, sign: int) -> str:
    """Send ``sign`` ``delay`` seconds after ``phase`` began; what the writer then said."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == phase:
            break
    else:
        pytest.fail(f"the writer never came to {phase}")
    time.sleep(delay)
    process.send_signal(sign)
    said, trouble = process.communicate(timeout=120)
    assert not trouble or process.returncode == -signal.SIGKILL, trouble
    return said


MOMENTS = [
    (phase, delay)
    for phase, delays in (
        ("write", (0.0, 0.01, 0.03, 0.06)),
        ("table", (0.0, 0.005, 0.012, 0.02)),
        ("read back", (0.0, 0.03)),
    )
    for delay in delays
]
"""While it is blanked the old content may still be there: nothing was promised yet."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "delay" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all")
        moments = MOMENTS if every else one_of_each(MOMENTS, lambda moment: moment[0])
        metafunc.parametrize(("phase", "delay"), moments)


def test_kill_9_leaves_a_card_blank_or_whole(
    card: Loop, image: NodeImage, tmp_path: Path, phase: str, delay: float
) -> None:
    """One moment of each phase, drawn by chance; ``--all`` has them all."""
    stop_in(start_writer(tmp_path, card.node), phase, delay, signal.SIGKILL)
    table = on(card, 0, 4096)
    assert not any(table) or is_whole(card, image)
    if not any(table):
        found = subprocess.run(["blkid", "-p", str(card.node)], capture_output=True, check=False)
        assert found.returncode == 2, found.stdout
    make_card(CardOrder(image, accepted(card), TrustedFolder(tmp_path / "receipts")), Quiet())
    assert is_whole(card, image)


@pytest.mark.parametrize("phase", ["blank", "write", "table", "read back"])
def test_ctrl_c_leaves_a_blank_card_and_a_receipt(card: Loop, tmp_path: Path, phase: str) -> None:
    process = start_writer(tmp_path, card.node, waits_in=phase)
    said = stop_in(process, phase, 0.005, signal.SIGINT)
    assert process.returncode == 130
    assert "visibly blank" in said
    assert phase == "table" or "table\n" not in said, "it went on to the next phase"
    assert is_blank(card)
    ((_, receipt),) = all_receipts(TrustedFolder(tmp_path / "receipts"))
    assert receipt.result is ReceiptResult.INTERRUPTED


@pytest.mark.parametrize("phase", ["write", "table", "read back"])
def test_kill_9_leaves_no_image_file(tmp_path: Path, image: NodeImage, phase: str) -> None:
    target = tmp_path / "pi7.img"
    stop_in(start_writer(tmp_path, target, waits_in=phase), phase, 0.005, signal.SIGKILL)
    assert not target.exists()
    make_card(
        CardOrder(image, accept(target_at(target), SIZE), TrustedFolder(tmp_path / "receipts")),
        Quiet(),
    )
    assert target.stat().st_size == SIZE
    assert not (tmp_path / ".pi7.img.partial").exists()


def test_a_card_that_fails_half_way_is_named_and_left_blank(
    image: NodeImage, tmp_path: Path
) -> None:
    """The file under the device has room for 8 MiB only: then every write is an I/O error."""
    (tmp_path / "small").mkdir()
    with (
        mounted(Path("tmpfs"), tmp_path / "small", "-t", "tmpfs", "-o", "size=8m"),
        loop_over(sized_file(tmp_path / "small/card.raw", SIZE)) as loop,
    ):
        with pytest.raises(CardIOError, match="writing at byte") as caught:
            make_card(
                CardOrder(image, accepted(loop), TrustedFolder(tmp_path / "receipts")), Quiet()
            )
        assert "visibly blank" in caught.value.details[-1]
        assert is_blank(loop)
    ((_, receipt),) = all_receipts(TrustedFolder(tmp_path / "receipts"))
    assert receipt.result is ReceiptResult.IO_ERROR
    assert receipt.failure == caught.value.what
    assert [phase.name for phase in receipt.phases] == ["blank", "write"]


@dataclass(frozen=True)
class _Meddler:
    """A card that is being given the golden image when somebody cuts that short."""

    inner: RawCard
    golden: Path
    name: str
    size_bytes: int
    block_bytes: int

    def pread(self, offset: int, buffer: memoryview) -> int:
        return self.inner.pread(offset, buffer)

    def pwrite(self, offset: int, data: memoryview) -> int:
        if offset == 8 * MiB:
            os.truncate(self.golden, 2 * MiB)
        return self.inner.pwrite(offset, data)

    def flush(self) -> None:
        self.inner.flush()


def test_a_golden_image_cut_short_meanwhile_is_an_error_and_no_sigbus(
    loop: Loop, image: NodeImage
) -> None:
    with claim(accepted(loop), SIZE) as held:
        raw = held.raw
        sly = _Meddler(raw, image.golden.path, raw.name, raw.size_bytes, raw.block_bytes)
        with pytest.raises(HostStorage, match="golden image was altered") as caught:
            write_card(image, replace(held, held=replace(held.held, raw=sly)), Quiet())
    assert "visibly blank" in caught.value.details[-1]
    assert is_blank(loop)


def test_nothing_is_left_attached(tmp_path: Path) -> None:
    backing = sized_file(tmp_path / "x.raw", MiB)
    with pytest.raises(RuntimeError), loop_over(backing) as loop:
        raise RuntimeError
    assert not Path(f"/sys/block/{loop.name}/loop/backing_file").exists()


def test_a_card_written_since_it_was_shown_is_refused(
    card: Loop, image: NodeImage, tmp_path: Path
) -> None:
    """Two runs were told to write one card; the second had its yes before the first began."""
    second = accepted(card)
    make_card(CardOrder(image, accepted(card), TrustedFolder(tmp_path) / "receipts"), Quiet())
    with pytest.raises(TargetRefused, match="disk id 1a2b3c4d now") as caught:
        make_card(CardOrder(image, second, TrustedFolder(tmp_path) / "receipts"), Quiet())
    assert "run the same command again" in caught.value.hint
    assert is_whole(card, image)
    assert len(list(all_receipts(TrustedFolder(tmp_path) / "receipts"))) == 1
    make_card(CardOrder(image, accepted(card), TrustedFolder(tmp_path) / "receipts"), Quiet())


def test_a_card_blanked_since_it_was_shown_is_refused(card: Loop) -> None:
    shown = accepted(card)
    with claim(accepted(card), SIZE) as held:
        held.raw.pwrite(0, aligned_buffer(MiB))
    with pytest.raises(TargetRefused, match="nothing in its first MiB"), claim(shown, SIZE):
        pass


def test_the_second_run_waits_for_the_lock_and_then_looks(card: Loop, image: NodeImage) -> None:
    shown = accepted(card)
    with ThreadPoolExecutor(1) as other:
        with claim(accepted(card), SIZE) as first:
            waiting = other.submit(_claimed_once, shown)
            write_card(image, first, Quiet())
            assert not waiting.done()
        with pytest.raises(TargetRefused, match="is not what it was"):
            waiting.result()


def _claimed_once(shown: AcceptedTarget) -> None:
    with claim(shown, SIZE):
        pass
