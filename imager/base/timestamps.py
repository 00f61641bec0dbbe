"""Times as this program writes them into files and JSON: UTC, ISO 8601, with a ``Z`` at the end.

In: the clock, or seconds since 1970. Out: text such as ``2026-11-28T18:00:00Z``. Earlier versions
wrote ``+00:00`` in rack.lock and in the archive of releases; texts of both forms sort by time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_PRECISE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")


def timestamp(seconds: float | None = None, *, precise: bool = False) -> str:
    """``seconds`` since 1970, or now: in whole seconds, or with ``precise`` in milliseconds."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    text = when.isoformat(timespec="milliseconds" if precise else "seconds")
    return text.replace("+00:00", "Z")


def is_precise(text: str) -> bool:
    """Whether ``text`` has the form of a precise ``timestamp``."""
    return bool(_PRECISE.fullmatch(text))
