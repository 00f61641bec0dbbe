"""What is known of a rack at this moment, asked again and again.

In: a rack. Out: its nodes, the run that is at work, and why something cannot be read. Only what has
changed since the last time is read again, and looking writes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imager.base.errors import PicloudError
from imager.base.trusted_folder import TrustedFolder
from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import receipt_in
from imager.config.load import load_rack
from imager.config.rack import RACK_FILE, Rack, state_folder
from imager.disk.extents import ExtentMap
from imager.disk.manifest import Manifest
from imager.rack.history.ledger import LEDGER_FILE
from imager.rack.live.snapshot import LiveRun, read_live
from imager.rack.master.presence import PRESENCE_FILE
from imager.rack.report.overview import NodeView, overview

_REST = 10.0
"""How long nothing is read again, in times of what the last reading took: a ledger of many years
must not keep a processor busy."""
_Mark = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class RackNow:
    """The rack and its nodes as far as they could be read; ``trouble`` says what could not, and
    what to do, and is empty otherwise. ``run`` is the one at work."""

    rack: Rack
    views: tuple[NodeView, ...] = ()
    run: LiveRun | None = None
    trouble: str = ""


class Lookout:
    """Looks at one rack. Only one thread at a time may use it."""

    def __init__(self, rack: Rack) -> None:
        self._now = RackNow(rack)
        self._marks: tuple[_Mark, ...] = ()
        self._rests_until = 0.0
        self._receipts: dict[str, Receipt] = {}

    def look(self) -> RackNow:
        """What is known now. What cannot be read stays as it was, with the reason."""
        try:
            self._look_again()
            run = read_live(self._now.rack.folder)
            self._now = replace(self._now, run=run, trouble="")
        except PicloudError as error:
            self._marks = ()
            self._now = replace(self._now, trouble=f"{error.what}: {error.hint}")
        return self._now

    def _look_again(self) -> None:
        began = time.monotonic()
        if began < self._rests_until:
            return
        marks = tuple(self._marked())
        if marks == self._marks:
            return
        try:
            self._read(marks)
        finally:
            self._rests_until = began + _REST * (time.monotonic() - began)

    def _read(self, marks: tuple[_Mark, ...]) -> None:
        rack = load_rack(self._now.rack.folder)
        known, self._receipts = self._receipts, {}

        def read(folder: TrustedFolder, name: str) -> Receipt:
            receipt = known.get(name) or _without_bulk(receipt_in(folder, name))
            self._receipts[name] = receipt
            return receipt

        views = overview(rack, read=read)
        self._now, self._marks = replace(self._now, rack=rack, views=views), marks

    def _marked(self) -> Iterator[_Mark]:
        """For each file that the nodes are read from, what tells whether it has changed."""
        rack = self._now.rack
        state = state_folder(rack.folder)
        files = (
            (TrustedFolder(rack.folder), (RACK_FILE, rack.lock_file.name)),
            (state, (LEDGER_FILE, PRESENCE_FILE)),
        )
        for folder, names in files:
            for name in names:
                yield _mark(folder, name)
        try:
            yield (rack.receipts.changed(),)
        except FileNotFoundError:
            yield None


def _mark(folder: TrustedFolder, name: str) -> _Mark:
    try:
        with folder.open(name) as descriptor:
            status = os.fstat(descriptor)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _without_bulk(receipt: Receipt) -> Receipt:
    """``receipt`` without what a page has no use for: of a thousand nodes it is all that counts."""
    return replace(
        receipt,
        phases=(),
        boot_files={},
        manifest=Manifest(receipt.manifest.size_bytes, ExtentMap([]), ()),
    )
