"""Fetches one file of a Python package with pip; no code of the package is run.

In: a name, a version, a private folder. Out: the file in it, not checked yet. pip is used because
it knows the index, proxies and certificates that this computer is set up for. It sets no limit to
what an index sends; those are set here.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.errors import ConfigurationError, MissingTool, NetworkError
from imager.base.run import CompletedCommand, TooMuch, run_bounded
from imager.base.units import GiB, KiB, MiB, format_chosen

LARGEST_FILE = 256 * MiB
"""Bytes of a file from an index; Salt's source has some 15 MiB."""

# When pip fetches a source release it runs that release's own build code, to learn its metadata:
# perhaps as root, and before the hash was compared. At that moment the download lies in pip's
# temporary folder, and the code would run in a second Python. Every Python imports sitecustomize
# first. Ours saves the download and ends each Python that pip starts. It also limits what pip may
# take, for an index can send pages and files that have no end.
_GUARD = """\
import os
import pathlib
import resource

kept = os.environ.get("PICLOUD_KEEP")
if kept is not None:
    for found in pathlib.Path(os.environ["TMPDIR"]).glob("*/*.tar.gz"):
        os.link(found, pathlib.Path(kept, found.name))
    os._exit(1)
os.environ["PICLOUD_KEEP"] = os.environ["PICLOUD_DOWNLOADS"]

for limit, most in (
    (resource.RLIMIT_FSIZE, int(os.environ["PICLOUD_FILE_BYTES"])),
    (resource.RLIMIT_AS, int(os.environ["PICLOUD_MEMORY_BYTES"])),
):
    _, hard = resource.getrlimit(limit)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))
"""
_WORDS = (
    *("-m", "pip", "download", "--no-deps", "--no-cache-dir", "--ignore-requires-python"),
    *("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2"),
)
_FOREIGN = re.compile(r"PIP_\w+|\w+_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE", re.IGNORECASE)
_SOURCE, _WHEEL = _ENDINGS = (".tar.gz", "-none-any.whl")
_VERSIONS = re.compile(r"\(from versions: (.+)\)")
_AGAIN = "check the network and pip's own settings (pip config list), then run it again"
_SAID_BYTES = 4 * MiB
_MEMORY_BYTES = GiB
_UNPACKED_BYTES = GiB
"""As much as Salt's source may hold when an image is composed of it."""
_LEAST_FILE = MiB
"""What pip unpacks of a small file may be larger than the file."""
_HEADWAY_BYTES, _STILL_SECONDS = 64 * KiB, 180.0
"""pip tries an index that does not answer three times, of 15 s each."""


class FileTooLarge(NetworkError):
    """The index sends a file that is larger than it may be."""


def fetch_source(name: str, version: str, folder: Path, most_bytes: int = LARGEST_FILE) -> Path:
    """The source release of ``name`` ``version``, a .tar.gz, in the private ``folder``.

    Raises NetworkError when no index answers or next to nothing comes any more, FileTooLarge for
    one of more than ``most_bytes``, ConfigurationError when the index has no such version,
    MissingTool without pip.
    """
    only = ("--no-binary", ":all:", "--no-build-isolation")
    return _fetch(f"{name}=={version}", only, folder, _SOURCE, most_bytes)


def fetch_wheel(
    name: str, version: str | None, folder: Path, most_bytes: int = LARGEST_FILE
) -> Path:
    """A wheel of ``name`` for every Python 3 and every machine: of ``version``, or the newest when
    that is None. Raises as ``fetch_source``."""
    only = ("--only-binary", ":all:", "--platform", "any", "--python-version", "3.12")
    return _fetch(f"{name}=={version}" if version else name, only, folder, _WHEEL, most_bytes)


def downloaded_bytes(folder: Path) -> int:
    """How much of the file is in the private ``folder`` by now: pip does not say."""
    sizes = [0]
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moves it when it is whole
                if name.endswith(_ENDINGS):
                    sizes.append(Path(above, name).lstat().st_size)
    return max(sizes)


@dataclass
class _Headway:
    """Is pip getting on in the private ``folder``? Looked at a few times a second."""

    folder: Path
    reached_bytes: int = 0
    reached_at: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Raise TooMuch when next to nothing came for a long time, or all of what pip unpacked is
        more than there may be of it: a source release may hold any number of files."""
        downloaded, now = downloaded_bytes(self.folder), time.monotonic()
        if downloaded >= self.reached_bytes + _HEADWAY_BYTES:
            self.reached_bytes, self.reached_at = downloaded, now
        if now > self.reached_at + _STILL_SECONDS:
            raise TooMuch(f"got less than {_HEADWAY_BYTES // KiB} KiB in {_STILL_SECONDS:g} s")
        if _held_bytes(self.folder) > LARGEST_FILE + _UNPACKED_BYTES:
            raise TooMuch(f"unpacked more than {format_chosen(_UNPACKED_BYTES)}")


def _held_bytes(folder: Path) -> int:
    """What all in ``folder`` takes of a disk, roughly: an empty file takes something too."""
    total = 0
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(FileNotFoundError):
                total += 4 * KiB + Path(above, name).lstat().st_size
    return total


def _fetch(
    requirement: str, only: Sequence[str], folder: Path, ending: str, most_bytes: int
) -> Path:
    for part in ("guard", "temporary", "downloads"):
        (folder / part).mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(_GUARD)
    downloads = folder / "downloads"
    own = {name: value for name, value in os.environ.items() if _FOREIGN.fullmatch(name)}
    try:
        done = run_bounded(
            [sys.executable, *_WORDS, *only, "--dest", str(downloads), "--", requirement],
            b"",
            most_bytes=_SAID_BYTES,
            cwd=folder,
            env=own
            | {
                "TMPDIR": str(folder / "temporary"),
                "PYTHONPATH": str(folder / "guard"),
                # A Python whose files may not grow leaves bytecode that is cut short.
                "PYTHONDONTWRITEBYTECODE": "1",
                "PICLOUD_DOWNLOADS": str(downloads),
                "PICLOUD_FILE_BYTES": str(max(most_bytes, _LEAST_FILE)),
                "PICLOUD_MEMORY_BYTES": str(_MEMORY_BYTES),
            },
            watch=_Headway(folder).look,
        )
    except TooMuch as error:
        raise NetworkError(f"pip, which fetches {requirement}, {error}", hint=_AGAIN) from error
    found = [path for path in downloads.iterdir() if path.name.endswith(ending)]
    if len(found) != 1:
        raise _why_not(requirement, done, most_bytes)
    if found[0].stat().st_size > most_bytes:
        raise _too_large(requirement, most_bytes)
    return found[0]


def _too_large(requirement: str, most_bytes: int) -> FileTooLarge:
    return FileTooLarge(
        f"the index sends more than {format_chosen(most_bytes)} as {requirement}", hint=_AGAIN
    )


def _why_not(requirement: str, done: CompletedCommand, most_bytes: int) -> Exception:
    said = [line.strip() for line in done.output().splitlines() if line.strip()]
    if any(os.strerror(errno.EFBIG) in line for line in said):
        return _too_large(requirement, most_bytes)
    if "MemoryError" in said:
        return NetworkError(
            f"for {requirement} the index sends more than pip can hold in "
            f"{format_chosen(_MEMORY_BYTES)} of memory",
            hint=_AGAIN,
        )
    if any("No module named pip" in line for line in said):
        return MissingTool(
            f"{sys.executable} has no pip, which fetches {requirement}",
            hint=f"{sys.executable} -m ensurepip · Debian, Ubuntu: apt install python3-venv"
            " python3-pip · Arch: pacman -S python-pip",
        )
    known = next((found[1] for line in said if (found := _VERSIONS.search(line))), "none")
    if known != "none":
        newest = ", ".join(known.split(", ")[-5:])
        return ConfigurationError(
            f"PyPI has no {requirement} that can be used here; its newest are {newest}",
            hint="write one of them as version under [salt] in rack.toml",
        )
    errors = [line for line in said if line.startswith(("ERROR", "WARNING"))]
    return NetworkError(
        f"pip could not fetch {requirement}",
        hint=_AGAIN,
        details=(errors or said)[-6:],
    )
