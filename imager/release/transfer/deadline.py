"""A server may not keep us waiting with bytes that bring nothing.

In: a session of requests. Out: the same session, whose connections stop at a moment that only
useful bytes put off. A timeout of a socket does not do that: it begins anew with each byte, and a
server can send headers, interim answers (100), the lengths of chunks or trailers without end
(RFC 9112, sections 5 and 7.1; RFC 9110, section 15.2).
"""

from __future__ import annotations

import io
import time
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool


class Deadline:
    """The moment after which nothing more is read from any connection of a session."""

    def __init__(self) -> None:
        self._end = 0.0

    def put_off(self, seconds: float) -> None:
        """Let it be so many seconds from now."""
        self._end = time.monotonic() + seconds

    def pause(self, seconds: float) -> None:
        """Add so many seconds, in which nothing was asked of the server."""
        self._end += seconds

    def is_over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() > self._end


def obey(session: requests.Session, deadline: Deadline, seconds: float) -> None:
    """Let every connection of ``session`` stop at ``deadline`` with TimeoutError, which requests
    and urllib3 know. All headers of an answer must be there ``seconds`` after the request; for the
    body the caller puts it off. The body of a redirection is never read."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(deadline, seconds))


class _Adapter(HTTPAdapter):
    def __init__(self, deadline: Deadline, seconds: float) -> None:
        super().__init__()
        self._deadline, self._seconds = deadline, seconds

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> ConnectionPool:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if isinstance(pool, HTTPConnectionPool):
            secure = issubclass(pool.ConnectionCls, HTTPSConnection)
            pool.ConnectionCls = _Secure if secure else _Plain
            pool.conn_kw["deadline"] = self._deadline
        return pool

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        self._deadline.put_off(self._seconds)
        response = super().send(request, *args, **kwargs)
        if response.is_redirect:
            response.close()  # requests would keep all of its body in memory
        return response


class _Plain(HTTPConnection):
    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.response_class = _answers(deadline)


class _Secure(HTTPSConnection):
    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.response_class = _answers(deadline)


def _answers(deadline: Deadline) -> type[HTTPResponse]:
    class Answer(HTTPResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.fp = io.BufferedReader(_Watched(self.fp, deadline))

    return Answer


class _Watched(io.RawIOBase):
    """What arrives on one connection."""

    def __init__(self, inner: io.BufferedReader, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._deadline.is_over():
            raise TimeoutError("the server keeps us waiting")
        return self._inner.readinto1(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()
