"""An image that is unpacked while it is read: every way of packing, cut, altered, too long."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import struct
import subprocess
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imager.base.errors import (
    ConfigurationError,
    HostStorage,
    MalformedRelease,
    MissingTool,
    NetworkError,
    NotAuthentic,
    PicloudError,
    TargetRefused,
    UsageError,
)
from imager.base.progress import Quiet
from imager.base.units import KiB, MiB
from imager.card.source.opened import (
    OpenedSource,
    WantedImage,
    measured,
    needed,
    opened_source,
)
from imager.card.source.window import Window
from imager.disk.bmap import Bmap, BmapRange, encode_bmap
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.mbr import encode
from imager.image.unpack.inflate import gunzipped
from imager.rack.batch.card_progress import CardBoard, CardEvent, PhaseBegan
from imager.release.openpgp import parse_certificate
from imager.release.transfer.web import TransferLimits
from tests.support.mirror import Manners, serving
from tests.support.signing import SigningKey, make_key, sign_detached

SIZE = 6 * MiB
_NOISE = random.Random(5).randbytes(200 * KiB)
IMAGE = (
    encode(Layout(SIZE, Extent(MiB, 2 * MiB), Extent(3 * MiB, 3 * MiB)), 7).ljust(MiB, b"\0")
    + _NOISE.ljust(SIZE - MiB, b"\0")
)  # fmt: skip


def zipped(*files: tuple[str, bytes], way: int = zipfile.ZIP_DEFLATED) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", way) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return whole.getvalue()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q1c"], input=data, capture_output=True, check=True).stdout


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".gz": lambda data: gzip.compress(data, 1),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".zst": zstd,
    ".zip": lambda data: zipped(("any.img", data), ("README.txt", b"read me")),
}


def content_of(opened: OpenedSource, limit: int = 64 * MiB) -> bytearray:
    """The image as it would lie on a blank card."""
    whole = bytearray()
    with opened.source.read(limit) as reading:
        for offset, data in reading.pieces():
            whole[len(whole) :] = bytes(offset - len(whole))
            whole += data
        whole += bytes(reading.size_bytes - len(whole))
        assert reading.sha256
    return whole


def read_whole(name: Path | str, limit: int = 64 * MiB, sha256: str | None = None) -> bytearray:
    quick = TransferLimits(back_off_seconds=0, read_seconds=5)
    with opened_source(WantedImage(str(name), sha256), quick) as opened:
        return content_of(opened, limit)


@pytest.fixture(scope="module", params=sorted(PACKED), ids=lambda suffix: suffix or "raw")
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / f"any.img{request.param}"
    path.write_bytes(PACKED[request.param](IMAGE))
    return path


def test_every_way_of_packing(packed: Path) -> None:
    digest, held = hashlib.sha256(packed.read_bytes()).hexdigest(), os.listdir("/proc/self/fd")
    assert read_whole(packed, sha256=digest) == IMAGE
    assert os.listdir("/proc/self/fd") == held
    with opened_source(WantedImage(str(packed), digest)) as opened:
        assert opened.known.told == ("its SHA-256 is held against the one you gave",)
    with pytest.raises(NotAuthentic, match="not what it should be"):
        read_whole(packed, sha256="0" * 64)


def test_a_source_is_called_as_the_person_called_it(packed: Path) -> None:
    with opened_source(WantedImage(str(packed))) as opened:
        assert opened.source.name == str(packed)


def test_the_size_is_known_before_where_the_file_says_it(packed: Path) -> None:
    with opened_source(WantedImage(str(packed))) as opened:
        known = packed.suffix in (".img", ".xz", ".zip")
        assert opened.source.size_bytes == (SIZE if known else None)
        assert opened.source.least_bytes == (SIZE if known or packed.suffix == ".gz" else 0)
        assert measured(opened.source, Quiet()) == SIZE


def test_how_far_it_is_measured_is_shown_where_it_says_how_large_it_is_at_least(
    tmp_path: Path,
) -> None:
    events: list[CardEvent] = []
    board = CardBoard(events.append, threading.Event())
    for suffix, total in ((".gz", SIZE), (".bz2", None)):
        path = tmp_path / f"any.img{suffix}"
        path.write_bytes(PACKED[suffix](IMAGE))
        with opened_source(WantedImage(str(path))) as opened:
            assert measured(opened.source, board) == SIZE
        assert events[-2] == PhaseBegan("measure", total)


def test_a_file_that_is_written_to_while_it_is_read_is_of_no_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "any.img"
    path.write_bytes(IMAGE)
    written = path.stat().st_mtime_ns
    with opened_source(WantedImage(str(path))) as opened, opened.source.read(64 * MiB) as reading:
        pieces = reading.pieces()
        next(pieces)
        os.utime(path, ns=(written, written + 1))
        with pytest.raises(HostStorage, match="was written to while it was read"):
            deque(pieces, 0)


def test_many_small_chunks_are_held_as_few() -> None:
    count = 100_000
    window = Window(gunzipped(repeat(gzip.compress(b"\1", 1), count)), MiB, "tiny")
    assert window.read(0, count) == b"\1" * count
    assert len([*window.take(Extent(0, MiB))]) == 2


def test_several_streams_of_xz_are_not_measured_by_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "two.img.xz"
    path.write_bytes(lzma.compress(IMAGE[:MiB]) + lzma.compress(IMAGE[MiB:]))
    with opened_source(WantedImage(str(path))) as opened:
        assert opened.source.size_bytes is None
        assert content_of(opened) == IMAGE


def test_zstd_says_its_size_where_it_knew_it(tmp_path: Path) -> None:
    raw, path = tmp_path / "any.img", tmp_path / "any.img.zst"
    raw.write_bytes(IMAGE)
    subprocess.run(["zstd", "-q1", raw], check=True)
    with opened_source(WantedImage(str(path))) as opened:
        assert (opened.source.size_bytes, opened.source.least_bytes) == (None, SIZE)


def test_what_pzstd_made_begins_with_a_frame_to_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "any.img.zst"
    path.write_bytes(bytes.fromhex("502a4d18 04000000 11223344") + zstd(IMAGE))
    with opened_source(WantedImage(str(path))) as opened:
        assert (opened.packing, opened.source.least_bytes) == ("zstd", 0)
        assert content_of(opened) == IMAGE


def test_a_packed_source_that_is_cut_is_never_taken_for_whole(packed: Path, tmp_path: Path) -> None:
    data, cut = packed.read_bytes(), tmp_path / packed.name
    lengths = random.Random(18)
    for length in [1, len(data) - 1, *(lengths.randrange(1, len(data)) for _ in range(10))]:
        cut.write_bytes(data[:length])
        with pytest.raises(MalformedRelease):
            read_whole(cut)


def test_an_altered_byte_is_found(packed: Path, tmp_path: Path) -> None:
    """A plain image has nothing that proves it."""
    data, other = packed.read_bytes(), tmp_path / packed.name
    places = random.Random(19)
    for place in (places.randrange(len(data) // 4, len(data) // 2) for _ in range(5)):
        other.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        if packed.suffix == ".img":
            assert read_whole(other) == other.read_bytes()
            continue
        try:
            assert read_whole(other) == IMAGE, "the format has no check of its own there"
        except (MalformedRelease, TargetRefused):
            continue
        assert packed.suffix == ".zst", "zstd(1) leaves its checksum out of what it gets by a pipe"


def test_what_is_larger_than_the_card_ends_there(packed: Path) -> None:
    with pytest.raises(TargetRefused, match="does not fit"):
        read_whole(packed, limit=2 * MiB)


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".bz2", ".zst"])
def test_a_bomb_costs_no_more_than_the_card(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.img{suffix}"
    path.write_bytes(PACKED[suffix](bytes(64 * MiB)))
    with pytest.raises(TargetRefused, match="does not fit"):
        read_whole(path, limit=MiB)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(("a.img", b"1"), ("b.img", b"2")), "2 files that could be the image"),
        (zipped(("README.txt", b"1")), "0 files that could be the image"),
        (zipped(("../a.img", b"1")), "leads out"),
        (zipped(("/a.img", b"1")), "leads out"),
        (zipped(("a.img", b"1"), way=zipfile.ZIP_BZIP2), "not known here"),
        (zipped(("a.img", IMAGE))[:-30], "no whole zip file"),
        (b"PK\x03\x04" + bytes(100), "no whole zip file"),
        (b"PK\x03\x04" + bytes(10), "no whole zip file"),
    ],
)
def test_zips_that_are_refused_before_anything_is_read(
    data: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "any.zip"
    path.write_bytes(data)
    with pytest.raises(MalformedRelease, match=words), opened_source(WantedImage(str(path))):
        raise AssertionError("it was opened")


@pytest.mark.parametrize("place", [-1, 1, 1 << 32, 1 << 63])
def test_a_zip_whose_directory_names_another_place(place: int, tmp_path: Path) -> None:
    """Before the file, behind it, and behind all that a file can have."""
    data = zipped(("a.img", IMAGE))
    directory, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry, last = bytearray(data[directory:end]), bytearray(data[end:])
    if place < 0:
        struct.pack_into("<I", last, 16, directory - place)
    else:
        entry[30:32] = struct.pack("<H", 12)
        struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
        entry += struct.pack("<HHQ", 1, 8, place)
        struct.pack_into("<I", last, 12, len(entry))
    path = tmp_path / "any.zip"
    path.write_bytes(data[:directory] + entry + last)
    with pytest.raises(MalformedRelease, match="not where the zip file says"), opened_source(
        WantedImage(str(path))
    ):  # fmt: skip
        raise AssertionError("it was opened")


def test_a_zip_with_a_password(tmp_path: Path) -> None:
    data = bytearray(zipped(("a.img", IMAGE)))
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 8] |= 1
    path = tmp_path / "any.zip"
    path.write_bytes(data)
    with pytest.raises(MalformedRelease, match="password"), opened_source(WantedImage(str(path))):
        raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("data", "words", "hint"),
    [
        (b"", "is empty", "fetch it again"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "it is 7z", "unpack it, and give the image"),
        (b"QFI\xfb" + bytes(600), "it is qcow2", "qemu-img convert"),
        (b"<html>not found</html>", "it is web page", "the address of the file itself"),
        (b"%PDF-1.7\n" + bytes(600), "it is PDF", "give a disk image"),
        (gzip.compress(bytes(257) + b"ustar" + bytes(300), mtime=0), "it is tar", "unpack it"),
    ],
)
def test_what_is_no_disk_image(data: bytes, words: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "any.img"
    path.write_bytes(data)
    with pytest.raises(MalformedRelease, match=words) as caught:
        read_whole(path)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("name", ["any.img.xz", "any.ZST", "any.img.gz", "any.lzma"])
@pytest.mark.parametrize("head", [bytes(1000), b"\xfd7zXY\0", random.Random(3).randbytes(9000)])
def test_what_is_called_packed_and_is_not(name: str, head: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(head.ljust(MiB, b"\0"))
    with pytest.raises(MalformedRelease, match="packed in no way"):
        read_whole(path)
    path.write_bytes(IMAGE)
    assert read_whole(path) == IMAGE, "it was unpacked on its way and kept its name"


def needed_of(path: Path, room: int | None) -> int:
    with opened_source(WantedImage(str(path))) as opened:
        return needed(opened, room, Quiet())


def test_a_gzip_file_is_too_large_only_when_it_is_unpacked(tmp_path: Path) -> None:
    """What it says of its size are its last bytes, whatever they are."""
    path, data = tmp_path / "any.img.gz", gzip.compress(IMAGE, 1)
    path.write_bytes(data)
    assert needed_of(path, SIZE) == needed_of(path, SIZE - 1) == SIZE
    for rest in (b"whatever", b"\xff" * 4):
        path.write_bytes(data + rest)
        with pytest.raises(MalformedRelease, match="trailing garbage"):
            needed_of(path, SIZE)
    path.write_bytes(data[:-9] + b"\xff")
    with pytest.raises(MalformedRelease, match=r"in the middle|before its byte"):
        needed_of(path, SIZE)
    larger = gzip.compress(IMAGE[:MiB], 1) + gzip.compress(IMAGE[MiB:], 1)
    path.write_bytes(larger)
    assert needed_of(path, 4 * MiB) == 5 * MiB, "its last member is too large alone"


def test_a_disk_may_begin_with_any_letters(tmp_path: Path) -> None:
    """Its first bytes are a program; at the end of the sector is a mark."""
    path = tmp_path / "any.img"
    whole = bytearray(b"%PDF-1.7" + IMAGE[8:])
    path.write_bytes(whole)
    assert read_whole(path) == whole
    whole[510:512] = bytes(2)
    path.write_bytes(whole)
    with pytest.raises(MalformedRelease, match="it is PDF"):
        read_whole(path)


MARKS = {"": "", "xz": "fd377a585a00", "zip": "504b0304", "zst": "28b52ffd", "gz": "1f8b"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(sorted(MARKS)))
def test_any_bytes_are_an_image_or_refused(data: bytes, kind: str) -> None:
    with NamedTemporaryFile() as file:
        file.write(bytes.fromhex(MARKS[kind]) + data)
        file.flush()
        with suppress(PicloudError):
            read_whole(file.name, limit=MiB)


def test_what_unpacks_it_is_missed_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "any.img.zst"
    path.write_bytes(zstd(IMAGE))
    monkeypatch.setattr("imager.base.run.find_tool", lambda _: None)
    with pytest.raises(MissingTool, match="zstd"), opened_source(WantedImage(str(path))):
        raise AssertionError("it was opened")


# ── what lies beside it ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "any.img"
    path.write_bytes(IMAGE)
    return path


DIGEST = hashlib.sha256(IMAGE).hexdigest()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("any.img.sha256", f"{DIGEST}\n"),
        ("any.img.sha256", f"{DIGEST}  what/it/was/called.img\n"),
        ("SHA256SUMS", f"{'0' * 64}  other.img\n{DIGEST} *any.img\n"),
        ("SHA256SUMS", f"SHA256 (any.img) = {DIGEST.upper()}\n"),
    ],
)
def test_sums_beside_it_are_used_and_said(plain: Path, name: str, text: str) -> None:
    sums = plain.with_name(name)
    sums.write_text(text)
    with opened_source(WantedImage(str(plain))) as opened:
        assert opened.known.told == (f"its SHA-256 is held against {name} beside it",)
        content_of(opened)
    sums.write_text(text.replace(DIGEST[:8], "00000000").replace(DIGEST[:8].upper(), "00000000"))
    with pytest.raises(NotAuthentic):
        read_whole(plain)


SHA512 = hashlib.sha512(IMAGE).hexdigest()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("any.img.sha512", SHA512),
        ("any.img.sha512sum", f"SHA2-512(any.img)= {SHA512}\n"),
        ("SHA512SUMS", f"{'0' * 128}  other.img\n{SHA512}  any.img\n"),
    ],
)
def test_a_sha_512_beside_it_is_held_against_it_too(plain: Path, name: str, text: str) -> None:
    plain.with_name(name).write_text(text)
    with opened_source(WantedImage(str(plain), DIGEST)) as opened:
        assert opened.known.told == (
            "its SHA-256 is held against the one you gave",
            f"its SHA-512 is held against {name} beside it",
        )
        assert content_of(opened) == IMAGE
    plain.write_bytes(IMAGE[:-1] + b"x")
    with pytest.raises(NotAuthentic, match="its SHA-512 is"):
        read_whole(plain)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("any.img.sha256", b"", "has no SHA-256"),
        ("any.img.sha256sum", DIGEST[:-1].encode(), "has no SHA-256"),
        ("any.img.sha256", f"{DIGEST}  any.img\n{'0' * 64}  any.img".encode(), "more than one"),
        ("SHA256SUMS", f"{'0' * 64}  any.img\n{DIGEST}  any.img\n".encode(), "more than one"),
        ("SHA256SUMS", f"Hash : {DIGEST}\nPath : C:\\any.img\n".encode("utf-16"), "has no SHA-256"),
        ("any.img.sha512", f"{DIGEST}  any.img".encode(), "has no SHA-512"),
    ],
)
def test_sums_of_this_image_that_nobody_understands_are_not_passed_by(
    plain: Path, name: str, text: bytes, said: str
) -> None:
    plain.with_name(name).write_bytes(text)
    with pytest.raises(MalformedRelease, match=f"{name} beside .*{said}") as caught:
        read_whole(plain)
    assert "--sha256" in str(caught.value.hint)
    with opened_source(WantedImage(str(plain), DIGEST)) as opened:
        assert f"{name} beside it is passed by" in opened.known.told[1]
        assert content_of(opened) == IMAGE


def test_an_empty_block_map_is_one_that_cannot_be_used(plain: Path) -> None:
    plain.with_name("any.bmap").touch()
    with pytest.raises(MalformedRelease, match="no block map that can be used"):
        read_whole(plain)
    with opened_source(WantedImage(str(plain), mapped=False)) as opened:
        assert content_of(opened) == IMAGE


def test_a_map_beside_it_that_cannot_be_read_does_not_say_that_it_is_whole(plain: Path) -> None:
    known = (b"0 ?\n0 512 +\n512 1024 -\n1536 512 *\n", 1536)
    for text, lacks in ((b"", None), known, (b"x", None)):
        plain.with_name("any.img.map").write_bytes(text)
        with opened_source(WantedImage(str(plain))) as opened:
            assert opened.known.lacks_bytes == lacks


def test_sums_of_other_files_say_nothing(plain: Path) -> None:
    plain.with_name("SHA256SUMS").write_text(f"{'0' * 64}  other.img\n")
    with opened_source(WantedImage(str(plain))) as opened:
        assert opened.known.sha256 == ""
        assert "nothing is known" in opened.known.told[0]


def test_a_sum_that_is_none_is_refused(plain: Path) -> None:
    with pytest.raises(UsageError, match="64 digits"):
        read_whole(plain, sha256="abc")


BMAP = Bmap(
    SIZE,
    tuple(
        BmapRange(extent, hashlib.sha256(IMAGE[extent.offset : extent.end]).digest())
        for extent in (Extent(0, 4096), Extent(MiB, 100 * KiB))
    ),
)


@pytest.mark.parametrize("name", ["any.img.xz.bmap", "any.img.bmap", "any.bmap"])
def test_a_block_map_says_what_counts(tmp_path: Path, name: str) -> None:
    path = tmp_path / "any.img.xz"
    path.write_bytes(PACKED[".xz"](IMAGE))
    (tmp_path / name).write_bytes(encode_bmap(BMAP))
    counts = IMAGE[: MiB + 100 * KiB] + bytes(SIZE - MiB - 100 * KiB)
    assert read_whole(path) == counts
    with opened_source(WantedImage(str(path), mapped=False)) as opened:
        assert content_of(opened) == IMAGE


def test_of_a_block_map_without_checksums_no_proof_is_claimed(plain: Path) -> None:
    for digest, said in ((BMAP.ranges[1].digest, "is held against"), (None, "has no checksums")):
        second = BmapRange(BMAP.ranges[1].extent, digest)
        found = encode_bmap(Bmap(SIZE, (BMAP.ranges[0], second)))
        plain.with_name("any.img.bmap").write_bytes(found)
        with opened_source(WantedImage(str(plain))) as opened:
            assert said in opened.known.told[0]


def test_the_end_of_each_partition_counts_whatever_the_block_map_says(plain: Path) -> None:
    """An old label of a RAID would be taken for the new partition's."""
    plain.with_name("any.img.bmap").write_bytes(encode_bmap(BMAP))
    with opened_source(WantedImage(str(plain))) as opened, opened.source.read(SIZE) as reading:
        taken = ExtentMap(Extent(offset, len(data)) for offset, data in reading.pieces())
    ends = [Extent(2 * MiB, MiB), Extent(5 * MiB, MiB)]
    assert taken == ExtentMap([one.extent for one in BMAP.ranges] + ends)


def test_an_image_that_is_not_as_mapped_is_refused(plain: Path) -> None:
    wrong = BmapRange(Extent(MiB, 4096), bytes(32))
    bmap = plain.with_name("any.img.bmap")
    bmap.write_bytes(encode_bmap(Bmap(SIZE, (wrong,))))
    with pytest.raises(MalformedRelease, match="bytes 1048576 to 1052671"):
        read_whole(plain)
    bmap.write_bytes(encode_bmap(Bmap(2 * SIZE, (wrong,))))
    with pytest.raises(MalformedRelease, match="its block map is of an image of"):
        read_whole(plain)
    bmap.write_bytes(encode_bmap(Bmap(SIZE, ())))
    with pytest.raises(MalformedRelease, match="it names no block of the image"):
        read_whole(plain)
    bmap.write_bytes(b"<bmap/>")
    with pytest.raises(MalformedRelease, match="no block map that can be used"):
        read_whole(plain)


def test_signed_sums_count_only_with_a_key_that_was_named(plain: Path) -> None:
    key, other = make_key(), make_key()
    sums = plain.with_name("SHA256SUMS")
    sums.write_text(f"{DIGEST}  any.img\n")
    named = WantedImage(str(plain), key=parse_certificate(key.certificate, key.fingerprint))
    with pytest.raises(NotAuthentic, match="neither a sum of this file nor"), opened_source(named):
        raise AssertionError("it was opened")
    plain.with_name("SHA256SUMS.asc").write_bytes(sign_detached(key, sums.read_bytes(), armor=True))
    with opened_source(WantedImage(str(plain))) as opened:
        assert "name the publisher's key" in opened.known.told[0]
    with opened_source(named) as opened:
        assert opened.known.told[0].startswith("SHA256SUMS is signed by")
    stranger = WantedImage(str(plain), key=parse_certificate(other.certificate, other.fingerprint))
    with pytest.raises(NotAuthentic, match="was made by the key"), opened_source(stranger):
        raise AssertionError("it was opened")
    sums.write_text(f"{DIGEST}  any.img\n\n")
    with pytest.raises(NotAuthentic, match="is not what the key"), opened_source(named):
        raise AssertionError("it was opened")


def test_a_signed_sum_must_be_of_this_very_file(plain: Path) -> None:
    """Else an old image passes for the new one: its own sums are signed by the same key."""
    key = make_key()
    named = WantedImage(str(plain), key=parse_certificate(key.certificate, key.fingerprint))
    sums = plain.with_name("any.img.sha256")
    for line, said in (
        (f"{DIGEST}  old.img\n", "its sum is of old.img, not of any.img"),
        (f"{DIGEST}\n", "its sum is of a file without a name, not of any.img"),
    ):
        sums.write_text(line)
        plain.with_name("any.img.sha256.sig").write_bytes(sign_detached(key, line.encode()))
        with pytest.raises(NotAuthentic, match=said), opened_source(named):
            raise AssertionError("it was opened")
        assert read_whole(plain) == IMAGE, "without a key nobody claims more than that it is whole"
    sums.write_text(f"{DIGEST}  any.img\n")
    plain.with_name("any.img.sha256.sig").write_bytes(sign_detached(key, sums.read_bytes()))
    with opened_source(named) as opened:
        assert content_of(opened) == IMAGE


def test_a_signed_block_map_proves_an_image_only_by_its_checksums(plain: Path) -> None:
    key = make_key()
    named = WantedImage(str(plain), key=parse_certificate(key.certificate, key.fingerprint))

    def publish(bmap: Bmap, signer: SigningKey | None) -> None:
        text = encode_bmap(bmap)
        plain.with_name("any.img.bmap").write_bytes(text)
        signature = plain.with_name("any.img.bmap.sig")
        signature.write_bytes(sign_detached(signer, text) if signer else b"")

    publish(BMAP, key)
    with opened_source(named) as opened:
        assert opened.source.bmap == BMAP
        assert opened.known.told[0].startswith("any.img.bmap is signed by")
    for one in range(len(BMAP.ranges)):
        ranges = list(BMAP.ranges)
        ranges[one] = BmapRange(ranges[one].extent, None)
        lacking = Bmap(SIZE, tuple(ranges))
        publish(lacking, key)
        without_proof = pytest.raises(NotAuthentic, match="nor a block map with checksums of all")
        with without_proof, opened_source(named):
            raise AssertionError("it was opened")
    line = f"{DIGEST}  any.img\n".encode()
    plain.with_name("SHA256SUMS").write_bytes(line)
    plain.with_name("SHA256SUMS.sig").write_bytes(sign_detached(key, line))
    with opened_source(named) as opened:
        assert opened.source.bmap == lacking, "the signed sum proves what the map does not"
    publish(BMAP, None)
    with opened_source(named) as opened:
        assert opened.source.bmap is None, "whoever made that map could leave out what was signed"
        assert "any.img.bmap is not used, as nobody signed it" in opened.known.told[-1]


def test_where_a_block_map_names_nothing_nothing_of_the_source_is_written(plain: Path) -> None:
    """No checksum is of what lies there, which may be the label of a RAID."""
    ends = [Extent(2 * MiB, MiB), Extent(5 * MiB, MiB)]
    other = bytearray(IMAGE)
    for end in ends:
        other[end.offset : end.end] = b"x" * end.length
    plain.write_bytes(other)
    plain.with_name("any.img.bmap").write_bytes(encode_bmap(BMAP))
    whole = read_whole(plain)
    assert not any(whole[end.offset : end.end].strip(b"\0") for end in ends)


# ── from a server ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def served(suffix: str, manners: Manners) -> Iterator[OpenedSource]:
    """The image behind a URL, opened before the server begins to misbehave."""
    name, quick = f"/any.img{suffix}", TransferLimits(back_off_seconds=0, read_seconds=5)
    with (
        serving({name: PACKED[suffix](IMAGE)}) as server,
        opened_source(WantedImage(server.address + name), quick) as opened,
    ):
        server.misbehave(name, manners)
        yield opened


@pytest.mark.parametrize("suffix", ["", ".xz", ".zip"])
def test_a_url_is_read_on_where_the_connection_broke(suffix: str) -> None:
    with served(suffix, Manners(cut_after=[0, 70_000, 1000, 1])) as opened:
        assert content_of(opened) == IMAGE


def test_sums_and_block_map_are_found_beside_a_url() -> None:
    data = PACKED[".xz"](IMAGE)
    text = f"{hashlib.sha256(data).hexdigest()}  any.img.xz\n".encode()
    files = {"/d/any.img.xz": data, "/d/SHA256SUMS": text, "/d/any.img.bmap": encode_bmap(BMAP)}
    with (
        serving(files) as server,
        opened_source(WantedImage(f"{server.address}/d/any.img.xz")) as opened,
    ):
        sums, mapped, http = opened.known.told
        assert ("SHA256SUMS" in sums, "any.img.bmap" in mapped) == (True, True)
        assert "can change them" in http
        assert opened.source.bmap == BMAP


def test_a_signature_by_nobody_does_not_make_http_safe() -> None:
    text = f"{DIGEST}  any.img\n".encode()
    files = {"/any.img": IMAGE, "/SHA256SUMS": text, "/SHA256SUMS.asc": b"by nobody"}
    with (
        serving(files) as server,
        opened_source(WantedImage(f"{server.address}/any.img")) as opened,
    ):
        signature, sums, http = opened.known.told
    assert "name the publisher's key" in signature and "SHA256SUMS" in sums
    assert "can change them" in http


def test_a_server_that_has_another_file_now() -> None:
    manners = Manners(cut_after=[100_000], etags=['"v1"', '"v2"'])
    with served("", manners) as opened, pytest.raises(NetworkError, match="another file now"):
        content_of(opened)


def test_a_server_that_gives_no_parts(tmp_path: Path) -> None:
    with serving({"/any.zip": zipped(("any.img", IMAGE))}) as server:
        server.misbehave("/any.zip", Manners(ignores_range=True))
        with pytest.raises(NetworkError, match="by itself"):
            read_whole(f"{server.address}/any.zip")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        read_whole(tmp_path / "none.img")
    with pytest.raises(UsageError, match="is no file"):
        read_whole(tmp_path)
    with pytest.raises(UsageError, match="ftp is not spoken"):
        read_whole("ftp://example.org/any.img")
    with pytest.raises(NetworkError, match="--offline"), opened_source(
        WantedImage("https://example.org/any.img", offline=True)
    ):  # fmt: skip
        raise AssertionError("it was opened")
