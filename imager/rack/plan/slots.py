"""Which slot of which card reader has which label: ``slots.toml`` beside rack.toml.

In: the file, which ``rack slots learn`` writes and a person may edit. Out: Slots: the label of the
slot in which a card is, and the slot in which a node's card is expected. A slot is named as in
/dev/disk/by-path, which depends on the USB socket. So a label stays with its place, even when the
reader or the card is exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.json_fields import shown
from imager.base.text import toml_text
from imager.base.trusted_folder import TrustedFolder
from imager.config.fields import Faults, Table, nearest, parse_document
from imager.config.slot_labels import by_place, label_fault

SLOTS_FILE = "slots.toml"
BY_PATH = "/dev/disk/by-path/"

_HEAD = """\
# slots.toml: which slot of which card reader carries which label.
# "picloud-image rack slots learn" writes this file anew (comments of your own are not kept); it
# may be edited too: a label, and the name under /dev/disk/by-path of the reader's slot, which
# "picloud-image devices" shows. The name tells the socket the reader is plugged into, so it stays
# the same for another reader or card; plugged in elsewhere, a reader has to be learned again.

[slots]
"""
_LIMIT_BYTES = 1 << 20
_HINT = "mend what is named here, or remove the file and run picloud-image rack slots learn"
_EXAMPLE = '"pci-0000:00:14.0-usb-0:2.1:1.0-scsi-0:0:0:0"'
_NAME = re.compile(rf"(?:{BY_PATH})?(?=.*-)[!-.0-~]{{1,200}}\Z")  # printable, one hyphen at least
_PARTITION = re.compile(r"-part\d+\Z")


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a rack by label; each value is a name in /dev/disk/by-path, without folder."""

    names: Mapping[str, str]

    def label_of(self, by_path: Iterable[str]) -> str | None:
        """The label of the disk that has these links in by-path (``Disk.by_path``), or None."""
        links = {_bare(link) for link in by_path}
        return next((label for label, name in self.names.items() if name in links), None)

    def path_of(self, label: str) -> str | None:
        """The link in /dev/disk/by-path that belongs to ``label``, or None."""
        name = self.names.get(label)
        return BY_PATH + name if name is not None else None


def load_slots(folder: Path) -> Slots:
    """The slots of the rack in ``folder``; none when it has no slots.toml.

    Raises ConfigurationError with one line for each fault.
    """
    path = folder / SLOTS_FILE
    try:
        text = TrustedFolder(folder).read(SLOTS_FILE, _LIMIT_BYTES).decode()
    except FileNotFoundError:
        return Slots({})
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text", hint=_HINT) from error
    slots, faults = parse_slots(text)
    if faults:
        raise faults.error(path, _HINT)
    return slots


def parse_slots(text: str) -> tuple[Slots, Faults]:
    """The slots in ``text``, and what is wrong with it."""
    top, faults = parse_document(SLOTS_FILE, text)
    labels: dict[str, str] = {}
    table = top.table("slots")
    for label in table.names():
        name = _read_name(table, label, labels)
        if name is not None:
            labels[name] = label
    top.close()
    return Slots({label: name for name, label in labels.items()}), faults


def _read_name(table: Table, label: str, labels: Mapping[str, str]) -> str | None:
    """The slot that ``label`` is given to; None and a fault where it cannot be, or is one of those
    that have ``labels``."""
    text = table.string(label, example=_EXAMPLE)
    if text is None:
        return None
    name = _bare(text)
    owner = labels.get(name)
    fault = label_fault(label)
    if fault:
        fault = f"{shown(label)} {fault}"
    elif not _NAME.match(text):
        fault = f"{shown(text)} is not a name in /dev/disk/by-path; write it like {_EXAMPLE}"
    elif _PARTITION.search(name):
        whole = shown(_PARTITION.sub("", name))
        fault = f"{shown(text)} is a partition; write the disk's own name, {whole}"
    elif owner:
        fault = f"{shown(text)} is the slot of {owner} already; a slot has one label"
    if fault:
        table.fault(label, fault)
        return None
    return name


def encode_slots(slots: Slots) -> str:
    """The text of a slots.toml."""
    lines = (f"{label} = {toml_text(BY_PATH + name)}\n" for label, name in slots.names.items())
    return _HEAD + "".join(lines)


def name_slot(folder: Path, label: str, by_path: str) -> Slots:
    """Give the slot ``by_path`` the ``label``, write the file, and return what it now holds.

    A slot has one label and a label one slot, so what either had before is removed. Two runs at the
    same time do not overwrite each other's changes. Raises as ``load_slots``.
    """
    name = _bare(by_path)
    beside = TrustedFolder(folder)
    with beside.held():
        kept = {k: v for k, v in load_slots(folder).names.items() if k != label and v != name}
        names = {**kept, label: name}
        slots = Slots({one: names[one] for one in sorted(names, key=by_place)})
        beside.write(SLOTS_FILE, encode_slots(slots).encode())
    return slots


def forget_slots(folder: Path, labels: Sequence[str]) -> Slots:
    """Remove ``labels`` from the file and return what is left.

    Raises ConfigurationError, and removes none, when one of them is not there.
    """
    beside = TrustedFolder(folder)
    with beside.held():
        names = dict(load_slots(folder).names)
        for label in labels:
            if label not in names:
                raise ConfigurationError(
                    f"{folder / SLOTS_FILE}: no slot is called {label!r}",
                    hint=nearest(label, names),
                )
        slots = Slots({label: name for label, name in names.items() if label not in labels})
        beside.write(SLOTS_FILE, encode_slots(slots).encode())
    return slots


def _bare(link: str) -> str:
    return link.rpartition("/")[2]
