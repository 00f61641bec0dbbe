"""Which files of the archive pip brought from an index, and when.

In: a folder of the archive. Out: the time, or None. What came by ``archive import`` has no such
record, nor has what was archived before there were any: its bytes have the hash they are called by,
and nothing but a pin in rack.lock says that they are the right ones.
"""

from __future__ import annotations

import json

from imager.base.json_fields import JsonFault, read_object
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import KiB

_RECORD = "fetched.json"


def record_fetched(folder: TrustedFolder) -> None:
    """Record that pip brought what is in ``folder`` just now, perhaps not for the first time."""
    record = {"source": "pip", "fetched_at": timestamp()}
    folder.write(_RECORD, (json.dumps(record, indent=2) + "\n").encode())


def fetched_at(folder: TrustedFolder) -> str | None:
    """When pip last brought what is in ``folder``, a UTC time in ISO 8601; None where there is no
    record of that, or none that can be read."""
    try:
        return read_object(folder.read(_RECORD, 64 * KiB)).text("fetched_at")
    except (FileNotFoundError, JsonFault):
        return None
