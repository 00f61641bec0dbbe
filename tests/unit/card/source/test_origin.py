"""A server that answers otherwise than it was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imager.base.errors import NetworkError
from imager.base.units import KiB, MiB
from imager.card.source.opened import WantedImage, opened_source
from imager.card.source.origin import RemoteFile, remote_file
from imager.release.transfer.download import Version
from imager.release.transfer.web import TransferLimits, Web
from tests.support.mirror import Manners, serving

IMAGE = bytes(range(256)) * (3 * MiB // 256)
QUICK = TransferLimits(back_off_seconds=0, read_seconds=5, attempts=3)


class TalksOn:
    """A Web whose server takes no notice of the range that is asked for."""

    given = 0

    @contextmanager
    def open(self, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(status_code=200, headers={})

    def chunks(self, _: object) -> Iterator[bytes]:
        while self.given < MiB:
            self.given += 1000
            yield bytes(1000)

    def patiently(self, ask: Any) -> bytes:
        return cast(bytes, ask())


def test_no_more_is_read_of_the_beginning_than_was_asked_for() -> None:
    web = TalksOn()
    url, version = "http://a/any.img", Version(None, None, None)
    file = RemoteFile(url, cast(Web, web), url, True, version)
    assert file.look(0, 70 * KiB) == bytes(70 * KiB)
    assert web.given == 72_000


def test_behind_the_end_of_a_file_there_is_nothing() -> None:
    with (
        serving({"/any.img": IMAGE}) as server,
        opened_source(WantedImage(f"{server.address}/any.img"), QUICK) as opened,
    ):
        origin = opened.source.origin
        assert origin.look(len(IMAGE) - 3, 10) == IMAGE[-3:]
        assert origin.look(len(IMAGE), 10) == b""


def read(cut_after: list[int]) -> int:
    """Download IMAGE from a server that breaks off so; the number of times it was asked."""
    with (
        serving({"/any.img": IMAGE}) as server,
        opened_source(WantedImage(f"{server.address}/any.img"), QUICK) as opened,
    ):
        server.misbehave("/any.img", Manners(cut_after=cut_after))
        before = len(server.asked("/any.img"))
        with opened.source.read(8 * MiB) as reading:
            assert sum(len(data) for _, data in reading.pieces()) == len(IMAGE)
        return len(server.asked("/any.img")) - before


def test_headway_counts_from_where_it_broke_and_not_from_the_beginning() -> None:
    """Of three failures in a row the last one ends it; after a MiB they are counted anew."""
    assert read([10, 20, 2 * MiB, 30]) == 5
    with pytest.raises(NetworkError, match="connection was cut"):
        read([2 * MiB, 1, 1])


def test_a_slow_card_is_no_slow_server() -> None:
    """Neither its seconds count against the server, nor that it hangs up meanwhile."""
    image = IMAGE[: 800 * KiB]
    limits = replace(QUICK, read_seconds=0.5, window_seconds=0.5, wasted_seconds=1)
    with serving({"/any.img": image}) as server, closing(Web(limits)) as web:
        file = remote_file(f"{server.address}/any.img", web)
        server.misbehave("/any.img", Manners(cut_after=[200 * KiB] * 3))
        found = bytearray()
        for block in file.blocks():
            found += block
            time.sleep(0.7 * len(block) / (200 * KiB))
    assert found == image
