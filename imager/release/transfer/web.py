"""Requests to a server: every wait has a limit, and every failure is explained.

In: a URL. Out: an open answer, a small file, or the chunks of a large one, not unpacked. Everything
that can go wrong is a NetworkError that names the URL and the cause; TryAgain is one that may not
happen again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import requests
import urllib3

from imager.base.errors import NetworkError
from imager.base.units import GiB, KiB, MiB, format_chosen, format_size
from imager.release.transfer.deadline import Deadline, obey

_LENGTH = re.compile(r"[0-9]{1,18}\Z")
_CHUNK_BYTES = 256 * KiB
_MAX_REDIRECTS = 5
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How long to wait, how much to take, how often to try.

    After ``attempts`` failures in a row a download from one mirror ends; a failure after
    ``headway_bytes`` of new bytes counts as the first again. The pause after the n-th is
    ``back_off_seconds`` · 2ⁿ⁻¹. A transfer of less than ``least_bytes`` in ``window_seconds``
    counts as broken: a very slow server would otherwise keep us waiting for ever. Once failures
    without headway have cost ``wasted_seconds`` for one file, over all its mirrors, each mirror
    that is left is asked once and not again.
    """

    connect_seconds: float = 10
    read_seconds: float = 30
    attempts: int = 5
    back_off_seconds: float = 1
    headway_bytes: int = MiB
    window_seconds: float = 60
    least_bytes: int = 64 * KiB
    wasted_seconds: float = 180
    tarball_bytes: int = 4 * GiB


class TryAgain(NetworkError):
    """A failure that may not happen again: a broken connection, a busy server."""


class NotGiven(NetworkError):
    """The server answered, and gives no such file (4xx): some say 403 where there is none."""


class NotThere(NotGiven):
    """The server answered and has no such file (404, 410)."""


class Web:
    """One HTTP session. Proxies are taken from the environment, as other programs do.

    With ``keeps_https`` no redirection leads from https to http: for files that nothing else
    proves.
    """

    def __init__(self, limits: TransferLimits, *, keeps_https: bool = False) -> None:
        self.limits = limits
        self._keeps_https = keeps_https
        self._session = requests.Session()
        self._session.max_redirects = _MAX_REDIRECTS
        self._deadline = Deadline()
        self._tries, self._wasted_seconds = 0, 0.0
        obey(self._session, self._deadline, limits.read_seconds)
        self._session.headers.update(
            {
                "User-Agent": "picloud-image",
                # Some servers call a .tar.gz "Content-Encoding: gzip"; the signature is over the
                # bytes as stored, so nobody may pack or unpack them on the way.
                "Accept-Encoding": "identity",
            }
        )

    def close(self) -> None:
        self._session.close()

    @contextmanager
    def open(
        self, url: str, *, headers: Mapping[str, str] | None = None, follow: bool = True
    ) -> Iterator[requests.Response]:
        """GET ``url``; yields the answer before its body is read. With ``follow`` redirections are
        followed.

        Raises NetworkError for any failure, in the request or while the body is read, NotThere
        for 404 and 410, NotGiven for another 4xx, and TryAgain for what may not happen again. An
        answer with status 416 (no such range) is yielded, because the caller knows what range it
        asked for.
        """
        patience = (self.limits.connect_seconds, self.limits.read_seconds)
        try:
            response = self._session.get(
                url, headers=headers, stream=True, timeout=patience, allow_redirects=follow
            )
        # A redirect to something that is no URL raises a bare ValueError (urllib.parse).
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _network_error(url, error, self.limits) from error
        with response:
            try:
                if self._keeps_https:
                    _require_https(url, response)
                _check_status(url, response)
                _check_length(url, response)
                yield response
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise _network_error(url, error, self.limits) from error

    def small_file(self, url: str, cap_bytes: int, *, follow: bool = True) -> bytes:
        """The whole body of ``url``, which must not be larger than ``cap_bytes``. Raises
        NetworkError, also where it is larger, or shorter than was announced, or only a part."""
        with self.open(url, follow=follow) as response:
            if response.status_code != 200:
                raise NetworkError(
                    f"{url}: the server answered {response.status_code} to a request for all of it",
                    hint="this is no sound web server; try another mirror or network",
                )
            body = bytearray()
            for chunk in self.chunks(response):
                body += chunk
                if len(body) > cap_bytes:
                    raise NetworkError(
                        f"{url} is larger than {format_chosen(cap_bytes)}",
                        hint="this is not the file that was asked for; try another network",
                    )
        announced = content_length(response)
        if announced is not None and announced != len(body):
            raise cut_short(url, len(body), announced)
        return bytes(body)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body of ``response`` as it arrives. Raises TryAgain when it is too slow or stops; how
        long the caller takes with each chunk does not count."""
        gained, seconds = 0, self.limits.window_seconds
        self._deadline.put_off(seconds)
        try:
            # read1 gives what has arrived; read would wait for a full chunk, however long it takes.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                given = time.monotonic()
                yield chunk
                self._deadline.pause(time.monotonic() - given)
                gained += len(chunk)
                if gained >= self.limits.least_bytes:
                    self._deadline.put_off(seconds)
                    gained = 0
        except urllib3.exceptions.TimeoutError as error:
            if not self._deadline.is_over():
                raise
            raise TryAgain(
                f"{response.url}: only {format_size(gained)} came in in {seconds:g} s",
                hint="the mirror or the network is too slow just now; run it again later",
            ) from error

    def forget_failures(self) -> None:
        """Another file is fetched from now on, or this one made headway."""
        self._tries, self._wasted_seconds = 0, 0.0

    def patiently(self, action: Callable[[], _Answer]) -> _Answer:
        """What ``action`` returns. While it raises TryAgain it is called again, as long as
        ``try_again`` lets it."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                return action()
            except TryAgain as error:
                failures += 1
                self.try_again(error, failures, time.monotonic() - began)

    def try_again(self, error: TryAgain, failures: int, wasted_seconds: float) -> None:
        """Wait before the next try, longer after each of ``failures`` in a row; the last one ended
        with ``error`` and took ``wasted_seconds`` that brought nothing. Raises it when there must
        be no other try of this mirror."""
        self._tries += 1
        self._wasted_seconds += wasted_seconds
        if self._wasted_seconds >= self.limits.wasted_seconds:
            raise TryAgain(
                f"{error.what}; {self._tries} tries in {self._wasted_seconds:.0f} s brought next "
                "to nothing",
                hint=error.hint,
            ) from error
        if failures >= self.limits.attempts:
            raise error
        pause = self.limits.back_off_seconds * 2 ** (failures - 1)
        self._wasted_seconds += pause
        time.sleep(pause)


def content_length(response: requests.Response) -> int | None:
    """The number of bytes that the answer's headers announce; None when they do not."""
    text = response.headers.get("Content-Length", "")
    return int(text) if _LENGTH.match(text) else None


def _require_https(url: str, response: requests.Response) -> None:
    """Who gave an https address relies on it. One step over http is enough to change the file, to
    say that there is none, or to lead elsewhere."""
    way = [hop.url for hop in (*response.history, response)]
    plain = next((each for each in way if each.lower().startswith("http://")), None)
    if plain is not None and url.lower().startswith("https://"):
        raise NetworkError(
            f"{url}: the server redirects to http, where anybody on the way can change the file",
            hint=f"use another address, or {plain} itself with --sha256",
        )


def _check_length(url: str, response: requests.Response) -> None:
    """Raise NetworkError for a length that is none: the end of the body could not be known, and
    the server could keep us waiting for it."""
    text = response.headers.get("Content-Length")
    if text is not None and content_length(response) is None:
        raise NetworkError(
            f"{url}: it announces a body of {text[:40]!r} bytes",
            hint="this is no sound web server; try another mirror or network",
        )


def cut_short(url: str, size_bytes: int, announced: int) -> TryAgain:
    """The error for a body that ended before it was whole."""
    return TryAgain(
        f"{url}: the connection was cut after {size_bytes} of {announced} bytes",
        hint="run the same command again; it goes on from there",
    )


def _check_status(url: str, response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    what = f"{url}: the server answered {status} {response.reason or ''}".rstrip()
    if status in _PASSING:
        raise TryAgain(what, hint="the server is busy or broken; run it again later")
    if status in (404, 410):
        raise NotThere(what, hint="check the URL, or wait until the mirror is complete again")
    kind = NotGiven if 400 <= status < 500 else NetworkError
    raise kind(what, hint="check the URL and whether a proxy is in the way")


def _network_error(url: str, error: Exception, limits: TransferLimits) -> NetworkError:
    reason = _reason(error)
    if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
        return NetworkError(
            f"{url}: {reason}", hint="check this computer's clock and its ca-certificates package"
        )
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return TryAgain(
            f"{url}: no answer within {limits.read_seconds:g} s",
            hint="check the network, then run it again; what came in so far is kept",
        )
    if isinstance(error, (requests.TooManyRedirects, ValueError)):
        # requests' InvalidURL, InvalidSchema and MissingSchema are ValueErrors.
        return NetworkError(f"{url}: {reason}", hint="the server redirects to nowhere; try another")
    if isinstance(error, urllib3.exceptions.ProtocolError):
        reason = "the connection was cut"
    return TryAgain(
        f"{url}: {reason}", hint="check the network, then run it again; what came in is kept"
    )


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: requests wraps urllib3's error, which wraps the system's."""
    seen: BaseException = error
    for _ in range(8):
        inner = [seen.__cause__, seen.__context__, getattr(seen, "reason", None), *seen.args]
        deeper = next((each for each in inner if isinstance(each, BaseException)), None)
        if deeper is None:
            break
        seen = deeper
    said = getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
    return " ".join(str(said).split())
