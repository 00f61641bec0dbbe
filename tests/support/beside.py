"""What may run beside what, where pytest has several processes (``-n auto``, as scripts/test has).

Most tests wait: for a slow card, for Salt's pauses, for udev. So there are more processes than
cores, and each file is a part of its own, those that wait longest first. What tests share they keep
apart themselves: udevd and the loop devices' numbers (``tests.support.loop``), folders in build/.

Emulated computers do not wait, they keep a core busy each. So all of tests/boot is one part, in
its order, and all of tests/usb another; the process that has such a part has nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_EMULATED = ("tests/boot", "tests/usb")
_BY_PATIENCE = (*_EMULATED, "tests/salt", "tests/fault", "tests/firstboot", "tests/device")
"""Who waits longest first; what is not named here comes last."""
_WAITING = 4
_KIB_EACH = 1 << 20
"""What a process may need with all it starts."""


class _ByPart(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((part for part in _EMULATED if file.startswith(f"{part}/")), file)

    def _assign_work_unit(self, node: WorkerController) -> None:
        part = next(iter(self.workqueue))
        super()._assign_work_unit(node)
        others = [each for each in self.nodes if each is not node and not each.shutting_down]
        if part in _EMULATED and others:
            node.shutdown()  # once it has done this


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
