"""What a test measured, for people: printed when the run ends, whichever process ran the test.

``tell("both answered after 31 s")`` in a test; the summary has it beside the test's name, also
where the test failed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

Tell = Callable[[str], None]
_TOLD = "told"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Call it with what is to be read at the end."""
    return partial(record_property, _TOLD)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = [
        f"{report.nodeid}: {words}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, words in report.user_properties
        if name == _TOLD
    ]
    if told:
        terminalreporter.section("measured")
        for line in told:
            terminalreporter.write_line(line)
