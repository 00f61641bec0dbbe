"""A card that a kernel really mounted, wrote to and unmounted, held against its stamp."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.base.run import search_path
from imager.base.units import GiB
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import open_target, proof_for, verify_card
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.journal import replayed
from imager.image.compose.compose import compose
from imager.node.personalise import personalise
from tests.support.racks import rack_in, written
from tests.support.release import build_release
from tests.support.usedcard import UsedCard

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        "\text4" not in Path("/proc/filesystems").read_text(), reason="the kernel has no ext4"
    ),
]

TOML = '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n'
TIME = "1780000000"


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UsedCard:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", TIME)
    golden = compose(build_release(tmp_path), Cache(tmp_path / "cache"), Quiet())
    rack = rack_in(tmp_path / "rack", TOML)
    image = personalise(golden, rack, rack.node("pi1"), 2 * GiB, Quiet())
    with written(image, tmp_path / "pi1.img"):
        return UsedCard(tmp_path / "pi1.img")


@contextmanager
def mounted(card: UsedCard, where: Path) -> Iterator[Path]:
    """The root partition, mounted by the kernel through a loop device of its own."""
    where.mkdir(exist_ok=True)
    root = card.layout.root
    options = f"loop,offset={root.offset},sizelimit={root.length}"
    subprocess.run(["mount", "-t", "ext4", "-o", options, card.path, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def verified(card: UsedCard) -> Verification:
    with open_target(card.path) as fresh:
        return verify_card(fresh, proof_for(fresh.raw, None).held, Quiet())


def test_what_a_kernel_does_is_use_and_a_flipped_bit_is_damage(
    card: UsedCard, tmp_path: Path
) -> None:
    before = verified(card)
    assert before.matches
    with mounted(card, tmp_path / "root") as root:
        for number in range(200):
            (root / f"var/log-{number}").write_bytes(os.urandom(20_000))
        (root / "etc/hosts").write_text("127.0.0.1 changed\n")
        (root / "etc/os-release").unlink()
        for path in (root / "usr").rglob("*"):
            if path.is_file():
                path.read_bytes()
    after = verified(card)
    assert after.used
    assert after.use is not None
    assert after.use.damaged == []
    assert after.use.uncertain == []
    # hosts, os-release, and the one the release dates into the far future.
    assert after.use.changed == 3
    assert after.sound
    card.flip_in("/usr/odd/large", 1_000_000)
    damaged = verified(card).use
    assert damaged is not None
    assert [found.path for found in damaged.damaged] == ["/usr/odd/large"]


@pytest.mark.long(minutes=1)
def test_a_card_pulled_while_mounted_is_read_as_its_journal_says(
    card: UsedCard, tmp_path: Path
) -> None:
    """Copied in the middle of a node's life, then compared with what e2fsck makes of it."""
    pulled, mended = tmp_path / "pulled.img", tmp_path / "mended.img"
    with mounted(card, tmp_path / "root") as root:
        for number in range(300):
            (root / f"var/log-{number}").write_bytes(b"node" * 2000)
        os.sync()
        for number in range(0, 700, 2):
            (root / f"usr/many/entry-{number:05d}-with-a-name-of-some-length").unlink()
        (root / "usr/odd/large").unlink()
        for number in range(300):
            (root / f"home/more-{number}").write_bytes(b"more" * 2000)
        with (root / "etc/hosts").open("w") as file:
            file.write("127.0.0.1 changed\n")
            file.flush()
            # A commit to the journal; sync(2) would also bring everything to its place.
            os.fsync(file.fileno())
        subprocess.run(["cp", "--sparse=always", card.path, pulled], check=True)
    used = UsedCard(pulled)
    assert used.root.needs_recovery
    where = used.layout.root.offset
    # e2fsck forgets an offset when it opens the filesystem again, so it gets a file of its own.
    count = used.layout.root.length >> 20
    words = [f"if={pulled}", f"of={mended}", "bs=1M", f"skip={where >> 20}", "conv=sparse"]
    subprocess.run(["dd", *words, f"count={count}"], check=True, capture_output=True)
    words = ["e2fsck", "-E", "journal_only", "-y", str(mended)]
    done = subprocess.run(words, env={"PATH": search_path()}, check=False, capture_output=True)
    assert done.returncode in (0, 1), done.stdout
    expected = Ext4.open(UsedCard(mended).read, 0)
    found = Ext4.open(replayed(used.read, where), where)
    assert found.file_numbers() == expected.file_numbers() != used.root.file_numbers()
    assert dict(found.numbers()) == dict(expected.numbers())
    numbers = found.file_numbers()
    assert {n: found.inode(n).raw for n in numbers} == {n: expected.inode(n).raw for n in numbers}
    after = verified(used)
    assert after.use is not None
    assert after.use.damaged == []
    assert after.use.uncertain == []
    assert after.use.changed == 350 + 1 + 1 + 1
    used.flip_in("/usr/bin/su", 2)
    damaged = verified(used).use
    assert damaged is not None
    assert [found.path for found in damaged.damaged] == ["/usr/bin/su"]
