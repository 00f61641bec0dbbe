"""The node's own files on the boot partition: the kernel's command line, and what card this is.

In: the boot files of the overlays, the release's boot partition, and the node. Out: every file to
write there, and the list of digests with which any computer can find a damaged boot file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from imager.bootcheck.own_files import NODE_PATH
from imager.bootcheck.sums import SUMS_PATH, encode_sums
from imager.config.rack import Node, Rack
from imager.disk.fat.volume import FatVolume
from imager.image.compose.golden import GoldenImage
from imager.node.files.card_values import CardValues
from imager.node.files.cmdline import with_root
from imager.node.files.tree import CardFile

_CMDLINE = "cmdline.txt"
_NO_CMDLINE = b"rw console=tty1\n"


def boot_files(
    golden: GoldenImage,
    boot: FatVolume,
    given: Iterable[CardFile],
    node_file: CardFile,
    card: CardValues,
) -> tuple[CardFile, ...]:
    """The files ``given`` by the overlays, ``node_file``, cmdline.txt with this card's root=, and
    SHA256SUMS of all files that the boot partition has then."""
    files = {file.path: file for file in (_spelt(file, boot) for file in given)}
    found = boot.read_file(_CMDLINE) if boot.find(_CMDLINE) else _NO_CMDLINE
    cmdline = files.get(_CMDLINE) or CardFile(_CMDLINE, found)
    files[_CMDLINE] = replace(cmdline, content=with_root(cmdline.content, card.root_partuuid))
    files[node_file.path] = node_file
    sums = {**golden.boot_files, **digests(files.values())}
    sums.pop(SUMS_PATH, None)
    files[SUMS_PATH] = CardFile(SUMS_PATH, encode_sums(sums))
    return tuple(files[path] for path in sorted(files))


def node_file(golden: GoldenImage, rack: Rack, node: Node, card: CardValues) -> CardFile:
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
