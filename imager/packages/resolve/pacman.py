"""This computer's pacman, asked what would be installed; it installs nothing.

In: the packages a release has, databases, and names. Out: pacman's answers as values. It runs as
whoever runs this program, in a private folder with a configuration of our own, with no network and
no signatures to check, and within limits: the databases are a stranger's. Sources: pacman(8),
pacman.conf(5); seen with 6.0.2 and 7.1.0.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import NetworkError
from imager.base.programs import ToolUse, tools_for
from imager.base.run import CompletedCommand, TooMuch, require_tools, run_bounded, tool_error
from imager.base.units import GiB, MiB
from imager.packages.resolve.database import Database

_MEMORY_BYTES = GiB
_SECONDS = 60
_MARK = "@picloud"
_FORMAT = f"{_MARK}\t%r\t%n\t%v"
_UNSATISFIED = 127
_DAMAGE = re.compile(
    rb"[^\n]*(?:database file is corrupted|could not open file|could not allocate|out of memory)"
    rb"[^\n]*"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A package that pacman would install, and the repository it is from."""

    repository: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What pacman would install, what is needed first, or the lines in which it says why not."""

    chosen: tuple[Chosen, ...]
    complaints: tuple[str, ...]


class Pacman:
    """pacman with a database of its own in the empty folder ``work``."""

    def __init__(self, work: Path, arch: str) -> None:
        require_tools(*tools_for(ToolUse.RESOLVE))
        self._work = work
        self._local = work / "db/local"
        with host_storage(work):
            for name in ("root", "db/local", "db/sync", "cache", "hooks", "gnupg"):
                (work / name).mkdir(parents=True)
            (self._local / "ALPM_DB_VERSION").write_text("9\n")
        self._settings = [
            "[options]",
            f"RootDir = {work / 'root'}",
            f"DBPath = {work / 'db'}",
            f"CacheDir = {work / 'cache'}",
            f"HookDir = {work / 'hooks'}",
            f"GPGDir = {work / 'gnupg'}",
            f"LogFile = {work / 'log'}",
            f"Architecture = {arch}",
            "SigLevel = Never",
        ]

    def install(self, descriptions: Mapping[str, str]) -> None:
        """Note packages as installed, given as the ``desc`` of each entry ``NAME-VERSION``."""
        with host_storage(self._local):
            for entry, text in descriptions.items():
                folder = self._local / entry
                folder.mkdir()
                (folder / "desc").write_text(text)
                (folder / "files").write_text("%FILES%\n")

    def remove(self, entries: Iterable[str]) -> None:
        """Forget that the packages with these entries are installed."""
        with host_storage(self._local):
            for entry in entries:
                for name in ("desc", "files"):
                    (self._local / entry / name).unlink()
                (self._local / entry).rmdir()

    def know(self, databases: Sequence[Database]) -> None:
        """Take packages from ``databases``, from the first one that has a name."""
        lines = list(self._settings)
        with host_storage(self._work):
            for database in databases:
                (self._work / "db/sync" / f"{database.name}.db").write_bytes(database.plain())
                lines += [f"[{database.name}]", "Server = http://127.0.0.1/"]
            (self._work / "pacman.conf").write_text("\n".join(lines) + "\n")

    def unsatisfied(self, words: Sequence[str]) -> tuple[str, ...]:
        """Those of ``words`` (``openssl>=3.6``) that no installed package satisfies."""
        done = self._run("-T", "--", *words, ok=(0, _UNSATISFIED))
        return tuple(_lines(done.stdout))

    def resolve(self, words: Sequence[str]) -> Answer:
        """What installing ``words`` means."""
        options = ("--noconfirm", "--needed", "--print-format", _FORMAT)
        done = self._run("-Sp", *options, "--", *words, ok=(0, 1))
        lines = _lines(done.stdout)
        if done.returncode:
            said = (*(line for line in lines if not line.startswith(_MARK)), *_lines(done.stderr))
            return Answer((), said)
        rows = [line.split("\t") for line in lines if line.startswith(_MARK)]
        return Answer(tuple(Chosen(*row[1:]) for row in rows if len(row) == 4), ())

    def faults(self) -> tuple[str, ...]:
        """What is wrong among the packages that are installed: needs that are not met, and
        conflicts."""
        done = self._run("-Dk", ok=range(256))
        return tuple(line.removeprefix("error: ") for line in _lines(done.stderr))

    def _run(self, operation: str, *words: str, ok: Iterable[int]) -> CompletedCommand:
        pacman = ["pacman", "--config", str(self._work / "pacman.conf"), operation, *words]
        limited = ["prlimit", f"--as={_MEMORY_BYTES}", "--core=0", *pacman]
        try:
            done = run_bounded(limited, b"", most_bytes=4 * MiB, seconds=_SECONDS)
        except TooMuch as error:
            raise _unsound(operation, str(error)) from error
        if done.returncode < 0:
            # Needs of needs of needs: pacman goes down by one call for each.
            raise _unsound(operation, f"was ended by {signal.Signals(-done.returncode).name}")
        if damage := _DAMAGE.search(done.stderr):
            raise _unsound(operation, f"says: {damage[0].decode(errors='replace')}")
        if done.returncode not in ok:
            raise tool_error(done)
        return done


def _unsound(operation: str, why: str) -> NetworkError:
    return NetworkError(
        f"the databases of packages are not sound: pacman {operation} {why}",
        hint="run it again later; the mirror may be about to be updated",
    )


def is_newer(one: str, other: str) -> bool:
    """Whether version ``one`` is newer than ``other``, as vercmp(8), a part of pacman, says."""
    require_tools("vercmp")
    done = run_bounded(["vercmp", one, other], b"", most_bytes=MiB, seconds=_SECONDS)
    return done.stdout.strip() == b"1"


def _lines(data: bytes) -> list[str]:
    return [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
