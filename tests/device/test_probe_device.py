"""Probing and updating real block devices: loop devices, and the command as it is typed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.claim.claim import claim
from imager.card.host.refusals import AcceptedTarget, accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.probe.probe import probe_card, short_probe
from imager.card.probe.report import Honesty
from imager.card.receipt.store import all_receipts
from imager.node.image import NodeImage
from tests.support.loop import Loop, loop_over, missing_abilities, sized_file
from tests.support.sampling import one_of_each
from tests.support.updates import SIZE, node_image
from tests.support.workplace import Workplace, workplace

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]


@pytest.fixture(params=[512, 4096])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loop]:
    """A card full of old bytes, with each sector size."""
    backing = sized_file(tmp_path / "card.raw", SIZE, b"\xa5" * 4096)
    with loop_over(backing, sector_bytes=request.param) as made:
        yield made


def accepted(loop: Loop) -> AcceptedTarget:
    return accept(target_at(loop.node), 0)


def is_blank(loop: Loop) -> bool:
    with loop.backing.open("rb") as file:
        return not any(file.read(MiB))


@pytest.mark.parametrize("whole", [False, True])
def test_an_honest_device_is_honest_and_blank_afterwards(loop: Loop, whole: bool) -> None:
    with claim(accepted(loop), 0) as card:
        report = probe_card(card, Quiet(), whole=whole)
    assert (report.honesty, report.real_bytes, report.findings) == (Honesty.HONEST, SIZE, ())
    assert report.cache_bypassed
    assert report.whole == whole
    assert is_blank(loop)
    found = subprocess.run(["blkid", "-p", str(loop.node)], capture_output=True, check=False)
    assert found.returncode == 2, found.stdout


def test_the_short_probe_leaves_the_rest_to_the_write(loop: Loop) -> None:
    with claim(accepted(loop), 0) as card:
        report = short_probe(card, Quiet())
        assert sum(phase.size_bytes for phase in card.log.phases) <= 30e6
    assert report.error() is None


def test_a_card_is_probed_written_and_then_updated(loop: Loop, tmp_path: Path) -> None:
    receipts = tmp_path / "receipts"
    nodes = [node_image(tmp_path / name, name) for name in ("pi7", "pi8")]
    for image in nodes:
        make_card(
            CardOrder(image, accepted(loop), TrustedFolder(receipts)),
            Quiet(),
            update=True,
            probe=True,
        )
    later, first = [receipt for _, receipt in all_receipts(TrustedFolder(receipts))]
    assert [phase.name for phase in first.phases] == [
        *("blank", "probe write", "probe read"),
        *("blank", "write", "table", "read back"),
    ]
    assert [phase.name for phase in later.phases] == [
        *("compare", "blank", "write", "table", "read back"),
    ]
    assert is_whole(loop, nodes[1])


MOMENTS = [
    *(("compare", delay) for delay in (0.0, 0.05)),
    *(("blank", delay) for delay in (0.0, 0.005, 0.012)),
    *(("write", delay) for delay in (0.0, 0.012, 0.03)),
    *(("table", delay) for delay in (0.0, 0.005, 0.012, 0.02)),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "delay" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all")
        moments = MOMENTS if every else one_of_each(MOMENTS, lambda moment: moment[0])
        metafunc.parametrize(("phase", "delay"), moments)


def test_kill_9_while_updating_leaves_the_old_card_a_blank_one_or_the_new(
    tmp_path: Path, phase: str, delay: float
) -> None:
    """One moment of each phase, drawn by chance; ``--all`` has them all."""
    old, new = (node_image(tmp_path / name, name) for name in ("pi7", "pi8"))
    with loop_over(sized_file(tmp_path / "card.raw", SIZE)) as loop:
        make_card(CardOrder(old, accepted(loop), TrustedFolder(tmp_path / "receipts")), Quiet())
        killed_in(phase, delay, tmp_path, loop)
        # The kill may come later than meant on a busy machine, so no moment promises one of them.
        assert has_no_table(loop) or is_whole(loop, new) or is_whole(loop, old)
        if has_no_table(loop):
            found = subprocess.run(["blkid", "-p", str(loop.node)], check=False)
            assert found.returncode == 2
        make_card(
            CardOrder(new, accepted(loop), TrustedFolder(tmp_path / "receipts")),
            Quiet(),
            update=True,
        )
        assert is_whole(loop, new)


def killed_in(phase: str, delay: float, folder: Path, loop: Loop) -> None:
    """Update the card in another process and kill that ``delay`` seconds into ``phase``."""
    words = [sys.executable, "-m", "tests.support.updates", str(folder), str(loop.node)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.strip() == phase for line in process.stdout), "it never came so far"
        time.sleep(delay)
        process.kill()


def has_no_table(loop: Loop) -> bool:
    with loop.backing.open("rb") as file:
        return not any(file.read(4096))


def is_whole(loop: Loop, image: NodeImage) -> bool:
    with image.open() as reader, loop.backing.open("rb") as file:
        for extent in image.manifest.extents:
            file.seek(extent.offset)
            if file.read(extent.length) != reader.read(extent.offset, extent.length):
                return False
    return True


# ── the command ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("workplace")) as found:
        yield found


@pytest.fixture
def big_loop(tmp_path: Path) -> Iterator[Loop]:
    with loop_over(sized_file(tmp_path / "big.raw", 2048 * MiB)) as made:
        yield made


def test_probe_asks_and_tells(place: Workplace, loop: Loop) -> None:
    said = place.run("probe", loop.node)
    assert said.code == 2
    assert "nobody to ask" in said.err
    assert not is_blank(loop), "nothing was touched"
    said = place.run("probe", loop.node, "--yes")
    assert said.code == 0, said.err
    assert f"{loop.node}: honest as far as" in said.out
    assert "blank now" in said.out
    told = place.json("probe", loop.node, "--yes", "--whole").result
    assert (told["honesty"], told["whole"], told["checked_bytes"]) == ("honest", True, SIZE)


def test_probe_refuses_what_is_no_card(place: Workplace, tmp_path: Path) -> None:
    said = place.run("probe", tmp_path / "x.img", "--yes")
    assert said.code == 2
    assert "is an image file" in said.err
    assert place.run("probe", "/dev/null", "--yes").code == 20


def test_write_probes_a_new_card_updates_it_and_shows_the_receipt(
    place: Workplace, big_loop: Loop
) -> None:
    words = ("write", big_loop.node, "--yes", "--node")
    first = place.json(*words, "pi7")
    assert first.code == 0, first.err
    assert "probe read" in first.result["phases"]
    mapped = first.result["mapped_bytes"]
    second = place.json(*words, "pi3")
    phases = second.result["phases"]
    assert "probe read" not in phases
    assert phases["compare"]["bytes"] >= mapped * 0.9
    written = sum(phases[name]["bytes"] for name in ("blank", "write", "table"))
    assert written <= 6 * MiB
    full = place.json(*words, "pi3", "--full")
    assert "compare" not in full.result["phases"]
    assert "probe read" not in full.result["phases"], "it is known by its disk id"
    shown = place.run("receipt", "--node", "pi7")
    assert shown.code == 0
    assert "pi7: verified" in shown.out
    assert "read back" in shown.out
    file = str(second.result["receipt"])
    assert place.json("receipt", file).result["receipt"]["node"] == "pi3"


def test_no_probe_writes_at_once(place: Workplace, big_loop: Loop) -> None:
    said = place.json("write", big_loop.node, "--yes", "--node", "pi5", "--no-probe")
    assert said.code == 0, said.err
    assert "probe read" not in said.result["phases"]


def test_receipt_wants_one_of_two(place: Workplace, tmp_path: Path) -> None:
    assert place.run("receipt").code == 2
    assert place.run("receipt", tmp_path / "none.json").code == 10
    said = place.run("receipt", "--node", "pi11")
    assert said.code == 10
    assert "no receipt in" in said.err
