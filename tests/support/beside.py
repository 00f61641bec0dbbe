"""What runs beside what, where pytest has several processes (``-n auto``, as scripts/test has).

Most tests wait: for an emulated computer, a slow card, Salt's pauses, udev. So there are more
processes than cores. Each file is a part of its own, in its order, and so is each test of some
files; those that wait longest are first. The processes beyond the first four begin at the other
end, with those that compute: so there is always something to do while the others wait. What tests
share they keep apart themselves: udevd and the loop devices' numbers (``tests.support.loop``), the
folders in build/ (a lock in each).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_EMULATED = ("tests/boot/", "tests/usb/")
_BY_PATIENCE = (
    "tests/boot/test_cold_rack.py",
    "tests/boot/test_join.py",
    "tests/usb/",
    "tests/boot/",
    "tests/salt/test_join.py",
    "tests/packaging/test_release.py",
    "tests/salt/",
    "tests/test_style.py",
    "tests/fault/test_matrix.py",
    "tests/fault/",
    "tests/firstboot/test_power_cut.py",
    "tests/firstboot/",
    "tests/image/test_secrets.py",
    "tests/device/",
    "tests/image/",
)
"""Who waits longest, on two idle cores. What is not named here comes last."""
_EACH_TEST = ("tests/salt/test_firstboot.py",)
"""Their tests share nothing, and each takes long."""
_WAITING = 4
_KIB_EACH = 1 << 20
"""What a process may need with all it starts."""


class _ByPart(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(_EACH_TEST) else nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if _computes(node):
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        # A process must know what is next before it begins the last test it has. Where that is one
        # of minutes, this is what is needed least: the last.
        parts = self.assigned_work[node].items()
        if any(part.startswith(_EMULATED) and not all(done.values()) for part, done in parts):
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def _computes(node: WorkerController) -> bool:
    return int(node.gateway.id.removeprefix("gw")) >= _WAITING


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # not by how many tests a part has
    return _ByPart(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many as wait and work, if the memory is enough."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    room = int(memory["MemAvailable"].split()[0]) // _KIB_EACH
    return max(1, min((os.cpu_count() or 1) + _WAITING, room))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first who waits longest, so that nobody waits for it alone at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.nodeid))


def _rank(test: str) -> int:
    return next(
        (rank for rank, path in enumerate(_BY_PATIENCE) if test.startswith(path)),
        len(_BY_PATIENCE),
    )
