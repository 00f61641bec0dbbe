"""An order of another version, an old one or one from tomorrow is refused before anything else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, PicloudError, TargetRefused
from imager.base.programs import tool_version
from imager.base.trusted_folder import TrustedFolder
from imager.stations.desk.desk import Desk
from imager.stations.desk.records import Records
from imager.stations.desk.work import work
from imager.stations.wire.order import CLOCK_SECONDS, ORDER_SECONDS, GoldenWanted, WorkOrder

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("version", "late", "refusal", "why"),
    [
        ("9.9", 0.0, ConfigurationError, f"has picloud-image {tool_version()}, the head 9.9"),
        (tool_version(), ORDER_SECONDS + 5, TargetRefused, "s old by this station's clock"),
        (tool_version(), -CLOCK_SECONDS - 5, TargetRefused, "s old by this station's clock"),
    ],
)
def test_an_order_that_is_not_of_now(
    tmp_path: Path, version: str, late: float, refusal: type[PicloudError], why: str
) -> None:
    order = WorkOrder(
        job="b.1",
        batch="b",
        rack=DIGEST,
        version=version,
        at=time.time() - late,
        golden=GoldenWanted("0" * 32, DIGEST, DIGEST),
        cards=(),
        update=True,
        probe=True,
        at_once=None,
        max_size_bytes=1 << 40,
    )
    station = tmp_path / "station"
    desk = Desk(Records(TrustedFolder(station)), Cache(tmp_path), _fetches, _tells)
    with pytest.raises(refusal, match=why):
        work(desk, order, {})
    assert not station.exists()


def _fetches(name: str) -> Path:
    raise AssertionError(name)


def _tells(said: object) -> None:
    raise AssertionError(said)
