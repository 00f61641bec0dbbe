"""The node's own files on the boot partition: the kernel's command line, and what card this is.

In: the boot files of the overlays, the release's boot partition, and the node. Out: every file to
write there, and the list of digests with which any computer can find a damaged boot file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

from imager.base.errors import ConfigurationError
from imager.bootcheck.formats.cmdline import MAX_BYTES
from imager.bootcheck.formats.kernel import is_uboot
from imager.bootcheck.own_files import CMDLINE_PATH, FIRSTBOOT_PREFIX, NODE_PATH, place_fault
from imager.bootcheck.sums import SUMS_PATH, encode_sums
from imager.config.rack import Node, Rack
from imager.disk.fat.names import same_on_fat
from imager.disk.fat.volume import FatVolume
from imager.node.files.boot_script import script_with_words, text_with_words
from imager.node.files.card_values import CardValues
from imager.node.files.cmdline import with_root, with_words
from imager.node.files.tree import CardFile, CardTree

_UBOOT, _SCRIPT, _SCRIPT_TEXT = "kernel8.img", "boot.scr", "boot.txt"
_NO_CMDLINE = b"rw console=tty1\n"
_OWN = {same_on_fat(path) for path in (NODE_PATH, SUMS_PATH)}


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

    Raises ConfigurationError where those words do not reach the kernel, and for files of which
    FAT could not hold both.
    """
    files = _given_files(given.boot, boot)
    cmdline = _given_or_released(files, boot, CMDLINE_PATH) or CardFile(CMDLINE_PATH, _NO_CMDLINE)
    line = with_words(with_root(cmdline.content, card.root_partuuid), given.kernel_words)
    _require_short(line, given.kernel_words)
    files[same_on_fat(CMDLINE_PATH)] = replace(cmdline, content=line + b"\n")
    if given.kernel_words and _starts_uboot(boot, files):
        files |= _scripts(boot, files, given.kernel_words)
    files[same_on_fat(node_file.path)] = node_file
    sums = laid_over(golden.boot_files, {**digests(files.values()), SUMS_PATH: ""})
    del sums[SUMS_PATH]
    files[same_on_fat(SUMS_PATH)] = CardFile(SUMS_PATH, encode_sums(sums))
    return tuple(sorted(files.values(), key=lambda file: file.path))


def _given_files(given: Sequence[CardFile], boot: FatVolume) -> dict[str, CardFile]:
    """The files of overlays, which do not contradict each other, by ``same_on_fat`` of their paths;
    each is spelt as ``boot`` has it or its folder.

    Raises ConfigurationError, with a line for each that would take the place of a file of this
    program, or that contradicts what is on ``boot``.
    """
    faults = [line for file in given for line in _faults(file, boot)]
    if faults:
        raise unplaceable(faults)
    spellings = {same_on_fat(path): path for path in _with_parents(NODE_PATH)}
    return {same_on_fat(file.path): _spelt(file, boot, spellings) for file in given}


def unplaceable(faults: Sequence[str]) -> ConfigurationError:
    """The error that names ``faults`` of files for the boot partition."""
    return ConfigurationError(
        "some files of the node cannot be put on its boot partition",
        hint="change the overlays' boot/ folders",
        details=faults,
    )


def _faults(file: CardFile, boot: FatVolume) -> Iterator[str]:
    key = same_on_fat(file.path)
    if key in _OWN or key.startswith(FIRSTBOOT_PREFIX):
        yield f"{file.source}: {file.path} is a file that picloud-image writes itself"
    elif fault := place_fault(file.path, is_folder=False):
        yield f"{file.source}: {file.path} {fault}"
    found = boot.find(file.path)
    if found is not None and found.is_dir:
        yield f"{file.source}: {file.path} is a folder in the release"
    for parent in _with_parents(file.path)[:-1]:
        there = boot.find(parent)
        if fault := place_fault(parent, is_folder=True):
            yield f"{file.source}: {parent} {fault}"
        elif there is not None and not there.is_dir:
            yield f"{file.source}: {parent} is a file in the release"


def _with_parents(path: str) -> list[str]:
    """The folders that lead to ``path``, outermost first, and itself."""
    parents = [str(parent) for parent in PurePosixPath(path).parents]
    return [*parents[-2::-1], path]


def _spelt(file: CardFile, boot: FatVolume, spellings: dict[str, str]) -> CardFile:
    """``file`` with each part of its path spelt as on ``boot``, or else as it was spelt first: to
    FAT, CONFIG.TXT and config.txt are one."""
    spelt = ""
    for path in _with_parents(file.path):
        found = boot.find(path)
        name = PurePosixPath(path).name
        ours = found.path if found else f"{spelt}/{name}" if spelt else name
        spelt = spellings.setdefault(same_on_fat(path), ours)
    return replace(file, path=spelt)


def _given_or_released(
    files: Mapping[str, CardFile], boot: FatVolume, path: str
) -> CardFile | None:
    """The file of an overlay, or else the release's own."""
    given, found = files.get(same_on_fat(path)), boot.find(path)
    if given is not None or found is None or found.is_dir:
        return given
    return CardFile(found.path, boot.read_file(path))


def _require_short(line: bytes, words: Sequence[str]) -> None:
    if words and len(line) > MAX_BYTES:
        raise ConfigurationError(
            f"cmdline.txt would have {len(line)} bytes with the kernel_words of the overlays "
            f"({' '.join(words)[:60]} …), and a kernel takes {MAX_BYTES}",
            hint="leave words out of kernel_words in overlay.toml, or of your own cmdline.txt",
        )


def _starts_uboot(boot: FatVolume, files: Mapping[str, CardFile]) -> bool:
    """Whether U-Boot starts the kernel: it reads boot.scr, and nobody reads cmdline.txt."""
    kernel = _given_or_released(files, boot, _UBOOT)
    script = _given_or_released(files, boot, _SCRIPT)
    return bool(kernel and script and is_uboot(kernel.content))


def _scripts(
    boot: FatVolume, files: Mapping[str, CardFile], words: Sequence[str]
) -> Mapping[str, CardFile]:
    """boot.scr, and boot.txt where that is its text, with ``words`` for the kernel."""
    found = {}
    for path, changed in ((_SCRIPT, script_with_words), (_SCRIPT_TEXT, text_with_words)):
        file = _given_or_released(files, boot, path)
        if file is None:
            continue
        try:
            found[same_on_fat(path)] = replace(file, content=changed(file.content, words))
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


def laid_over(there: Mapping[str, str], put: Mapping[str, str]) -> dict[str, str]:
    """The digests of all boot files by path: of those that are ``there``, and of ``put``, which
    take their places, whatever the case."""
    replaced = {same_on_fat(path) for path in put}
    kept = {path: digest for path, digest in there.items() if same_on_fat(path) not in replaced}
    return kept | dict(put)
