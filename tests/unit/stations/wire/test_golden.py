"""A golden image on its way to a station: whole at its end, proven, and kept nowhere else."""

from __future__ import annotations

import os
import random
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import HostStorage, NotAuthentic
from imager.base.progress import Phase, Quiet
from imager.base.units import MiB
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import build_manifest
from imager.image.compose.golden import GoldenImage
from imager.stations.wire.golden import (
    golden_at_hand,
    lay_out_pieces,
    published_name,
    take_golden,
    wanted_golden,
)
from tests.support.bootdisk import reading

SIZE = 20 * MiB
DENSE = Extent(MiB, 8 * MiB)
"""Eight chunks that no compression makes smaller."""
SPARSE = [
    Extent(n * MiB + start, length)
    for n in range(10, 19)
    for start, length in ((4096, 4096), (65536, 8192))
]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    path = tmp_path_factory.mktemp("head") / "image"
    noise = random.Random(1)
    extents = ExtentMap([DENSE, *SPARSE])
    with path.open("wb") as file:
        file.truncate(SIZE)
        for extent in extents:
            os.pwrite(file.fileno(), noise.randbytes(extent.length), extent.offset)
    with reading(path) as read:
        manifest = build_manifest(SIZE, extents, read)
    layout = Layout(SIZE, Extent(MiB, 8 * MiB), Extent(10 * MiB, 10 * MiB))
    mtime = path.stat().st_mtime_ns
    return GoldenImage(
        path, "5" * 32, "made-up", "6" * 64, ("pi2",), layout, manifest, {}, mtime_ns=mtime
    )


@pytest.fixture(scope="module")
def pieces(golden: GoldenImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    lay_out_pieces(golden, folder)
    return folder


class Counting(Quiet):
    """A Progress that counts the bytes of all phases."""

    def __init__(self) -> None:
        self.total = self.moved = 0

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        self.total += total_bytes or 0
        yield self

    def advance(self, done: int) -> None:
        self.moved += done


class Bringing:
    """Brings copies of what is in ``folder``, in which a test may have changed a piece."""

    def __init__(self, folder: Path, place: Path, **changed: Callable[[bytes], bytes]) -> None:
        self.folder, self.place = folder, place
        self.changed = {name.lstrip("p"): change for name, change in changed.items()}
        self.brought: list[str] = []
        place.mkdir()

    def __call__(self, name: str) -> Path:
        path = self.place / name
        shutil.copyfile(self.folder / name, path)
        if name in self.changed:
            path.write_bytes(self.changed[name](path.read_bytes()))
        self.brought.append(name)
        return path


def test_an_image_travels_in_pieces(golden: GoldenImage, pieces: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in pieces.iterdir()) == [
        "0000", "0001", "0002", "golden.json",
    ]  # fmt: skip
    cache, bring, progress = (
        Cache(tmp_path / "cache"),
        Bringing(pieces, tmp_path / "in"),
        Counting(),
    )
    wanted = wanted_golden(golden)
    assert golden_at_hand(wanted, cache) is None
    found = take_golden(wanted, cache, bring, progress)
    assert bring.brought == ["golden.json", "0000", "0001", "0002"]
    assert progress.moved == progress.total == golden.manifest.extents.total_bytes
    assert not list(bring.place.iterdir()), "the image itself is in the cache"
    assert found == replace(golden, path=found.path, mtime_ns=found.mtime_ns)
    assert found.path.read_bytes() == golden.path.read_bytes()
    assert golden_at_hand(wanted, cache) == found
    assert take_golden(wanted, cache, bring, Quiet()) == found
    assert len(bring.brought) == 4, "it is fetched once"


def test_the_next_piece_is_on_its_way_while_one_is_written(
    golden: GoldenImage, pieces: Path, tmp_path: Path
) -> None:
    bring, second = Bringing(pieces, tmp_path / "in"), threading.Event()

    def bringing(name: str) -> Path:
        if name == "0001":
            second.set()
        return bring(name)

    class Waiting(Counting):
        def advance(self, done: int) -> None:
            assert second.wait(60)

    taken = take_golden(wanted_golden(golden), Cache(tmp_path / "cache"), bringing, Waiting())
    assert taken.path.read_bytes() == golden.path.read_bytes()


def test_another_image_of_the_same_key_is_not_the_one(
    golden: GoldenImage, pieces: Path, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    take_golden(wanted_golden(golden), cache, Bringing(pieces, tmp_path / "in"), Quiet())
    other = replace(wanted_golden(golden), digest="7" * 64)
    assert golden_at_hand(other, cache) is None
    assert published_name(other) != published_name(wanted_golden(golden))
    assert golden_at_hand(replace(wanted_golden(golden), release_sha256="7" * 64), cache) is None


def turned(at: int) -> Callable[[bytes], bytes]:
    """A piece with one other byte at ``at`` of what is packed in it."""

    def turn(packed: bytes) -> bytes:
        data = bytearray(zlib.decompress(packed))
        data[at] ^= 1
        return zlib.compress(data, 0)

    return turn


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"p0001": turned(0)}, "byte 10485760, in piece 0001"),
        ({"p0001": turned(12287)}, "byte 10485760, in piece 0001"),
        ({"p0002": turned(-1)}, "byte 18874368, in piece 0002"),
        ({"p0002": lambda packed: zlib.compress(zlib.decompress(packed) + b"x")}, "piece 0002"),
        ({"p0002": lambda packed: zlib.compress(zlib.decompress(packed)[:-1])}, "piece 0002"),
        ({"p0002": lambda packed: b"no zlib"}, "piece 0002"),
        ({"golden.json": lambda text: text.replace(b"made-up", b"made-to")}, "its description: "),
        ({"golden.json": lambda text: b"{}"}, "its description: "),
    ],
)
def test_what_is_not_the_heads_is_not_kept(
    golden: GoldenImage,
    pieces: Path,
    tmp_path: Path,
    changed: dict[str, Callable[[bytes], bytes]],
    why: str,
) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(NotAuthentic, match="came otherwise than the head has it") as refused:
        take_golden(
            wanted_golden(golden), cache, Bringing(pieces, tmp_path / "in", **changed), Quiet()
        )
    assert why in refused.value.what
    assert cache.entries("golden") == []


@pytest.mark.parametrize("what", ["key", "digest", "release_sha256"])
def test_a_description_of_another_image(
    golden: GoldenImage, pieces: Path, tmp_path: Path, what: str
) -> None:
    wanted = replace(
        wanted_golden(golden), **{what: "8" * len(getattr(wanted_golden(golden), what))}
    )
    bring = Bringing(pieces, tmp_path / "in")
    with pytest.raises(NotAuthentic, match="it describes another one"):
        take_golden(wanted, Cache(tmp_path / "cache"), bring, Quiet())
    assert bring.brought == ["golden.json"], "nothing is fetched for it"


def test_a_piece_that_cannot_be_had(golden: GoldenImage, tmp_path: Path) -> None:
    def bring(name: str) -> Path:
        raise FileNotFoundError("the master is away")

    with pytest.raises(HostStorage, match=r"golden\.json could not be fetched: the master is away"):
        take_golden(wanted_golden(golden), Cache(tmp_path / "cache"), bring, Quiet())


@pytest.mark.parametrize("lacking", [0, 1])
def test_room_for_what_the_image_holds(
    golden: GoldenImage,
    pieces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: int,
) -> None:
    free = golden.manifest.extents.total_bytes - lacking
    monkeypatch.setattr("imager.base.durable.free_bytes", lambda _: free)
    cache, bring = Cache(tmp_path / "cache"), Bringing(pieces, tmp_path / "in")
    if lacking:
        with pytest.raises(HostStorage, match=r"8\.5 MB free, and the golden image takes 8\.5 MB"):
            take_golden(wanted_golden(golden), cache, bring, Quiet())
        assert bring.brought == ["golden.json"]
    else:
        assert take_golden(wanted_golden(golden), cache, bring, Quiet()).key == golden.key
