"""What may lie beside an image, and under which names it is looked for."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, HostStorage, NetworkError, UsageError
from imager.base.run import run
from imager.base.units import MiB
from imager.card.source.beside import beside, file_name, unpacked_names
from imager.card.source.origin import LocalFile, RemoteFile, local_file
from imager.card.source.sums import UnclearSums, first_name, sum_of
from imager.disk.bmap import MAX_BMAP_BYTES
from imager.release.transfer.download import Version
from imager.release.transfer.web import TransferLimits, Web
from tests.support.mirror import Manners, serving

A, B = "ab" * 32, "cd" * 32


@pytest.mark.parametrize("end", [".xz", ".gz", ".bz2", ".zst", ".zip"])
def test_names_without_how_it_is_packed(end: str) -> None:
    assert unpacked_names(f"any.img{end}") == (f"any.img{end}", "any.img", "any")
    assert unpacked_names(f"any{end}") == (f"any{end}", "any")


def test_names_of_what_is_not_packed() -> None:
    assert unpacked_names("any.img") == ("any.img", "any")
    assert unpacked_names("any") == ("any",)


PAGE = b"\n<!DOCTYPE HTML>\n<HTML lang=en><title>Not found</title></HTML>"


def test_beside_a_url_names_are_spelt_as_urls() -> None:
    with (
        serving(
            {"/d/a%20b.img": b"i", "/d/a%20b.bmap": b"map", "/d/SHA256SUMS": b"", "/d/page": PAGE}
        ) as server,
        closing(Web(TransferLimits(back_off_seconds=0))) as web,
    ):
        url = f"{server.address}/d/a%20b.img"
        file = RemoteFile(url, web, url, True, Version(None, None, None))
        assert file_name(file) == "a b.img"
        assert beside(file, "a b.bmap") == b"map"
        assert (beside(file, "SHA256SUMS"), beside(file, "none")) == (b"", None)
        assert beside(file, "page") is None, "so a server says that there is no such file"
        asked = RemoteFile(f"{url}?token=1", web, url, True, Version(None, None, None))
        assert file_name(asked) == "a b.img"
        assert beside(asked, "a b.bmap") is None, "nobody knows what such a server calls it"


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_what_a_server_does_not_give_is_not_there(status: int) -> None:
    with _sums_on_a_server(Manners(status=status)) as file:
        assert beside(file, "SHA256SUMS") is None


@pytest.mark.parametrize("status", [429, 500, 501, 503, 520])
def test_a_server_that_is_held_up_does_not_say_that_there_are_no_sums(status: int) -> None:
    with (
        _sums_on_a_server(Manners(status=status)) as file,
        pytest.raises(NetworkError, match=f"/SHA256SUMS: the server answered {status}") as caught,
    ):
        beside(file, "SHA256SUMS")
    assert "fetch the image first, and give its path" in caught.value.hint


def test_a_file_of_sums_whose_connection_breaks_is_asked_for_again() -> None:
    with _sums_on_a_server(Manners(cut_after=[2])) as file:
        assert beside(file, "SHA256SUMS") == b"sums"


@contextmanager
def _sums_on_a_server(manners: Manners) -> Iterator[RemoteFile]:
    with (
        serving({"/any.img": b"i", "/SHA256SUMS": b"sums"}) as server,
        closing(Web(TransferLimits(back_off_seconds=0))) as web,
    ):
        server.misbehave("/SHA256SUMS", manners)
        url = f"{server.address}/any.img"
        yield RemoteFile(url, web, url, True, Version(None, None, None))


def test_beside_a_file_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    file = LocalFile(str(tmp_path / "any.img"), -1, 0)
    assert beside(file, "any.bmap") is None
    (tmp_path / "any.bmap").symlink_to("none")
    with pytest.raises(ConfigurationError, match="no such file"):
        beside(file, "any.bmap")
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="is no file"):
        beside(file, "any.bmap")


def test_beside_a_file_what_is_too_large_is_not_read_in_part(tmp_path: Path) -> None:
    file = LocalFile(str(tmp_path / "any.img"), -1, 0)
    with (tmp_path / "SHA256SUMS").open("wb") as sums:
        sums.truncate(MAX_BMAP_BYTES)
        assert len(beside(file, "SHA256SUMS") or b"") == MAX_BMAP_BYTES
        sums.truncate(MAX_BMAP_BYTES + 1)
    with pytest.raises(ConfigurationError, match=r"SHA256SUMS is larger than 32 MiB"):
        beside(file, "SHA256SUMS")


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
        (f"SHA256 (d/any.img) = {A.upper()}\nMD5 (any.img) = {'a' * 32}", A, A),
        (f"SHA256(any.img)= {A}", A, A),
        (f"SHA2-256(d/any.img)= {A}\nSHA2-512(any.img)= {B}{B}", A, A),
        (f"any.img: {A}\nother.img: {B}", A, A),
        (f"SHA256    {A.upper()}    C:\\Users\\me\\any.img", A, A),
        (f"{A}  C:\\Users\\me\\any.img\n{B}  .\\other.img", A, A),
        (f"{A}  any.img\n{A}  any.img\n{B}  old/any.img", A, A),
        (f"{B}  any.img.bmap\n{B}  many.img\n", None, B),
        (f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{A}  any.img\n", A, A),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_sum_of_one_name(
    text: str, named: str | None, alone: str | None, encoding: str
) -> None:
    data = text.encode(encoding)
    assert sum_of(data, "any.img") == named
    assert sum_of(data, "any.img", alone=True) == alone
    longer = text.replace(A, A * 2).replace(A.upper(), A.upper() * 2).replace(B, B * 2)
    if "SHA2" not in text:
        found = sum_of(longer.encode(encoding), "any.img", "sha512")
        assert found == (named * 2 if named else None)


POWERSHELL = f"\r\nAlgorithm : SHA256\r\nHash      : {A.upper()}\r\nPath      : C:\\any.img\r\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_writes_about_one_file_has_its_sum(encoding: str) -> None:
    assert sum_of(POWERSHELL.encode(encoding), "any.img", alone=True) == A
    certutil = f"SHA256 hash of any.img:\r\n{A}\r\nCertUtil: -hashfile command completed.\r\n"
    assert sum_of(certutil.encode(encoding), "any.img", alone=True) == A


@pytest.mark.parametrize("name", ["we\\ird.img", "two\nlines.img", "a\rb.img", "a \\n.img"])
@pytest.mark.parametrize("options", [["--tag"], []])
def test_a_name_with_a_backslash_is_read_as_sha256sum_writes_it(
    tmp_path: Path, name: str, options: list[str]
) -> None:
    (tmp_path / name).write_bytes(b"image")
    text = run(["sha256sum", *options, name], cwd=tmp_path).stdout
    assert text.startswith(b"\\")
    assert sum_of(text, name) == hashlib.sha256(b"image").hexdigest()
    assert sum_of(text, "ird.img") is None


@pytest.mark.parametrize(
    ("text", "named", "alone"),
    [
        (b"", False, "has no SHA-256 of any.img"),
        (b"\n", False, "has no SHA-256 of any.img"),
        (A[1:].encode(), False, "has no SHA-256 of any.img"),
        (f"# {A}  any.img".encode(), False, "has no SHA-256 of any.img"),
        (f"{A}{A}  any.img".encode(), True, "has no SHA-256 of any.img"),
        (f"{A[1:]}  any.img\n{A}0  any.img".encode(), True, "has no SHA-256 of any.img"),
        (f"MD5 (any.img) = {A[:32]}".encode(), True, "has no SHA-256 of any.img"),
        (f"{A}  one\n{B}  other.img".encode(), False, "more than one SHA-256"),
        (f"{A}  any.img\n{B}  any.img".encode(), True, "more than one SHA-256"),
        (f"{A}  any.img\nany.img: {B}\n".encode(), True, "more than one SHA-256"),
        (f"{A}  a/any.img\n{B}  b/any.img".encode(), True, "more than one SHA-256"),
        (POWERSHELL.encode(), True, ""),
        (f"{A}  any.img 12345".encode(), True, ""),
        (f"{A}  12345 any.img".encode(), True, ""),
        (f'{A} *"any.img"'.encode(), True, ""),
        (f"{A}  any.img # built today".encode(), True, ""),
        (f"SHA256 (any.img ) = {A}".encode(), True, ""),
        (f"{A}  any.img 12345\n{B}  other.img".encode(), True, "more than one SHA-256"),
    ],
)
def test_sums_that_are_about_an_image_and_give_it_none(
    text: bytes, named: bool, alone: str
) -> None:
    for whole, is_refused in ((False, named), (True, bool(alone))):
        with pytest.raises(UnclearSums) if is_refused else nullcontext():
            sum_of(text, "any.img", alone=whole)
    if alone:
        with pytest.raises(UnclearSums, match=alone):
            sum_of(text, "any.img", alone=True)


def test_the_file_that_sums_are_of() -> None:
    assert first_name(f"# {A}\n{A} *d/one.img\n{B}  other.img".encode()) == "one.img"
    assert (first_name(A.encode()), first_name(b"")) == ("", "")


@pytest.mark.parametrize("line", [b"ab\n", b"%064x  y\n" % 7])
def test_a_file_of_very_many_lines_takes_little_more_than_its_text(line: bytes) -> None:
    text = line * (MiB // 2 // len(line))
    tracemalloc.start()
    try:
        with suppress(UnclearSums):
            sum_of(text, "any.img", alone=True)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(text)
    finally:
        tracemalloc.stop()
