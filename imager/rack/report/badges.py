"""The state of a node for people: in one word, what is wrong with it, and what to do.

In: a NodeView. Out: badges and sentences, for the report and for the live page.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.card.diagnosis.damage import Diagnosis
from imager.rack.history.events import Standing
from imager.rack.master.presence import Presence
from imager.rack.report.overview import NodeView


@dataclass(frozen=True, slots=True)
class Badge:
    """A state in one word. ``kind`` is good, warn, bad or none and decides the colour; ``mark`` is
    a sign with the same meaning for people who do not see the colour."""

    kind: str
    mark: str
    word: str


CARD_BADGES = {
    Standing.NEVER: Badge("none", "·", "no card yet"),
    Standing.CURRENT: Badge("good", "✓", "verified"),
    Standing.VERIFIED: Badge("good", "✓", "verified"),
    Standing.STALE: Badge("warn", "~", "out of date"),
    Standing.FAILED: Badge("bad", "✗", "failed"),
    Standing.CUT_SHORT: Badge("warn", "!", "cut short"),
    Standing.UNKNOWN: Badge("warn", "?", "unknown"),
}
PRESENCE_BADGES = {
    Presence.JOINED: Badge("good", "●", "joined"),
    Presence.SILENT: Badge("warn", "○", "does not answer"),
    Presence.PENDING: Badge("warn", "○", "key not accepted"),
    Presence.DENIED: Badge("bad", "✗", "key denied"),
    Presence.REJECTED: Badge("bad", "✗", "key rejected"),
    Presence.UNKNOWN: Badge("none", "○", "not seen yet"),
}
_NEVER_ASKED = Badge("none", "○", "master not asked")


def presence_badge(view: NodeView) -> Badge:
    """What the master last said of a node."""
    return PRESENCE_BADGES[view.seen.presence] if view.seen else _NEVER_ASKED


def advice_of(view: NodeView) -> list[str]:
    """What to do: first about the card, because without a good one a node cannot join."""
    if not view.card.is_good:
        return [view.card.hint] if view.card.hint else []
    found = [view.card.hint]
    if view.seen is not None:
        found += [view.seen.advice, view.seen.hint if view.seen.firstboot != "complete" else ""]
    return [text for text in found if text]


def findings_of(view: NodeView) -> list[str]:
    """All that is wrong or noteworthy, the most important first."""
    card, seen, receipt = view.card, view.seen, view.card.receipt
    found = [card.reason] if card.reason else []
    if receipt is not None:
        if receipt.trouble is not None:
            found += [receipt.trouble.meaning, *Diagnosis(receipt.trouble.found).lines]
        if card.is_good and not receipt.cache_bypassed:
            found.append("it was read back through the computer's cache, or not at all")
        found += receipt.fallbacks
    if seen is not None and seen.firstboot not in ("", "complete"):
        at = f" at {seen.step}" if seen.step else ""
        found.append(f"first boot {seen.firstboot}{at}{f': {seen.note}' if seen.note else ''}")
    return found
