"""What is known of a rack at this moment, asked again and again.

In: a rack, and who can say what its cards would be made from now. Out: its nodes, the run that is
at work, and why something cannot be read. Only what has changed since the last time is read again,
and looking writes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
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
from imager.rack.report.overview import OUT_OF_DATE_UNTOLD, NodeView, overview

_REST = 10.0
"""How long nothing is read again, in times of what the last reading took: a ledger of many years
must not keep a processor busy."""
_RECIPES_REST = 100.0
"""The same for what cards would be made from: it takes much longer, and overlays and keys, of which
it is made, are too many to be looked at each second."""
_RECIPES_SECONDS = 60.0
"""It is not asked again sooner than that, unless one of the rack's own files has changed."""
_Mark = tuple[int, ...] | None
Recipes = Callable[[Rack], Mapping[str, str]]
"""Says, by node, what its card would be made from now (``imager.node.content``)."""


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

    def __init__(self, rack: Rack, recipes: Recipes = lambda _: {}) -> None:
        """``recipes`` may raise any PicloudError where that cannot be told."""
        self._now = RackNow(rack)
        self._marks: tuple[_Mark, ...] = ()
        self._rests_until = 0.0
        self._receipts: dict[str, Receipt] = {}
        self._ask = recipes
        self._recipes: Mapping[str, str] = {}
        self._recipes_marks: tuple[_Mark, ...] = ()
        self._recipes_until = 0.0
        self._untold = ""

    def look(self) -> RackNow:
        """What is known now. What cannot be read stays as it was, with the reason."""
        try:
            self._look_again()
            run = read_live(self._now.rack.folder)
            self._now = replace(self._now, run=run, trouble=self._untold)
        except PicloudError as error:
            self._marks = ()
            self._now = replace(self._now, trouble=f"{error.what}: {error.hint}")
        return self._now

    def _look_again(self) -> None:
        if time.monotonic() < self._rests_until:
            return
        self._ask_recipes()
        began = time.monotonic()
        marks = tuple(self._marked())
        if marks == self._marks:
            return
        try:
            self._read(marks)
        finally:
            self._rests_until = began + _REST * (time.monotonic() - began)

    def _ask_recipes(self) -> None:
        """Learn what cards would be made from, if it is time to."""
        began, marks = time.monotonic(), tuple(self._marked_of_rack())
        # A run uses the processor for something better, and makes no card out of date.
        waits = began < self._recipes_until or self._now.run is not None
        if waits and marks == self._recipes_marks:
            return
        known, self._recipes_marks = self._recipes, marks
        try:
            self._recipes, self._untold = self._ask(load_rack(self._now.rack.folder)), ""
        except PicloudError as error:
            self._recipes, self._untold = {}, f"{OUT_OF_DATE_UNTOLD}: {error.what}: {error.hint}"
        if self._recipes != known:
            self._marks = ()
        ended = time.monotonic()
        self._recipes_until = ended + max(_RECIPES_SECONDS, _RECIPES_REST * (ended - began))

    def _read(self, marks: tuple[_Mark, ...]) -> None:
        rack = load_rack(self._now.rack.folder)
        known, self._receipts = self._receipts, {}

        def read(folder: TrustedFolder, name: str) -> Receipt:
            receipt = known.get(name) or _without_bulk(receipt_in(folder, name))
            self._receipts[name] = receipt
            return receipt

        views = overview(rack, self._recipes, read)
        self._now, self._marks = replace(self._now, rack=rack, views=views), marks

    def _marked_of_rack(self) -> Iterator[_Mark]:
        """For each file that says what the rack is made of, what tells whether it has changed."""
        rack = self._now.rack
        for name in (RACK_FILE, rack.lock_file.name, rack.candidate_file.name):
            yield _mark(TrustedFolder(rack.folder), name)

    def _marked(self) -> Iterator[_Mark]:
        """The same for each file that the nodes are read from."""
        yield from self._marked_of_rack()
        rack = self._now.rack
        for name in (LEDGER_FILE, PRESENCE_FILE):
            yield _mark(state_folder(rack.folder), name)
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
