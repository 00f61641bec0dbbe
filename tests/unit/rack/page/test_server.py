"""The page is served to whom it is for, and nobody can hold the server up."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imager.base.errors import UsageError
from imager.card.receipt.receipt import ReceiptResult
from imager.config.rack import Rack
from imager.rack.live.snapshot import write_live
from imager.rack.page import connection, feed
from imager.rack.page.connection import BoundedConnection
from imager.rack.page.guard import is_own_name, new_token, query_of
from imager.rack.page.server import listening, place_named
from tests.support.liverun import at_work, moment_at, run_at
from tests.support.rackhistory import rack_with_history, receipt_of
from tests.support.racks import rack_in
from tests.support.served import ask, connected, reply, served, streaming

TOKEN = new_token()


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    return rack_with_history(tmp_path_factory.mktemp("rack"), 14)


@pytest.fixture(scope="module")
def port(rack: Rack) -> Iterator[int]:
    with served(rack) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(rack: Rack) -> Iterator[int]:
    with served(rack, TOKEN) as found:
        yield found


def heard(one: socket.socket, until: str) -> str:
    """What comes on a stream, until it has said that."""
    said = ""
    while until not in said:
        more = one.recv(65536).decode()
        assert more, said
        said += more
    return said


# ── what is served ──────────────────────────────────────────────────────────────────────────


def test_the_page_and_its_two_files_are_there_and_nothing_else(port: int) -> None:
    page = ask(port, "/")
    assert page.status == 200
    assert "<title>Rack picloud, now</title>" in page.body
    for name, kind in (("/page.css", "text/css"), ("/page.js", "text/javascript")):
        assert ask(port, name).headers["content-type"].startswith(kind)
    for path in (
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/.picloud/ledger.jsonl",
        "/page.css/../rack.toml",
        "//etc/passwd",
        "/events/",
        "/%00",
        "/" + "a" * 9000,
    ):
        assert ask(port, path).status in (307, 400, 404), path


def test_half_a_character_of_a_strangers_json_is_shown_as_its_escape(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path, 7)
    its = receipt_of("pi0", 50, result=ReceiptResult.FAILED, failure="half\ud800").to_json()
    (rack.receipts.path / "20991123T060504.123Z-pi0.json").write_text(json.dumps(its))
    with served(rack) as port:
        page = ask(port, "/")
    assert page.status == 200
    assert r"half\ud800" in page.body


def test_every_answer_forbids_what_the_page_does_not_need(port: int, guarded: int) -> None:
    replies = [ask(port, "/"), ask(port, "/nothing"), ask(port, "/", host="evil.example")]
    replies += [ask(guarded, "/"), ask(guarded, f"/{query_of(TOKEN)}"), ask(port, "/page.js")]
    assert {one.status for one in replies} == {200, 303, 403, 404, 421}
    for one in replies:
        policy = one.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["referrer-policy"] == "no-referrer"
        assert one.headers["cache-control"] == "no-store"
        assert "server" not in one.headers
        assert "access-control-allow-origin" not in one.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_nothing_can_be_asked_for_but_to_look(port: int, method: str) -> None:
    assert ask(port, "/", "Content-Length: 0", method=method).status == 405


def test_a_change_reaches_whoever_looks_and_silence_is_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SECONDS", 0.05)
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-4]"\n')
    run = run_at(rack)
    with served(rack) as port:
        page = ask(port, "/")
        number = re.search(r'data-number="([^"]*)"', page.body)
        assert number is not None
        with streaming(port, number[1]) as one, at_work(rack.folder):
            assert heard(one, ": hello\n\n").count("\ndata:") == 0
            one.settimeout(0.4)
            with pytest.raises(TimeoutError):
                one.recv(100)
            one.settimeout(60)
            write_live(rack.folder, run)
            said = heard(one, "\n\n")
            parts = json.loads(said.partition("data: ")[2].partition("\n")[0])
            assert parts["standing"] == "rack flash: 2 of 5 done, 1 failed"
            farther = replace(run.cards[4], moment=moment_at(0.9))
            write_live(rack.folder, replace(run, cards=(*run.cards[:4], farther)))
            said = heard(one, "\n\n")
            assert set(json.loads(said.partition("data: ")[2].partition("\n")[0])) == {
                "now",
                "node-pi4",
            }
        with streaming(port, "of-another-server") as one:
            heard(one, 'data: {"main": ')


# ── who may look ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io"])
def test_a_name_that_a_stranger_made_point_here_is_no_way_in(port: int, host: str) -> None:
    for path in ("/", "/events", "/page.js"):
        assert ask(port, path, host=host).status in (400, 421)


def test_this_computers_own_names_are() -> None:
    for host in ("localhost", "localhost:8314", "127.0.0.1:1", "[::1]:8314", "10.0.0.7", "::1"):
        assert is_own_name([host]), host
    assert is_own_name([f"{socket.gethostname()}:80"])
    for hosts in ([], ["localhost", "evil.example"], ["localhost@evil"], ["[evil]:1"], [":1"]):
        assert not is_own_name(hosts), hosts


def test_with_a_token_only_who_has_it_may_look(guarded: int) -> None:
    for path in ("/", "/events", "/page.css", "/?token=", f"/{query_of(new_token())}"):
        assert ask(guarded, path).status == 403, path
    assert ask(guarded, f"/page.css{query_of(TOKEN)}").status == 403, "one way in, not many"
    assert ask(guarded, f"/{query_of('é')}".replace("é", "%C3%A9")).status == 403
    assert ask(guarded, f"/{query_of(TOKEN)}", host="evil.example").status == 421
    welcome = ask(guarded, f"/{query_of(TOKEN)}")
    assert (welcome.status, welcome.headers["location"]) == (303, "/")
    assert TOKEN not in welcome.body
    cookie = ask_cookie(guarded)
    assert re.search(r"; HttpOnly; Path=/; SameSite=lax$", cookie)
    assert cookie.startswith(f"picloud-image-{guarded}="), "each rack on this computer has its own"
    mine = f"Cookie: {cookie.partition(';')[0]}"
    assert ask(guarded, "/", mine).status == 200
    assert TOKEN not in ask(guarded, "/", mine).body
    assert ask(guarded, "/", mine + "x").status == 403
    with streaming(guarded, "", mine) as one:
        assert "text/event-stream" in heard(one, ": hello")


def ask_cookie(port: int) -> str:
    """The cookie as the server spells it."""
    with connected(port) as one:
        one.sendall(f"GET /{query_of(TOKEN)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        found = re.search(r"set-cookie: ([^\r]*)", one.recv(65536).decode(), re.IGNORECASE)
    assert found is not None
    return found[1]


def test_no_token_is_written_to_the_terminal(
    guarded: int, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(guarded, f"/{query_of(TOKEN)}")
    ask(guarded, f"/nothing{query_of(TOKEN)}")
    with connected(guarded) as one:
        one.sendall(f"BAD {query_of(TOKEN)}\r\n\r\n".encode())
        assert reply(one.recv(65536)).status == 400
    said = capfd.readouterr()
    assert said.out + said.err == ""


# ── who is a nuisance ───────────────────────────────────────────────────────────────────────


def test_a_header_without_end_is_not_waited_for(port: int) -> None:
    with connected(port) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with pytest.raises((ConnectionError, AssertionError)):
            for _ in range(100):
                one.sendall(b"x" * 65536)
                one.settimeout(0.01)
                try:
                    assert one.recv(100) == b"on and on", "cut, or told that it is too much"
                except TimeoutError:
                    continue
    assert ask(port, "/").status == 200


def test_a_thousand_connections_keep_nobody_out(port: int) -> None:
    held = [connected(port) for _ in range(500)]
    try:
        assert ask(port, "/").status == 200
        held += [connected(port) for _ in range(500)]
        for one in held[-40:]:
            one.sendall(b"GET / HTTP/1.1\r\n")
        assert ask(port, "/").status == 200
        assert sum(map(still_there, held)) <= connection.MOST
    finally:
        for one in held:
            one.close()


def still_there(one: socket.socket) -> bool:
    """Whether nobody has cut it so far."""
    one.setblocking(False)
    try:
        return one.recv(100) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_streams_are_counted_too(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST", 6)
    with served(rack) as port:
        streams = [streaming(port) for _ in range(4)]
        try:
            for one in streams:
                heard(one, ": hello")
            held = [connected(port) for _ in range(20)]
            assert ask(port, "/").status == 200
            assert all(map(goes_on, streams)), "an idler gives way, not who looks"
            for one in held:
                one.close()
        finally:
            for one in streams:
                one.close()


def test_who_asks_nothing_is_cut(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LIFE_SECONDS", 2.0)
    with served(rack) as port, streaming(port) as stream:
        with connected(port) as idle, connected(port) as slow:
            slow.sendall(b"GET / HT")
            assert gone(idle)
            assert gone(slow)
        assert goes_on(stream)


def gone(one: socket.socket) -> bool:
    try:
        return one.recv(100) == b""
    except ConnectionResetError:
        return True


def goes_on(one: socket.socket) -> bool:
    """Whether the connection is still there once it has nothing more to say."""
    one.settimeout(0.3)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return True
    return False


def test_who_does_not_read_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(connection, "LIFE_SECONDS", 600)
    is_cut, cut = threading.Event(), BoundedConnection.cut

    def noted(self: BoundedConnection) -> None:
        cut(self)
        is_cut.set()

    monkeypatch.setattr(BoundedConnection, "cut", noted)
    rack = rack_in(tmp_path, '[rack]\nnodes = "n[0-299]"\n')
    with served(rack) as port:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with one:
            one.connect(("127.0.0.1", port))
            one.settimeout(60)
            one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40)
            assert is_cut.wait(60)
            whole = len(ask(port, "/").body)
            assert received(one) < 39 * whole


def test_who_reads_late_but_reads_is_not_cut() -> None:
    """The timers alone: on a busy computer nobody knows how late is late."""
    timers: list[tuple[float, list[str]]] = []

    def later(seconds: float, _call: object) -> object:
        cancelled: list[str] = []
        timers.append((seconds, cancelled))
        return SimpleNamespace(cancel=lambda: cancelled.append("cancelled"))

    one: Any = object.__new__(connection.BoundedConnection)
    one._timers, one.loop = {}, SimpleNamespace(call_later=later)
    one.flow = SimpleNamespace(pause_writing=lambda: None, resume_writing=lambda: None)
    one.resume_writing()
    one.pause_writing()
    assert timers == [(connection.STUCK_SECONDS, [])]
    one.resume_writing()
    assert timers == [(connection.STUCK_SECONDS, ["cancelled"])]
    one.pause_writing()
    one.pause_writing()
    assert [cancelled for _, cancelled in timers] == [["cancelled"], ["cancelled"], []]


def received(one: socket.socket) -> int:
    """How many bytes come before it is cut."""
    total = 0
    try:
        while more := one.recv(65536):
            total += len(more)
    except ConnectionResetError:
        pass
    return total


def test_it_ends_at_once_with_pages_open(rack: Rack) -> None:
    with served(rack) as port:
        one = streaming(port)
        heard(one, ": hello")
        began = time.monotonic()
    assert time.monotonic() - began < 20
    with one:
        while not gone(one):
            pass


# ── where it listens ────────────────────────────────────────────────────────────────────────


def test_a_place_is_an_address_and_a_port() -> None:
    assert place_named("127.0.0.1:8314").is_own
    assert place_named("[::1]:0").is_own
    assert not place_named("0.0.0.0:80").is_own
    assert not place_named("192.168.1.5:8314").is_own
    for text in ("8314", "localhost:1", "1.2.3.4", "1.2.3.4:70000", "", "[::1]", "1.2.3.4:x"):
        with pytest.raises(UsageError, match="not an address and a port"):
            place_named(text)


def test_a_port_that_was_served_a_moment_ago_is_free() -> None:
    first = listening(place_named("127.0.0.1:0"))
    place = place_named(f"127.0.0.1:{first.getsockname()[1]}")
    with socket.create_connection((str(place.address), place.port)) as browser:
        with first, first.accept()[0]:
            pass
        assert browser.recv(1) == b""
    listening(place).close()


def test_a_port_that_is_taken_is_said(port: int) -> None:
    with pytest.raises(UsageError, match="in use"):
        listening(place_named(f"127.0.0.1:{port}"))
