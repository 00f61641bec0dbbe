"""Where start*.elf looks for the files of the system: one answer for every path in config.txt.

In: the files of the boot partition, a board, and config.txt as start*.elf reads it. Out: the paths
of kernel, device trees, initramfs, overlays and command line. Sources: Raspberry Pi documentation,
"os_prefix", "overlay_prefix", "upstream_kernel", "arm_64bit", "auto_initramfs", and of device trees
"the overlay map file".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imager.base.boards import Board, DeviceTree
from imager.bootcheck.contents import Contents
from imager.bootcheck.formats.config import Config, Setting
from imager.bootcheck.formats.device_tree import FdtError, overlay_map
from imager.disk.budget import Budget

_UPSTREAM = "upstream/"
_UPSTREAM_TREES = {"bcm2708": "bcm2835", "bcm2709": "bcm2836", "bcm2710": "bcm2837"}
_PLATFORMS = {"": "bcm2835", "4": "bcm2711", None: "bcm2712"}
"""What the overlay map calls a board, by its firmware."""
_EVERY_PLATFORM = frozenset(_PLATFORMS.values())
_MOST_RENAMES = 5
_ARM_64BIT = 0x200


def _map_of(data: bytes, budget: Budget) -> Mapping[str, Mapping[str, str]]:
    try:
        return overlay_map(data, budget)
    except FdtError:
        return {}


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay that config.txt asks for: its file, or in ``refused`` why the overlay map has
    none for this board."""

    setting: Setting
    path: str
    refused: str = ""


class SystemPaths:
    """The paths of one board. ``prefix`` is os_prefix where it is in force; ``refused_prefix`` is
    what config.txt says instead, where the firmware drops it for want of a kernel and a tree."""

    def __init__(self, contents: Contents, model: Board, config: Config) -> None:
        self._contents, self._model, self._config = contents, model, config
        self.is_64bit = _is_64bit(config)
        self.is_upstream = bool(config.number("upstream_kernel"))
        self.prefix, self.refused_prefix = "", ""
        named = config.value("os_prefix")
        wanted = named or (_UPSTREAM if self.is_upstream else "")
        if wanted and self._is_viable(wanted):
            self.prefix = wanted
        else:
            self.refused_prefix = named

    def path(self, name: str) -> str:
        """The path of ``name``, a file of the system; one that begins with / bypasses prefixes."""
        return name.lstrip("/") if name.startswith("/") else self.prefix + name

    def _is_viable(self, prefix: str) -> bool:
        self.prefix = prefix
        kernel = self._contents.entry(self.kernel)
        has_tree = any(self._contents.entry(path) for path, _ in self.trees)
        self.prefix = ""
        return kernel is not None and (has_tree or self.has_no_tree)

    # -- kernel and device trees ---------------------------------------------------------------

    @property
    def kernel_names(self) -> tuple[str, ...]:
        """The kernels the firmware tries, first one first, as config.txt or the board has them."""
        named = self._config.value("kernel")
        if named:
            return (named,)
        narrow, wide = self._model.kernels32, self._model.kernels64
        if self.only_some_boards:
            return ("kernel8.img",)
        if not narrow or not wide:
            return narrow or wide
        if self.is_64bit is not None:
            return wide if self.is_64bit else narrow
        return (*wide, *narrow) if self._model.prefers_64bit else (*narrow, *wide)

    @property
    def kernel(self) -> str:
        """The kernel that will be loaded, or the first one tried where none is there."""
        paths = [self.path(name) for name in self.kernel_names]
        return next((path for path in paths if self._contents.entry(path)), paths[0])

    @property
    def only_some_boards(self) -> str:
        """Which boards of this name run what config.txt asks for, where others do not: those with
        64 bits. Empty where all do."""
        return self._model.wide_boards if self.is_64bit else ""

    @property
    def has_no_tree(self) -> bool:
        """Whether device_tree= is set to nothing, which turns device trees off."""
        named = self._config.settings.get("device_tree")
        return named is not None and not named.value

    @property
    def trees(self) -> tuple[tuple[str, DeviceTree], ...]:
        """The path of each device tree: the named one, else one per kind of board."""
        own = self._model.device_trees
        named = self._config.value("device_tree")
        if named:
            tree = DeviceTree(named, own[0].compatible, self._model.title)
            return ((self.path(named), tree),)
        some = [tree for tree in own if tree.boards == self.only_some_boards] or own
        return tuple((self._tree_path(tree), tree) for tree in some)

    def _tree_path(self, tree: DeviceTree) -> str:
        """A tree's path: with upstream_kernel the name that Linux itself has for it comes first."""
        chip, dash, rest = tree.file.partition("-")
        if self.is_upstream and chip in _UPSTREAM_TREES:
            path = self.path(f"{_UPSTREAM_TREES[chip]}{dash}{rest}")
            if self._contents.may_have(path):
                return path
        return self.path(tree.file)

    # -- initramfs, overlays, command line -----------------------------------------------------

    @property
    def initramfs(self) -> tuple[str, ...]:
        """Every file that is put behind the kernel, in this order."""
        names = []
        for key in ("initramfs", "ramfsfile"):
            names += [name.strip() for name in self._config.value(key).split(",")]
        kernel = self.kernel.rpartition("/")[2]
        if self._config.number("auto_initramfs") and kernel.startswith("kernel"):
            name = kernel.replace("kernel", "initramfs", 1).removesuffix(".img")
            # The firmware loads it "if found".
            if self._contents.may_have(self.path(name)):
                names.append(name)
        return tuple(self.path(name) for name in names if name)

    @property
    def cmdline(self) -> str:
        """The file with the command line."""
        return self.path(self._config.value("cmdline") or "cmdline.txt")

    @property
    def overlays(self) -> Iterator[Overlay]:
        """Every overlay that config.txt asks for; where their folder or the map in it was not
        looked at, only those that are asked for by the name of their file."""
        folder = self._config.value("overlay_prefix", "overlays/")
        # A prefix without a README of its own shares the common overlays.
        shared = f"{self.prefix}{folder}README"
        is_unseen = bool(self.prefix) and self._contents.is_unseen(shared)
        if self.prefix and self._contents.entry(shared):
            folder = self.prefix + folder
        named = f"{folder}overlay_map.dtb"
        known = self._contents.about(named, _map_of) or {}
        is_unseen = is_unseen or self._contents.is_unseen(named)
        for setting in self._config.overlays:
            name = setting.value.split(",")[0].split(":")[0].strip()
            whole = self.path(name)
            if setting.key == "device_tree_overlay" or name.endswith((".dtbo", ".dtb")):
                yield Overlay(setting, whole)
            elif name.startswith("/"):
                yield Overlay(setting, f"{whole}.dtbo")
            elif not is_unseen:
                yield self._mapped(setting, folder, name, known)

    def _mapped(
        self, setting: Setting, folder: str, name: str, known: Mapping[str, Mapping[str, str]]
    ) -> Overlay:
        """The file of the overlay ``name`` on this board."""
        own = _PLATFORMS[self._model.firmware]
        for _ in range(_MOST_RENAMES):
            said = known.get(name, {})
            if "deprecated" in said:
                return Overlay(setting, "", f"{name} is no more: {said['deprecated']}")
            if said.keys() & _EVERY_PLATFORM and own not in said:
                return Overlay(setting, "", f"{name} is not for a {self._model.title}")
            other = (said.get("renamed") or said.get(own) or name).split(",")[0]
            if other == name:
                break
            name = other
        old = f"{folder}{name}-overlay.dtb"
        return Overlay(setting, old if self._contents.may_have(old) else f"{folder}{name}.dtbo")


def _is_64bit(config: Config) -> bool | None:
    """Whether config.txt asks for 64 bits; None where it leaves that to the firmware."""
    asked = config.number("arm_64bit")
    if asked is not None:
        return bool(asked)
    # The older way to ask for it.
    return True if (config.number("arm_control") or 0) & _ARM_64BIT else None
