"""Stations on this computer, reached by pipes instead of Salt: each with its own reports and cache.

In: a folder, and names. Out: a ``PipeBus``, which runs the real program as Salt's module does. One
of its stations can be silent, or killed, as a test wishes.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from imager.stations.salt.sealing import own_key, public_of, seal
from imager.stations.wire.bus import NOTHING_OWN, Document, StationAnswer, StationSaid

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 600


class PipeBus:
    """A StationBus whose stations are folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.silent: set[str] = set()
        self.secrets: dict[tuple[str, str], bytes] = {}
        self.handed: list[tuple[str, str]] = []
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.lines: list[bytes] = []
        self._talks: list[threading.Thread] = []
        self.published: dict[str, Path] = {}
        self._heard: queue.SimpleQueue[StationSaid] = queue.SimpleQueue()

    def state(self, station: str) -> Path:
        return self.folder / station / "state"

    def cache(self, station: str) -> Path:
        return self.folder / station / "cache"

    def kill(self, *names: str) -> None:
        """End the work of these stations as a power cut would; of all, where none is named."""
        for station, process in self.running:
            if station in names or not names:
                process.kill()
                process.wait()
        for thread in self._talks if not names else ():
            thread.join()

    def ask(
        self,
        stations: Sequence[str],
        action: str,
        arguments: Document,
        *,
        seconds: float,
        own: Mapping[str, Document] = NOTHING_OWN,
    ) -> Mapping[str, StationAnswer]:
        return {
            name: self._asked(name, action, {**arguments, **own.get(name, {})}, seconds)
            for name in stations
        }

    def begin(
        self, station: str, action: str, arguments: Document, secrets: Sequence[str] = ()
    ) -> None:
        process = self._started(station, action)
        self.running.append((station, process))
        own = [(name, self.secrets[station, name]) for name in secrets]
        talk = threading.Thread(target=self._talk, args=(station, process, arguments, own))
        self._talks.append(talk)
        talk.start()

    def heard(self, seconds: float) -> Sequence[StationSaid]:
        found = []
        try:
            found.append(self._heard.get(timeout=seconds))
            while True:
                found.append(self._heard.get_nowait())
        except queue.Empty:
            return found

    def hand(self, station: str, name: str, secret: bytes) -> None:
        self.secrets[station, name] = secret
        self.handed.append((station, name))

    def take_back(self, station: str, name: str) -> None:
        self.secrets.pop((station, name), None)

    def publish(self, name: str, folder: Path) -> None:
        self.published[name] = folder

    def _asked(
        self, station: str, action: str, arguments: Document, seconds: float
    ) -> StationAnswer:
        if station in self.silent:
            return StationAnswer(None, "it does not answer")
        process = self._started(station, action)
        line = json.dumps(dict(arguments)).encode()
        # A computer that is busy with other tests is not silent.
        out, _ = process.communicate(line + b"\n\n", timeout=seconds + _PATIENCE_SECONDS)
        if process.returncode:
            return StationAnswer(None, f"it ended with {process.returncode}: {out!r}")
        return StationAnswer(json.loads(out.splitlines()[-1]))

    def _started(self, station: str, action: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "imager", "--json", "station", action],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.fspath(ROOT),
                "PICLOUD_STATION": os.fspath(self.state(station)),
                "PICLOUD_CACHE": os.fspath(self.cache(station)),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _talk(
        self,
        station: str,
        process: subprocess.Popen[bytes],
        arguments: Document,
        secrets: Sequence[tuple[str, bytes]],
    ) -> None:
        with process, suppress(BrokenPipeError):
            assert process.stdin is not None
            assert process.stdout is not None
            _write(process.stdin, arguments)
            for name, secret in secrets:
                sealed = base64.b64encode(seal(public_of(own_key()), secret)).decode()
                _write(process.stdin, {"secret": name, "base64": sealed})
            process.stdin.write(b"\n")
            process.stdin.flush()
            for line in process.stdout:
                self._hear(station, process.stdin, line)
        if station not in self.silent:
            self._heard.put(StationSaid(station, {"event": "ended"}))

    def _hear(self, station: str, answers: IO[bytes], line: bytes) -> None:
        self.lines.append(line)
        document = json.loads(line)
        if document["event"] == "bring":
            folder, _, file = document["name"].rpartition("/")
            brought = self.folder / f"brought-{station}-{file}"
            shutil.copy(self.published[folder] / file, brought)
            _write(answers, {"path": os.fspath(brought)})
        elif station not in self.silent:
            self._heard.put(StationSaid(station, document))


def _write(pipe: IO[bytes], document: Document) -> None:
    pipe.write(json.dumps(dict(document)).encode() + b"\n")
    pipe.flush()


@contextmanager
def stations(folder: Path) -> Iterator[PipeBus]:
    """A bus; when the block ends, every program that it began has ended."""
    bus = PipeBus(folder)
    try:
        yield bus
    finally:
        bus.kill()
