"""A real HTTP server on loopback that behaves as badly as a test tells it to.

    with serving({"/os/x.tar.gz": tarball, "/os/x.tar.gz.sig": signature}) as server:
        server.misbehave("/os/x.tar.gz", Manners(cut_after=[1000]))

It knows Range, If-Range, ETag and Last-Modified as a mirror's server does, keeps a log of the
requests, and stops being reachable when the ``with`` ends.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAST_MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")


@dataclass
class Manners:
    """How one path is served.

    ``cut_after`` is used up one number per request for more than a byte: the connection is
    dropped after so many bytes of the body, 0 before the first. ``redirect`` is a full URL.
    ``announced`` is a Content-Length that is not the body's. ``endless`` repeats the body for
    ever without announcing a length. ``etags`` are used up one per request, the last one stays.
    ``seconds_per_kib`` slows the body down. ``ignores_if_range`` continues a file that changed;
    ``shifts_range`` continues it so many bytes too late.
    ``failures`` are statuses and ``bodies`` other contents, each used up one per request.
    """

    status: int = 200
    redirect: str | None = None
    cut_after: list[int] = field(default_factory=list)
    announced: int | str | None = None
    endless: bool = False
    chunked: bool = False
    ignores_range: bool = False
    ignores_if_range: bool = False
    shifts_range: int = 0
    etags: list[str] = field(default_factory=lambda: ['"v1"'])
    last_modified: str | None = LAST_MODIFIED
    content_encoding: str | None = None
    seconds_per_kib: float = 0
    failures: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    path: str
    range: str | None
    if_range: str | None
    accept_encoding: str | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that was killed is part of the test."""


class Mirror:
    """The running server; ``files`` and manners may change while it runs."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.log: list[Asked] = []
        self._manners: dict[str, Manners] = {}
        mirror = self

        class Handler(_Handler):
            owner = mirror

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def misbehave(self, path: str, manners: Manners) -> None:
        self._manners[path] = manners

    def manners(self, path: str) -> Manners:
        return self._manners.setdefault(path, Manners())

    def asked(self, path: str) -> list[Asked]:
        """The requests for ``path``, without those that only asked for its first byte."""
        return [each for each in self.log if each.path == path and each.range != "bytes=0-0"]


class _Handler(BaseHTTPRequestHandler):
    owner: Mirror
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = ("Range", "If-Range", "Accept-Encoding")
        asked = Asked(self.path, *(self.headers.get(name) for name in headers))
        self.owner.log.append(asked)
        manners = self.owner.manners(self.path)
        probe = asked.range == "bytes=0-0"
        if manners.redirect is not None:
            self._empty(302, ("Location", manners.redirect))
        elif manners.failures and not probe:
            self._empty(manners.failures.pop(0))
        elif manners.status != 200 or self.path not in self.owner.files:
            self._empty(manners.status if manners.status != 200 else 404)
        else:
            body = self.owner.files[self.path]
            if manners.bodies and not probe:
                body = manners.bodies.pop(0)
            self._serve(body, manners, asked, probe)

    def _empty(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _serve(self, body: bytes, manners: Manners, asked: Asked, probe: bool) -> None:
        etag = manners.etags.pop(0) if len(manners.etags) > 1 else "".join(manners.etags)
        wanted = _RANGE.match(asked.range or "")
        current = {None, etag, manners.last_modified}
        start, total = 0, len(body)
        if manners.ignores_range or (
            asked.if_range not in current and not manners.ignores_if_range
        ):
            wanted = None
        if wanted is not None and int(wanted[1]) >= total:
            self._empty(416, ("Content-Range", f"bytes */{total}"))
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            start = int(wanted[1]) + (0 if probe else manners.shifts_range)
            end = min(int(wanted[2] or total - 1), total - 1)
            body = body[start : end + 1]
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        for name, value in (
            ("ETag", etag),
            ("Last-Modified", manners.last_modified),
            ("Content-Encoding", manners.content_encoding),
            ("Content-Type", "text/html" if self.path.endswith("/") else None),
        ):
            if value:
                self.send_header(name, value)
        if manners.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not manners.endless:
            announced = len(body) if manners.announced is None else manners.announced
            self.send_header("Content-Length", str(announced))
        if manners.endless or manners.announced is not None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self._body(body, manners, probe)

    def _body(self, body: bytes, manners: Manners, probe: bool) -> None:
        if manners.cut_after and not probe:
            body = body[: manners.cut_after.pop(0)]
            self.close_connection = True
        try:
            while True:
                for start in range(0, len(body), 1024):
                    self._write(body[start : start + 1024], manners)
                if not manners.endless:
                    break
            if manners.chunked and not self.close_connection:
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _write(self, piece: bytes, manners: Manners) -> None:
        if manners.seconds_per_kib:
            time.sleep(manners.seconds_per_kib)
        if manners.chunked:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        self.wfile.write(piece)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes] | None = None) -> Iterator[Mirror]:
    """A mirror with ``files`` (path to body), served from threads until the block ends."""
    mirror = Mirror(dict(files or {}))
    thread = threading.Thread(target=mirror.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.server.shutdown()
        mirror.server.server_close()
        thread.join()
