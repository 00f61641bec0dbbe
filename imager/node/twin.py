"""A copy of one node's card becomes another node's: all that must not be the same on both.

In: a card of this rack, which a node may have run from, and the node that the copy is for. Out: the
blocks in which the copy differs from the card, and its stamp. The files of the new node are put in
as on a new card, on the card's own filesystems in the place of a golden image's; those of the old
node, and what it left of its first boot, are taken out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from imager.base.errors import StampMismatch, ToolFailed
from imager.base.programs import ToolUse, tools_for
from imager.base.progress import Progress
from imager.base.run import require_tools
from imager.base.text import command_line
from imager.base.units import MiB
from imager.bootcheck.own_files import FIRSTBOOT_PREFIX, place_fault
from imager.bootcheck.sums import SUMS_PATH
from imager.config.rack import Node, Rack
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import ExtentMap
from imager.disk.fat.names import same_on_fat
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest, Reader, chunks_of
from imager.disk.mbr import MbrError, parse
from imager.image.compose.file_digests import FileDigests
from imager.node.content import CONTENT_STEPS, node_content
from imager.node.edit.edit import EDIT_STEPS, Filesystems, edit
from imager.node.files.boot import digests, laid_over
from imager.node.files.card_values import Occasion
from imager.node.files.templates import Renderer
from imager.node.files.tree import CardFolder, CardTree
from imager.node.image import Delta
from imager.node.keys.identity import CardNumbers, count_missing_keys, make_keys
from imager.node.keys.signing import rack_key
from imager.node.stamp.facts import StampFacts
from imager.node.stamp.stamp import STAMP_AREA, StampTooLarge, encode_stamp

_FIRST_BOOT = "/var/lib/picloud/firstboot"
_OWN_FOLDERS = (_FIRST_BOOT, "/var/lib/dhcpcd", "/var/lib/systemd/network")
"""What a node keeps here is its own: how far its first boot came, and which address it was lent."""
_MOST_METADATA_BYTES = 512 * MiB


@dataclass(frozen=True, slots=True)
class CardFacts:
    """A card in the place of a release: see ``Released``."""

    release_name: str
    release_sha256: str
    boot_files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReusedCard:
    """A card on which another node's card is made: see ``Foundation``."""

    image: CardFacts
    filesystems: Filesystems
    renderer: Renderer


@dataclass(frozen=True)
class Twin:
    """A copy for ``node``: ``delta`` is what is different on it. ``boot_files`` maps each path on
    its boot partition to its SHA-256 in hex."""

    rack: Rack
    node: Node
    card: StampFacts
    layout: Layout
    delta: Delta
    boot_files: Mapping[str, str]
    numbers: CardNumbers
    occasion: Occasion

    @cached_property
    def recipe(self) -> str:
        """What the ledger says that it was made from."""
        return f"copy-of-{self.card.node}"

    def require_room(self, size_bytes: int, extents: ExtentMap) -> None:
        """Raise StampMismatch where ``extents`` of a copy of ``size_bytes`` are more than a stamp
        has room for."""
        digests = (bytes(32) for _ in chunks_of(extents))
        try:
            self.seal(Manifest(size_bytes, extents, tuple(digests)))
        except StampTooLarge as error:
            raise _unusable(f"the card of {self.card.node}", str(error)) from error

    def seal(self, manifest: Manifest) -> tuple[int, bytes]:
        """The stamp of the copy that holds what ``manifest`` says, and where it belongs.

        It has no list of files, because what the old node wrote nobody has proven.
        """
        key, numbers = rack_key(self.rack), self.numbers
        facts = StampFacts(
            rack=self.rack.name,
            node=self.node.name,
            model=self.node.model,
            release_name=self.card.release_name,
            release_sha256=self.card.release_sha256,
            golden_key=self.recipe,
            image_id=manifest.digest,
            boot_sums=self.boot_files[SUMS_PATH],
            tool_version=self.occasion.tool_version,
            imaged_at=self.occasion.imaged_at,
            disk_id=numbers.disk_id,
            layout=Layout(manifest.size_bytes, self.layout.boot, self.layout.root),
            root_uuid=numbers.root_uuid,
        )
        stamp = encode_stamp(facts, manifest, FileDigests(), key.public, key.sign)
        return STAMP_AREA.offset, stamp


def twin_of(
    name: str, read: Reader, card: StampFacts, rack: Rack, node: Node, progress: Progress
) -> Twin:
    """The copy for ``node`` of the card ``name`` of ``rack``, which ``read`` reads and whose stamp
    says ``card``.

    Raises StampMismatch for a card that is not laid out as it was written or was not unmounted,
    ConfigurationError for what is wrong with the rack, and MissingTool.
    """
    require_tools(*tools_for(ToolUse.NODE))
    before, occasion = rack.node(card.node), Occasion.now()
    lacking = count_missing_keys(rack, node)
    steps = lacking + 3 * CONTENT_STEPS + EDIT_STEPS
    with progress.steps(f"prepare {node.name}", steps) as phase, Renderer() as renderer:
        with _said_of(name):
            layout = _layout(name, read, card)
            used = _used_card(read, layout, card, renderer)
            _require_own_places(name, used.filesystems)
            phase.advance(CONTENT_STEPS)
            root, boot = used.filesystems.root, used.filesystems.boot
            if root.metadata.total_bytes + boot.metadata.total_bytes > _MOST_METADATA_BYTES:
                # It is all held in memory while it is edited.
                raise _unusable(name, "its filesystems have too many tables and folders")
            if root.needs_recovery:
                saved = command_line("read", name, "saved.img", "--replay")
                raise StampMismatch(
                    f"{name} was not unmounted, so its root filesystem cannot be changed",
                    hint="switch its node on and shut it down, or make a whole copy of it and "
                    f"clone that: {saved}",
                )
        if lacking:
            make_keys(rack, node, phase)
        with _said_of(name):
            content = node_content(used, rack, node, occasion.imaged_at)
            phase.advance(CONTENT_STEPS)
            old = node_content(used, rack, before, occasion.imaged_at)
            phase.advance(CONTENT_STEPS)
            files = content.card.files
            gone = (*_only_in(old.card.files, files), *_kept_by(root))
            edited = edit(
                layout,
                used.filesystems,
                replace(content.card, gone=gone, gone_boot=_reports(used.filesystems)),
                read,
                phase,
            )
    if not content.can_log_in:
        progress.warn(f"nobody can log in to {node.name}: rack.toml names no authorized_keys")
    return Twin(
        rack,
        node,
        card,
        layout,
        edited.delta.with_piece(STAMP_AREA.offset, bytes(STAMP_AREA.length)),
        laid_over(used.image.boot_files, digests(files.boot)),
        content.card.numbers,
        occasion,
    )


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """What is wrong with its filesystems is said of the card ``name``."""
    try:
        yield
    except ValueError as error:
        raise _unusable(name, f"its filesystems cannot be read: {error}") from error
    except ToolFailed as error:
        raise _unusable(name, f"its filesystems cannot be changed: {error.what}") from error


def _used_card(read: Reader, layout: Layout, card: StampFacts, renderer: Renderer) -> ReusedCard:
    filesystems = Filesystems.open(read, layout)
    boot = filesystems.boot
    reports = _reports(filesystems)
    sums = {
        path: boot.sha256(path)
        for path, entry in boot.entries.items()
        if not (entry.is_dir or path in reports)
    }
    return ReusedCard(
        CardFacts(card.release_name, card.release_sha256, sums), filesystems, renderer
    )


def _require_own_places(name: str, filesystems: Filesystems) -> None:
    for path, entry in filesystems.boot.entries.items():
        fault = place_fault(path, is_folder=entry.is_dir)
        if fault is not None:
            raise _unusable(name, f"{path} on its boot partition {fault}")


def _layout(name: str, read: Reader, card: StampFacts) -> Layout:
    """Where the partitions are now: first boot may have made the second one larger."""
    try:
        parts = [part.extent for part in parse(read(0, 512)).partitions]
    except MbrError as error:
        raise _unusable(name, f"its partition table cannot be read: {error}") from error
    written = card.layout
    if len(parts) != 2 or parts[0] != written.boot or parts[1].offset != written.root.offset:
        raise _unusable(name, "its partitions are not those that were written")
    return Layout(max(written.size_bytes, parts[1].end), *parts)


def _only_in(old: CardTree, new: CardTree) -> Iterator[str]:
    """What the old node has and the new one has not: the files of a role, say."""
    kept = {entry.path for entry in new.root}
    for entry in old.root:
        if entry.path not in kept and not isinstance(entry, CardFolder):
            yield entry.path


def _kept_by(root: Ext4) -> Iterator[str]:
    for folder in _OWN_FOLDERS:
        yield from (f"{folder}/{name}" for name in root.list_directory(folder))


def _reports(filesystems: Filesystems) -> tuple[str, ...]:
    """What first boot wrote on the boot partition."""
    return tuple(
        path for path in filesystems.boot.entries if same_on_fat(path).startswith(FIRSTBOOT_PREFIX)
    )


def _unusable(name: str, why: str) -> StampMismatch:
    return StampMismatch(
        f"{name} cannot become another node's card: {why}",
        hint="write that node a new card: " + command_line("write", "TARGET", "--node", "NAME"),
    )
