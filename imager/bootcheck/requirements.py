"""Would this boot partition start this model?

In: the files of the partition, a model, and the names of the root partition. Out: findings, and
which files the boot needs. The order is the firmware's own: bootcode.bin, the start and fixup files
that config.txt chooses, kernel, device tree, initramfs, command line. A release that boots through
U-Boot has its script and what that loads instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imager.base.boards import Board, DeviceTree
from imager.bootcheck.contents import Contents, Judge
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.formats import cmdline, config, firmware
from imager.bootcheck.formats.device_tree import FdtError, root_compatible
from imager.bootcheck.formats.initramfs import initramfs_fault
from imager.bootcheck.formats.kernel import boot_script_fault, inspect_kernel
from imager.bootcheck.meanings import finding
from imager.bootcheck.root.names import NamedPartition
from imager.bootcheck.root.roots import Roots
from imager.disk.budget import Budget

_NOTE_CODES = {
    config.NoteKind.LINE_TOO_LONG: Code.CONFIG_LINE,
    config.NoteKind.SYNTAX: Code.CONFIG_LINE,
    config.NoteKind.INCLUDE_MISSING: Code.CONFIG_LINE,
    config.NoteKind.TOO_MUCH: Code.NOT_LOOKED_AT,
}
_FILE_KEYS = frozenset({"kernel", "initramfs", "ramfsfile", "device_tree", "start_file"})
_KERNELS64 = ("kernel8.img", "kernel_2712.img")
_UBOOT_TREES = "dtbs/broadcom/"
_OFF = ("", "0")


def kernel_fault(data: bytes, budget: Budget | None = None) -> str | None:
    """What is wrong with a kernel file of any kind."""
    return inspect_kernel(data, budget).fault


def tree_fault(data: bytes, budget: Budget | None = None) -> str | None:
    """What is wrong with a device tree."""
    try:
        root_compatible(data, budget)
    except FdtError as error:
        return str(error)
    return None


def _cheap(judge: Callable[[bytes], str | None]) -> Judge[str | None]:
    """A judge whose work is next to nothing whatever the file holds."""
    return lambda data, _: judge(data)


_BOOTCODE, _START = _cheap(firmware.bootcode_fault), _cheap(firmware.start_fault)
_FIXUP, _BUILD = _cheap(firmware.fixup_fault), _cheap(firmware.build_id)
_SCRIPT = _cheap(boot_script_fault)


class Requirements:
    """What one board needs of one boot partition; ``needed`` collects the files it uses."""

    def __init__(self, contents: Contents, model: Board, roots: Roots) -> None:
        self.contents = contents
        self.model = model
        self.roots = roots
        self.root: NamedPartition | None = roots.presumed
        self.config = config.read_config(contents.text, model)
        self.needed: set[str] = set()
        self.prefix = self.config.value("os_prefix")

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong for this model; ``needed`` is complete at the end."""
        yield from self._config()
        yield from self._firmware()
        if self._has_uboot():
            yield from self._uboot()
            return
        yield from self._prefix()
        yield from self._kernel()
        yield from self._device_trees()
        has_initramfs = False
        for name in self._initramfs_names():
            has_initramfs = True
            yield from self._whole(Code.INITRAMFS, self.prefix + name, initramfs_fault)
        yield from self._overlays()
        yield from self._cmdline(initramfs=has_initramfs)

    def _need(self, path: str) -> None:
        entry = self.contents.entry(path)
        self.needed.add(path if entry is None else entry.path)

    def _whole(self, code: Code, path: str, judge: Judge[str | None]) -> Iterator[Finding]:
        """The finding ``code`` when ``path`` is missing, empty or damaged."""
        self._need(path)
        fault = self.contents.fault(path, judge)
        if fault is not None:
            yield finding(code, fault, path=path)

    # -- config.txt ----------------------------------------------------------------------------

    def _config(self) -> Iterator[Finding]:
        self._need("config.txt")
        if self.contents.entry("config.txt") is None:
            yield finding(Code.CONFIG_MISSING, "config.txt is missing", path="config.txt")
        for note in self.config.notes:
            yield finding(_NOTE_CODES[note.kind], note.what, path=note.path)
        for setting in self.config.undecided:
            missing = setting.value and self.contents.entry(self.prefix + setting.value) is None
            if setting.key in _FILE_KEYS and missing:
                what = f"{setting.path}, line {setting.line}: {setting.value} is missing"
                yield finding(Code.CONFIG_UNDECIDED, what, path=setting.path)
        if self.contents.entry("autoboot.txt") is not None:
            yield finding(Code.AUTOBOOT, "autoboot.txt is there", path="autoboot.txt")

    # -- firmware ------------------------------------------------------------------------------

    def _variant(self) -> str:
        """Which firmware config.txt chooses; only gpu_mem=16 chooses the small one."""
        settings = self.config
        memory = settings.number(self.model.memory_key)
        memory = settings.number("gpu_mem") if memory is None else memory
        if memory is not None and memory <= 16:
            return "cd"
        if settings.value("start_debug") not in _OFF:
            return "db"
        return "x" if settings.value("start_x") not in _OFF else ""

    def _firmware(self) -> Iterator[Finding]:
        if self.model.needs_bootcode:
            yield from self._whole(Code.BOOTCODE, "bootcode.bin", _BOOTCODE)
        pair = self.model.firmware_pair(self._variant())
        if pair is None:
            return
        start, fixup = pair
        start = self.config.value("start_file") or start
        fixup = self.config.value("fixup_file") or fixup
        faults = [
            *self._whole(Code.START, start, _START),
            *self._whole(Code.FIXUP, fixup, _FIXUP),
        ]
        yield from faults
        readable = self.contents.is_readable(start) and self.contents.is_readable(fixup)
        if not faults and readable:
            yield from self._pair(start, fixup)

    def _pair(self, start: str, fixup: str) -> Iterator[Finding]:
        # Files that are as the release has them are a pair: its makers know better than we do.
        if self.contents.proven(start) and self.contents.proven(fixup):
            return
        start_data, fixup_data = self.contents.read(start) or b"", self.contents.read(fixup) or b""
        if not firmware.knows_fixup(fixup_data):
            what = f"{fixup} is of an unknown form"
            yield finding(Code.FIRMWARE_UNPROVEN, what, path=fixup)
            return
        fault = firmware.pair_fault(start_data, fixup_data)
        if fault is not None:
            yield finding(Code.FIRMWARE_PAIR, f"{start} and {fixup}: {fault}", path=start)
        build = self.contents.about(start, _BUILD)
        pairs = (self.model.firmware_pair(variant) for variant in ("", "cd", "x", "db"))
        for other, _ in filter(None, pairs):
            other_build = self.contents.about(other, _BUILD)
            if build and other_build and build != other_build:
                what = f"{start} is of build {build[:12]}, {other} of build {other_build[:12]}"
                yield finding(Code.FIRMWARE_MIXED, what, path=other)

    # -- kernel and device tree ----------------------------------------------------------------

    def _kernel_names(self) -> tuple[str, ...]:
        """The kernels the firmware tries, first one first."""
        named = self.config.value("kernel")
        if named:
            return (named,)
        narrow, wide = self.model.kernels32, self.model.kernels64
        wanted = self.config.number("arm_64bit")
        if not narrow or not wide:
            return narrow or wide
        if wanted is not None:
            return wide if wanted else narrow
        return (*wide, *narrow) if self.model.prefers_64bit else (*narrow, *wide)

    def _kernel_path(self) -> str:
        """The kernel that will be loaded, or the first name tried where none is there."""
        names = [self.prefix + name for name in self._kernel_names()]
        return next((name for name in names if self.contents.entry(name)), names[0])

    def _prefix(self) -> Iterator[Finding]:
        if not self.prefix:
            return
        trees = [tree.file for tree in self._trees()]
        has_tree = any(self.contents.entry(self.prefix + tree) for tree in trees)
        if self.contents.entry(self._kernel_path()) is None or not has_tree:
            what = f"os_prefix={self.prefix}: there is no kernel with a device tree"
            yield finding(Code.OS_PREFIX, what, path="config.txt")
            self.prefix = ""

    def _kernel(self) -> Iterator[Finding]:
        path = self._kernel_path()
        yield from self._whole(Code.KERNEL, path, kernel_fault)
        kernel = self.contents.about(path, inspect_kernel)
        bits = kernel.bits if kernel else None
        if not self.model.kernels64 and (bits == 64 or self.config.number("arm_64bit")):
            what = f"{path} is a 64-bit kernel" if bits == 64 else "config.txt sets arm_64bit=1"
            yield finding(
                Code.KERNEL_WIDTH, f"{what}; a {self.model.title} cannot run it", path=path
            )
        elif bits == 32 and path.endswith(_KERNELS64):
            what = f"{path} is a 32-bit kernel under the name of a 64-bit one"
            yield finding(Code.KERNEL_WIDTH, what, path=path)
        elif bits == 32 and not self.model.kernels32:
            what = f"{path} is a 32-bit kernel; a {self.model.title} cannot run it"
            yield finding(Code.KERNEL_WIDTH, what, path=path)
        tried = [name for name in self._kernel_names() if self.contents.entry(self.prefix + name)]
        undecided = self.config.number("arm_64bit") is None
        widths = (self.model.kernels32, self.model.kernels64)
        if undecided and all(set(tried) & set(names) for names in widths):
            yield finding(Code.KERNEL_CHOICE, f"there are {' and '.join(tried)}", path=path)

    def _trees(self) -> tuple[DeviceTree, ...]:
        """The device trees of the firmware: the named one, else one per kind of board."""
        named = self.config.settings.get("device_tree")
        own = self.model.device_trees
        if named is None or not named.value:
            return own
        return (DeviceTree(named.value, own[0].compatible, self.model.title),)

    def _device_trees(self) -> Iterator[Finding]:
        named = self.config.settings.get("device_tree")
        if named is not None and not named.value:
            what = f"{named.path}, line {named.line}: device_tree= is empty and so turns it off"
            yield finding(Code.DEVICE_TREE, what, path=named.path)
            return
        yield from self._each_tree(self.prefix, self._trees())

    def _each_tree(self, folder: str, trees: tuple[DeviceTree, ...]) -> Iterator[Finding]:
        """What is wrong with ``trees`` in ``folder``, of which the first is the usual board's."""
        for position, tree in enumerate(trees):
            found = list(self._device_tree(folder + tree.file, tree))
            if position == 0:
                yield from found
            for fault in found if position else ():
                what = f"{fault.what} (needed by: {tree.boards})"
                yield finding(Code.DEVICE_TREE_BOARD, what, path=fault.path)

    def _device_tree(self, path: str, tree: DeviceTree) -> Iterator[Finding]:
        faults = list(self._whole(Code.DEVICE_TREE, path, tree_fault))
        yield from faults
        if faults or not self.contents.is_readable(path):
            return
        compatible = self.contents.about(path, root_compatible)
        if compatible is None:
            return
        if not any(name.startswith(tree.compatible) for name in compatible):
            what = f"{path} is for {', '.join(compatible) or 'nobody'}, not for {tree.compatible}"
            yield finding(Code.DEVICE_TREE_MODEL, what, path=path)

    # -- initramfs, overlays, command line ------------------------------------------------------

    def _initramfs_names(self) -> Iterator[str]:
        for key in ("initramfs", "ramfsfile"):
            yield from filter(None, self.config.value(key).split(","))
        kernel = self._kernel_names()[0]
        if self.config.number("auto_initramfs") and kernel.startswith("kernel"):
            name = kernel.replace("kernel", "initramfs", 1).removesuffix(".img")
            # The firmware loads it "if found".
            if self.contents.entry(self.prefix + name):
                yield name

    def _overlays(self) -> Iterator[Finding]:
        folder = self.config.value("overlay_prefix", "overlays/")
        # A prefix without a README of its own shares the common overlays.
        own = self.prefix and self.contents.entry(f"{self.prefix}{folder}README")
        for setting in self.config.overlays:
            name = setting.value.split(",")[0].split(":")[0]
            path = f"{self.prefix if own else ''}{folder}{name}.dtbo"
            fault = self.contents.fault(path, tree_fault)
            if fault is not None:
                what = f"{setting.path}, line {setting.line}: {fault}"
                yield finding(Code.OVERLAY, what, path=path)

    def _cmdline(self, *, initramfs: bool) -> Iterator[Finding]:
        path = self.prefix + (self.config.value("cmdline") or "cmdline.txt")
        self._need(path)
        data = self.contents.text(path)
        if not (data or b"").strip():
            what = f"{path} is {'missing' if data is None else 'empty'}"
            yield finding(Code.CMDLINE_MISSING, what, path=path)
            yield from self.roots.presumed_findings()
            return
        line = cmdline.parse_cmdline(data or b"")
        if line.extra is not None:
            number, text = line.extra
            what = f"{path} has a second line (line {number}): {text[:60]!r}"
            yield finding(Code.CMDLINE_LINES, what, path=path)
        if line.length > cmdline.MAX_BYTES or line.has_control:
            what = f"has {line.length} bytes" if not line.has_control else "has a control character"
            yield finding(Code.CMDLINE_TEXT, f"{path} {what}", path=path)
        if "rootwait" not in line.words:
            yield finding(Code.ROOTWAIT, f"{path} has no rootwait", path=path)
        self.root = self.roots.named(line, initramfs=initramfs) or self.root
        yield from self.roots.findings(line, path, initramfs=initramfs)

    # -- U-Boot --------------------------------------------------------------------------------

    def _has_uboot(self) -> bool:
        """Whether the firmware starts U-Boot, which runs boot.scr, and no kernel."""
        if self.contents.entry("boot.scr") is None or not self.model.kernels64:
            return False
        kernel = self.contents.about(self._kernel_path(), inspect_kernel)
        return kernel is None or kernel.bits is None

    def _uboot(self) -> Iterator[Finding]:
        """A release whose kernel8.img is U-Boot, with the kernel in Image and root in boot.scr.

        U-Boot finds its devices in the tree that the firmware gives it, and loads another one for
        the kernel by the board's number.
        """
        yield from self._whole(Code.KERNEL, self._kernel_path(), kernel_fault)
        yield from self._device_trees()
        yield from self._whole(Code.BOOT_SCRIPT, "boot.scr", _SCRIPT)
        yield from self._whole(Code.KERNEL, "Image", kernel_fault)
        yield from self._each_tree(_UBOOT_TREES, self.model.uboot_trees)
        if not self.model.uboot_trees:
            path = self._kernel_path()
            what = f"{path} is a U-Boot that starts no {self.model.title}"
            yield finding(Code.UBOOT_BOARD, what, path=path)
        if self.contents.entry("initramfs-linux.img") is not None:
            yield from self._whole(Code.INITRAMFS, "initramfs-linux.img", initramfs_fault)
        yield from self.roots.presumed_findings()
