"""The node's own files on the boot partition: the kernel's command line, and what card this is.

In: the boot files of the overlays, the release's boot partition, and the node. Out: every file to
write there, and the list of digests with which any computer can find a damaged boot file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from imager.base.errors import ConfigurationError
from imager.bootcheck.formats.cmdline import MAX_BYTES
from imager.bootcheck.formats.kernel import is_uboot
from imager.bootcheck.own_files import NODE_PATH
from imager.bootcheck.sums import SUMS_PATH, encode_sums
from imager.config.rack import Node, Rack
from imager.disk.fat.volume import FatVolume
from imager.node.files.boot_script import script_with_words, text_with_words
from imager.node.files.card_values import CardValues
from imager.node.files.cmdline import with_root, with_words
from imager.node.files.tree import CardFile, CardTree

_CMDLINE = "cmdline.txt"
_UBOOT, _SCRIPT, _SCRIPT_TEXT = "kernel8.img", "boot.scr", "boot.txt"
_NO_CMDLINE = b"rw console=tty1\n"


class Released(Protocol):
    """What the boot partition was filled from: a release as it was composed, or a card as it is.

    ``boot_files`` maps each path to its SHA-256 in hex.
    """

    @property
    def release_name(self) -> str:
        """The release's name."""

    @property
    def release_sha256(self) -> str:
        """SHA-256 (hex) of its tarball."""

    @property
    def boot_files(self) -> Mapping[str, str]:
        """All files that the boot partition has already."""


def boot_files(
    golden: Released,
    boot: FatVolume,
    given: CardTree,
    node_file: CardFile,
    card: CardValues,
) -> tuple[CardFile, ...]:
    """The boot files ``given`` by the overlays, ``node_file``, cmdline.txt with this card's root=
    and the kernel words of ``given``, and SHA256SUMS of all files that the boot partition has then.

    Raises ConfigurationError where those words do not reach the kernel.
    """
    files = {file.path: file for file in (_spelt(file, boot) for file in given.boot)}
    cmdline = files.get(_CMDLINE) or _released(boot, _CMDLINE) or CardFile(_CMDLINE, _NO_CMDLINE)
    line = with_words(with_root(cmdline.content, card.root_partuuid), given.kernel_words)
    _require_short(line, given.kernel_words)
    files[_CMDLINE] = replace(cmdline, content=line + b"\n")
    if given.kernel_words and _starts_uboot(boot, files):
        files |= _scripts(boot, files, given.kernel_words)
    files[node_file.path] = node_file
    sums = {**golden.boot_files, **digests(files.values())}
    sums.pop(SUMS_PATH, None)
    files[SUMS_PATH] = CardFile(SUMS_PATH, encode_sums(sums))
    return tuple(files[path] for path in sorted(files))


def _released(boot: FatVolume, path: str) -> CardFile | None:
    """The release's own file."""
    return CardFile(path, boot.read_file(path)) if boot.find(path) else None


def _require_short(line: bytes, words: Sequence[str]) -> None:
    if words and len(line) > MAX_BYTES:
        raise ConfigurationError(
            f"cmdline.txt would have {len(line)} bytes with the kernel_words of the overlays "
            f"({' '.join(words)[:60]} …), and a kernel takes {MAX_BYTES}",
            hint="leave words out of kernel_words in overlay.toml, or of your own cmdline.txt",
        )


def _starts_uboot(boot: FatVolume, files: Mapping[str, CardFile]) -> bool:
    """Whether U-Boot starts the kernel: it reads boot.scr, and nobody reads cmdline.txt."""
    kernel = files.get(_UBOOT) or _released(boot, _UBOOT)
    script = files.get(_SCRIPT) or _released(boot, _SCRIPT)
    return bool(kernel and script and is_uboot(kernel.content))


def _scripts(
    boot: FatVolume, files: Mapping[str, CardFile], words: Sequence[str]
) -> Mapping[str, CardFile]:
    """boot.scr, and boot.txt where that is its text, with ``words`` for the kernel."""
    found = {}
    for path, changed in ((_SCRIPT, script_with_words), (_SCRIPT_TEXT, text_with_words)):
        file = files.get(path) or _released(boot, path)
        if file is None:
            continue
        try:
            found[file.path] = replace(file, content=changed(file.content, words))
        except ValueError as error:
            raise ConfigurationError(
                f"{path}: {error}, so the kernel_words {' '.join(words)} cannot be put into it",
                hint="leave kernel_words out of overlay.toml, or give a boot.scr of your own in "
                "overlays/base/boot with one line 'setenv bootargs …'",
            ) from None
    return found


def node_file(golden: Released, rack: Rack, node: Node, card: CardValues) -> CardFile:
    """picloud/node.json; nothing in it is secret."""
    facts = {
        "format": 1,
        "rack": rack.name,
        "node": node.name,
        "model": node.model,
        "master": rack.master.name,
        "release": golden.release_name,
        "release_sha256": golden.release_sha256,
        "imaged_at": card.imaged_at,
    }
    return CardFile(NODE_PATH, json.dumps(facts, indent=2).encode() + b"\n")


def digests(files: Iterable[CardFile]) -> Mapping[str, str]:
    """Path -> SHA-256 in hex."""
    return {file.path: hashlib.sha256(file.content).hexdigest() for file in files}


def _spelt(file: CardFile, boot: FatVolume) -> CardFile:
    """``file`` with its name spelt as in the release: to FAT, CONFIG.TXT and config.txt are one."""
    found = boot.find(file.path)
    return replace(file, path=found.path) if found else file
