"""What is read of a golden image's file is what was composed, or is not read."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from imager.base.errors import HostStorage
from imager.base.units import MiB
from imager.bootcheck.contents import Heard
from imager.bootcheck.formats.kernel import KernelFile
from imager.disk.ext4.format import Ext4Error
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.geometry import FatError
from imager.disk.layout import Layout
from imager.disk.manifest import build_manifest
from imager.image.compose.cache import decode_golden, encode_golden
from imager.image.compose.golden import GoldenFile, GoldenImage
from tests.support.goldens import Composer, alter

SIZE = 8 * MiB
MAPPED = ExtentMap(
    [Extent(0, MiB), Extent(2 * MiB, 3 * MiB), Extent(6 * MiB, 4096), Extent(6 * MiB + 8192, 4096)]
)


@pytest.fixture
def golden(tmp_path: Path) -> GoldenImage:
    path = tmp_path / "image"
    noise = random.Random(1)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for extent in MAPPED:
            file.seek(extent.offset)
            file.write(noise.randbytes(extent.length))
    data = path.read_bytes()
    manifest = build_manifest(SIZE, MAPPED, lambda offset, length: data[offset : offset + length])
    layout = Layout(SIZE, Extent(MiB, MiB), Extent(2 * MiB, 6 * MiB))
    mtime = path.stat().st_mtime_ns
    return GoldenImage(path, "key", "name", "0" * 64, (), layout, manifest, {}, mtime_ns=mtime)


def read(file: GoldenFile, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    file.read_into(offset, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, SIZE), (2 * MiB, 3 * MiB), (3 * MiB, 512), (3 * MiB + 1000, MiB), (6 * MiB + 4000, 5000)],
)
def test_every_part_is_what_was_composed(golden: GoldenImage, offset: int, length: int) -> None:
    wanted = golden.path.read_bytes()[offset : offset + length]
    with golden.open() as file:
        assert read(file, offset, length) == wanted
        assert read(file, offset, length) == wanted, "also from what is proven already"


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (3 * MiB, MiB), (3 * MiB + 8192, 512), (3 * MiB, 4096)]
)
def test_altered_bytes_are_not_given(golden: GoldenImage, offset: int, length: int) -> None:
    """Also where the altered ones are elsewhere in the chunk."""
    alter(golden, 3 * MiB + 100)
    with golden.open() as file, pytest.raises(HostStorage, match="bytes 3145728 to 4194303"):
        read(file, offset, length)


def test_other_chunks_of_an_altered_file_are_given(golden: GoldenImage) -> None:
    wanted = golden.path.read_bytes()[:MiB]
    alter(golden, 3 * MiB + 100)
    with golden.open() as file:
        assert read(file, 0, MiB) == wanted


def test_what_is_not_in_the_map_is_zeros(golden: GoldenImage) -> None:
    wanted = golden.path.read_bytes()
    for offset in (MiB + 5, 5 * MiB + 5, 6 * MiB + 4096, 6 * MiB + 12288, SIZE - 100):
        alter(golden, offset)
    with golden.open() as file:
        assert read(file, 0, SIZE) == wanted
        assert read(file, 6 * MiB + 4000, 5000) == wanted[6 * MiB + 4000 : 6 * MiB + 9000]
        assert read(file, SIZE - 10, 100) == bytes(100)


def test_reading_goes_on_in_the_image_composed_anew(golden: GoldenImage) -> None:
    content = golden.path.read_bytes()
    composer = Composer(golden, content)
    alter(golden, 3 * MiB + 100)
    inode = golden.path.stat().st_ino
    with replace(golden, again=composer).open() as file:
        assert read(file, 0, SIZE) == content
        assert read(file, 3 * MiB + 50, 100) == content[3 * MiB + 50 : 3 * MiB + 150]
    assert composer.asked == [("bytes 3145728 to 4194303 changed", inode)]


def test_an_image_altered_while_it_is_open_is_composed_anew(golden: GoldenImage) -> None:
    """What is read whole is held against its digest each time, not once."""
    content = golden.path.read_bytes()
    composer = Composer(golden, content)
    with replace(golden, again=composer).open() as file:
        assert read(file, 0, SIZE) == content
        alter(golden, 3 * MiB + 100)
        assert read(file, 0, SIZE) == content
    assert len(composer.asked) == 1


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_is_gone_or_newer_is_composed_anew(golden: GoldenImage, gone: bool) -> None:
    content = golden.path.read_bytes()
    composer = Composer(golden, content)
    if gone:
        golden.path.unlink()
    else:
        os.utime(golden.path, ns=(0, 1))
    with replace(golden, again=composer).open() as file:
        assert read(file, 0, SIZE) == content
    ((_, inode),) = composer.asked
    assert inode == 0, "the file there now may be good"


def test_a_filesystem_spoilt_after_it_was_proven_is_no_mistake_of_ours(golden: GoldenImage) -> None:
    """A chunk that is read in parts is proven once; a file altered then ended with exit code 70."""
    for fault in (Ext4Error("no superblock"), FatError("no boot sector")):
        with pytest.raises(HostStorage, match="altered while it was in use"), golden.open():
            raise fault


def test_a_truncated_file_is_composed_anew(golden: GoldenImage) -> None:
    content = golden.path.read_bytes()
    composer = Composer(golden, content)
    os.truncate(golden.path, 3 * MiB)
    os.utime(golden.path, ns=(0, golden.mtime_ns or 0))
    with replace(golden, again=composer).open() as file:
        assert read(file, 0, SIZE) == content


def test_an_image_that_is_bad_again_is_not_composed_for_ever(golden: GoldenImage) -> None:
    alter(golden, 3 * MiB + 100)
    composer = Composer(golden, golden.path.read_bytes())
    with (
        replace(golden, again=composer).open() as file,
        pytest.raises(HostStorage, match="golden image was altered"),
    ):
        read(file, 0, SIZE)
    assert len(composer.asked) == 1


def test_another_image_is_not_taken_for_the_same(golden: GoldenImage) -> None:
    other = replace(
        golden, manifest=replace(golden.manifest, digests=golden.manifest.digests[::-1])
    )
    alter(golden, 3 * MiB + 100)
    with (
        replace(golden, again=lambda why, inode: other).open() as file,
        pytest.raises(HostStorage, match="golden image was altered"),
    ):
        read(file, 0, SIZE)


def test_peeking_takes_the_file_at_its_word(golden: GoldenImage) -> None:
    alter(golden, 3 * MiB + 100)
    with golden.open() as file:
        buffer = bytearray(MiB)
        file.peek_into(3 * MiB, memoryview(buffer))
        assert bytes(buffer) == golden.path.read_bytes()[3 * MiB : 4 * MiB]


def test_no_descriptor_is_left_open(golden: GoldenImage) -> None:
    before = len(os.listdir("/proc/self/fd"))
    content = golden.path.read_bytes()
    alter(golden, 100)
    with replace(golden, again=Composer(golden, content)).open() as file:
        read(file, 0, SIZE)
    os.utime(golden.path, ns=(0, 1))
    with pytest.raises(HostStorage), golden.open():
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_description_keeps_what_was_seen_of_kernels_but_not_what_an_earlier_version_saw(
    golden: GoldenImage,
) -> None:
    seen = [Heard(KernelFile(64, None, "", "6.1", False, kib), 1, 2) for kib in (None, 4, 16)]
    kernels = {f"{number:064x}": heard for number, heard in enumerate(seen)}
    data = encode_golden(replace(golden, models=("pi5",), kernels=kernels))
    assert decode_golden(data, golden.path).kernels == kernels
    document = json.loads(data)
    del document["sha256"], document["kernels"][f"{1:064x}"]["page_kib"]
    document["sha256"] = sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    del kernels[f"{1:064x}"]
    assert decode_golden(json.dumps(document).encode(), golden.path).kernels == kernels
