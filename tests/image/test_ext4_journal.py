"""The journal reader: against transactions that debugfs wrote, and against garbage."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imager.base.run import search_path
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.journal import replayed
from imager.disk.manifest import Reader

pytestmark = pytest.mark.image

BLOCK = 4096
TARGETS = (5000, 5001)
MAGIC_BLOCK = bytes.fromhex("c03b3998") + b"m" * (BLOCK - 4)
BEFORE = 4 * BLOCK
"""The filesystem does not begin at byte 0, as on a card."""


def tool(*words: str | Path, script: str = "") -> None:
    env = {"PATH": search_path()}
    subprocess.run(words, input=script, text=True, env=env, check=True, capture_output=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytearray:
    """A filesystem whose journal holds two blocks, one of which was revoked and written again,
    and a third that was revoked for good."""
    folder = tmp_path_factory.mktemp("journal")
    image = folder / "root.ext4"
    features = "has_journal,extent,64bit,metadata_csum"
    tool("mke2fs", "-q", "-t", "ext4", "-O", features, "-b", "4096", "-J", "size=4", image, "32M")
    contents = {"old": b"o" * BLOCK, "new": b"n" * BLOCK, "magic": MAGIC_BLOCK}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    script = f"""
        journal_open
        journal_write -b {TARGETS[0]} {folder}/old
        journal_write -b 5002 {folder}/old
        journal_write -r {TARGETS[0]}
        journal_write -r 5002
        journal_write -b {TARGETS[0]} {folder}/new
        journal_write -b {TARGETS[1]} {folder}/magic
        journal_close
    """
    commands = folder / "commands"
    commands.write_text("\n".join(line.strip() for line in script.strip().splitlines()) + "\n")
    tool("debugfs", "-w", "-f", commands, image)
    return bytearray(bytes(BEFORE) + image.read_bytes())


def reader(data: bytearray) -> Reader:
    return lambda offset, length: bytes(data[offset : offset + length])


def test_the_newest_committed_copy_is_read_and_no_revoked_one(disk: bytearray) -> None:
    read = replayed(reader(disk), BEFORE)
    assert Ext4.open(read, BEFORE).needs_recovery
    start = BEFORE + TARGETS[0] * BLOCK
    assert read(start, 2 * BLOCK) == b"n" * BLOCK + MAGIC_BLOCK
    assert read(start + 2 * BLOCK, BLOCK) == bytes(BLOCK)
    assert read(start - 3, 6) == bytes(3) + b"nnn"
    assert read(start + BLOCK - 2, 4) == b"nn\xc0\x3b"


def test_a_clean_filesystem_is_read_as_it_is(disk: bytearray) -> None:
    clean = bytearray(disk)
    clean[BEFORE + 1024 + 96] &= ~4
    read = reader(clean)
    assert replayed(read, BEFORE) is read


def journal_blocks(disk: bytearray) -> list[int]:
    parts = Ext4.open(reader(disk), BEFORE).journal_extents
    return [at for part in parts for at in range(part.offset, part.end, BLOCK)]


def test_a_transaction_without_its_commit_counts_for_nothing(disk: bytearray) -> None:
    cut = bytearray(disk)
    for at in journal_blocks(disk)[1:]:
        if bytes(cut[at : at + 8]) == bytes.fromhex("c03b3998") + b"\0\0\0\2":
            cut[at : at + BLOCK] = bytes(BLOCK)
    start = BEFORE + TARGETS[0] * BLOCK
    assert replayed(reader(cut), BEFORE)(start, BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (0, b"\0\0\0\0", "superblock"),
        (12, b"\0\0\4\0", "superblock"),
        (16, b"\xff\xff\xff\xff", "geometry"),
        (20, b"\0\0\0\0", "geometry"),
        (28, b"\xff\xff\xff\xff", "geometry"),
        (40, b"\0\1\0\0", "features"),
    ],
)
def test_a_journal_that_cannot_be_is_refused(
    disk: bytearray, offset: int, value: bytes, why: str
) -> None:
    broken = bytearray(disk)
    at = journal_blocks(disk)[0] + offset
    broken[at : at + len(value)] = value
    with pytest.raises(Ext4Error, match=why):
        replayed(reader(broken), BEFORE)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 60), st.binary(min_size=1, max_size=8)),
        max_size=6,
    )
)
def test_garbage_in_the_journal_is_refused_or_read_but_never_worse(
    disk: bytearray, damage: list[tuple[int, int, bytes]]
) -> None:
    broken, blocks = bytearray(disk), journal_blocks(disk)
    for block, offset, data in damage:
        at = blocks[block] + offset
        broken[at : at + len(data)] = data
    with suppress(Ext4Error):
        assert len(replayed(reader(broken), BEFORE)(BEFORE, 64 * BLOCK)) == 64 * BLOCK
