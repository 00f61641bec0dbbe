"""No bytes make the reader of wheels fail otherwise than by its own error."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import MalformedRelease
from imager.image.salt.tree import wheel_members
from tests.support.pypi import wheel


def _packed() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/\u00e9.py", "a = 1\n" * 20)
    return stream.getvalue()


SOUND = (wheel(), _packed())


def test_sound_wheels_are_read() -> None:
    assert [name for name, _ in wheel_members(SOUND[1], "it")] == ["a/\u00e9.py"]
    assert len(list(wheel_members(SOUND[0], "it"))) == 4


@given(
    st.sampled_from(SOUND),
    st.lists(st.tuples(st.integers(0, 999), st.binary(min_size=1, max_size=4)), max_size=5),
    st.integers(0, 12),
)
def test_any_bytes_are_read_or_refused(
    data: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    damaged = bytearray(data)
    for place, piece in changes:
        damaged[place : place + len(piece)] = piece
    with suppress(MalformedRelease):
        list(wheel_members(bytes(damaged[: len(damaged) - cut]), "it"))


def test_a_table_of_contents_that_lies_elsewhere_is_refused() -> None:
    """Its members then lie before the file begins, as zipfile reckons."""
    damaged = bytearray(SOUND[1])
    end = damaged.rindex(b"PK\5\6")
    damaged[end + 16 : end + 20] = (len(damaged) * 2).to_bytes(4, "little")
    with pytest.raises(MalformedRelease, match="not a sound wheel"):
        list(wheel_members(bytes(damaged), "it"))
