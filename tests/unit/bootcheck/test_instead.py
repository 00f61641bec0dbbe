"""What is no card is called by its name, with what to do; what is one never is."""

from __future__ import annotations

import pytest

from imager.base.units import MiB
from imager.bootcheck.check import BootReport, check_boot
from imager.disk.layout import plan_layout
from imager.disk.mbr import encode
from imager.disk.padded import padded
from imager.disk.signature import Form
from tests.unit.disk.test_signature import BYTES

ADVICE = {Form.PACKED: "Unpack it first", Form.IMAGE: "plain image of it first"}


def judged(data: bytes) -> BootReport:
    return check_boot(padded(lambda at, n: data[at : at + n], len(data)), len(data))


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_card_is_called_by_its_name(name: str) -> None:
    data, kind, form = BYTES[name]
    report = judged(data)
    assert not report.bootable
    (found,) = report.findings
    assert found.code == "mbr-missing"
    assert kind.partition(":")[0] in found.what or not data
    assert ADVICE.get(form, "") in found.mend


def test_a_disc_for_pcs_has_a_partition_table_and_is_none_of_ours() -> None:
    data = bytearray(64 * 1024)
    data[446 + 4], data[446 + 8], data[446 + 12] = 0x17, 64, 64
    data[510:512] = b"\x55\xaa"
    data[32769:32774] = b"CD001"
    (found,) = judged(bytes(data)).findings
    assert "disc for PCs" in found.mend


def test_a_filesystem_alone_may_have_the_marks_of_a_first_sector() -> None:
    data = bytearray(64 * 1024)
    data[54:62], data[510:512] = b"FAT16   ", b"\x55\xaa"
    (found,) = judged(bytes(data)).findings
    assert "FAT16 alone" in found.what


@pytest.mark.parametrize(
    ("at", "mark"), [(0, b"\xeb\x3c\x90mkfs.fat"), (32769, b"CD001"), (4086, b"SWAPSPACE2")]
)
def test_what_an_earlier_use_left_before_the_first_partition_is_not_believed(
    at: int, mark: bytes
) -> None:
    layout = plan_layout(0, MiB)
    head = bytearray(64 * 1024)
    head[:512] = encode(layout, 1)
    head[at : at + len(mark)] = mark
    report = check_boot(lambda at, n: bytes(head[at : at + n]).ljust(n, b"\0"), layout.size_bytes)
    assert "fat-missing" in {found.code.value for found in report.findings}


@pytest.mark.parametrize(
    "size", [512, 600, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1, 264 * MiB, 265 * MiB]
)
def test_a_card_that_ends_anywhere_is_said_to_be_cut_short_first(size: int) -> None:
    layout = plan_layout(0, MiB)
    head = encode(layout, 1)

    def read(at: int, n: int) -> bytes:
        assert at + n <= size, "nothing behind the end is asked for"
        return head[at : at + n].ljust(n, b"\0")

    found = check_boot(read, size).findings
    assert found[0].what.startswith(f"cut short at byte {size} of {layout.size_bytes}: partition")
