"""Fetches one file of a Python package with pip; no code of the package is run.

In: a name, a version, a private folder. Out: the file in it, not checked yet. pip is used because
it knows the index, proxies and certificates that this computer is set up for.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from imager.base.errors import ConfigurationError, MissingTool, NetworkError
from imager.base.run import CompletedCommand, run

# When pip fetches a source release it runs that release's own build code, to learn its metadata:
# perhaps as root, and before the hash was compared. At that moment the download lies in pip's
# temporary folder, and the code would run in a second Python. Every Python imports sitecustomize
# first. Ours saves the download and ends each Python that pip starts.
_GUARD = """\
import os
import pathlib

kept = os.environ.get("PICLOUD_KEEP")
if kept is None:
    os.environ["PICLOUD_KEEP"] = os.environ["PICLOUD_DOWNLOADS"]
else:
    for found in pathlib.Path(os.environ["TMPDIR"]).glob("*/*.tar.gz"):
        os.link(found, pathlib.Path(kept, found.name))
    os._exit(1)
"""
_WORDS = (
    *("-m", "pip", "download", "--no-deps", "--no-cache-dir", "--ignore-requires-python"),
    *("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2"),
)
_FOREIGN = re.compile(r"PIP_\w+|\w+_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE", re.IGNORECASE)
_SOURCE, _WHEEL = _ENDINGS = (".tar.gz", "-none-any.whl")
_VERSIONS = re.compile(r"\(from versions: (.+)\)")


def fetch_source(name: str, version: str, folder: Path) -> Path:
    """The source release of ``name`` ``version``, a .tar.gz, in the private ``folder``.

    Raises NetworkError when no index answers, ConfigurationError when the index has no such
    version, MissingTool without pip.
    """
    only = ("--no-binary", ":all:", "--no-build-isolation")
    return _fetch(f"{name}=={version}", only, folder, _SOURCE)


def fetch_wheel(name: str, version: str | None, folder: Path) -> Path:
    """A wheel of ``name`` for every Python 3 and every machine: of ``version``, or the newest when
    that is None. Raises as ``fetch_source``."""
    only = ("--only-binary", ":all:", "--platform", "any", "--python-version", "3.12")
    return _fetch(f"{name}=={version}" if version else name, only, folder, _WHEEL)


def downloaded_bytes(folder: Path) -> int:
    """How much of the file is in the private ``folder`` by now: pip does not say."""
    sizes = [0]
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moves it when it is whole
                if name.endswith(_ENDINGS):
                    sizes.append(Path(above, name).lstat().st_size)
    return max(sizes)


def _fetch(requirement: str, only: Sequence[str], folder: Path, ending: str) -> Path:
    for part in ("guard", "temporary", "downloads"):
        (folder / part).mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(_GUARD)
    downloads = folder / "downloads"
    own = {name: value for name, value in os.environ.items() if _FOREIGN.fullmatch(name)}
    done = run(
        [sys.executable, *_WORDS, *only, "--dest", downloads, "--", requirement],
        cwd=folder,
        env=own
        | {
            "TMPDIR": str(folder / "temporary"),
            "PYTHONPATH": str(folder / "guard"),
            "PICLOUD_DOWNLOADS": str(downloads),
        },
        ok=range(256),
    )
    found = [path for path in downloads.iterdir() if path.name.endswith(ending)]
    if len(found) != 1:
        raise _why_not(requirement, done)
    return found[0]


def _why_not(requirement: str, done: CompletedCommand) -> Exception:
    said = [line.strip() for line in done.output().splitlines() if line.strip()]
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
        hint="check the network and pip's own settings (pip config list), then run it again",
        details=(errors or said)[-6:],
    )
