"""The page, in parts: a part that has not changed since the last time is not sent again.

In: a RackNow. Out: the text of each part, of what has changed since an earlier page, and of a whole
page. The template escapes all text that comes from cards, readers, nodes and people.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from imager.base.programs import tool_version
from imager.config.rack import Rack
from imager.rack.live.snapshot import LiveCard
from imager.rack.page.lookout import RackNow
from imager.rack.page.words import (
    Cell,
    cell_of,
    counts_of,
    desks_of,
    live_by_node,
    run_line,
    trouble_of,
)
from imager.rack.report.badges import Badge
from imager.rack.report.overview import NodeView, towers
from imager.rack.report.report import LOOK

_TEMPLATE = Path(__file__).with_name("page.html.j2")
STYLE = LOOK + Path(__file__).with_name("page.css").read_text()
SCRIPT = Path(__file__).with_name("page.js").read_text()
REFRESH_SECONDS = 5
"""How often a browser without JavaScript loads the page anew."""

_Stands = tuple[tuple[str, tuple[str, ...]], ...]
_Seen = tuple[NodeView, LiveCard | None]


@dataclass(frozen=True, slots=True)
class Page:
    """The page as it stands: its ``parts`` by the names of the elements they fill, the towers with
    the nodes of each, and the stations at work. No two pages of one server have the same
    ``number``."""

    number: str
    rack: Rack
    stands: _Stands
    desks: tuple[str, ...]
    parts: Mapping[str, Markup]

    @property
    def _frame(self) -> tuple[object, ...]:
        """What decides which elements there are."""
        return self.rack.name, self.stands, self.desks

    def since(self, old: Page | None) -> dict[str, str]:
        """What must be shown anew where ``old`` is shown: the parts that differ, or all of it as
        the part ``main`` if other elements are needed."""
        if old is None or old._frame != self._frame:
            return {"main": self.main()}
        return {name: text for name, text in self.parts.items() if old.parts[name] != text}

    def main(self) -> Markup:
        """All that is on the page."""
        return _macro("main", self.rack, self.stands, self.desks, self.parts)

    def whole(self) -> str:
        """A document, for a browser that asks for the first time."""
        number, version = self.number, tool_version()
        made = _macro("whole", self.rack, self.main(), number, version, REFRESH_SECONDS)
        return str(made.strip())


class Pages:
    """Makes pages one after the other. What is known of a node and has not changed is not put into
    words again."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._made = 0
        self._last: Page | None = None
        self._cells: dict[str, tuple[_Seen, Cell, Markup]] = {}

    def page(self, now: RackNow) -> Page:
        """The page of ``now``: the last one, if nothing on it has changed."""
        live = live_by_node(now.run)
        cells = [self._cell(view, live.get(view.node.name)) for view in now.views]
        troubles = [trouble_of(view, live.get(view.node.name)) for view in now.views]
        run = run_line(now.run) if now.run is not None else None
        shown = [cell for cell, _ in cells]
        counts = counts_of(shown, in_run=run is not None)
        todo = [trouble for trouble in troubles if trouble is not None]
        said = run.said if run is not None else ()
        parts = {
            "standing": Markup.escape(run.standing if run else "Nothing is at work."),
            "fault": _macro("fault", now.trouble),
            "now": _macro("now", run),
            "counts": _macro("counts", counts),
            "further": _macro("further", len(todo), len(said)),
            "legends": _legends(now, shown, [badge for badge, _ in counts[:-1]]),
            "todo": _macro("todo", todo),
            "said": _macro("said", said),
        }
        parts |= {f"node-{cell.name}": text for cell, text in cells}
        desks = desks_of(now.run) if now.run is not None else {}
        for place, its in enumerate(desks.values(), 1):
            parts[f"desk-{place}"] = _macro("desk", its)
        stands = tuple(
            (tower.name, tuple(view.node.name for view in tower.views))
            for tower in towers(now.views)
        )
        last = self._last
        number = f"{self._name}-{self._made + 1}"
        page = Page(number, now.rack, stands, tuple(desks), parts)
        if last is None or page.since(last):
            self._made += 1
            last = self._last = page
        return last

    def _cell(self, view: NodeView, live: LiveCard | None) -> tuple[Cell, Markup]:
        name = view.node.name
        known = self._cells.get(name)
        if known is None or known[0][0] is not view or known[0][1] != live:
            cell = cell_of(view, live)
            known = self._cells[name] = ((view, live), cell, _macro("cell", cell))
        return known[1], known[2]


def _legends(now: RackNow, cells: Sequence[Cell], cards: Sequence[Badge]) -> Markup:
    asked = max((view.seen.asked_at for view in now.views if view.seen), default="")
    listed = {
        "Card": cards,
        "Salt master": tuple(dict.fromkeys(cell.presence for cell in cells)),
    }
    return _macro("legends", listed.items(), asked[:16].replace("T", " ") + " UTC" if asked else "")


def _template() -> Environment:
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


_MACROS = _template().from_string(_TEMPLATE.read_text()).module


def _macro(name: str, *values: object) -> Markup:
    """What the macro ``name`` of the template makes of ``values``."""
    made: Markup = getattr(_MACROS, name)(*values)
    return made
