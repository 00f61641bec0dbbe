"""Device trees: are those of a board's kinds there, whole, and theirs?

In: the files of the boot partition, and where each tree is looked for. Out: findings.
"""

from __future__ import annotations

from collections.abc import Iterator

from imager.base.boards import DeviceTree
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.formats.device_tree import root_compatible
from imager.bootcheck.meanings import finding
from imager.bootcheck.route.needs import Needs, tree_fault


def tree_findings(
    needs: Needs, trees: tuple[tuple[str, DeviceTree], ...], others: Severity | None = None
) -> Iterator[Finding]:
    """What is wrong with ``trees``, each with its path, of which the first is the usual board's;
    ``others`` is how grave it is for those of other boards, where it is less than usual."""
    for position, (path, tree) in enumerate(trees):
        found = list(_one(needs, path, tree))
        if position == 0:
            yield from found
        for fault in found if position else ():
            what = f"{fault.what} (needed by: {tree.boards})"
            yield finding(Code.DEVICE_TREE_BOARD, what, path=fault.path, severity=others)


def _one(needs: Needs, path: str, tree: DeviceTree) -> Iterator[Finding]:
    faults = list(needs.whole(Code.DEVICE_TREE, path, tree_fault))
    yield from faults
    if faults or not needs.contents.is_readable(path):
        return
    compatible = needs.contents.about(path, root_compatible)
    if compatible is None:
        return
    if not any(name.startswith(tree.compatible) for name in compatible):
        what = f"{path} is for {', '.join(compatible) or 'nobody'}, not for {tree.compatible}"
        yield finding(Code.DEVICE_TREE_MODEL, what, path=path)
