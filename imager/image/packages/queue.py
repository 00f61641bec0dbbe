"""What is left for a node's first boot: what scriptlets and hooks of packages would have done.

In: what became of the packages of a release. Out: the file ``queue`` on the card, one line for each
thing to do in its order, and beside it the scripts that pacman's database no longer has. The first
boot does it once (``firstboot/steps/45-packages``). What five programs of every distribution do is
named by what it is: no script of a package decides about users, libraries or kernels. Sources:
PKGBUILD(5); ``_alpm_runscriptlet`` in ``lib/libalpm/trans.c`` of pacman 6.0.2 and 7.0.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from imager.image.packages.changes import PackageChange, PackageOperation, changed_files
from imager.image.packages.hooks import Hook
from imager.image.unpack.stager import Stager

FOLDER = "var/lib/picloud/packages"
_REMOVE = PackageOperation.REMOVE
_MODULES = re.compile(r"usr/lib/modules/([A-Za-z0-9._+-]+)/")
_OURS = ("systemd-sysusers", "systemd-tmpfiles", "ldconfig", "depmod", "mkinitcpio")
_INITRAMFS = "usr/bin/mkinitcpio"
_USERS_EARLY = "etc/systemd/system/systemd-sysusers.service.d/picloud.conf"
_EARLY = b"""\
# Written by picloud-image. Sockets and services of packages that came with the image start before
# first boot comes to these packages' users, and want them: docker.socket fails without its group.
[Unit]
ConditionNeedsUpdate=
ConditionPathExists=!/var/lib/picloud/firstboot/45-packages.done
"""


def queued(
    stager: Stager, changes: tuple[PackageChange, ...], hooks: Iterable[Hook]
) -> tuple[str, ...]:
    """Write the queue into the release, unless there is nothing to do. Returns its lines."""
    files = [path for path, how in changed_files(changes).items() if how is not _REMOVE]
    kernels = sorted({found[1] for path in files if (found := _MODULES.match(path))})
    lines = [f"modules {kernel}" for kernel in kernels]
    if any(path.startswith("usr/lib/sysusers.d/") for path in files):
        lines.append("users")
        stager.put(_USERS_EARLY, _EARLY, mode=0o644, mtime_ns=stager.newest * 1_000_000_000)
    if any(_is_library(path) for path in files):
        lines.append("libraries")
    for change in changes:
        lines += _scriptlets(stager, change)
    if any(path.startswith("usr/lib/tmpfiles.d/") for path in files):
        lines.append("folders")
    for hook in hooks:
        if not _is_ours(hook):
            _put(stager, f"hooks/{hook.name}", f"exec {shlex.join(hook.words)}\n")
            _put(stager, f"hooks/{hook.name}.targets", "".join(f"{t}\n" for t in hook.targets))
            lines.append(f"hook {hook.name}")
    if kernels and stager.entry(_INITRAMFS):
        lines.append("initramfs")
    if lines:
        _put(stager, "queue", "".join(f"{line}\n" for line in lines))
    return tuple(lines)


def _scriptlets(stager: Stager, change: PackageChange) -> Iterator[str]:
    """``scriptlet FUNCTION PACKAGE VERSION…`` for each function that pacman would have called; it
    too looks for the name anywhere in the script."""
    package, what = change.package, change.operation.lower()
    versions = [each.package.version for each in (package, change.before) if each]
    called = [f"{when}_{what}" for when in ("pre", "post") if f"{when}_{what}" in package.script]
    if called and change.operation is _REMOVE:
        _put(stager, f"removed/{package.name}-{versions[0]}", package.script)
    for function in called:
        yield " ".join(["scriptlet", function, package.name, *versions])


def _is_library(path: str) -> bool:
    return path.startswith("usr/lib/") and ".so" in PurePosixPath(path).name


def _is_ours(hook: Hook) -> bool:
    """Whether the queue has what the hook does by what it is: it runs one of those programs, or is
    called after it and runs it through a script."""
    return any(ours in hook.name or PurePosixPath(hook.words[0]).name == ours for ours in _OURS)


def _put(stager: Stager, name: str, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    stager.put(f"{FOLDER}/{name}", data, mode=0o644, mtime_ns=stager.newest * 1_000_000_000)
