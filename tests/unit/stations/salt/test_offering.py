"""Files that a master hands out are those that were sent last."""

from __future__ import annotations

from pathlib import Path

from imager.rack.master.connection import Door
from imager.stations.salt.offering import send


def test_a_file_that_was_sent_anew_is_told_from_the_one_before(tmp_path: Path) -> None:
    """A master digests a file once for each time at which it was changed: two with one time are
    one to it, and a new version of the program reached no station."""
    door = Door("it", ("sh", "-s"), is_local=True)
    times = []
    for content in (b"one", b"two"):
        send(door, str(tmp_path), {"_modules/it.py": content})
        assert (tmp_path / "_modules/it.py").read_bytes() == content
        times.append((tmp_path / "_modules/it.py").stat().st_mtime_ns)
    assert times[0] < times[1]
