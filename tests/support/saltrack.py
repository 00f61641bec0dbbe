"""A rack of finished node images whose /etc is laid out for Salt, and switched on.

In: a rack.toml and a golden image. Out: one ``Box`` for each node, configured by the files that
were read out of its image, with the owners and modes they have there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.config.rack import Rack
from imager.disk.ext4.filesystem import Ext4
from imager.image.compose.golden import GoldenImage
from imager.node.image import NodeImage
from imager.node.personalise import personalise
from tests.support.racks import rack_in
from tests.support.salt import Box, SaltPrograms, Wire, switched_on, wire

SPARE_BYTES = 64 * MiB


def rack_of(folder: Path, count: int) -> Rack:
    """pi0, the master, and its minions, each with an address of its own."""
    return rack_in(
        folder,
        f'[rack]\nnodes = "pi[0-{count - 1}]"\nmaster = "pi0"\n'
        f'[network]\naddresses = "10.77.0.[10-{count + 9}]"\nprefix = 24\n',
    )


def lay_out(image: NodeImage, folder: Path) -> None:
    """Put what Salt and the resolver read from ``image`` into ``folder``/etc."""
    shutil.rmtree(folder / "etc", ignore_errors=True)
    with image.open() as reader:
        root = Ext4.open(reader.read, image.layout.root.offset)
        for path, inode in root.walk():
            if not path.startswith(("/etc/salt", "/etc/host")) and path != "/etc/machine-id":
                continue
            target = folder / path[1:]
            if inode.is_dir:
                target.mkdir(parents=True)
            elif inode.is_symlink:
                target.symlink_to(root.readlink(path))
                continue
            else:
                assert inode.is_file, path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(root.content(inode))
            os.chown(target, inode.uid, inode.gid)
            target.chmod(stat.S_IMODE(inode.mode))


class RunningRack:
    """The nodes of ``rack`` as computers that are switched on and off by name."""

    def __init__(
        self, folder: Path, rack: Rack, golden: GoldenImage, on: Wire, programs: SaltPrograms
    ) -> None:
        self.rack = rack
        self.joined_in = ""
        self._folder = folder
        self._golden = golden
        self._wire = on
        self._programs = programs
        self._on: dict[str, ExitStack] = {}
        self._boxes: dict[str, Box] = {}

    def __getitem__(self, name: str) -> Box:
        return self._boxes[name]

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.rack.nodes}

    @property
    def master(self) -> Box:
        return self[self.rack.master.name]

    def etc(self, name: str) -> Path:
        """The /etc of the node ``name``, to be looked at or spoilt while it is off."""
        return self._folder / name / "etc"

    @property
    def entering(self) -> tuple[str, ...]:
        """The words before a command that is to run on the rack's network, outside its nodes."""
        return self._wire.entering

    def image(self, name: str) -> NodeImage:
        """Make the card of ``name`` (again) and put it into the node."""
        assert name not in self._on, "switch it off first"
        size = self._golden.layout.size_bytes + SPARE_BYTES
        made = personalise(self._golden, self.rack, self.rack.node(name), size, Quiet())
        (self._folder / name).mkdir(exist_ok=True)
        lay_out(made, self._folder / name)
        return made

    def switch_on(self, *names: str, daemons: Sequence[str] | None = None) -> None:
        """Let them run what their roles say, or only ``daemons``."""
        for name in names:
            running = sorted(self.rack.node(name).roles) if daemons is None else daemons
            self._on[name] = ExitStack()
            self._boxes[name] = self._on[name].enter_context(
                switched_on(self._folder / name, self._wire, self._programs, *running)
            )

    def join_all(self, *, seconds: float, patience: int = 5) -> None:
        """Make every card, switch all nodes on at once, and wait until each of them answers."""
        for name in self.names:
            self.image(name)
        self.switch_on(*self.names)
        took = self.master.wait_until_answering(self.names, seconds=seconds, patience=patience)
        spent = self.master.cpu_seconds("salt-master")
        self.joined_in = (
            f"{len(self.names)} nodes answered in {took:.0f} s, "
            f"for which the master worked {spent:.1f} s"
        )

    def switch_off(self, *names: str) -> None:
        for name in names:
            self._on.pop(name).close()


@contextmanager
def running(
    folder: Path, rack: Rack, golden: GoldenImage, programs: SaltPrograms
) -> Iterator[RunningRack]:
    """A rack whose nodes are all off; those still on at the end are switched off."""
    with wire([str(node.address.ip) for node in rack.nodes if node.address]) as on:
        made = RunningRack(folder, rack, golden, on, programs)
        try:
            yield made
        finally:
            made.switch_off(*list(made._on))
