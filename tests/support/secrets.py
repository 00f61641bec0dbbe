"""Every way in which a private key could be seen, and where it is.

In: a key store, and named bytes: output, logs, arguments, files. Out: which key shows in which of
them. A key is looked for as its file's lines, as its binary form and as its secret numbers, each
raw, in hexadecimal, in decimal and in base64, so that no encoding on the way hides it.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_PART = 18
"""Bytes of a number that are looked for: 144 bits do not come about by chance."""


def data_of(path: Path) -> bytes:
    """What ``path`` holds but for blocks of zeros, of which an image is full."""
    with path.open("rb") as file:
        pieces = []
        for start, end in _data_ranges(file.fileno(), path.stat().st_size):
            data = os.pread(file.fileno(), end - start, start)
            blocks = (data[at : at + 4096] for at in range(0, len(data), 4096))
            pieces += [block for block in blocks if block.strip(b"\0")]
    return b"".join(pieces)


def _data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """(first byte, byte behind the last) of everything that is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def private_files(store: Path) -> list[Path]:
    """The private keys in ``store``."""
    found = [p for p in store.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert found, f"no key in {store}"
    return found


@cache
def traces(path: Path) -> frozenset[bytes]:
    """Byte strings of which one would be there wherever the key in ``path`` is."""
    text = path.read_bytes()
    numbers = _secret_numbers(text)
    # Lines as a whole: one that a secret number begins or ends in is public for the rest.
    wholes = [line for line in _secret_lines(text, numbers) if len(line) >= _PART]
    parts = {part for n in numbers for part in (n[:_PART], n[-_PART:])}
    return frozenset(form for part in (*parts, *wholes) for form in _forms(part))


def _secret_lines(text: bytes, numbers: Sequence[bytes]) -> Iterator[bytes]:
    """The file's lines that hold a part of a secret number; the others may be public."""
    lines = text.splitlines()[1:-1]
    whole, width = base64.b64decode(b"".join(lines)), len(lines[0]) * 3 / 4
    for number in numbers:
        at = whole.find(number)
        if at >= 0:
            yield from lines[int(at / width) : int((at + len(number) - 1) / width) + 1]


def leaks(store: Path, places: Mapping[str, bytes]) -> list[str]:
    """``file: place`` for every private key of ``store`` that shows in one of ``places``."""
    known = {path: traces(path) for path in private_files(store)}
    if not _any_shows(frozenset().union(*known.values()), list(places.values())):
        return []
    return [
        f"{path.relative_to(store)}: {name}"
        for path, forms in known.items()
        for name, content in places.items()
        if any(form in content for form in forms)
    ]


def _any_shows(forms: frozenset[bytes], contents: Sequence[bytes]) -> bool:
    """Whether one of ``forms`` is in one of ``contents``: grep looks for thousands of them in the
    time in which one is found here, where they are parts of a line."""
    with tempfile.NamedTemporaryFile() as patterns:
        patterns.write(b"\n".join(form for form in forms if b"\n" not in form))
        patterns.flush()
        done = subprocess.run(
            ["grep", "--quiet", "--text", "--fixed-strings", "--file", patterns.name],
            input=b"\n".join(contents),
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    assert done.returncode in (0, 1)
    longer = [form for form in forms if b"\n" in form]
    return done.returncode == 0 or any(form in each for form in longer for each in contents)


def _secret_numbers(text: bytes) -> list[bytes]:
    """The numbers that only the owner knows, as bytes and as the first digits of the decimal
    form in which Python or OpenSSL would print them."""
    key: object
    if b"OPENSSH" in text:
        key = serialization.load_ssh_private_key(text, password=None)
    else:
        key = serialization.load_pem_private_key(text, password=None)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return [key.private_bytes_raw()]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        numbers = [key.private_numbers().private_value]
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        own = key.private_numbers()
        numbers = [own.d, own.p, own.q, own.dmp1, own.dmq1, own.iqmp]
    decimal = [str(number).encode()[:40] for number in numbers]
    return [*(n.to_bytes((n.bit_length() + 7) // 8, "big") for n in numbers), *decimal]


def _forms(part: bytes) -> Iterator[bytes]:
    """``part`` as it would look in other encodings; base64 in each of the three positions that
    the bytes before it may put it in."""
    yield part
    yield part.hex().encode()
    yield part.hex().upper().encode()
    yield part.hex(":").encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + part)
        # What its neighbours share a letter with is left out.
        yield encoded[4 if shift else 0 : len(encoded) - 4]
