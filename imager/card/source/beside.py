"""Small files that a publisher puts beside an image: sums, a block map, signatures.

In: an Origin. Out: a file of the same folder by its name, None where there is none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from imager.base.errors import ConfigurationError, NetworkError
from imager.base.units import format_chosen
from imager.card.source.origin import LocalFile, Origin, RemoteFile, local_file
from imager.disk.bmap import MAX_BMAP_BYTES
from imager.release.transfer.web import NotGiven

_WEB_PAGE = re.compile(rb"\s*<(?:!doctype\s+)?html\b", re.IGNORECASE)
"""Some servers say so, and with the status of success, that they have no such file."""
_HELD_UP = "run it again later; if that does not help, fetch the image first, and give its path"
"""Some servers never say of a file that they have not got it."""
PACKED_NAMES = (".xz", ".gz", ".bz2", ".zst", ".zip")


def file_name(origin: Origin) -> str:
    """The name of the source's file, without its folder."""
    if isinstance(origin, RemoteFile):
        return unquote(origin.name.partition("?")[0].rpartition("/")[2])
    return Path(origin.name).name


def unpacked_names(name: str) -> tuple[str, ...]:
    """``name``, and what it may be called without how it is packed, and without ``.img`` too."""
    stem = next((name.removesuffix(end) for end in PACKED_NAMES if name.endswith(end)), name)
    return tuple(dict.fromkeys((name, stem, stem.removesuffix(".img"))))


def beside(origin: Origin, name: str) -> bytes | None:
    """The whole file ``name`` beside the source, of at most MAX_BMAP_BYTES; None where there is
    none.

    Raises what ``local_file`` does, ConfigurationError for a file that is larger, and NetworkError
    where a server does not say whether there is one: who can hold it up would else decide that
    nothing is known of the image.
    """
    if isinstance(origin, RemoteFile):
        address, query, _ = origin.name.partition("?")
        if query:
            return None
        web, url = origin.web, f"{address.rpartition('/')[0]}/{quote(name)}"
        try:
            content = web.patiently(lambda: web.small_file(url, MAX_BMAP_BYTES))
        except NotGiven:
            return None
        except NetworkError as error:
            raise NetworkError(error.what, hint=_HELD_UP) from error
        return None if _WEB_PAGE.match(content) else content
    if isinstance(origin, LocalFile):
        path = Path(origin.name).with_name(name)
        if os.path.lexists(path):
            with local_file(path) as found:
                content = found.look(0, MAX_BMAP_BYTES + 1)
            if len(content) > MAX_BMAP_BYTES:
                raise ConfigurationError(
                    f"{path} is larger than {format_chosen(MAX_BMAP_BYTES)}",
                    hint="give it another name, if it is neither sums nor a block map",
                )
            return content
    return None
