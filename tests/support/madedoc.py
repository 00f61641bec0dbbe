"""A part of a document that is made from the code, between two marks."""

from __future__ import annotations


def made_anew(text: str, begin: str, part: str, end: str) -> str:
    """``text`` with ``part`` between the marks ``begin`` and ``end``, which stay."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{part}\n{end}{after}"
