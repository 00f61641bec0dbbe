"""Salt in the golden image: the Python files of PyPI's source release, of which nothing is run.

In: a release being staged, and a VerifiedSalt. Out: the files of Salt below /opt, its commands on
PATH, and its systemd units. First it is checked that the release has all that Salt needs.

::

    /opt/picloud/salt/salt/…             the package, and beside it that of each wheel
    /opt/picloud/salt/salt-*.dist-info/  version, entry points and licence, as pip would leave them
    /opt/picloud/salt/…/__pycache__/…    their bytecode, where this computer can make it
    /opt/picloud/salt/bin/…              the commands; /usr/local/bin has links to them
    /usr/local/lib/systemd/system/…      salt-minion.service, salt-master.service

/usr/local, because /usr belongs to the release's package manager: it would refuse to install its
own Salt package over files it did not install itself.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from imager.base.errors import ConfigurationError, MalformedRelease, NotAuthentic
from imager.base.progress import Progress
from imager.base.trusted_folder import kept_bytes
from imager.base.units import GiB, MiB, format_chosen
from imager.image.salt.bytecode import compiled, interpreter, source_bytes
from imager.image.salt.needs import absent_needs, distribution_of, python_minor
from imager.image.salt.packages import add_bundle
from imager.image.unpack.members import TreeEntry, clean_path, refuse
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import TarStream, read_members, unpacked
from imager.packages.python import refuse_python
from imager.release.verified import VerifiedPackage, VerifiedSalt

FOLDER = "opt/picloud/salt"
COMMANDS = ("salt", "salt-call", "salt-cp", "salt-key", "salt-master", "salt-minion", "salt-run")
OWN_MINIONS = ("usr/bin/salt-minion", "usr/local/bin/salt-minion", "opt/saltstack/salt/salt-minion")
_ABOUT, _REQUIRES, _ENTRIES = (
    "PKG-INFO",
    "salt.egg-info/requires.txt",
    "salt.egg-info/entry_points.txt",
)
_LICENCES = ("AUTHORS", "LICENSE", "NOTICE")
_LARGEST_TEXT = MiB
_LARGEST_WHEEL = 4 * MiB
_LARGEST_SOURCE = GiB
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
    *(ValueError, IndexError, EOFError, OverflowError),
)
"""What ``zipfile`` raises for a damaged file, as seen with Python 3.11."""
_SCRIPT_ENTRY = re.compile(r"(salt(?:-[a-z]+)?)\s*=\s*salt\.scripts:([a-z_]+)\s*\Z")
_PYTHON = re.compile(r"^Requires-Python:[ \t]*(.+)$", re.MULTILINE)
_HINT = "this Salt cannot go on a card: choose another version under [salt] in rack.toml"

_SCRIPT = """\
#!/usr/bin/python3
# Salt {version} from PyPI, put here by picloud-image.
import sys

sys.path.insert(0, "/{folder}")
from salt.scripts import {function}

if __name__ == "__main__":
    sys.exit({function}())
"""
# As Salt's own unit, except for the path. NotifyAccess: without python-systemd Salt says that it is
# ready through systemd-notify, another process.
_UNIT = """\
# Salt {version} from PyPI, put here by picloud-image.
[Unit]
Description=The Salt {what}
# A release may get its Python from packages, which first boot installs.
ConditionPathExists=/usr/bin/python3
Documentation=https://docs.saltproject.io/en/latest/contents.html
After=network.target{after}

[Service]
Type=notify
NotifyAccess=all
KillMode=mixed
LimitNOFILE={files}
ExecStart=/usr/local/bin/{command}

[Install]
WantedBy=multi-user.target
"""
_UNITS = {
    "salt-minion": {"what": "Minion", "after": " salt-master.service", "files": 8192},
    "salt-master": {"what": "Master Server", "after": "", "files": 100_000},
}


def add_salt(stager: Stager, salt: VerifiedSalt, release: str, progress: Progress) -> None:
    """Add ``salt`` to the release called ``release`` that is in ``stager``.

    A release that has a salt-minion keeps its own, and a note says so. Raises MalformedRelease for
    a source release or wheel that cannot go on a card, ConfigurationError with everything that
    Salt needs and the release lacks.
    """
    own = next((path for path in OWN_MINIONS if path in stager.root.entries), None)
    if own:
        progress.note(f"{release} has its own Salt (/{own}), which is used; {salt.version} is not")
        return
    packaged = add_bundle(stager, salt.bundle, release, progress) if salt.bundle else {}
    adding = _Adding(stager, salt)
    with _refusals_name_salt(salt):
        adding.unpack(progress)
        files = {**stager.root.entries, **packaged}
        adding.require_needs(release, files)
        for wheel in salt.wheels:
            adding.unzip(wheel)
        adding.compile(python_minor(files), progress)
        adding.finish()


@contextmanager
def _refusals_name_salt(salt: VerifiedSalt) -> Iterator[None]:
    """Make every refusal name Salt as its cause, not the release."""
    try:
        yield
    except MalformedRelease as error:
        raise MalformedRelease(
            f"Salt {salt.version}: {error.what}", hint=_HINT, details=error.details
        ) from error


class _Adding:
    """The steps that put one Salt into one image."""

    def __init__(self, stager: Stager, salt: VerifiedSalt) -> None:
        self._stager = stager
        self._salt = salt
        self._top = f"salt-{salt.version}"
        self._texts: dict[str, str] = {}
        self._mtime_ns = 0

    def unpack(self, progress: Progress) -> None:
        """Put Salt's files in place and remember its metadata. Raises MalformedRelease."""
        source = self._salt.source
        with (
            progress.phase("unpack Salt", source.size_bytes) as phase,
            unpacked(source.path, source.sha256, phase, most_bytes=_LARGEST_SOURCE) as stream,
        ):
            read_members(stream, source.path, self._take)
        for name in (_ABOUT, _REQUIRES, _ENTRIES):
            if name not in self._texts:
                raise MalformedRelease(f"{source.path.name} has no {self._top}/{name}", hint=_HINT)

    def _take(self, info: tarfile.TarInfo, stream: TarStream) -> None:
        top, _, name = clean_path(info.name).partition("/")
        if top != self._top:
            raise refuse(info.name, f"is not below {self._top}/")
        if info.isdir():
            return
        if name in (_ABOUT, _REQUIRES, _ENTRIES, *_LICENCES):
            self._texts[name] = _text_of(info, stream)
            self._mtime_ns = max(self._mtime_ns, int(info.mtime) * 1_000_000_000)
        elif name.startswith("salt/"):
            self._lay_down(f"{FOLDER}/{name}", info, stream)

    def _lay_down(self, path: str, info: tarfile.TarInfo, stream: TarStream) -> None:
        if not info.isreg() or info.sparse is not None:
            raise refuse(info.name, "is not an ordinary file")
        info.name = path
        info.uid = info.gid = 0
        info.mode = 0o755 if info.mode & 0o100 else 0o644
        info.pax_headers = {key: text for key, text in info.pax_headers.items() if key == "mtime"}
        self._stager.add(info, stream)

    def require_needs(self, release: str, files: Mapping[str, TreeEntry]) -> None:
        """Raise ConfigurationError unless ``files`` has all that Salt imports. ``files`` are those
        of the release and of the packages that first boot installs."""
        minor = python_minor(files)
        if minor:
            refuse_python(self._salt.version, minor, f"{release} has that Python")
        python = _PYTHON.search(self._texts[_ABOUT])
        absent = absent_needs(files, self._texts[_REQUIRES], python[1] if python else None)
        if absent:
            texts = (self._stager.text_of_root(f"{at}/os-release") for at in ("etc", "usr/lib"))
            distribution = distribution_of("".join(texts))
            raise ConfigurationError(
                f"{release} lacks what Salt {self._salt.version} needs: "
                + ", ".join(missing.need.module for missing in absent),
                hint="put the packages into a folder and name it as packages under [salt] in"
                " rack.toml (picloud-image docs salt); or choose a release that has them",
                details=[missing.line(distribution) for missing in absent],
            )

    def unzip(self, wheel: VerifiedPackage) -> None:
        """Put the files of a wheel (pure Python) beside Salt's. Raises MalformedRelease, or
        NotAuthentic for one that was altered."""
        if wheel.size_bytes > _LARGEST_WHEEL:
            most = format_chosen(_LARGEST_WHEEL)
            raise MalformedRelease(f"{wheel.path.name} is larger than {most}", hint=_HINT)
        data = kept_bytes(wheel.path, _LARGEST_WHEEL)
        if hashlib.sha256(data).hexdigest() != wheel.sha256:
            raise NotAuthentic(
                f"{wheel.path} was altered since it was archived",
                hint="run the same command again: what is altered is set aside and fetched anew",
            )
        for name, content in wheel_members(data, wheel.path.name):
            self._put(f"{FOLDER}/{name}", content)

    def compile(self, minor: int | None, progress: Progress) -> None:
        """Add the bytecode of Salt's files, for the node's Python 3.``minor``."""
        python = interpreter(minor) if minor else None
        if python is None:
            progress.note(
                f"there is no Python 3.{minor} here to compile Salt with: each node does it when"
                " Salt first starts, which then takes longer"
            )
            return
        folder = self._stager.root_folder / FOLDER
        with progress.phase("compile Salt", source_bytes(folder)) as phase:
            made = compiled(folder, FOLDER, python, phase.advance)
            for path, code in made.items():
                self._put(f"{FOLDER}/{path}", code)

    def finish(self) -> None:
        """Add metadata, commands and systemd units."""
        info = f"{FOLDER}/{self._top}.dist-info"
        self._put(f"{info}/METADATA", self._texts[_ABOUT].encode())
        self._put(f"{info}/INSTALLER", b"picloud-image\n")
        self._put(f"{info}/entry_points.txt", self._texts[_ENTRIES].encode())
        for name in _LICENCES:
            if name in self._texts:
                self._put(f"{info}/licenses/{name}", self._texts[name].encode())
        version, functions = self._salt.version, _functions(self._texts[_ENTRIES])
        for command, function in functions.items():
            script = _SCRIPT.format(version=version, folder=FOLDER, function=function)
            place = f"{FOLDER}/bin/{command}"
            self._put(place, script.encode(), mode=0o755)
            self._stager.link(f"usr/local/bin/{command}", f"/{place}", mtime_ns=self._mtime_ns)
        for command, words in _UNITS.items():
            unit = _UNIT.format(version=version, command=command, **words)
            self._put(f"usr/local/lib/systemd/system/{command}.service", unit.encode())

    def _put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._stager.put(path, data, mode=mode, mtime_ns=self._mtime_ns)


def _text_of(info: tarfile.TarInfo, stream: TarStream) -> str:
    if not info.isreg() or info.size > _LARGEST_TEXT:
        raise refuse(info.name, f"is not a file of at most {format_chosen(_LARGEST_TEXT)}")
    stream.seek(info.offset_data)
    return stream.read(info.size).decode(errors="replace")


def _functions(entry_points: str) -> dict[str, str]:
    """The function of ``salt.scripts`` behind each of COMMANDS that ``entry_points`` names."""
    found = [_SCRIPT_ENTRY.match(line) for line in entry_points.splitlines()]
    named = {match[1]: match[2] for match in found if match}
    functions = {command: named[command] for command in COMMANDS if command in named}
    for command in _UNITS:
        if command not in functions:
            raise MalformedRelease(f"its entry points name no {command}", hint=_HINT)
    return functions


def wheel_members(wheel: bytes, wheel_name: str) -> Iterator[tuple[str, bytes]]:
    """Every file of a wheel, sorted, by its checked name. Raises MalformedRelease and nothing else:
    the bytes may be a stranger's."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            room = _LARGEST_WHEEL
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if info.is_dir():
                    continue
                room -= info.file_size
                if room < 0:
                    most = format_chosen(_LARGEST_WHEEL)
                    raise refuse(info.filename, f"makes the wheel larger than {most}")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise refuse(info.filename, "is packed otherwise than wheels are")
                yield clean_path(info.filename), archive.read(info)
    except _UNREADABLE as error:
        raise MalformedRelease(f"{wheel_name} is not a sound wheel: {error}", hint=_HINT) from error
