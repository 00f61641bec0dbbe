"""What a station's program does, on a note, while nobody hears it: its minion was started again.

In: progress, from the program that makes cards. Out: the same, to the program that a head has begun
meanwhile to be told of a batch. A note is replaced every second and worth nothing after ten.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imager.base.json_fields import JsonFault, read_object
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.stations.wire.report import StationProgress, progress_from

_EVERY_SECONDS = 1.0
_FRESH_SECONDS = 10.0
_OLD_SECONDS = 86400.0
_NOTE, _FOLLOWER = ".json", ".follower"
_LIMIT_BYTES = MiB


@dataclass(frozen=True, slots=True)
class Notes:
    """Notes in a private ``folder`` of a station, one for each job."""

    folder: TrustedFolder

    def write(self, said: StationProgress) -> None:
        """Note how far a job is, in place of what was noted before. ``ended`` must have all that
        ever ended of it, for nobody may have read the last note."""
        text = json.dumps(said.to_json()).encode()
        self.folder.make_private().write(f"{said.job}{_NOTE}", text, mode=0o600, durable=False)

    def follow(self, batch: str) -> Iterator[StationProgress]:
        """What jobs of ``batch`` note, every second, until none does so any more, or somebody else
        follows it. Of what ended only what is new is told."""
        self._sweep()
        own = secrets.token_bytes(8)
        self.folder.make_private().write(f"{batch}{_FOLLOWER}", own, durable=False)
        told: set[str] = set()
        while self._is_follower(batch, own):
            notes = list(self._of(batch))
            if not notes:
                break
            for note in notes:
                yield replace(note, ended=tuple(name for name in note.ended if name not in told))
                told.update(note.ended)
            time.sleep(_EVERY_SECONDS)

    def _is_follower(self, batch: str, own: bytes) -> bool:
        return self.folder.read(f"{batch}{_FOLLOWER}", len(own)) == own

    def _of(self, batch: str) -> Iterator[StationProgress]:
        for name in self.folder.names():
            is_its = name.startswith(f"{batch}.") and name.endswith(_NOTE)
            if is_its and self._age(name) < _FRESH_SECONDS:
                try:
                    yield progress_from(read_object(self.folder.read(name, _LIMIT_BYTES)))
                except JsonFault:
                    continue  # of another version

    def _sweep(self) -> None:
        for name in self.folder.names():
            if self._age(name) > _OLD_SECONDS:
                self.folder.remove(name)

    def _age(self, name: str) -> float:
        """In seconds; endless for one that is gone."""
        try:
            with self.folder.open(name) as file:
                return time.time() - os.fstat(file).st_mtime
        except FileNotFoundError:
            return math.inf
