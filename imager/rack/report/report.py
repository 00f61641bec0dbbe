"""The report: one HTML page of the whole rack, which needs no other file and prints on A4.

In: all that is known of the rack. Out: the text of the page. It has no script, loads nothing, and
has no secret in it: fingerprints are made from public keys. The template escapes all text that
comes from cards, readers and nodes, and the page's Content-Security-Policy forbids to run or load
anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from imager.base.programs import tool_version
from imager.base.units import format_rate, format_size
from imager.card.receipt.receipt import Receipt
from imager.config.rack import MASTER, Node, Rack
from imager.config.slot_labels import tower_and_place
from imager.node.keys.fingerprints import Fingerprints, fingerprints_of
from imager.node.keys.signing import fingerprint, known_public_key
from imager.rack.history.events import Standing
from imager.rack.master.presence import Presence
from imager.rack.report import curve
from imager.rack.report.badges import (
    CARD_BADGES,
    PRESENCE_BADGES,
    Badge,
    advice_of,
    findings_of,
    presence_badge,
)
from imager.rack.report.overview import CardState, NodeView, Tower, overview, pinned, towers
from imager.release.lock import RackLock

_TEMPLATE = Path(__file__).with_name("report.html.j2")
LOOK = Path(__file__).with_name("look.css").read_text()
"""The colours and shapes of every page about a rack."""


_BEST_FIRST = (
    Standing.CURRENT,
    Standing.VERIFIED,
    Standing.STALE,
    Standing.FAILED,
    Standing.CUT_SHORT,
    Standing.UNKNOWN,
    Standing.NEVER,
)


@dataclass(frozen=True, slots=True)
class NodePage:
    """What the page says about one node, as text for people."""

    node: Node
    place: str
    is_master: bool
    address: str
    card: Badge
    presence: Badge
    written_at: str
    facts: tuple[tuple[str, str], ...]
    prints: Fingerprints
    findings: tuple[str, ...]
    advice: tuple[str, ...]
    curve: curve.Curve | None


@dataclass(frozen=True, slots=True)
class TowerPage:
    """One tower, its nodes by place."""

    name: str
    nodes: tuple[NodePage, ...]


def render_report(rack: Rack, made_at: str, recipes: Mapping[str, str] | None = None) -> str:
    """The page of ``rack``, made at ``made_at`` (UTC, as text for people); ``recipes`` as for
    ``overview``.

    Raises as ``overview`` does.
    """
    views = overview(rack, recipes)
    lock = RackLock.load(rack.lock_file)
    stands = [_tower(rack, tower) for tower in towers(views)]
    pages = [page for tower in stands for page in tower.nodes]
    public = known_public_key(rack.folder)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text()).render(
        look=Markup(LOOK),  # noqa: S704 - our own file
        rack=rack,
        towers=stands,
        pages=pages,
        troubled=[page for page in pages if page.card.kind in ("bad", "warn") or _is_out(page)],
        counts=_counts(pages),
        legends={
            "Card": tuple(dict.fromkeys(page.card for page in pages)),
            "Salt master": tuple(dict.fromkeys(page.presence for page in pages)),
        },
        pins=tuple(dict.fromkeys(pinned(rack, node, lock) for node in rack.nodes)),
        stamp_key=fingerprint(public) if public else "",
        made_at=made_at,
        asked_at=max((view.seen.asked_at for view in views if view.seen), default=""),
        version=tool_version(),
        width=curve.WIDTH,
        height=curve.HEIGHT,
    )


def spoken_now() -> str:
    """The present time as text for people, for ``render_report``."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _is_out(page: NodePage) -> bool:
    return page.presence.kind == "bad" or page.presence.word == "does not answer"


def _counts(pages: Sequence[NodePage]) -> tuple[tuple[Badge, int], ...]:
    """How many nodes have each state of card, and how many joined; counts of 0 are left out."""
    cards = Counter(page.card for page in pages)
    order = dict.fromkeys(CARD_BADGES[standing] for standing in _BEST_FIRST)
    joined = sum(page.presence.word == "joined" for page in pages)
    counted = [(badge, cards[badge]) for badge in order if cards[badge]]
    return (*counted, (PRESENCE_BADGES[Presence.JOINED], joined))


def _tower(rack: Rack, tower: Tower) -> TowerPage:
    return TowerPage(tower.name, tuple(_page(rack, view) for view in tower.views))


def _page(rack: Rack, view: NodeView) -> NodePage:
    node, card = view.node, view.card
    place = tower_and_place(node.slot)[1] if node.slot else None
    receipt = card.receipt
    return NodePage(
        node=node,
        place=str(place) if place is not None else "",
        is_master=MASTER in node.roles,
        address=str(node.address) if node.address else "by DHCP",
        card=CARD_BADGES[card.standing],
        presence=presence_badge(view),
        written_at=_readable(card.at),
        facts=(*(_facts(receipt) if receipt else ()), *_saves(card)),
        prints=fingerprints_of(rack, node.name),
        findings=tuple(findings_of(view)),
        advice=tuple(advice_of(view)),
        curve=curve.curve_of(receipt.phases) if receipt else None,
    )


def _facts(receipt: Receipt) -> list[tuple[str, str]]:
    target, image = receipt.target, receipt.image
    made = " ".join(filter(None, (target.vendor, target.model))) or "not told by the reader"
    is_file = target.bus == "file"
    reader = target.slot.rpartition("/")[2]
    found = [
        ("written", _readable(receipt.finished_at)),
        ("card", f"{target.path if is_file else made}, {format_size(target.size_bytes)}"),
        ("serial", target.serial),
        ("CID", target.cid),
        ("reader", reader),
        (
            "release",
            f"{image.release_name}, sha256 {image.release_sha256[:16]}…"
            if image.release_name
            else "",
        ),
        ("image", f"{image.image_id[:16]}…, disk id {image.disk_id:08x}"),
        ("rate", f"{format_rate(receipt.bytes_per_second)} over all phases"),
    ]
    return [(name, text) for name, text in found if text]


def _saves(card: CardState) -> Iterator[tuple[str, str]]:
    """Whether it is a saved card, and where a card of the node was saved last."""
    if card.restored is not None:
        yield "restored", f"{card.restored.file}, saved {_readable(card.restored.saved_at)}"
    if card.saved is not None:
        yield "saved", f"{card.saved.file}, {_readable(card.saved.at)}"


def _readable(at: str) -> str:
    """``2026-11-23T06:05:04.123Z`` as ``2026-11-23 06:05 UTC``."""
    return f"{at[:10]} {at[11:16]} UTC" if len(at) >= 16 else at
