"""The mirrors: whether any of them can be reached from here.

In: URLs. Out: one Checkup. All are asked at once, and nobody waits longer than a few seconds: a
resolver that does not answer is not waited for, as it would be for a download.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from imager.base.errors import NetworkError
from imager.doctor.checkup import Checkup, warned, well
from imager.release.transfer.web import TransferLimits, Web

_SECONDS = 5.0
_LIMITS = TransferLimits(connect_seconds=_SECONDS, read_seconds=_SECONDS)


def mirror_checkup(urls: Sequence[str]) -> Checkup:
    """Whether the servers of ``urls`` answer; any answer is one."""
    heard: dict[str, str] = {}
    threads = [threading.Thread(target=_ask, args=(url, heard), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 2 * _SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    silent = {url: heard.get(url, f"no answer within {2 * _SECONDS:.0f} s") for url in urls}
    faults = [f"{_host(url)}: {why}" for url, why in silent.items() if why]
    count = f"{len(urls) - len(faults)} of {len(urls)} answer"
    if len(faults) < len(urls):
        return well("network", "mirrors", count)
    to_do = "look at the connection; with --offline what is archived is enough"
    return warned("network", "mirrors", f"{count}; {faults[0]}", to_do)


def _ask(url: str, heard: dict[str, str]) -> None:
    """Note why the server of ``url`` gave no answer; an empty text where it did."""
    web = Web(_LIMITS)
    try:
        with web.open(f"{url}.md5", follow=False):
            heard[url] = ""
    except NetworkError as error:
        heard[url] = "" if error.__cause__ is None else error.what
    finally:
        web.close()


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
