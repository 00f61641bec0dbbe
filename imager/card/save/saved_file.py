"""The files that a saved card becomes: unfinished ones until all is there, then those with names.

In: the path a person gave. Out: an open file as large as the card, the map of what was saved into
it before, and names for both when they are done. All is private from birth, for a card holds keys,
and belongs to whom the folder belongs. What a run that was killed has left, the next one goes on
with; so it does with an image whose map lies beside it because something is missing.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import fsync_folder, host_storage, replace_in
from imager.base.errors import TargetRefused, UsageError
from imager.base.ownership import give_to
from imager.card.host.image_file import SparseFile
from imager.card.host.private_file import open_private, removal
from imager.card.medium.raw import Descriptor
from imager.disk.rescue_map import MAX_MAP_BYTES, BlockState, RescueMap, RescueMapError

SUFFIXES = (".img", ".img.zst", ".img.xz", ".img.gz")


def map_beside(image: Path) -> Path:
    """Where the map of ``image`` lies, if it has one."""
    return image.with_name(f"{image.name}.map")


@dataclass(frozen=True, slots=True)
class SavedFile:
    """Where everything lies. ``path`` is what the person gave."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> SavedFile:
        """Raises UsageError for a name that does not say what the file is to be, and for a folder
        that is not there."""
        if not path.name.endswith(SUFFIXES) or path.name in SUFFIXES:
            raise UsageError(
                f"{path} does not say by its name what it is to be",
                hint=f"give a name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
            )
        folder = path.parent.resolve()
        if not folder.is_dir():
            raise UsageError(
                f"there is no folder {folder}",
                hint=f"make it: {shlex.join(['mkdir', '-p', str(folder)])}",
            )
        return cls(folder / path.name)

    @property
    def packing(self) -> str:
        """``zst``, ``xz`` or ``gz``; empty for an image as it is."""
        return "" if self.path.suffix == ".img" else self.path.suffix.removeprefix(".")

    @property
    def partial(self) -> Path:
        """The image while it is not whole."""
        return self.path.with_name(f".{self.path.name}.partial")

    @property
    def partial_map(self) -> Path:
        """What of it was saved."""
        return map_beside(self.partial)

    @property
    def map(self) -> Path:
        """What of the image is missing; absent when nothing is."""
        return map_beside(self.path)

    @property
    def bmap(self) -> Path:
        """The block map."""
        return self.path.with_name(f"{self.path.name}.bmap")

    @property
    def goes_on_with(self) -> Path | None:
        """The image of an earlier run with which the next one goes on; None to begin anew."""
        if self.partial.is_file() and self.partial_map.is_file():
            return self.partial
        lacks = not self.packing and self.path.is_file() and self.map.is_file()
        return self.path if lacks else None

    def require_free(self) -> None:
        """Raise TargetRefused where the name is taken by something that is whole."""
        if os.path.lexists(self.path) and self.goes_on_with != self.path:
            raise TargetRefused(
                f"{self.path} exists", hint="give another name, or remove it if nobody needs it"
            )

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[HeldFile]:
        """The unfinished file, open for this program alone, as large as the card. Raises
        TargetRefused when another run has it or it is of another size, HostStorage when it cannot
        be had."""
        with host_storage(self.partial):
            if self.goes_on_with == self.path:
                self._take_up()
            fd = self._own(self.partial, os.O_RDWR | os.O_CREAT)
        try:
            with host_storage(self.partial):
                self._lock(fd)
                give_to(fd, self.path.parent.stat())
                os.fchmod(fd, 0o600)
                if not os.fstat(fd).st_size:
                    self._forget_map()
                state = self._earlier(size_bytes) or RescueMap(size_bytes)
                if not state.having(BlockState.SAVED):
                    os.ftruncate(fd, 0)
                os.ftruncate(fd, size_bytes)
            yield HeldFile(self, fd, state)
        finally:
            os.close(fd)

    def _forget_map(self) -> None:
        """Remove a map without its image: what it calls saved is not here. A power cut right after
        the image had its name leaves one."""
        with suppress(FileNotFoundError):
            os.close(self._own(self.partial_map, os.O_RDONLY))
            self.partial_map.unlink()
            fsync_folder(self.partial_map.parent)

    def _take_up(self) -> None:
        """Make the image that lacks something the unfinished one again. Its map is copied first and
        removed last: at no moment is there an image without one."""
        os.close(self._own(self.path, os.O_RDWR))
        self.put_beside(self.partial_map, self._text_of(self.map))
        self.path.replace(self.partial)
        self.map.unlink()

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetRefused(
                f"{self.path} is being made by another run",
                hint="wait until it is done, or give another name",
            ) from error

    def _own(self, path: Path, flags: int) -> int:
        """Open one of these files. Raises TargetRefused for one that somebody else put there, to
        read what the card holds or, by a link, what only root may; OSError."""
        return open_private(path, flags, self.of_another)

    def _text_of(self, path: Path) -> bytes:
        """What a map says, of at most one byte more than a map may have."""
        with os.fdopen(self._own(path, os.O_RDONLY), "rb") as file:
            return file.read(MAX_MAP_BYTES + 1)

    def _earlier(self, size_bytes: int) -> RescueMap | None:
        """The map that an earlier run left. TargetRefused when it is not of this card."""
        if not os.path.lexists(self.partial_map):
            return None
        try:
            state = RescueMap.parse(self._text_of(self.partial_map))
        except RescueMapError as error:
            raise self.of_another(f"{self.partial_map} is no map: {error}") from error
        if state.size_bytes != size_bytes:
            raise self.of_another(
                f"{self.partial} was begun with a card of {state.size_bytes} bytes, and this one "
                f"has {size_bytes}"
            )
        return state

    def of_another(self, what: str, path: Path | None = None) -> TargetRefused:
        """The error for an earlier run's files, of which ``path`` is one, that this one cannot go
        on with."""
        image = self.path if path in (self.path, self.map) else self.partial
        words = removal(image, map_beside(image))
        return TargetRefused(what, hint=f"give another name, or begin anew after: {words}")

    def put_beside(self, path: Path, data: bytes) -> None:
        """Write a file in the same folder, as private, as durable, and as owned as the image."""
        with host_storage(path):
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                owner = os.fstat(folder)
                replace_in(folder, path.name, data, 0o600, lambda made: give_to(made, owner))
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Remove what is unfinished."""
        for path in (self.partial_map, self.partial):
            path.unlink(missing_ok=True)


@dataclass(slots=True)
class HeldFile:
    """The unfinished file while it is open; ``state`` says what is saved in it."""

    names: SavedFile
    fd: int
    state: RescueMap

    @property
    def raw(self) -> SparseFile:
        """Where to write; zeros stay holes."""
        size = self.state.size_bytes
        return SparseFile(Descriptor(self.fd, str(self.names.path), size, 1))

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the file."""
        return os.pread(self.fd, length, offset)

    def keep_state(self, text: bytes) -> None:
        """Store the ``text`` of a state for a later run."""
        self.names.put_beside(self.names.partial_map, text)

    def finish(self, whole: Path, *, lacks: bool) -> None:
        """Give ``whole``, the unfinished image or what it was packed into, its name. The map stays
        beside it when it ``lacks`` something, else it goes. The map has its name first: an image
        without it is whole."""
        names = self.names
        with host_storage(names.path):
            if lacks:
                names.put_beside(names.map, self.state.encode())
            else:
                with suppress(FileNotFoundError):
                    names.map.unlink()
            whole.replace(names.path)
            fsync_folder(names.path.parent)
            names.discard()
            fsync_folder(names.path.parent)
