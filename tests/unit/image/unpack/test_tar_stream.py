"""An unpacked tarball is the proven one and whole, or the error says which it is not."""

from __future__ import annotations

import errno
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from imager.base.errors import HostStorage, MalformedRelease, NotAuthentic
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.image.unpack import tar_stream
from imager.image.unpack.members import refuse
from imager.image.unpack.tar_stream import TarStream, read_members, unpacked
from imager.release.verified import VerifiedRelease
from tests.support.release import ReleaseTree, build_release, release_of

BLOCK_BYTES = 512


def tree_with(text: str) -> ReleaseTree:
    tree = ReleaseTree()
    tree.folder("etc")
    tree.file("etc/hostname", text)
    return tree


def names_in(release: VerifiedRelease) -> list[str]:
    """The members of the release's tarball as it is now, held against its recorded hash."""
    names: list[str] = []
    with (
        Quiet().phase("unpack") as phase,
        unpacked(release.tarball, release.sha256, phase) as stream,
    ):
        read_members(stream, release.tarball, lambda info, _: names.append(info.name))
    return names


def test_the_proven_tarball_is_read_whole(tmp_path: Path) -> None:
    assert names_in(build_release(tmp_path, tree_with("alarmpi"))) == ["etc", "etc/hostname"]


def test_another_sound_tarball_in_its_place_is_not_authentic(tmp_path: Path) -> None:
    release = build_release(tmp_path, tree_with("alarmpi"))
    (tmp_path / "other").mkdir()
    other = build_release(tmp_path / "other", tree_with("evil123"))
    assert names_in(other)
    os.replace(other.tarball, release.tarball)
    with pytest.raises(NotAuthentic, match=r"not [0-9a-f]{64} as when fetched") as caught:
        names_in(release)
    assert release.sha256 in caught.value.what


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    release = build_release(tmp_path, tree_with("\n" * 4 * MiB))
    with (
        pytest.raises(MalformedRelease, match=r"it unpacks to more than 2\.1 MB"),
        Quiet().phase("unpack") as phase,
        unpacked(release.tarball, release.sha256, phase, most_bytes=2 * MiB) as stream,
    ):
        read_members(stream, release.tarball, lambda info, stream: None)


def test_an_archive_of_members_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few megabytes can hold a million empty files, and each takes time."""
    monkeypatch.setattr(tar_stream, "MOST_MEMBERS", 2)
    assert names_in(build_release(tmp_path, tree_with("alarmpi")))
    tree = tree_with("alarmpi")
    tree.file("etc/one-more", "")
    (tmp_path / "large").mkdir()
    with pytest.raises(MalformedRelease, match="it has more than 2 members"):
        names_in(build_release(tmp_path / "large", tree))


@pytest.mark.parametrize("zeros", [0, 1])
def test_an_archive_with_less_than_an_end_mark(tmp_path: Path, zeros: int) -> None:
    """GNU tar takes one block of zeros for the end, and says so; none is a file cut short."""
    packed = tree_with("alarmpi").pack().rstrip(b"\0")
    members = packed.ljust(-(-len(packed) // BLOCK_BYTES) * BLOCK_BYTES, b"\0")
    release = build_release(tmp_path, raw=members + bytes(zeros * BLOCK_BYTES))
    if zeros:
        assert names_in(release) == ["etc", "etc/hostname"]
        return
    with pytest.raises(MalformedRelease, match="it stops without an end mark"):
        names_in(release)


def test_an_archive_that_ends_within_a_file(tmp_path: Path) -> None:
    release = build_release(tmp_path, raw=tree_with("x" * 2000).pack()[: 3 * BLOCK_BYTES])
    with (
        open(os.devnull, "wb") as sink,
        pytest.raises(MalformedRelease, match="ends at its byte 1536, 1488 bytes before the end"),
        Quiet().phase("unpack") as phase,
        unpacked(release.tarball, release.sha256, phase) as stream,
    ):
        read_members(
            stream, release.tarball, lambda info, content: content.copy_to(sink.fileno(), info.size)
        )


def test_a_header_that_cannot_be_read_is_no_end(tmp_path: Path) -> None:
    packed = bytearray(tree_with("alarmpi").pack())
    packed[BLOCK_BYTES] ^= 1
    with pytest.raises(MalformedRelease, match="a header's checksum is wrong"):
        names_in(build_release(tmp_path, raw=bytes(packed)))


def test_headers_without_end_for_one_file_are_refused(tmp_path: Path) -> None:
    longer = tarfile.TarInfo("././@LongLink")
    longer.type, longer.size = tarfile.GNUTYPE_LONGNAME, 2
    header = longer.tobuf(tarfile.GNU_FORMAT) + b"x\0".ljust(BLOCK_BYTES, b"\0")
    with pytest.raises(MalformedRelease, match="too many headers for one file"):
        names_in(build_release(tmp_path, raw=header * 1000 + bytes(2 * BLOCK_BYTES)))


def test_what_follows_the_end_mark_is_refused(tmp_path: Path) -> None:
    release = build_release(tmp_path, raw=tree_with("alarmpi").pack() + b"more" * 128)
    with pytest.raises(MalformedRelease, match="data follows the end of the archive"):
        names_in(release)


def test_a_damaged_archive_is_malformed_when_it_was_so_from_the_beginning(tmp_path: Path) -> None:
    tarball = tmp_path / "cut.tar.gz"
    tarball.write_bytes(build_release(tmp_path, tree_with("alarmpi")).tarball.read_bytes()[:-9])
    with pytest.raises(MalformedRelease, match="it ends in the middle"):
        names_in(release_of(tarball))
    tarball.write_bytes(tarball.read_bytes()[:60])
    with pytest.raises(MalformedRelease, match="it ends in the middle, at its byte 60"):
        names_in(release_of(tarball))


def test_an_archive_that_was_damaged_since_is_not_called_malformed(tmp_path: Path) -> None:
    release = build_release(tmp_path, tree_with("alarmpi"))
    release.tarball.chmod(0o600)
    release.tarball.write_bytes(release.tarball.read_bytes()[:-9])
    with pytest.raises(NotAuthentic, match="as when fetched"):
        names_in(release)


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (lzma.compress(b"x"), "compressed with xz"),
        (b"BZh9", "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\x1f", "not a gzip file"),
        (b"", "not a gzip file"),
    ],
)
def test_what_is_packed_otherwise_is_named(packed: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(packed)
    with pytest.raises(MalformedRelease, match=says):
        names_in(release_of(tmp_path / "x.tar.gz"))


def test_what_is_refused_early_is_still_hashed_to_its_end(tmp_path: Path) -> None:
    """The rest is more than is decompressed ahead of whoever reads."""
    tree = tree_with("alarmpi")
    tree.file("large", bytes(20 * MiB))
    release = build_release(tmp_path, tree)

    def take(info: tarfile.TarInfo, _: TarStream) -> None:
        raise refuse(info.name, "is not wanted")

    with (
        pytest.raises(MalformedRelease, match="'etc' is not wanted"),
        Quiet().phase("unpack") as phase,
        unpacked(release.tarball, release.sha256, phase) as stream,
    ):
        read_members(stream, release.tarball, take)


def test_a_header_of_no_possible_length_is_refused_before_it_is_read() -> None:
    stream = TarStream(lambda: b"x" * 10, Path("x.tar.gz"))
    for length in (-1, 16 * MiB + 1):
        with pytest.raises(MalformedRelease, match=f"before byte 0 claims {length} bytes"):
            stream.read(length)
    assert stream.read(0) == b""
    assert stream.read(12) == b"x" * 12
    assert (stream.tell(), stream.seek(15), stream.tell()) == (12, 15, 15)
    with pytest.raises(OSError, match="cannot go back"):
        stream.seek(14)


def test_a_stream_that_ends_gives_what_there_is() -> None:
    chunks = [b"x" * 10, b""]
    stream = TarStream(lambda: chunks.pop(0) if len(chunks) > 1 else b"", Path("x.tar.gz"))
    assert stream.read(16 * MiB) == b"x" * 10
    assert stream.seek(99) == 10


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENAMETOOLONG, HostStorage), (errno.ENOSPC, OSError)]
)
def test_only_a_name_that_does_not_fit_is_the_filesystems_fault(
    number: int, kind: type[Exception]
) -> None:
    with pytest.raises(kind), tar_stream._name_fits_here("a"):
        raise OSError(number, os.strerror(number))
