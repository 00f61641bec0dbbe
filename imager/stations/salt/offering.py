"""Files for every minion, in the master's file server: pieces of a golden image, packages.

In: a folder of files that are no secret. Out: where minions find them. What is there already, by
its name and size, is not sent again; whoever fetches a file proves it by its digest.
"""

from __future__ import annotations

import os
import tarfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from imager.base.errors import ConfigurationError, NetworkError
from imager.base.json_fields import JsonFault
from imager.base.run import running
from imager.rack.master.answers import PRELUDE, object_in, parts_of
from imager.rack.master.connection import Door
from imager.rack.master.status import salt_at
from imager.stations.salt.on_minion import PILLAR

_ROOTS = "ask roots salt-run --out=json --log-level=quiet config.get file_roots\n"


def files_root(door: Door) -> str:
    """The first folder on the master from which its file server serves. Raises as ``Door.run``
    and ``salt_at``, and ConfigurationError for a master that serves none."""
    with salt_at(door):
        roots = object_in(parts_of(door.run(PRELUDE + _ROOTS)), "roots", "salt-run")
    try:
        first = roots.texts("base")[0]
    except (JsonFault, IndexError):
        first = ""
    if not first.startswith("/"):
        raise ConfigurationError(
            f"{door.name}: its file server has no folder of files",
            hint="name one in /etc/salt/master: file_roots, base",
        )
    return first


def offer(door: Door, name: str, folder: Path) -> None:
    """Offer the files of ``folder`` as ``name/FILE``. Raises as ``Door.run``, and NetworkError when
    they do not all arrive."""
    place = f"{files_root(door)}/{PILLAR}/{name}"
    said = door.run(f"mkdir -p '{place}' && cd '{place}' && find . -type f -printf '%P %s\\n'\n")
    there = set(said.split("\n"))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    missing = {
        path.name: path for path in files if f"{path.name} {path.stat().st_size}" not in there
    }
    if missing:
        send(door, place, missing)


def send(door: Door, place: str, files: Mapping[str, Path | bytes]) -> None:
    """Put ``files``, by their paths below it, into the folder ``place`` of the master.
    Raises NetworkError where they do not all get there."""
    script = f"mkdir -p '{place}' && tar -C '{place}' -xf - && echo all"
    reading, writing = os.pipe()
    with running(door.command(script), stdin=reading) as process:
        os.close(reading)
        sender = threading.Thread(target=_pack, args=(os.fdopen(writing, "wb"), files))
        sender.start()
        said, _ = process.communicate()
        sender.join()
    if said.strip() != b"all":
        raise NetworkError(
            f"{door.name}: it did not take all files into {place}",
            hint=f"see whether its disk is full: df {place}",
        )


def _pack(pipe: BinaryIO, files: Mapping[str, Path | bytes]) -> None:
    # Where tar ends early, what it said, or did not say, tells why.
    with suppress(BrokenPipeError), pipe, tarfile.open(fileobj=pipe, mode="w|") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            # The master takes a file for the one it digested before as long as this is the same.
            info.mtime = time.time()
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, BytesIO(content))
            else:
                info.size = content.stat().st_size
                with content.open("rb") as file:
                    archive.addfile(info, file)
