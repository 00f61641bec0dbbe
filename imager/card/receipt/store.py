"""Where receipts are kept and how a card finds its own.

In: a rack's folder. Out: ``.picloud/receipts/<time>-<node>.json``, written atomically and private,
and the newest proven receipt of a card.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from imager.base.durable import private_folder, write_atomically
from imager.base.errors import ConfigurationError
from imager.card.receipt.receipt import Receipt, ReceiptError, ReceiptResult, decode_receipt

MAX_RECEIPT_BYTES = 64 * 1024 * 1024


def save_receipt(receipt: Receipt, folder: Path) -> Path:
    """Write ``receipt`` into ``folder`` (mode 0600) under its time and node; returns the path."""
    private_folder(folder)
    stem = receipt.finished_at.replace(":", "").replace("-", "") + "-" + receipt.node
    path = folder / f"{stem}.json"
    while path.exists():
        path = folder / f"{stem}-{secrets.token_hex(2)}.json"
    write_atomically(path, receipt.encode(), mode=0o600)
    return path


def load_receipt(path: Path) -> Receipt:
    """The receipt in the file ``path``; raises ConfigurationError that says what is wrong."""
    try:
        with path.open("rb") as file:
            return decode_receipt(file.read(MAX_RECEIPT_BYTES))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", hint="give a receipt file with --receipt FILE"
        ) from error
    except ReceiptError as error:
        raise ConfigurationError(
            f"{path} is not a receipt this program can read: {error}",
            hint="give another receipt, or write the card again",
        ) from error


def all_receipts(folder: Path) -> Iterator[tuple[Path, Receipt]]:
    """Every readable receipt in ``folder``, newest first; what is unreadable is passed over."""
    for path in _newest_first(folder):
        try:
            yield path, load_receipt(path)
        except ConfigurationError:
            continue


def newest_by_node(folder: Path) -> dict[str, tuple[Path, Receipt]]:
    """The newest readable receipt of each node; only those are read, going by their names."""
    found: dict[str, tuple[Path, Receipt]] = {}
    for path in _newest_first(folder):
        if path.stem.partition("-")[2] in found:
            continue
        with suppress(ConfigurationError):
            receipt = load_receipt(path)
            found.setdefault(receipt.node, (path, receipt))
    return found


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=_age, reverse=True)


def _age(path: Path) -> tuple[str, str]:
    return path.name[:16], path.name


def find_receipt(folder: Path, matches: Callable[[Receipt], bool]) -> tuple[Path, Receipt] | None:
    """The newest receipt of a proven card for which ``matches`` holds."""
    return next(
        (
            (path, receipt)
            for path, receipt in all_receipts(folder)
            if receipt.result is ReceiptResult.VERIFIED and matches(receipt)
        ),
        None,
    )


def by_disk_id(disk_id: int) -> Callable[[Receipt], bool]:
    """Matches the receipts of the card whose MBR carries ``disk_id``."""
    return lambda receipt: receipt.image.disk_id == disk_id
