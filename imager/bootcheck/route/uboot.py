"""U-Boot in the place of a kernel.

In: the files of the boot partition, a board, and its Route. Out: findings. U-Boot of the
distribution's 64-bit release is followed: it finds its devices in the tree that the firmware gives
it, and loads another one for the kernel by the board's number. Of any other it is known only that
the firmware can load it, and that a boot.scr, where there is one, is whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from imager.base.boards import Board
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.formats.initramfs import initramfs_fault
from imager.bootcheck.formats.kernel import boot_script_fault, inspect_kernel
from imager.bootcheck.meanings import finding
from imager.bootcheck.route.chain import BOOT_SCRIPT, Route
from imager.bootcheck.route.needs import LOST, Needs, cheap
from imager.bootcheck.route.paths import SystemPaths
from imager.bootcheck.route.trees import tree_findings
from imager.bootcheck.route.width import page_findings

IMAGE = "Image"
"""The kernel of the distribution's 64-bit release."""
_TREES = "dtbs/broadcom/"
_INITRAMFS = "initramfs-linux.img"
_SCRIPT = cheap(boot_script_fault)


def uboot_findings(
    needs: Needs, model: Board, route: Route, paths: SystemPaths
) -> Iterator[Finding]:
    """What is wrong with U-Boot and, where it is followed, with what it loads."""
    if not route.followed:
        # Of a foreign one no more need be known than that it is not lost.
        yield from needs.whole(Code.KERNEL, route.path, LOST)
        # What stands in extlinux is asked for before a script is.
        contents = needs.contents
        if contents.entry(BOOT_SCRIPT) and not contents.may_have_folder("extlinux"):
            yield from needs.whole(Code.BOOT_SCRIPT, BOOT_SCRIPT, _SCRIPT)
        return
    yield from needs.whole(Code.KERNEL, route.path, inspect_kernel)
    yield from tree_findings(needs, paths.trees)
    yield from needs.whole(Code.BOOT_SCRIPT, BOOT_SCRIPT, _SCRIPT)
    yield from needs.whole(Code.KERNEL, IMAGE, inspect_kernel)
    image = needs.contents.about(IMAGE, inspect_kernel)
    if image is not None:
        yield from page_findings(model, IMAGE, image)
    yield from tree_findings(needs, tuple((_TREES + t.file, t) for t in model.uboot_trees))
    if not model.uboot_trees:
        what = f"{route.path} is a U-Boot that starts no {model.title}"
        yield finding(Code.UBOOT_BOARD, what, path=route.path)
    if needs.contents.entry(_INITRAMFS) is not None:
        yield from needs.whole(Code.INITRAMFS, _INITRAMFS, initramfs_fault)
