"""What may lie beside an image, and under which names it is looked for."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, HostStorage, UsageError
from imager.base.units import MiB
from imager.card.source.beside import beside, file_name, unpacked_names
from imager.card.source.origin import LocalFile, RemoteFile, local_file
from imager.card.source.sums import first_name, sum_of
from imager.release.transfer.download import Version
from imager.release.transfer.web import TransferLimits, Web
from tests.support.mirror import serving

A, B = "ab" * 32, "cd" * 32


@pytest.mark.parametrize("end", [".xz", ".gz", ".bz2", ".zst", ".zip"])
def test_names_without_how_it_is_packed(end: str) -> None:
    assert unpacked_names(f"any.img{end}") == (f"any.img{end}", "any.img", "any")
    assert unpacked_names(f"any{end}") == (f"any{end}", "any")


def test_names_of_what_is_not_packed() -> None:
    assert unpacked_names("any.img") == ("any.img", "any")
    assert unpacked_names("any") == ("any",)


def test_beside_a_url_names_are_spelt_as_urls() -> None:
    with (
        serving({"/d/a%20b.img": b"i", "/d/a%20b.bmap": b"map", "/d/SHA256SUMS": b""}) as server,
        closing(Web(TransferLimits(back_off_seconds=0))) as web,
    ):
        url = f"{server.address}/d/a%20b.img"
        file = RemoteFile(url, web, url, True, Version(None, None, None))
        assert file_name(file) == "a b.img"
        assert beside(file, "a b.bmap") == b"map"
        assert (beside(file, "SHA256SUMS"), beside(file, "none")) == (b"", None)
        asked = RemoteFile(f"{url}?token=1", web, url, True, Version(None, None, None))
        assert file_name(asked) == "a b.img"
        assert beside(asked, "a b.bmap") is None, "nobody knows what such a server calls it"


def test_beside_a_file_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    file = LocalFile(str(tmp_path / "any.img"), -1, 0)
    assert beside(file, "any.bmap") is None
    (tmp_path / "any.bmap").symlink_to("none")
    with pytest.raises(ConfigurationError, match="no such file"):
        beside(file, "any.bmap")
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="is no file"):
        beside(file, "any.bmap")


def test_what_cannot_be_opened_is_this_computers_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostStorage, match="Not a directory"), local_file(tmp_path / "file/a.img"):
        raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("text", "named", "alone"),
    [
        (A, None, A),
        (f"{A}  any.img", A, A),
        (f"{A}\tany.img\r\n{B}  other.img", A, A),
        (f"\\{A} *./d/any.img", A, A),
        (f"{A.upper()}  other.img", None, A),
        (f"{A}  one\n{B}  other.img", None, None),
        (f"SHA256 (d/any.img) = {A.upper()}\nMD5 (any.img) = {'a' * 32}", A, A),
        (f"{A[1:]}  any.img\n{A}0  any.img\n# {A}  any.img", None, None),
        (f"{A}  any.img\n{B}  any.img", B, B),
    ],
)
def test_the_sum_of_one_name(text: str, named: str | None, alone: str | None) -> None:
    assert sum_of(text.encode(), "any.img") == named
    assert sum_of(text.encode(), "any.img", alone=True) == alone


def test_the_file_that_sums_are_of() -> None:
    assert first_name(f"# {A}\n{A} *d/one.img\n{B}  other.img".encode()) == "one.img"
    assert (first_name(A.encode()), first_name(b"")) == ("", "")


@pytest.mark.parametrize("line", [b"ab\n", b"%064x  y\n" % 7])
def test_a_file_of_very_many_lines_takes_little_more_than_its_text(line: bytes) -> None:
    text = line * (MiB // 2 // len(line))
    tracemalloc.start()
    try:
        sum_of(text, "any.img")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(text)
    finally:
        tracemalloc.stop()
