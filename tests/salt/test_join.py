"""A rack joins its master by itself: the real Salt, configured by finished node images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.image.compose import compose
from imager.image.golden import GoldenImage
from tests.support.release import build_release
from tests.support.salt import SaltPrograms
from tests.support.saltrack import RunningRack, rack_of, running

pytestmark = [
    pytest.mark.salt,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

JOIN_SECONDS = 300
"""On two idle cores 14 nodes take about 40."""


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    folder = tmp_path_factory.mktemp("golden")
    return compose(build_release(folder), Cache(folder / "cache"), Quiet())


@pytest.fixture(scope="module")
def joined(
    golden: GoldenImage, salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRack]:
    """14 nodes, all switched on at once, all answering."""
    folder = tmp_path_factory.mktemp("salt")
    with running(folder, rack_of(folder / "rack", 14), golden, salt_programs) as rack:
        switch_on_all(rack)
        yield rack


def switch_on_all(rack: RunningRack) -> None:
    names = [node.name for node in rack.rack.nodes]
    for name in names:
        rack.image(name)
    rack.switch_on(*names)
    rack.seconds_to_join = rack.master.wait_until_answering(set(names), seconds=JOIN_SECONDS)


def test_a_cold_rack_joins_with_no_key_accepted_by_hand(
    joined: RunningRack, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {node.name for node in joined.rack.nodes}
    with capsys.disabled():
        sys.stdout.write(f" {len(names)} nodes answered in {joined.seconds_to_join:.0f} s ")
    keys = joined.master.keys()
    assert set(keys.pop("minions")) == names
    assert keys == {"minions_pre": [], "minions_rejected": [], "minions_denied": []}
    assert set(os.listdir(joined.etc("pi0") / "salt/pki/master/minions")) == names


def test_a_node_whose_card_is_made_again_joins_again(joined: RunningRack) -> None:
    joined.switch_off("pi7")
    joined.image("pi7")
    joined.switch_on("pi7")
    joined.master.wait_until_answering({"pi7"}, seconds=JOIN_SECONDS)
    assert joined.master.keys()["minions_denied"] == []
