"""Archives from the tests of Go and of libarchive, unpacked here and listed by bsdtar.

A tar that bsdtar reads is read the same here, to the last byte and field, or refused for a reason
that is named below; what bsdtar refuses is refused, and so is what is no tar at all.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imager.base.errors import MalformedRelease
from imager.base.progress import Quiet
from imager.base.units import GiB, MiB
from imager.image.unpack.members import EntryKind
from imager.image.unpack.packings import packing_of
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import read_members, unpacked
from tests.support.corpora import Package, Tally, ends_in
from tests.support.telling import Tell

pytestmark = pytest.mark.long(minutes=10)
GO = Package(
    "g/golang-1.19/golang-1.19_1.19.8.orig.tar.gz",
    "1d7a67929dccafeaf8a29e55985bc2b789e0499cb1a17100039f084e3238da2f",
    "46f53507f9aa6ca185134df1b5f18fe8669923ca",
)
LIBARCHIVE = Package(
    "liba/libarchive/libarchive_3.6.2.orig.tar.xz",
    "9e2c1b80d5fbe59b61308fdfab6c79b5021d7ff4ff2489fb12daf0a96a83551d",
    "35c971132e4ecb1679418d1713e328e415aac569",
)
SECONDS = 5
LARGEST_INPUT = 16 * MiB
COMPARED = 128 * MiB
"""Of larger files the content is not compared: some are holes of 60 GB."""
_IS_TAR = re.compile(r"tar|pax|\.t[bgx]z\Z")
_OTHER_PACKING = re.compile(r"\.(?:lz4|lzo|Z|lz|lzma|lrz|grz)\Z|zstd_2.tar.zst\Z")
REFUSED = {
    "stops without an end mark": "no end mark: it may have been cut short",
    "trailing garbage": "something else behind the packed data",
    "Invalid data stream": "something else behind the packed data",
    "data follows the end": "a second archive behind the first",
    "which no filesystem holds": "a member that is no file, as a list of an incremental backup",
    "has the impossible time": "a time that is no number, which bsdtar drops",
    "has a zero byte in its name": "a name with a zero byte, which bsdtar cuts",
    "is a file and comes after a directory": "a member without a name",
    "invalid literal for int": "a sparse map with comments in it",
    "somebody without a number": "an access list that knows users by name only",
    "is absolute": "an absolute path",
    "which is not before it": "a hard link to what is not in the archive",
}
"""Why what bsdtar lists is refused here, by a part of what is said."""
TAKEN = {
    "test_pax_filename_encoding.tar": "a name that is no UTF-8: its bytes are kept",
    "invalid-go17.tar": "GNU's mark and a path in two parts: put together, as Go and Python do",
}
"""Why what is taken here is not what bsdtar lists, by the archive's name."""
NO_END = "larger than bsdtar reads in 5 s (holes): taken here, not compared"
PACKED = "packed in a way in which neither releases nor packages come"


@dataclass(frozen=True, slots=True)
class Found:
    """One path of an archive; ``content`` is its SHA-256, empty where it is not compared."""

    kind: EntryKind | None
    size_bytes: int
    content: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    target: str


def archives() -> Iterator[tuple[str, bytes]]:
    """Every test archive of Go's archive/tar, and every one of any format of libarchive."""
    with tarfile.open(GO.fetched()) as source:
        for member in source:
            path = Path(member.name)
            if path.parts[-4:-1] == ("archive", "tar", "testdata") and ".tar" in path.name:
                yield f"Go: {path.name}", _content(source, member)
            elif member.name > "go/src/archive/u":
                break
    with tarfile.open(LIBARCHIVE.fetched()) as source:
        for member in source:
            path = Path(member.name)
            if path.suffix == ".uu" and "test" in path.parts and member.size < LARGEST_INPUT:
                yield f"libarchive: {path.stem}", uudecoded(_content(source, member))


def _content(source: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = source.extractfile(member)
    assert file is not None
    return file.read()


def uudecoded(text: bytes) -> bytes:
    """The content of a uuencoded file. binascii refuses those in which the bits behind the end of
    a line are not zero."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.startswith(b"begin "))
    content = bytearray()
    for line in lines:
        if line == b"end":
            break
        bits = "".join(f"{byte - 32 & 63:06b}" for byte in line)
        count = int(bits[:6] or "0", 2)
        content += int(bits[6 : 6 + 8 * count] or "0", 2).to_bytes(count, "big")
    return bytes(content)


def unpacked_here(archive: Path, folder: Path) -> dict[str, Found]:
    """What becomes of an archive here; raises MalformedRelease."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    data = archive.read_bytes()
    packing, digest = packing_of(data[:8]), hashlib.sha256(data).hexdigest()
    with Stager.opened(folder) as stager:
        with (
            Quiet().phase("unpack") as phase,
            unpacked(archive, digest, phase, packing, GiB) as stream,
        ):
            read_members(stream, archive, stager.add)
        found = {}
        for tree, above in ((stager.root, ""), (stager.boot, "boot/")):
            for path, entry in tree.entries.items():
                at = folder / ("boot" if above else "root") / path
                is_file = entry.kind is EntryKind.FILE
                found[above + path] = Found(
                    entry.kind,
                    entry.size_bytes if is_file else 0,
                    _hashed(at) if is_file and entry.size_bytes <= COMPARED else "",
                    entry.mode,
                    (entry.uid, entry.gid),
                    entry.mtime_ns,
                    entry.target,
                )
    return found


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_KINDS = {
    "file": EntryKind.FILE, "dir": EntryKind.FOLDER, "link": EntryKind.SYMLINK,
    "char": EntryKind.CHARACTER, "block": EntryKind.BLOCK, "fifo": EntryKind.FIFO,
}  # fmt: skip


def listed_by_bsdtar(archive: Path) -> tuple[int, dict[str, Found]]:
    """Its verdict, and what it reads of the archive, by its own listing in the form of mtree."""
    fields = "!all,type,size,sha256,mode,uid,gid,time,link"
    words = ["bsdtar", "-cf", "-", "--format=mtree", f"--options={fields}", f"@{archive}"]
    verdict, listing, _ = ends_in(words, SECONDS)
    found = {}
    for line in listing.splitlines():
        name, *words_of_it = line.split(b" ")
        if not name or name.startswith((b"#", b"/")):
            continue
        said = dict(word.decode().split("=", 1) for word in words_of_it if b"=" in word)
        path = name.decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
        seconds, _, parts = said.get("time", "0.0").partition(".")
        size = int(said.get("size", "0"))
        found["/".join(part for part in path.split("/") if part not in ("", "."))] = Found(
            _KINDS.get(said.get("type", "")),
            size,
            said.get("sha256digest", "") if size <= COMPARED else "",
            int(said.get("mode", "0"), 8),
            (int(said.get("uid", "0")), int(said.get("gid", "0"))),
            int(seconds) * 1_000_000_000 + int(parts or 0),
            said.get("link", ""),
        )
    return verdict, found


def same(archive: Path, path: str, ours: Found, theirs: Found | None) -> bool:
    """Whether both mean the same by ``path``."""
    if theirs is None or ours == theirs:
        # mtree names no folder above a file, and shortens names that are longer than it can say.
        return theirs is not None or ours.kind is EntryKind.FOLDER or len(path) > 255
    if ours.kind is EntryKind.FILE and not theirs.content and not theirs.size_bytes:
        return True  # a hard link: what it leads to has been compared
    # The hash of mtree leaves out the hole at the end of a file.
    _, content, _ = ends_in(["bsdtar", "-xOf", archive, "--", path], SECONDS)
    return ours == replace(theirs, content=hashlib.sha256(content).hexdigest())


def test_archives_of_every_form_are_read_as_bsdtar_reads_them(tmp_path: Path, tell: Tell) -> None:
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is not installed")
    archive, tally, others = tmp_path / "archive", Tally(), Tally()
    for name, data in archives():
        archive.write_bytes(data)
        fault, ours = "", dict[str, Found]()
        try:
            ours = unpacked_here(archive, tmp_path / "unpacked")
        except MalformedRelease as error:
            fault = str(error)
        if not _IS_TAR.search(name):
            others.count(same=bool(fault), what=name)
            continue
        verdict, theirs = listed_by_bsdtar(archive)
        apart = [
            path for path, one in ours.items() if not same(archive, path, one, theirs.get(path))
        ]
        reason = next((why for part, why in REFUSED.items() if part in fault), None)
        if _OTHER_PACKING.search(name) and fault:
            reason = PACKED
        if not fault:
            reason = TAKEN.get(name.split(": ")[1])
        if verdict == -1 and not fault:
            apart, reason = ["?"], NO_END
        agree = (verdict == 0) == (not fault) and not apart
        what = f"{name}: {verdict} / {fault[-200:]} {apart[:3]}"
        tally.count(same=agree, what=what, reason=reason)
    tell(f"tar archives: {tally}; archives of other formats: {others}")
    assert tally.tried > 90 and others.tried > 200
    assert not tally.unexplained, tally.unexplained
    assert not others.unexplained, others.unexplained
