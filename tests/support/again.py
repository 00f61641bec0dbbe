"""Two runs that are one: an ordinary user's, and root's of what that user had to leave out.

``pytest --skipped-to FILE`` writes down what was skipped, a line each; ``pytest --only-from FILE``
with the same arguments runs that and nothing else. So no test runs twice, and no list of folders
has to know which of them need root. ``scripts/test`` does both.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("picloud-image")
    group.addoption("--skipped-to", type=Path, metavar="FILE", help="write down what is skipped")
    group.addoption("--only-from", type=Path, metavar="FILE", help="run what FILE names only")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the first run did."""
    named = config.getoption("--only-from")
    if named is None:
        return
    wanted = set(named.read_text().splitlines())
    chosen = [item for item in items if not wanted.isdisjoint(_names(item))]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _names(item: pytest.Item) -> tuple[str, str]:
    """Its own, and that of its file, which may have been skipped as a whole."""
    return item.nodeid, item.nodeid.partition("::")[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write down what was skipped."""
    place = session.config.getoption("--skipped-to")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if place is not None and reporter is not None:
        skipped = dict.fromkeys(report.nodeid for report in reporter.stats.get("skipped", []))
        place.write_text("".join(f"{name}\n" for name in skipped))
