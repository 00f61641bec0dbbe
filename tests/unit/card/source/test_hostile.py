"""Sources that somebody made to do harm, or that change while they are read."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imager.base.errors import HostStorage, MalformedRelease, TargetRefused, UsageError
from imager.base.units import MiB
from imager.card.inspect.verify import open_target
from imager.card.source.opened import WantedImage, opened_source
from tests.support.mirror import Manners, serving
from tests.unit.card.source.test_streamed import IMAGE, PACKED, read_whole

LOCAL = struct.Struct("<4xHHHHHIII")
"""Version, flags, way, time, date, CRC-32, packed and unpacked size of a file in a zip."""
IN_DIRECTORY = struct.Struct("<6xHHHHHIII")
Fields = tuple[int, ...]


def retold(mark: bytes, told: struct.Struct, change: Callable[[Fields], Fields]) -> bytes:
    """A zip of the image of which the part that begins with ``mark`` says something else."""
    data = bytearray(PACKED[".zip"](IMAGE))
    at = data.index(mark)
    data[at + 4 : at + told.size] = told.pack(*change(told.unpack_from(data, at)))[4:]
    return bytes(data)


def sized(size: int) -> Callable[[Fields], Fields]:
    return lambda fields: (*fields[:-1], size)


@pytest.mark.parametrize(
    "data",
    [
        retold(b"PK\3\4", LOCAL, sized(len(IMAGE) + 1)),
        retold(b"PK\1\2", IN_DIRECTORY, sized(len(IMAGE) - 1)),
        retold(b"PK\1\2", IN_DIRECTORY, sized(0xFFFF_FFF0)),
        retold(b"PK\3\4", LOCAL, lambda fields: (*fields[:-3], 0, *fields[-2:])),
    ],
    ids=["beginning", "directory", "impossible", "checksum"],
)
def test_a_zip_that_says_two_things_is_refused_unread(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.zip"
    path.write_bytes(data)
    wrong = pytest.raises(MalformedRelease, match="its directory is wrong about")
    with wrong, opened_source(WantedImage(str(path))):
        raise AssertionError("it was opened")


class Unseekable(io.BytesIO):
    """As a pipe: zipfile then tells sizes behind the data."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError


def test_zips_that_tell_sizes_behind_the_data_or_in_64_bits(tmp_path: Path) -> None:
    path, behind = tmp_path / "any.zip", Unseekable()
    with zipfile.ZipFile(behind, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("any.img", IMAGE)
    path.write_bytes(behind.getvalue())
    assert path.read_bytes()[6] & 8
    assert read_whole(path) == IMAGE
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("any.img", "w", force_zip64=True) as file,
    ):
        file.write(IMAGE)
    assert path.read_bytes()[18:26] == b"\xff" * 8
    assert read_whole(path) == IMAGE


@pytest.mark.parametrize("inner", [".xz", ".gz", ".zip"])
@pytest.mark.parametrize("outer", [".zip", ".xz", ".gz"])
def test_what_is_packed_twice_is_refused_by_name(inner: str, outer: str, tmp_path: Path) -> None:
    path = tmp_path / f"any{outer}"
    path.write_bytes(PACKED[outer](PACKED[inner](IMAGE)))
    kind = {".xz": "xz", ".gz": "gzip", ".zip": "zip"}[inner]
    with pytest.raises(MalformedRelease, match=f"is no disk image: it is {kind}"):
        read_whole(path)


def test_the_index_of_an_xz_is_believed_only_with_its_checksum(tmp_path: Path) -> None:
    path, data = tmp_path / "any.img.xz", bytearray(lzma.compress(IMAGE, preset=0))
    path.write_bytes(data)
    with opened_source(WantedImage(str(path))) as opened:
        assert opened.source.size_bytes == len(IMAGE)
    data[-20] ^= 1
    path.write_bytes(data)
    with opened_source(WantedImage(str(path))) as opened:
        assert opened.source.size_bytes is None
    with pytest.raises(MalformedRelease):
        read_whole(path)


def test_a_body_that_never_ends_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imager.card.source.streamed._BESIDES_BYTES", MiB)
    nothing = gzip.compress(b"") * 5000
    with serving({"/any.img.gz": nothing}) as server:
        server.misbehave("/any.img.gz", Manners(endless=True))
        with pytest.raises(MalformedRelease, match="goes on behind byte"):
            read_whole(f"{server.address}/any.img.gz", limit=MiB)


def test_what_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes into does not keep anybody waiting, either; and what opening does
    to a device, as a tape or a watchdog, nobody knows."""
    pipe, link = tmp_path / "any.img", tmp_path / "link.img"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    opened: list[object] = []
    really = os.open

    def spied(path: str, flags: int, *others: Any, **more: Any) -> int:
        opened.append(path)
        return really(path, flags, *others, **more)

    monkeypatch.setattr(os, "open", spied)
    for path in (pipe, link, Path("/dev/zero"), tmp_path):
        with pytest.raises(UsageError, match="is no file"):
            read_whole(path)
        with pytest.raises(TargetRefused, match="is neither a disk nor a file"), open_target(path):
            pass
    assert not {pipe, link, Path("/dev/zero"), tmp_path} & set(opened)


@pytest.mark.parametrize("size", [0, MiB, len(IMAGE) + MiB])
@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_a_file_that_shrinks_or_grows_while_it_is_read(
    suffix: str, size: int, tmp_path: Path
) -> None:
    path = tmp_path / f"any.img{suffix}"
    path.write_bytes(PACKED[suffix](IMAGE))
    error = (HostStorage, MalformedRelease, TargetRefused)
    with (
        pytest.raises(error),
        opened_source(WantedImage(str(path))) as opened,
        opened.source.read(len(IMAGE)) as reading,
    ):
        pieces = reading.pieces()
        next(pieces)
        os.truncate(path, size)
        deque(pieces, 0)
