"""What may come after what in an archive, decided without a disk."""

from __future__ import annotations

import pytest

from imager.base.errors import MalformedRelease
from imager.image.unpack.members import EntryKind, TreeEntry
from imager.image.unpack.tree import Tree, TreePlace, copy_of, implied_folder, place_of


def entry(kind: EntryKind, size_bytes: int = 0) -> TreeEntry:
    return TreeEntry(kind, 0o755, 0, 0, 0, size_bytes=size_bytes)


FILE, FOLDER, LINK = entry(EntryKind.FILE, 5), entry(EntryKind.FOLDER), entry(EntryKind.SYMLINK)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("boot", TreePlace(False, "boot")),
        ("boot/kernel7.img", TreePlace(True, "kernel7.img")),
        ("boots/x", TreePlace(False, "boots/x")),
        ("usr/boot/x", TreePlace(False, "usr/boot/x")),
    ],
)
def test_only_what_is_below_boot_goes_to_the_boot_partition(path: str, place: TreePlace) -> None:
    assert place_of(path) == place


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (FILE, FOLDER, "comes after a file"),
        (FOLDER, FILE, "comes after a directory"),
        (FOLDER, LINK, "comes after a directory"),
        (LINK, FOLDER, "comes after a symbolic link"),
    ],
)
def test_nothing_replaces_a_directory_nor_the_reverse(
    first: TreeEntry, second: TreeEntry, says: str
) -> None:
    tree = Tree(is_boot=False, entries={"": FOLDER})
    tree.put("x", first)
    with pytest.raises(MalformedRelease, match=says):
        tree.put("x", second)


def test_a_later_file_replaces_an_earlier_one() -> None:
    tree = Tree(is_boot=False, entries={"": FOLDER})
    assert tree.put("x", LINK) is None
    assert tree.put("x", FILE) is LINK
    assert tree.entries["x"] is FILE


@pytest.mark.parametrize("above", [FILE, LINK, entry(EntryKind.FIFO)])
def test_nothing_leads_through_what_is_no_directory(above: TreeEntry) -> None:
    tree = Tree(is_boot=False, entries={"": FOLDER, "a": above})
    with pytest.raises(MalformedRelease, match="leads through 'a'"):
        tree.missing_parents("a/b/c")


def test_missing_parents_are_named_outermost_first() -> None:
    tree = Tree(is_boot=False, entries={"": FOLDER, "a": FOLDER})
    assert tree.missing_parents("a/b/c/d") == ["a/b", "a/b/c"]


@pytest.mark.parametrize("path", ["", "boot"])
def test_the_root_and_the_mount_point_must_be_directories(path: str) -> None:
    with pytest.raises(MalformedRelease, match="must be a directory"):
        Tree(is_boot=False).put(path, LINK)


@pytest.mark.parametrize(
    ("path", "what", "says"),
    [
        ("a:b", FILE, r"'boot/a:b' cannot be on the FAT"),
        ("link", LINK, "FAT has none"),
        ("tty", entry(EntryKind.CHARACTER), "FAT has none"),
        ("huge", entry(EntryKind.FILE, 4 << 30), "larger than"),
        ("Config.txt", FILE, "'boot/config.txt' are one name"),
    ],
)
def test_what_fat_cannot_hold_is_refused_by_name(path: str, what: TreeEntry, says: str) -> None:
    tree = Tree(is_boot=True, entries={"": FOLDER})
    tree.put("config.txt", FILE)
    with pytest.raises(MalformedRelease, match=says):
        tree.put(path, what)


def test_a_linked_file_is_counted_once() -> None:
    tree = Tree(
        is_boot=False, entries={"": FOLDER, "a": FILE, "b": FILE, "c": entry(EntryKind.FILE, 1)}
    )
    assert tree.size_bytes() == 3 * 4096


def test_folders_and_links_take_a_block_and_devices_none() -> None:
    kinds = {kind: Tree(is_boot=False, entries={"x": entry(kind, 5)}) for kind in EntryKind}
    assert {kind: tree.size_bytes() for kind, tree in kinds.items()} == {
        **dict.fromkeys((EntryKind.FILE, EntryKind.FOLDER, EntryKind.SYMLINK), 4096),
        **dict.fromkeys((EntryKind.CHARACTER, EntryKind.BLOCK, EntryKind.FIFO), 0),
    }


def test_every_path_but_the_root_comes_in_order() -> None:
    tree = Tree(is_boot=False, entries={"b": FILE, "": FOLDER, "a": LINK})
    assert list(tree.files()) == [("a", LINK), ("b", FILE)]


def test_the_largest_file_that_fat_can_hold() -> None:
    tree = Tree(is_boot=True, entries={"": FOLDER})
    tree.put("large", entry(EntryKind.FILE, 2**32 - 1))
    with pytest.raises(MalformedRelease, match="4 GiB"):
        tree.put("larger", entry(EntryKind.FILE, 2**32))


def test_what_nobody_packed_belongs_to_root_and_a_copy_is_another_file() -> None:
    folder = TreeEntry(EntryKind.FOLDER, 0o755, 0, 0, 5, 0, "", (0, 0), ())
    assert implied_folder(5) == folder
    assert copy_of(FILE) == FILE
    assert copy_of(FILE) is not FILE
