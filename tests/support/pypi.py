"""A package index on loopback with a small Salt in it, and the release it can be put on.

In: nothing. Out: a source release shaped as Salt's own (an in-tree build backend, an egg-info, a
``salt`` package whose commands run), a wheel, and the Simple index (PEP 503) pip asks for them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.release.verified import VerifiedPackage, VerifiedSalt
from tests.support.mirror import Mirror, serving
from tests.support.release import ReleaseTree, everyday_tree

VERSION = "3008.3"
WHEEL = "looseversion-1.3.0-py2.py3-none-any.whl"
MTIME = 1_780_000_000
RAN = "PICLOUD_TEST_RAN"
"""Names a file in the environment that the source release's own code makes when it is run."""

_BACKEND = f"""\
import os, pathlib
pathlib.Path(os.environ.get("{RAN}", "/dev/null")).write_text("code of a source release was run")
"""
_SCRIPTS = """\
import sys
import looseversion
import salt.version


def salt_minion():
    print(sys.argv[0].rpartition("/")[2], salt.version.__version__, looseversion.__name__)


salt_main = salt_call = salt_key = salt_master = salt_run = salt_cp = salt_minion
"""
_COMMANDS = ("salt-call", "salt-cp", "salt-key", "salt-master", "salt-minion", "salt-run")


def source_files(version: str = VERSION) -> dict[str, str]:
    """The files of the small source release, as they lie below its one folder."""
    scripts = [f"{name} = salt.scripts:{name.replace('-', '_')}" for name in _COMMANDS]
    return {
        "PKG-INFO": f"Metadata-Version: 2.4\nName: salt\nVersion: {version}\n"
        "Requires-Python: >=3.8\n",
        "LICENSE": "Apache License 2.0\n",
        "NOTICE": "Apache Salt\n",
        "README.rst": "not needed on a card\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        'backend-path = ["tools/pkg"]\n',
        "setup.py": _BACKEND,
        "tools/pkg/backend.py": _BACKEND,
        "salt.egg-info/entry_points.txt": "[console_scripts]\nsalt = salt.scripts:salt_main\n"
        + "\n".join(scripts)
        + "\n\n[pyinstaller40]\nhook-dirs = salt.utils.pyinstaller:get_hook_dirs\n",
        "salt.egg-info/requires.txt": "Jinja2>=3.1.6\nlooseversion\nPyYAML>=6\ndistro\n"
        "tornado>=6.5\ncherrypy>=18\n\n"
        '[:python_version >= "3.10"]\ncryptography>=50.0.0\nmsgpack>=1.2.1\npsutil>=5.0.0\n'
        'requests>=2.34\npackaging==24.0\nxxhash>=3.7.0\n\n[:python_version < "3.13"]\npyzmq>=27\n',
        "salt/__init__.py": "",
        "salt/_version.txt": version,
        "salt/version.py": "import pathlib\n"
        '__version__ = pathlib.Path(__file__).with_name("_version.txt").read_text()\n',
        "salt/scripts.py": _SCRIPTS,
        "salt/cloud/deploy/bootstrap.sh": "#!/bin/sh\n",
        "tests/test_salt.py": "not needed on a card\n",
    }


def source_release(
    version: str = VERSION,
    *,
    files: Mapping[str, str | None] | None = None,
    extra: tuple[tarfile.TarInfo, ...] = (),
) -> bytes:
    """The .tar.gz of the small source release; ``files`` are put in it, or left out for None,
    and ``extra`` are members without content that come first."""
    stream = io.BytesIO()
    chosen = {**source_files(version), **(files or {})}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info in extra:
            archive.addfile(info)
        for name, text in chosen.items():
            if text is not None:
                info = tarfile.TarInfo(f"salt-{version}/{name}")
                info.size, info.mtime, info.uid = len(text.encode()), MTIME, 1001
                info.mode = 0o775 if name.endswith(".sh") else 0o664
                archive.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(stream.getvalue(), mtime=0)


def wheel(members: Mapping[str, str] | None = None, version: str = "1.3.0") -> bytes:
    """The wheel of a small looseversion, or one with other ``members``."""
    info = f"looseversion-{version}.dist-info"
    stream = io.BytesIO()
    given = members or {
        "looseversion/__init__.py": "class LooseVersion: ...\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: looseversion\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in given.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return stream.getvalue()


def verified_salt(
    folder: Path,
    *,
    version: str = VERSION,
    source: bytes | None = None,
    beside: bytes | None = None,
) -> VerifiedSalt:
    """What ``fetch_salt`` would give of the small Salt (or of ``source`` and ``beside``)."""
    data = source or source_release(version)
    return VerifiedSalt(
        _package(folder / f"salt-{version}.tar.gz", data, version),
        (_package(folder / WHEEL, beside or wheel(), "1.3.0"),),
    )


def _package(path: Path, data: bytes, version: str) -> VerifiedPackage:
    path.write_bytes(data)
    name = path.name.partition("-")[0]
    return VerifiedPackage(name, version, hashlib.sha256(data).hexdigest(), path, len(data))


@dataclass
class Index:
    """The index: ``files`` may be changed while it is served."""

    mirror: Mirror

    def publish(self, name: str, data: bytes) -> None:
        """Offer the file ``name``, and list it as its project's."""
        project = name.partition("-")[0]
        self.mirror.files[f"/files/{name}"] = data
        links = "".join(
            f'<a href="{path}">{path.rpartition("/")[2]}</a>\n'
            for path in self.mirror.files
            if path.startswith(f"/files/{project}-")
        )
        page = f"<!DOCTYPE html><html><body>\n{links}</body></html>\n"
        self.mirror.files[f"/simple/{project}/"] = page.encode()

    @property
    def environment(self) -> dict[str, str]:
        """What points pip at this index and at no other."""
        return {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"{self.mirror.address}/simple/",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_TRUSTED_HOST": "127.0.0.1",
            "PIP_RETRIES": "0",
            "PIP_DEFAULT_TIMEOUT": "15",
        }


@contextmanager
def index() -> Iterator[Index]:
    """An index with the small Salt and its wheel, on loopback until the block ends."""
    with serving() as mirror:
        offered = Index(mirror)
        offered.publish(f"salt-{VERSION}.tar.gz", source_release())
        offered.publish(WHEEL, wheel())
        yield offered


@contextmanager
def index_for_pip(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The same, with this process's own pip pointed at it."""
    with index() as offered:
        for name, value in offered.environment.items():
            monkeypatch.setenv(name, value)
        yield offered


PYTHON_FILES = (
    "python3.11/os.py",
    "python3/dist-packages/cryptography/__init__.py",
    "python3/dist-packages/cryptography/hazmat/bindings/_rust.abi3.so",
    "python3/dist-packages/distro/__init__.py",
    "python3/dist-packages/jinja2/__init__.py",
    "python3/dist-packages/msgpack/__init__.py",
    "python3/dist-packages/packaging/__init__.py",
    "python3/dist-packages/psutil/__init__.py",
    "python3/dist-packages/psutil/_psutil_linux.cpython-311-arm-linux-gnueabihf.so",
    "python3/dist-packages/requests/__init__.py",
    "python3/dist-packages/tornado/__init__.py",
    "python3/dist-packages/xxhash/__init__.py",
    "python3/dist-packages/xxhash/_xxhash.cpython-311-arm-linux-gnueabihf.so",
    "python3/dist-packages/yaml/__init__.py",
    "python3/dist-packages/zmq/__init__.py",
    "python3/dist-packages/zmq/backend/cython/_zmq.cpython-311-arm-linux-gnueabihf.so",
    "arm-linux-gnueabihf/libcrypto.so.3",
)
"""What a release must have below /usr/lib for Salt, by name."""


def tree_with_python(*, without: tuple[str, ...] = (), system: str = "debian") -> ReleaseTree:
    """The small release with a Python and all that Salt imports, but for files whose path holds
    one of ``without``. Nothing of it can run; composing looks at names only."""
    tree = everyday_tree()
    tree.symlink("./usr/bin/python3", "python3.11")
    tree.file("./usr/bin/python3.11", b"\x7fELF", 0o755)
    tree.file("./usr/lib/os-release", f"ID={system}\n")
    tree.members = [member for member in tree.members if member[0].name != "./etc/os-release"]
    for name in PYTHON_FILES:
        if not any(word in name for word in without):
            tree.file(f"./usr/lib/{name}", b"#")
    return tree
