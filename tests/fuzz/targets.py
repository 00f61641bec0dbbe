"""The readers of bytes from strangers, each as a function that a fuzzer can call.

In: any bytes. Out: nothing, or one of the errors that the reader is documented to raise. Whatever
else a reader does with them is a finding: another error, more than a second, much memory.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path

from imager.base.boards import BOARDS
from imager.base.errors import (
    ConfigurationError,
    MalformedRelease,
    NotAuthentic,
    TargetRefused,
)
from imager.base.json_fields import JsonFault, read_object
from imager.base.progress import Quiet
from imager.base.units import SECTOR_BYTES, KiB, MiB
from imager.bootcheck.check import check_boot
from imager.bootcheck.formats.cmdline import parse_cmdline
from imager.bootcheck.formats.config import (
    KIND_FILTERS,
    MODEL_FILTERS,
    Program,
    read_config,
)
from imager.bootcheck.formats.device_tree import FdtError, overlay_map, root_compatible
from imager.bootcheck.formats.firmware import (
    bootcode_fault,
    fixup_fault,
    known_filters,
    pair_fault,
    start_fault,
)
from imager.bootcheck.formats.initramfs import initramfs_fault
from imager.bootcheck.formats.kernel import boot_script_fault, inspect_kernel
from imager.bootcheck.formats.text import meant, text_faults
from imager.bootcheck.root.names import RootFault, RootUnproven, named_root
from imager.bootcheck.sums import SumsError, encode_sums, parse_sums
from imager.card.inspect.firstboot import parse_firstboot
from imager.card.receipt.receipt import ReceiptError, decode_receipt
from imager.card.source.packed import packing_in
from imager.card.source.streamed import StreamedSource
from imager.card.source.sums import UnclearSums, sum_of
from imager.disk.bmap import BmapError, encode_bmap, parse_bmap
from imager.disk.budget import Budget, OverBudget, ReadLimits
from imager.disk.ext4.filesystem import Ext4, Inode
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.journal import replayed
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatError, FatVolume
from imager.disk.gpt import GptError, read_gpt, resized
from imager.disk.in_use import InUse
from imager.disk.manifest import Reader
from imager.disk.mbr import MbrError, parse
from imager.disk.rescue_map import RescueMap, RescueMapError
from imager.image.salt.packages import described
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import read_members, unpacked
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import parse_stamp
from imager.packages.carry.carried import opened
from imager.packages.metadata import read_pkginfo
from imager.packages.resolve.base_system import BaseSystem
from imager.packages.resolve.database import Database
from imager.packages.resolve.repositories import repositories_of
from imager.rack.history.ledger import encode_event, parse_ledger
from imager.rack.live.snapshot import decode_live, encode_live
from imager.rack.master.answers import NoAnswer, card_said, who
from imager.rack.master.presence import parse_presence
from imager.release.openpgp import fingerprints_in, parse_signatures
from imager.release.tarball import UNREADABLE
from imager.stations.wire.delta import DeltaFault, pack_delta, unpack_delta
from imager.stations.wire.order import order_from
from imager.stations.wire.report import progress_from
from imager.stations.wire.reports import reports_from
from imager.stations.wire.survey import survey_from
from tests.fuzz import seeds
from tests.support.stamps import KEY, PUBLIC

_LOOKED_AT = 200
"""So many names of a filesystem are looked at: the next one is read as the ones before it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A reader. ``refusals`` are the errors its documentation allows; ``seeds`` makes bytes that
    it must take without one, so that the fuzzer begins behind the first check."""

    read: Callable[[bytes], None]
    seeds: Callable[[Path], Iterable[bytes]]
    refusals: tuple[type[Exception], ...] = ()


def small() -> Budget:
    """What a fuzzed input may cost: less than a card, so that one second is enough."""
    return Budget(ReadLimits(steps=800_000))


def disk(data: bytes, size_bytes: int = 64 * MiB) -> Reader:
    """A disk that begins with ``data`` and holds zeros behind it."""

    def read(offset: int, length: int) -> bytes:
        assert offset >= 0, f"byte {offset} of a disk"
        assert length >= 0, f"{length} bytes of a disk"
        found = data[offset : offset + length]
        inside = min(length, max(0, size_bytes - offset))
        return found + bytes(max(0, inside - len(found)))

    return read


def _mbr(data: bytes) -> None:
    check_boot(disk(data), 64 * MiB)
    table = parse(data[:SECTOR_BYTES])
    for partition in table.partitions:
        assert table.partition(partition.index) == partition


def _fat(data: bytes) -> None:
    volume = FatVolume.parse(disk(data), 0, 64 * MiB, small())
    for path, entry in islice(volume.entries.items(), _LOOKED_AT):
        assert volume.find(path) is not None
        if not entry.is_dir:
            for _ in islice(volume.chunks(path), 2):
                pass


def _ext4(data: bytes) -> None:
    _look_at(Ext4.open(disk(data), 0, small()))


def _in_use(data: bytes) -> None:
    """Ranges ascend, and are of the disk, whatever it says."""
    found = InUse(disk(data), 64 * MiB, small())
    position = 0
    for extent in found.ranges():
        assert position <= extent.offset <= extent.end <= 64 * MiB
        position = extent.end


def _gpt(data: bytes) -> None:
    """A table that is moved to a larger disk says the same there, and lies on no partition."""
    size = 128 * KiB
    old = data.ljust(size, b"\0")[:size]
    larger = bytearray(old + bytes(64 * KiB))
    before = read_gpt(disk(old, size), size)
    pieces = resized(disk(old, size), size, len(larger))
    for offset, piece in pieces:
        larger[offset : offset + len(piece)] = piece
    try:
        after = read_gpt(disk(bytes(larger), len(larger)), len(larger))
    except GptError as error:
        raise AssertionError(f"the table is none any more: {error}") from error
    assert (after.guid, after.partitions) == (before.guid, before.partitions)
    written = ExtentMap(Extent(offset, len(piece)) for offset, piece in pieces)
    assert not written & ExtentMap(part.extent for part in after.partitions)


@dataclass(frozen=True, slots=True)
class _Given:
    """An Origin in memory, which is asked for nothing that no file or server could have."""

    content: bytes
    name: str = "any.img"

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def look(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= len(self.content), f"byte {offset} of a file"
        assert length >= 0, f"{length} bytes of a file"
        return self.content[offset : offset + length]

    def blocks(self) -> Generator[bytes]:
        for at in range(0, len(self.content), 64 * KiB):
            yield self.content[at : at + 64 * KiB]


def _source(data: bytes) -> None:
    """Ranges ascend, and an image ends where it says. Of zstd only the beginning is read here: all
    else of it is read by zstd(1)."""
    packing = packing_in(_Given(data))
    if packing.name == "zstd":
        return
    with StreamedSource(_Given(data), packing).read(8 * MiB) as reading:
        position = 0
        for offset, piece in reading.pieces():
            assert position <= offset, f"byte {offset} after byte {position}"
            position = offset + len(piece)
        assert position <= reading.size_bytes <= 8 * MiB


def _told_sums(data: bytes) -> None:
    for alone in (False, True):
        with suppress(UnclearSums):
            found = sum_of(data, "any.img", alone=alone)
            assert found is None or len(bytes.fromhex(found)) == 32


def _bmap(data: bytes) -> None:
    found = parse_bmap(data)
    assert parse_bmap(encode_bmap(found)) == found


def _rescue_map(data: bytes) -> None:
    found = RescueMap.parse(data)
    assert [*RescueMap.parse(found.encode()).blocks()] == [*found.blocks()]


def _look_at(filesystem: Ext4) -> None:
    """Ask everything; that one answer is refused is no reason not to ask for the next."""
    refused: list[ValueError] = []

    @contextmanager
    def asking() -> Iterator[None]:
        try:
            yield
        except (Ext4Error, OverBudget) as error:
            refused.append(error)

    for ask in (
        lambda: filesystem.used & filesystem.metadata,
        lambda: filesystem.journal,
        lambda: filesystem.damaged_inodes(range(11, 300)),
        lambda: filesystem.lookup("/etc/../up/name"),
        lambda: filesystem.read_file("/etc/hostname", limit_bytes=4096),
    ):
        with asking(), suppress(FileNotFoundError):
            ask()
    with asking():
        for path, inode in islice(filesystem.walk(), _LOOKED_AT):
            with asking():
                _look_at_inode(filesystem, path, inode)
    with asking():
        for inode in islice(filesystem.files(), _LOOKED_AT):
            with asking():
                for _ in islice(filesystem.content_in_pieces(inode), 2):
                    pass
    if refused:
        raise refused[0]


def _look_at_inode(filesystem: Ext4, path: str, inode: Inode) -> None:
    filesystem.xattrs(inode)
    if inode.is_symlink:
        filesystem.readlink(path)
        filesystem.lookup(path)
    elif inode.is_dir:
        filesystem.list_directory(path)


def _journal(data: bytes) -> None:
    """``data`` in the place of the journal of a real filesystem."""
    image, extents = _journalled()
    written = bytearray(image)
    for extent in extents:
        part = data[: extent.length]
        written[extent.offset : extent.offset + len(part)] = part
        data = data[extent.length :]
    read = replayed(disk(bytes(written)), 0, small())
    _look_at(Ext4.open(read, 0, small()))


@cache
def _journalled() -> tuple[bytes, tuple[Extent, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        return seeds.journalled(Path(folder))


def _tar(data: bytes) -> None:
    _tarball(gzip.compress(data, 0))


def _tarball(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tarball = folder / "release.tar.gz"
        tarball.write_bytes(data)
        with (
            Stager.opened(folder) as stager,
            Quiet().phase("unpack") as phase,
            unpacked(tarball, hashlib.sha256(data).hexdigest(), phase) as stream,
        ):
            read_members(stream, tarball, stager.add)
        stager.root.size_bytes()
        list(stager.boot.files())


def _carried(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, Quiet().phase("") as phase:
        path = Path(folder) / "rack.tar"
        path.write_bytes(data)
        known = {name.decode() for name in re.findall(rb"[0-9A-F]{40}", data)}
        with opened(path, known) as file:
            for entry in file.entries:
                file.read(entry, lambda _: None, phase)
            file.end()


def _package(data: bytes) -> None:
    described(data, Path("a.pkg.tar.xz"))


def _pkginfo(data: bytes) -> None:
    read_pkginfo(BytesIO(data))


def _database(data: bytes) -> None:
    database = Database("core", "http://m/core", data)
    for name in islice(database.names, _LOOKED_AT):
        database.offer(name)
    assert database.providers is not None


def _settings(data: bytes) -> None:
    conf, _, mirrors = data.decode(errors="replace").partition(seeds.NEXT_FILE.decode())
    files = {"etc/pacman.conf": conf, "etc/pacman.d/mirrorlist": mirrors}
    repositories_of(BaseSystem("alarm", files, {"glibc-2-1": ""})).mirrors()


def _initramfs(data: bytes) -> None:
    initramfs_fault(data, small())


def _device_tree(data: bytes) -> None:
    root_compatible(data, small())
    overlay_map(data, small())


def _config(data: bytes) -> None:
    first, _, second = data.partition(seeds.NEXT_FILE)
    files = {"config.txt": first, "more.txt": second}
    for board in BOARDS:
        for program in (Program(), Program(False, frozenset({"pi4", "gpio"}))):
            config = read_config(files.get, board, program)
            config.number("arm_64bit")
    meant(first)


def _cmdline(data: bytes) -> None:
    text_faults(data)
    line = parse_cmdline(meant(data))
    root = line.value("root")
    if root is not None:
        with suppress(RootFault, RootUnproven):
            named_root(root, (), initramfs=True)


def _firmware(data: bytes) -> None:
    start, _, fixup = data.partition(seeds.NEXT_FILE)
    start_fault(start)
    fixup_fault(fixup)
    pair_fault(start, fixup)
    bootcode_fault(start)
    known_filters(start, MODEL_FILTERS | KIND_FILTERS, Budget())


def _kernel(data: bytes) -> None:
    inspect_kernel(data)
    boot_script_fault(data)


def _sums(data: bytes) -> None:
    digests = parse_sums(data)
    assert parse_sums(encode_sums(digests)) == digests


def _stamp(data: bytes) -> None:
    """As found, and with its signature made good: whoever has a key can sign nonsense."""
    header = struct.Struct("<8s6I")
    if len(data) >= header.size:
        _, _, facts, extents, chunks, files, _ = header.unpack_from(data)
        end = header.size + facts + 16 * extents + 32 * chunks + 12 * files
        if end <= MiB:
            signed = data[:end].ljust(end, b"\0") + PUBLIC
            parse_stamp(signed + KEY.sign(signed))
            return
    parse_stamp(data)


def _receipt(data: bytes) -> None:
    receipt = decode_receipt(data)
    assert decode_receipt(receipt.encode()) == receipt


def _ledger(data: bytes) -> None:
    ledger = parse_ledger(data)
    for event in ledger.events:
        assert parse_ledger(encode_event(event)).events == (event,)
    ledger.state_of("pi1").standing()


def _notes(data: bytes) -> None:
    """What a card and this computer's own folder say in JSON."""
    with suppress(ValueError):
        parse_firstboot(data)
    parse_presence(data)


def _signature(data: bytes) -> None:
    assert parse_signatures(data, seeds.certificate(), "any.sig")


def _keyring(data: bytes) -> None:
    fingerprints_in(data)


def _master(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with suppress(NoAnswer):
        who(text)
    card_said(text)


def _live(data: bytes) -> None:
    run = decode_live(data)
    assert decode_live(encode_live(run)) == run


def _wire(data: bytes) -> None:
    """What head and station tell each other, taken for each kind."""
    for of in (order_from, reports_from, progress_from, survey_from):
        with suppress(JsonFault):
            of(read_object(data))


def _delta(data: bytes) -> None:
    """As it is packed, and what it would be unpacked."""
    for packed in (data, zlib.compress(data, 0)):
        with suppress(DeltaFault):
            delta = unpack_delta(packed)
            assert unpack_delta(pack_delta(delta)).pieces == delta.pieces


def _card(data: bytes) -> None:
    report = check_boot(disk(data), 64 * MiB)
    report.to_json()


TARGETS = {
    "mbr": Target(_mbr, seeds.tables, (MbrError,)),
    "gpt": Target(_gpt, seeds.gpts, (GptError,)),
    "fat": Target(_fat, seeds.fats, (FatError, OverBudget)),
    "ext4": Target(_ext4, seeds.ext4s, (Ext4Error, OverBudget)),
    "in-use": Target(_in_use, seeds.disks),
    "source": Target(_source, seeds.sources, (MalformedRelease, TargetRefused)),
    "told-sums": Target(_told_sums, seeds.told_sums),
    "bmap": Target(_bmap, seeds.bmaps, (BmapError,)),
    "rescue-map": Target(_rescue_map, seeds.rescue_maps, (RescueMapError,)),
    "journal": Target(_journal, seeds.journals, (Ext4Error, OverBudget)),
    "tar": Target(_tar, seeds.tars, (MalformedRelease,)),
    "gzip": Target(_tarball, seeds.tarballs, (MalformedRelease,)),
    "carried": Target(_carried, seeds.carried, (MalformedRelease, NotAuthentic)),
    "package": Target(_package, seeds.packages, (ConfigurationError,)),
    "pkginfo": Target(_pkginfo, seeds.packages, (*UNREADABLE, ValueError)),
    "database": Target(_database, seeds.databases, (ValueError,)),
    "settings": Target(_settings, seeds.settings, (MalformedRelease,)),
    "initramfs": Target(_initramfs, seeds.initramfs, (OverBudget,)),
    "device-tree": Target(_device_tree, seeds.device_trees, (FdtError, OverBudget)),
    "config": Target(_config, seeds.configs),
    "cmdline": Target(_cmdline, seeds.cmdlines),
    "firmware": Target(_firmware, seeds.firmwares),
    "kernel": Target(_kernel, seeds.kernels),
    "sums": Target(_sums, seeds.sums, (SumsError,)),
    "stamp": Target(_stamp, seeds.stamps, (StampError,)),
    "receipt": Target(_receipt, seeds.receipts, (ReceiptError,)),
    "ledger": Target(_ledger, seeds.ledgers),
    "signature": Target(_signature, seeds.signatures, (NotAuthentic,)),
    "keyring": Target(_keyring, seeds.keyrings),
    "notes": Target(_notes, seeds.notes),
    "master": Target(_master, seeds.answers, (NoAnswer,)),
    "live": Target(_live, seeds.live, (JsonFault,)),
    "wire": Target(_wire, seeds.wire),
    "delta": Target(_delta, seeds.deltas),
    "card": Target(_card, seeds.cards),
}
"""Every reader by its name; its kept inputs are in ``kept/NAME``."""
