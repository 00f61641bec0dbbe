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
from imager.base.units import GiB
from imager.card.verification import Verification
from imager.card.verify import open_target, proof_for, verify_card
from imager.image.compose import compose
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
