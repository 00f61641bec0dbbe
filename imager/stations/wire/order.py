"""What the head tells a station to do: which cards, from which golden image. No secret is in it.

In: a plan's values on the head; JSON on the station, which refuses what is not exactly an order.
Out: a WorkOrder. What makes a card the node's own, with its keys, comes apart from it as a secret
of the name ``CardWork.secret`` (``imager.stations.wire.delta``).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from imager.base.json_fields import JsonObject
from imager.config.hostname import name_fault
from imager.stations.wire.made_of import MadeOf, made_of_in
from imager.stations.wire.survey import (
    MOST_CARDS,
    bounded,
    digest,
    disk_path,
    short,
    slot_label,
)

ORDER_SECONDS = 300.0
"""A station begins no order that is older: the head may take one that never came for never
begun."""
CLOCK_SECONDS = 60.0
"""How much the clocks of head and station may differ."""
_KEY = re.compile(r"[0-9a-f]{32}\Z")
_JOB = re.compile(r"[0-9A-Za-z:.+-]{1,160}\Z")
"""A batch has some 30 letters, a host name up to 63."""
_MOST_SECONDS = 1e11


@dataclass(frozen=True, slots=True)
class GoldenWanted:
    """A golden image: its key, the digest of its manifest, its release (both SHA-256 in hex)."""

    key: str
    digest: str
    release_sha256: str


@dataclass(frozen=True, slots=True)
class CardWork:
    """One card: for which node, on which disk, which must still be what it was in the survey
    (``size_bytes``, ``diskseq``, ``first_mib``). ``image_id`` is what it will hold,
    ``recipe`` what that is made from, for the ledger."""

    node: str
    model: str
    path: str
    slot: str
    size_bytes: int
    diskseq: int
    first_mib: str | None
    image_id: str
    recipe: str
    secret: str


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """``job`` is a name that no other order has, ``batch`` the ledger's. ``rack`` is the public key
    (hex) with which every stamp of it must be signed. ``at`` is the head's time, in seconds since
    1970. ``update``, ``probe`` and ``at_once`` are as for ``rack flash``. With ``made_of`` the
    station is to make ``golden`` of what its archive has."""

    job: str
    batch: str
    rack: str
    version: str
    at: float
    golden: GoldenWanted
    cards: tuple[CardWork, ...]
    update: bool
    probe: bool
    at_once: int | None
    max_size_bytes: int
    made_of: MadeOf | None = None

    def to_json(self) -> dict[str, object]:
        """The object on the wire."""
        return asdict(self) | {"cards": [asdict(card) for card in self.cards]}


def order_from(read: JsonObject) -> WorkOrder:
    """The order in ``read``; raises JsonFault that names the field which is wrong."""
    bounded(read.items("cards"), MOST_CARDS, read)
    order = WorkOrder(
        job=named(read, "job"),
        batch=named(read, "batch"),
        rack=digest(read, "rack"),
        version=short(read, "version"),
        at=read.number("at", _MOST_SECONDS),
        golden=golden_from(read.child("golden")),
        cards=tuple(map(_card, read.children("cards"))),
        update=read.boolean("update"),
        probe=read.boolean("probe"),
        at_once=read.optional("at_once", lambda name: read.integer(name, 1)),
        max_size_bytes=read.integer("max_size_bytes"),
        made_of=made_of_in(read),
    )
    for what in ("node", "path", "secret"):
        if len({getattr(card, what) for card in order.cards}) < len(order.cards):
            raise read.fault("cards", f"two have the same {what}")
    return order


def golden_from(read: JsonObject) -> GoldenWanted:
    """A golden image as the head names it."""
    key = read.text("key")
    if not _KEY.match(key):
        raise read.fault("key", "is not the key of a golden image")
    return GoldenWanted(key, digest(read, "digest"), digest(read, "release_sha256"))


def named(read: JsonObject, name: str) -> str:
    """The name of a batch or a job, fit for the name of a file."""
    value = read.text(name)
    if not is_name(value):
        raise read.fault(name, "is not the name of a batch")
    return value


def is_name(value: str) -> bool:
    """Whether that may be the name of a batch, a job or a report."""
    return bool(_JOB.match(value)) and not value.startswith(".")


def node_named(read: JsonObject, name: str) -> str:
    """The name of a node."""
    value = short(read, name)
    if fault := name_fault(value):
        raise read.fault(name, fault)
    return value


def _card(read: JsonObject) -> CardWork:
    return CardWork(
        node=node_named(read, "node"),
        model=short(read, "model"),
        path=disk_path(read, "path"),
        slot=slot_label(read, "slot") if read.text("slot") else "",
        size_bytes=read.integer("size_bytes"),
        diskseq=read.integer("diskseq"),
        first_mib=read.optional("first_mib", lambda name: digest(read, name)),
        image_id=digest(read, "image_id"),
        recipe=digest(read, "recipe"),
        secret=named(read, "secret"),
    )
