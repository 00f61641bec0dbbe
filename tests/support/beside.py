"""What may run beside what, where pytest has several processes (``-n``, as scripts/test has it).

An emulated computer keeps one core busy for minutes and shares nothing with anybody: each file of
tests/boot and tests/usb is a part of its own. Everything else is one part, in its order: those
tests share udevd, the loop devices' numbers and the idea that a disk is as fast as it was a moment
ago.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_EMULATED = ("tests/boot/", "tests/usb/")


class _ByPart(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.startswith(_EMULATED) else "the rest"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByPart(config, log)
