"""The plan of one card: what a person reads, and the same for a program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.units import MiB
from imager.card.host.image_file import ImageFile
from imager.card.stages import WriteOptions
from imager.cli.views.write_plan import PlannedImage, PlannedSource, WritePlan
from tests.support.racks import rack_in

SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def plan(tmp_path: Path) -> WritePlan:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\nmaster = "pi0"\n')
    return WritePlan(
        rack.name,
        rack.node("pi0"),
        ImageFile(Path("/x.img"), exists=False, size_bytes=0, folder_writable=True),
        None,
        WriteOptions(4 * MiB, 2, "by default"),
        release=PlannedSource("alarm-rpi-armv7", None, False),
        salt=None,
        salt_packages=(),
    )


def test_of_a_release_that_nobody_fetched_yet(plan: WritePlan) -> None:
    assert plan.lines() == [
        "node      pi0 (pi2, salt-minion, salt-master), rack picloud",
        "target    /x.img: a new image file",
        "release   alarm-rpi-armv7, to be fetched and proven",
        "salt      the release's own, if it has one: rack.toml names no version",
        "size      as small as the release allows",
        "transfers 4 MiB each, 2 in flight (by default); every byte is read back",
    ]
    told = plan.to_json()
    assert (told["release_sha256"], told["release_archived"]) == (None, False)
    assert (told["salt"], told["salt_sha256"], told["salt_archived"]) == (None, None, False)
    assert "image_composed" not in told, "nobody looked for it"


def test_of_one_that_is_pinned_and_archived_with_its_salt(plan: WritePlan) -> None:
    plan = replace(
        plan,
        size_bytes=8 << 30,
        release=PlannedSource("alarm-rpi-armv7", SHA256, True),
        salt=PlannedSource("3008.3", SHA256, False),
        salt_packages=("python-zmq",),
        image=PlannedImage(612 * MiB, 2048 * MiB),
    )
    _, _, release, salt, size, _, image = plan.lines()
    assert release == "release   alarm-rpi-armv7, pinned to 0123456789abcdef…, archived"
    assert salt == (
        "salt      3008.3, pinned to 0123456789abcdef…, to be fetched from PyPI, "
        "what it needs in packages"
    )
    assert size == "size      8 GiB"
    assert image == "image     composed: 641.7 MB to write, on a card of 2.1 GB or more"
    told = plan.to_json()
    assert (told["image_composed"], told["image_bytes"]) == (True, 612 * MiB)
    assert (told["salt_sha256"], told["salt_packages"]) == (SHA256, ("python-zmq",))


def test_of_an_image_that_is_not_composed_yet(plan: WritePlan) -> None:
    plan = replace(plan, image=PlannedImage())
    assert plan.lines()[-1] == ("image     to be composed: how much is written is known only then")
    assert plan.to_json()["image_composed"] is False
    assert plan.to_json()["needs_bytes"] is None
