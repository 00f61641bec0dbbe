"""What every test run shares: the stand-in release, and honesty about what was skipped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("picloud", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("picloud")

pytest_plugins = [
    "tests.support.onerun",
    "tests.support.sampling",
    "tests.support.again",
    "tests.support.beside",
    "tests.support.telling",
    "tests.support.standin",
    "tests.support.salt",
    "tests.support.bootrack",
    "tests.support.bootdisk",
]


def pytest_configure() -> None:
    """Let Ctrl-C through to whatever the tests start: a shell's background job ignores it, and so
    would all its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also the tests that take many minutes")
    parser.addoption(
        "--up-to",
        type=int,
        default=0,
        metavar="MINUTES",
        help="also the tests that take that long on two idle cores, each",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out unless they were asked for; left out is not skipped."""
    if config.getoption("--all"):
        return
    up_to = config.getoption("--up-to")
    long = [
        item
        for item in items
        for marker in item.iter_markers("long")
        if marker.kwargs["minutes"] > up_to
    ]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_report_header() -> str:
    able = {
        "root": os.geteuid() == 0,
        "loop devices": Path("/dev/loop-control").exists(),
    }
    return "able to use: " + (", ".join(name for name, yes in able.items() if yes) or "nothing")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where CI is set a skipped test is a failed run: there everything must be tried."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI") or exitstatus != 0:
        return
    if session.config.getoption("--skipped-to"):
        return  # they have a second chance
    skipped = reporter.stats.get("skipped", [])
    if skipped:
        reporter.ensure_newline()
        reporter.write_line(f"CI is set and {len(skipped)} tests were skipped: failed", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
