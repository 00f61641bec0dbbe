"""CRC-32C as ext4 computes it: the published check value, without the final inversion."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imager.disk.ext4.crc32c import crc32c


def test_the_check_value_of_the_rfc() -> None:
    """RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and rising."""
    assert crc32c(bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA
    assert crc32c(b"\xff" * 32) ^ 0xFFFFFFFF == 0x62A8AB43
    assert crc32c(bytes(range(32))) ^ 0xFFFFFFFF == 0x46DD794E


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_it_goes_on_where_it_stopped(first: bytes, second: bytes) -> None:
    assert crc32c(second, crc32c(first)) == crc32c(first + second)
