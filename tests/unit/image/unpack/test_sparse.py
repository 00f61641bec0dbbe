"""Sparse files of every pax form, read as GNU tar and bsdtar read them."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from imager.base.progress import Quiet
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import read_members, unpacked
from tests.support.release import build_release

SEGMENTS = ((0, b"a" * 512), (600, b"b" * 100))
SIZE = 1000
WANTED = b"a" * 512 + bytes(88) + b"b" * 100 + bytes(300)
Map = tuple[tuple[int, bytes], ...]


def padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 512) * 512, b"\0")


def record(key: str, value: str) -> bytes:
    """One pax record: its own length, then what it says (POSIX.1-2008, pax)."""
    rest = f" {key}={value}\n".encode()
    length = next(n for n in itertools.count(len(rest)) if n == len(rest) + len(str(n)))
    return str(length).encode() + rest


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = len(data), kind, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + padded(data)


def version_1_0(segments: Map, order: str) -> bytes:
    numbers = [len(segments), *(n for at, data in segments for n in (at, len(data)))]
    table = "".join(f"{number}\n" for number in numbers).encode()
    stored = padded(table) + b"".join(data for _, data in segments)
    records = {
        "v": record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0"),
        "n": record("GNU.sparse.name", "holes"),
        "r": record("GNU.sparse.realsize", str(SIZE)),
        "s": record("size", str(len(stored))),
    }
    head = member("PaxHeaders/holes", b"".join(records[one] for one in order), tarfile.XHDTYPE)
    return head + member("GNUSparseFile.0/holes", stored)


def version_0_1(segments: Map, order: str) -> bytes:
    stored = b"".join(data for _, data in segments)
    numbers = ",".join(f"{at},{len(data)}" for at, data in segments)
    records = {
        "v": record("GNU.sparse.numblocks", str(len(segments))) + record("GNU.sparse.map", numbers),
        "n": record("GNU.sparse.name", "holes"),
        "r": record("GNU.sparse.size", str(SIZE)),
        "s": record("size", str(len(stored))),
    }
    head = member("PaxHeaders/holes", b"".join(records[one] for one in order), tarfile.XHDTYPE)
    return head + member("GNUSparseFile.0/holes", stored)


EMPTY: dict[str, Map] = {
    "none": SEGMENTS,
    "one at the end": (*SEGMENTS, (SIZE, b"")),
    "one at the start": ((0, b""), *SEGMENTS),
    "one between": (SEGMENTS[0], (550, b""), SEGMENTS[1]),
}


def unpacked_here(folder: Path, archive: bytes) -> dict[str, bytes]:
    release = build_release(folder, raw=archive)
    (folder / "staging").mkdir()
    with (
        Stager.opened(folder / "staging") as stager,
        Quiet().phase("unpack") as phase,
        unpacked(release.tarball, release.sha256, phase) as stream,
    ):
        read_members(stream, release.tarball, stager.add)
        return {path.name: path.read_bytes() for path in stager.root_folder.iterdir()}


@pytest.mark.parametrize("order", ["vnr", "vnrs", "svnr", "vsnr"])
@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize("form", [version_1_0, version_0_1], ids=["1.0", "0.1"])
def test_a_sparse_file_has_its_own_size_and_the_next_one_its_place(
    tmp_path: Path, form: type, empty: str, order: str
) -> None:
    archive = form(EMPTY[empty], order) + member("next", b"next\n") + bytes(1024)
    assert unpacked_here(tmp_path, archive) == {"holes": WANTED, "next": b"next\n"}


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
@pytest.mark.parametrize("form", [version_1_0, version_0_1], ids=["1.0", "0.1"])
def test_other_programs_read_the_same(tmp_path: Path, form: type, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    archive = form(EMPTY["one at the end"], "vnrs") + member("next", b"next\n") + bytes(1024)
    subprocess.run([program, "-xf", "-"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "holes").read_bytes() == WANTED
    assert (tmp_path / "next").read_bytes() == b"next\n"
