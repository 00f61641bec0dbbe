"""The rack's own pacman packages, which are put on every card and installed at first boot.

In: the folder that rack.toml names. Out: the files in it with their hashes. What is in the packages
is checked when an image is composed (``imager.image.salt.packages``).
"""

from __future__ import annotations

import errno
import hashlib
import re
from operator import itemgetter
from pathlib import Path

from imager.base.below import Below
from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError
from imager.base.units import MiB, format_chosen
from imager.release.verified import PackageFile

_PACKAGE = re.compile(r".+-[^-]+-[^-]+-[^-]+\.pkg\.tar(?:\.(\w+))?(\.sig)?")
_LARGEST = 256 * MiB
_READ = (None, "gz", "xz", "bz2")
"""The kinds of compression that Python 3.11 can unpack; Arch Linux ARM uses xz."""


def bundle_in(folder: Path) -> tuple[PackageFile, ...]:
    """The packages in ``folder`` and their signatures, sorted by name. Every file is read.

    Raises as ``package_names`` does.
    """
    return tuple(_file(folder / name) for name in package_names(folder))


def package_names(folder: Path) -> tuple[str, ...]:
    """The names of those files, sorted; the files are not read.

    Raises ConfigurationError when there is no package, or for one with another compression;
    HostStorage when the folder cannot be read.
    """
    with host_storage(folder):
        found = [_PACKAGE.fullmatch(path.name) for path in folder.iterdir()]
    packages = sorted(((match[0], match[1]) for match in found if match), key=itemgetter(0))
    for name, packing in packages:
        if packing not in _READ:
            raise ConfigurationError(
                f"{folder / name} is packed with {packing}, which is not read here",
                hint="a package is as good unpacked: for zst, zstd -d --rm FILE",
            )
    if all(name.endswith(".sig") for name, _ in packages):
        raise ConfigurationError(
            f"{folder}, which [salt] packages names, holds no pacman package",
            hint="put NAME-VERSION-RELEASE-ARCH.pkg.tar.xz files there (picloud-image docs salt)",
        )
    return tuple(name for name, _ in packages)


def package_bytes(path: Path) -> bytes:
    """The content of one of those files. A link is not followed: a signature goes on the card as it
    is, whatever it holds. Raises ConfigurationError for what is no file of a package's size, and
    HostStorage when it cannot be read."""
    try:
        return Below(path.parent, (path.name,), judged=False).read(_LARGEST)[0]
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigurationError(
                f"{path}: larger than {format_chosen(_LARGEST)}, which no package here may be",
                hint="take it out of the folder",
            ) from None
        if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO):
            raise ConfigurationError(
                f"{path} is no regular file, and links are not followed here",
                hint="copy the package, and its signature, into the folder itself",
            ) from None
        with host_storage(path):
            raise


def _file(path: Path) -> PackageFile:
    data = package_bytes(path)
    return PackageFile(path.name, hashlib.sha256(data).hexdigest(), path, len(data))
