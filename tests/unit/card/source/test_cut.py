"""A packed image that is cut, altered or continued anywhere, poured on a card: the right error, and
a card that is visibly blank; or the image, where the format lets a byte be any."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.errors import MalformedRelease, PicloudError, TargetRefused
from imager.base.progress import Quiet
from imager.base.units import KiB, MiB
from imager.card.source.opened import WantedImage, needed, opened_source
from imager.card.stages import WriteOptions
from imager.card.write.pour import Pouring
from imager.card.write.stream import pour_card
from imager.disk.extents import Extent
from imager.disk.layout import FIRST_MIB, Layout
from imager.disk.mbr import encode
from tests.support.cards import FaultyCard, claimed
from tests.unit.card.source.test_streamed import PACKED

SIZE = 3 * MiB
CHANCE = random.Random(20)
IMAGE = (
    encode(Layout(SIZE, Extent(MiB, MiB), Extent(2 * MiB, MiB)), 7).ljust(MiB, b"\0")
    + CHANCE.randbytes(20 * KiB).ljust(2 * MiB, b"\0")
)  # fmt: skip
ZSTD_SAYS = range(4, 18)
"""Where the first frame says how large the image is: it is believed before it is unpacked."""


def checked_zstd(data: bytes) -> bytes:
    """With a checksum of the content, as zstd(1) makes them of a file."""
    words = ["zstd", "-q1c", "--check", f"--stream-size={len(data)}"]
    return subprocess.run(words, input=data, capture_output=True, check=True).stdout


@pytest.fixture(scope="module", params=[".xz", ".gz", ".bz2", ".zst", ".zip"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / f"any.img{request.param}"
    pack = checked_zstd if request.param == ".zst" else PACKED[request.param]
    path.write_bytes(pack(IMAGE))
    return path


@pytest.fixture(params=[3, pytest.param(1000, marks=pytest.mark.long(minutes=8))])
def times(request: pytest.FixtureRequest) -> int:
    """How many places are tried."""
    count: int = request.param
    return count


def error_of(path: Path, data: bytes) -> PicloudError | None:
    """What comes of writing ``data`` to a card that the image fills; the card is looked at."""
    path.write_bytes(data)
    card = FaultyCard(SIZE)
    untouched = bytes(card.data)
    try:
        with opened_source(WantedImage(str(path))) as opened:
            if needed(opened, SIZE, Quiet()) > SIZE:
                return TargetRefused("too small", hint="")
            pouring = Pouring(opened.source, block_bytes=MiB)
            pour_card(pouring, claimed(card), Quiet(), WriteOptions(MiB, 2))
    except PicloudError as error:
        assert card.holds(FIRST_MIB) == bytes(MiB) or card.data == untouched, error
        return error
    assert card.holds(Extent(0, SIZE)) == IMAGE
    return None


def places(data: bytes, times: int) -> Iterator[int]:
    """Both ends, which say most, and any other."""
    ends = [*range(1, 40), *range(len(data) - 40, len(data))]
    yield from CHANCE.sample(ends, min(times // 2, len(ends)))
    yield from (CHANCE.randrange(1, len(data)) for _ in range(times))


def test_cut_anywhere(packed: Path, tmp_path: Path, times: int) -> None:
    data, path = packed.read_bytes(), tmp_path / packed.name
    for place in places(data, times):
        error = error_of(path, data[:place])
        assert isinstance(error, MalformedRelease), (place, error)


def test_altered_anywhere(packed: Path, tmp_path: Path, times: int) -> None:
    data, path = packed.read_bytes(), tmp_path / packed.name
    for place in places(data, times):
        altered = bytearray(data)
        altered[place] ^= 1 << CHANCE.randrange(8)
        error = error_of(path, bytes(altered))
        if packed.suffix == ".zst" and place in ZSTD_SAYS and isinstance(error, TargetRefused):
            continue
        assert error is None or isinstance(error, MalformedRelease), (place, error)


def test_continued(packed: Path, tmp_path: Path, times: int) -> None:
    """By anything, by zeros, and by one more stream of the same kind."""
    data, path = packed.read_bytes(), tmp_path / packed.name
    for _ in range(1 + times // 5):
        rest = CHANCE.randbytes(CHANCE.choice([1, 2, 3, 4, 100, 5000]))
        error = error_of(path, data + rest)
        is_fine = packed.suffix == ".zip"  # its directory is looked for before the end
        assert isinstance(error, MalformedRelease) or (is_fine and not error), (rest[:10], error)
    for rest in (bytes(1), bytes(4), bytes(512)):
        error = error_of(path, data + rest)
        assert error is None or isinstance(error, MalformedRelease)
    error = error_of(path, data + data)
    assert error is None if packed.suffix == ".zip" else isinstance(error, TargetRefused), error
