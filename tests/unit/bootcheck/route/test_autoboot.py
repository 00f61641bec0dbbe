"""autoboot.txt: which partition it names, and what in it is not read."""

from __future__ import annotations

import pytest

from imager.base.boards import BOARDS, board_named
from imager.bootcheck.contents import Contents
from imager.bootcheck.route.autoboot import Autoboot
from imager.disk.budget import Budget
from tests.support.bootmemory import volume_of


def autoboot(text: bytes | None, model: str = "pi4") -> Autoboot:
    files = {} if text is None else {"autoboot.txt": text}
    return Autoboot.of(Contents(volume_of(files), {}, Budget()), board_named(model))


@pytest.mark.parametrize(
    ("text", "partition"),
    [(None, 1), (b"", 1), (b"boot_partition=2\n", 2), (b"[all]\nboot_partition=6", 6),
     (b"boot_partition=0\n", 1), (b"[tryboot]\nboot_partition=3\n", 1),
     (b"# boot_partition=2\n", 1),
     (b"boot_partition=2\n[tryboot]\nboot_partition=3\n", 2), (b"[none]\nboot_partition=3\n", 1),
     (b"[none]\nboot_partition=3\n[all]\nboot_partition=2\r\n", 2), (b"boot_partition=-1\n", 1),
     (b"boot_partition=2\nboot_partition=3\n", 3), (b"include other.txt\n", 1)],
)  # fmt: skip
def test_the_partition_of_a_normal_start_is_read(text: bytes | None, partition: int) -> None:
    assert autoboot(text).partition == partition
    assert autoboot(text).findings == ()


@pytest.mark.parametrize("model", [board.name for board in BOARDS])
def test_a_filter_for_a_model_filters_nothing_there(model: str) -> None:
    assert autoboot(b"[pi2]\nboot_partition=2\n", model).partition == 2


def test_what_stands_behind_byte_512_is_not_read() -> None:
    seen = autoboot(b"#" * 511 + b"\nboot_partition=2\n")
    assert seen.partition == 1
    assert [found.code for found in seen.findings] == ["config-line"]


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfboot_partition=2\n", "boot_partition=2".encode("utf-16")]
)
def test_what_is_no_text_names_no_partition_and_is_told(data: bytes) -> None:
    seen = autoboot(data)
    assert seen.partition == 1
    assert [found.code for found in seen.findings] == ["text-form"]
