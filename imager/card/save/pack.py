"""Packs a saved image: through the program whose format the file's name ends in.

In: the open image, and where to. Out: the packed file, and its SHA-256. Holes of the image are
zeros to the program, which take it hardly any time.
"""

from __future__ import annotations

import hashlib
import os
from io import BytesIO
from pathlib import Path

from imager.base.durable import host_storage, write_all
from imager.base.ownership import give_to
from imager.base.progress import Progress
from imager.base.run import CompletedCommand, running, tool_error
from imager.base.units import MiB
from imager.card.medium.meter import PhaseFigures, metered

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def packer(packing: str, size_bytes: int) -> tuple[str, ...]:
    """The program that packs an image of ``size_bytes`` from its standard input."""
    return {
        "zst": ("zstd", "-q", "-c", "-T0", f"--stream-size={size_bytes}"),
        "xz": ("xz", "-q", "-c", "-T0"),
        "gz": ("gzip", "-q", "-c"),
    }[packing]


def pack(
    image: int, size_bytes: int, packing: str, target: Path, progress: Progress
) -> tuple[str, PhaseFigures]:
    """Pack the ``size_bytes`` of the open file ``image`` into ``target``, private and durable;
    returns the SHA-256 (hex) of what it became. Raises MissingTool, ToolFailed and HostStorage, and
    then leaves no ``target``."""
    words, sha256 = packer(packing, size_bytes), hashlib.sha256()
    phases: list[PhaseFigures] = []
    os.lseek(image, 0, os.SEEK_SET)
    with host_storage(target):
        target.unlink(missing_ok=True)
        out = os.open(target, _NEW, 0o600)
    try:
        with host_storage(target), metered(progress, "pack", size_bytes, phases) as meter:
            give_to(out, target.parent.stat())
            with running(words, stdin=image) as program:
                out_of, said = program.stdout or BytesIO(), program.stderr or BytesIO()
                done = 0
                while piece := out_of.read(MiB):
                    sha256.update(piece)
                    write_all(out, piece)
                    # The program reads through our descriptor, and so moves its position.
                    now = os.lseek(image, 0, os.SEEK_CUR)
                    meter.advance(now - done)
                    done = now
                if code := program.wait():
                    raise tool_error(CompletedCommand(words, code, b"", said.read()))
            os.fsync(out)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(out)
    return sha256.hexdigest(), phases[0]
