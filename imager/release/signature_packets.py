"""The signatures in a file, told apart without looking into them.

In: the bytes of a detached signature, armoured or binary. Out: each signature packet by itself.
The form is RFC 9580's, 4.2 (packets) and 6.2 (armour). What is anything else is refused here,
before the library sees it: that would unpack a compressed packet, of which a few hundred bytes may
become gigabytes.
"""

from __future__ import annotations

import base64

_SIGNATURE = 2
_MOST = 16
"""Files of sums have two or three. Each may cost another reading of what was signed."""
_BEGIN, _END = b"-----BEGIN PGP SIGNATURE-----", b"-----END PGP SIGNATURE-----"


def signature_packets(data: bytes) -> tuple[bytes, ...]:
    """Each packet with its header; of very many the first. Raises ValueError where there is none,
    or anything else before them or among them."""
    raw = _dearmoured(data)
    found: list[bytes] = []
    position = 0
    while position < len(raw) and len(found) < _MOST:
        end = _end_of(raw, position)
        found.append(raw[position:end])
        position = end
    if not found:
        raise ValueError("nothing")
    return tuple(found)


def _dearmoured(data: bytes) -> bytes:
    """``data`` itself where it is binary. The checksum behind the text is not needed: a signature
    that was damaged is none."""
    _, begin, rest = data.partition(_BEGIN)
    if not begin:
        return data
    text, end, _ = rest.partition(_END)
    if not end:
        raise ValueError("armour without an end")
    # Headers have a colon, as "Version: GnuPG v2".
    lines = [line.strip() for line in text.splitlines() if b":" not in line]
    body = b"".join(line for line in lines if not line.startswith(b"="))
    return base64.b64decode(body, validate=True)


def _end_of(raw: bytes, position: int) -> int:
    """Where the packet at ``position`` ends."""
    first, *rest = raw[position : position + 6]
    if not first & 0x80:
        raise ValueError("no packet")
    is_new = bool(first & 0x40)
    tag = first & 0x3F if is_new else first >> 2 & 0xF
    if tag != _SIGNATURE:
        raise ValueError(f"a packet of kind {tag}")
    width, length = _new_length(rest) if is_new else _old_length(first & 3, rest)
    end = position + 1 + width + length
    if end > len(raw):
        raise ValueError("a packet that is cut short")
    return end


def _new_length(rest: list[int]) -> tuple[int, int]:
    """How many bytes the length takes, and the length."""
    first = rest[0] if rest else 0
    if first < 192:
        return 1, first
    if first < 224 and len(rest) > 1:
        return 2, (first - 192 << 8) + rest[1] + 192
    if first == 255:
        return 5, int.from_bytes(rest[1:5], "big")
    raise ValueError("a packet in parts")


def _old_length(kind: int, rest: list[int]) -> tuple[int, int]:
    """The same of the older form; ``kind`` says how many bytes it takes."""
    if kind == 3:
        raise ValueError("a packet without a length")
    width = 1 << kind
    return width, int.from_bytes(rest[:width], "big")
