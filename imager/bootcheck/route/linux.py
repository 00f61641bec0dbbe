"""Linux, started by the firmware itself: kernel, device trees, initramfs and overlays.

In: the files of the boot partition, a board, config.txt as start*.elf reads it, and where it looks
for each file. Out: findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imager.base.boards import Board
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.formats import text
from imager.bootcheck.formats.cmdline import parse_cmdline
from imager.bootcheck.formats.config import Config
from imager.bootcheck.formats.initramfs import inspect_initramfs
from imager.bootcheck.formats.kernel import KernelFile, inspect_kernel
from imager.bootcheck.meanings import finding
from imager.bootcheck.route.needs import Needs, tree_fault
from imager.bootcheck.route.paths import SystemPaths
from imager.bootcheck.route.trees import tree_findings
from imager.bootcheck.route.width import width_findings

_LONGEST_INITRAMFS = 64
"""start*.elf reads the line as ``initramfs %64s followkernel``; so it stands in it."""


@dataclass(frozen=True, slots=True)
class Linux:
    """One board's kernel with all that goes with it."""

    needs: Needs
    model: Board
    config: Config
    paths: SystemPaths

    @property
    def has_initramfs(self) -> bool:
        """Whether an initramfs is loaded or is seen to be built into the kernel."""
        return bool(self.paths.initramfs) or self._kernel_has_init

    @property
    def bits(self) -> int | None:
        """Which programs the kernel runs: with 32 those of 32 bits only. None where that is not
        known."""
        return self._kernel_file.bits if self._kernel_file else None

    @property
    def _kernel_file(self) -> KernelFile | None:
        return self.needs.contents.about(self.paths.kernel, inspect_kernel)

    @property
    def _kernel_has_init(self) -> bool:
        return self._kernel_file is not None and self._kernel_file.own_init

    @property
    def _starts_another(self) -> bool:
        """Whether the command line names another program of the initramfs than its init, or was
        not read."""
        path = self.paths.cmdline
        line = parse_cmdline(text.meant(self.needs.contents.text(path) or b""))
        return line.value("rdinit") is not None or self.needs.contents.is_unseen(path)

    def findings(self) -> Iterator[Finding]:
        """What is wrong, in the order in which the firmware meets it."""
        if self.paths.refused_prefix:
            what = f"os_prefix={self.paths.refused_prefix}: there is no kernel with a device tree"
            yield finding(Code.OS_PREFIX, what, path="config.txt")
        yield from self._kernel()
        if self.paths.has_no_tree:
            named = self.config.settings["device_tree"]
            what = f"{named.path}, line {named.line}: device_tree= is empty and so turns it off"
            yield finding(Code.DEVICE_TREE, what, path=named.path)
        else:
            # Linux itself has no tree for each kind of board; the firmware takes the next best.
            others = Severity.WARNING if self.paths.is_upstream else None
            yield from tree_findings(self.needs, self.paths.trees, others)
        yield from self._initramfs()
        yield from self._overlays()

    def _kernel(self) -> Iterator[Finding]:
        path = self.paths.kernel
        yield from self.needs.whole(Code.KERNEL, path, inspect_kernel)
        yield from width_findings(self.model, self.paths, self._kernel_file)
        names = self.paths.kernel_names
        tried = [name for name in names if self.needs.contents.entry(self.paths.path(name))]
        widths = (self.model.kernels32, self.model.kernels64)
        if self.paths.is_64bit is None and all(set(tried) & set(wide) for wide in widths):
            yield finding(Code.KERNEL_CHOICE, f"there are {' and '.join(tried)}", path=path)

    def _initramfs(self) -> Iterator[Finding]:
        """Each file must be whole; the init may be in any of them, or in the kernel."""
        files = self.paths.initramfs
        faults = [
            fault
            for path in files
            for fault in self.needs.whole(Code.INITRAMFS, path, inspect_initramfs)
        ]
        yield from faults
        yield from self._long_names()
        seen = [self.needs.contents.about(path, inspect_initramfs) for path in files]
        told = [one.has_init for one in seen if one is not None]
        if faults or not files or len(told) < len(files) or self._kernel_has_init:
            return
        if all(has_init is False for has_init in told) and not self._starts_another:
            what = f"{' and '.join(files)}: cut off, or no initramfs: there is no init in it"
            yield finding(Code.INITRAMFS, what, path=files[0])

    def _long_names(self) -> Iterator[Finding]:
        """Names that do not fit where start*.elf keeps them."""
        named = self.config.settings.get("initramfs")
        if named is not None and len(named.value.encode()) > _LONGEST_INITRAMFS:
            what = (
                f"{named.path}, line {named.line}: {named.value} has {len(named.value.encode())} "
                f"bytes; of initramfs the firmware reads {_LONGEST_INITRAMFS}"
            )
            yield finding(Code.CONFIG_LINE, what, path=named.path)

    def _overlays(self) -> Iterator[Finding]:
        for overlay in self.paths.overlays:
            where = f"{overlay.setting.path}, line {overlay.setting.line}"
            fault = overlay.refused or self.needs.contents.fault(overlay.path, tree_fault)
            if fault:
                path = overlay.path or overlay.setting.path
                yield finding(Code.OVERLAY, f"{where}: {fault}", path=path)
