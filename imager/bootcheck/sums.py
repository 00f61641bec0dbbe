"""The list of boot files and their SHA-256 that every card carries: ``picloud/SHA256SUMS``.

In: paths and digests, or the bytes of such a list. Out: the other one. The format is that of
sha256sum(1), so ``sha256sum -c picloud/SHA256SUMS`` works on any computer where the boot partition
is mounted. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SUMS_PATH = "picloud/SHA256SUMS"
"""Where the list lies on the boot partition. It lists every boot file but itself and
``picloud/firstboot.*``, which the node writes."""
MAX_SUMS_BYTES = 1 << 20
"""A longer list is not read: it would be one of 10,000 files, and a release has 700 at most."""

_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_UNESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}


class SumsError(ValueError):
    """The list cannot be read; the message names the line."""


def encode_sums(digests: Mapping[str, str]) -> bytes:
    """The list of ``digests`` (path → SHA-256 in hex), sorted by path.

    A path with a backslash or a line break is escaped as sha256sum(1) does. Raises ValueError when
    one of ``digests`` has a wrong digest or an impossible path.
    """
    lines = []
    for path, digest in sorted(digests.items()):
        if not path or "\0" in path or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(f"no digest and path: {digest!r} {path!r}")
        escaped = "".join(_ESCAPES.get(character, character) for character in path)
        mark = "\\" if escaped != path else ""
        lines.append(f"{mark}{digest}  {escaped}\n")
    return "".join(lines).encode()


def parse_sums(data: bytes) -> dict[str, str]:
    """Path → SHA-256 in hex (lower case); raises SumsError."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SumsError(f"byte {error.start} is not UTF-8") from None
    digests: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        path = _unescape(match[3]) if match and match[1] else match and match[3]
        if match is None or not path:
            raise SumsError(f"line {number} is not a digest and a path: {line[:80]!r}")
        if path in digests:
            raise SumsError(f"line {number} lists {path} a second time")
        digests[path] = match[2].lower()
    if data and not data.endswith(b"\n"):
        raise SumsError("the last line is cut off")
    return digests


def _unescape(text: str) -> str | None:
    pairs = _ESCAPED.findall(text)
    if any(pair not in _UNESCAPES for pair in pairs):
        return None
    return _ESCAPED.sub(lambda match: _UNESCAPES[match[1]], text)
