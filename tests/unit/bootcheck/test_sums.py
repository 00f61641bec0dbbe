"""picloud/SHA256SUMS, written and read."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.sums import SumsError, encode_sums, parse_sums

DIGEST = hashlib.sha256(b"x").hexdigest()
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(st.dictionaries(PATHS, DIGESTS))
def test_what_is_written_is_read(digests: dict[str, str]) -> None:
    assert parse_sums(encode_sums(digests)) == digests


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_sums(data)
    except SumsError as error:
        assert str(error)


def test_sha256sum_accepts_the_list(tmp_path: Path) -> None:
    names = ["config.txt", "overlays/ein Name.dtbo", "back\\slash", "line\nbreak", "*star"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listed = encode_sums(dict.fromkeys(names, DIGEST))
    done = subprocess.run(
        ["sha256sum", "--strict", "-c"],
        cwd=tmp_path,
        input=listed,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = subprocess.run(
        ["sha256sum", "--", *names], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert parse_sums(made) == dict.fromkeys(names, DIGEST)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"nonsense\n", "line 1 is not"),
        (f"{DIGEST}  a\n{DIGEST[:-1]}  b\n".encode(), "line 2 is not"),
        (f"{DIGEST}  a\n{DIGEST}  a\n".encode(), "lists a a second time"),
        (f"{DIGEST}  a\n{DIGEST}  b".encode(), "cut off"),
        (f"\\{DIGEST}  a\\x\n".encode(), "line 1 is not"),
        (b"\xff\n", "byte 0 is not UTF-8"),
    ],
)
def test_a_damaged_list_names_the_line(data: bytes, why: str) -> None:
    with pytest.raises(SumsError, match=why):
        parse_sums(data)


@pytest.mark.parametrize(("path", "digest"), [("", DIGEST), ("a\0b", DIGEST), ("a", "abc")])
def test_what_is_no_digest_is_not_written(path: str, digest: str) -> None:
    with pytest.raises(ValueError, match="no digest and path"):
        encode_sums({path: digest})
