"""Where receipts are kept and how the receipt of a card is found.

In: a rack's folder. Out: ``.picloud/receipts/<time>-<node>.json``, written atomically and private,
and the newest proven receipt of a card.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from imager.base.below import read_named
from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import TrustedFolder
from imager.card.receipt.receipt import Receipt, ReceiptError, ReceiptResult, decode_receipt

MAX_RECEIPT_BYTES = 64 * 1024 * 1024
_SUFFIX = ".json"
_LONGEST_STEM = 200
"""In bytes. Linux has room for 255, of which making it unique, the suffix and ``replace_in`` take
some."""
_NAME_ONE = "name a receipt's file; those of a rack lie in its .picloud/receipts"


def save_receipt(receipt: Receipt, folder: TrustedFolder) -> Path:
    """Write ``receipt`` into ``folder`` (mode 0600) under its time and node; returns the path,
    which every program can name: of what is no UTF-8 nothing is in it, of a long name the
    beginning."""
    taken = folder.make_private().names()
    stem = receipt.finished_at.replace(":", "").replace("-", "") + "-" + _named(receipt)
    stem = stem.encode(errors="ignore")[:_LONGEST_STEM].decode(errors="ignore")
    name = f"{stem}.json"
    while name in taken:
        name = f"{stem}-{secrets.token_hex(2)}.json"
    folder.write(name, receipt.encode(), mode=0o600)
    return folder.path / name


def _named(receipt: Receipt) -> str:
    """The node; else image and card, because several cards get one image at the same moment."""
    if receipt.image.source is None:
        return receipt.node
    return f"{receipt.node}-{PurePath(receipt.target.path).name}"


def load_receipt(path: Path) -> Receipt:
    """The receipt in the file ``path``; raises ConfigurationError that says what is wrong."""
    try:
        return decode_receipt(read_named(path, MAX_RECEIPT_BYTES))
    except PermissionError:
        with host_storage(path):
            raise
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}",
            hint=_NAME_ONE,
        ) from error
    except ReceiptError as error:
        raise ConfigurationError(
            f"{path} is not a receipt this program can read: {error}",
            hint=_NAME_ONE,
        ) from error


def all_receipts(folder: TrustedFolder) -> Iterator[tuple[Path, Receipt]]:
    """Every receipt in ``folder``, newest first; one that is damaged is passed over.

    Raises ConfigurationError for a link or a stranger's file, and HostStorage for one that may not
    be read: to pass over those would be to say that a card has no receipt.
    """
    for name in _newest_first(folder):
        try:
            receipt = receipt_in(folder, name)
        except (ReceiptError, FileNotFoundError):
            continue
        yield folder.path / name, receipt


def receipt_in(folder: TrustedFolder, name: str) -> Receipt:
    """The receipt in the file ``name`` of ``folder``. Raises ReceiptError for a damaged one."""
    return decode_receipt(folder.read(name, MAX_RECEIPT_BYTES))


def newest_by_node(
    folder: TrustedFolder, read: Callable[[TrustedFolder, str], Receipt] = receipt_in
) -> dict[str, tuple[Path, Receipt]]:
    """The newest sound receipt of each node; only those are read, going by their names. Raises as
    ``all_receipts``. Whoever asks again and again may ``read`` each once."""
    found: dict[str, tuple[Path, Receipt]] = {}
    for name in _newest_first(folder):
        if name.removesuffix(_SUFFIX).partition("-")[2] in found:
            continue
        with suppress(ReceiptError, FileNotFoundError):
            receipt = read(folder, name)
            found.setdefault(receipt.node, (folder.path / name, receipt))
    return found


def _newest_first(folder: TrustedFolder) -> list[str]:
    names = [name for name in folder.names() if name.endswith(_SUFFIX) and name[0] != "."]
    return sorted(names, key=lambda name: (name[:16], name), reverse=True)


def find_receipt(
    folder: TrustedFolder, matches: Callable[[Receipt], bool]
) -> tuple[Path, Receipt] | None:
    """The newest receipt of a card that was proven here for which ``matches`` holds; what a station
    says of one proves nothing."""
    return next(
        (
            (path, receipt)
            for path, receipt in all_receipts(folder)
            if receipt.result is ReceiptResult.VERIFIED
            and not receipt.is_hearsay
            and matches(receipt)
        ),
        None,
    )


def by_disk_id(disk_id: int) -> Callable[[Receipt], bool]:
    """Matches the receipts of the card whose MBR carries ``disk_id``."""
    return lambda receipt: receipt.image.disk_id == disk_id
