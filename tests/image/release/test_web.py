"""What an answer of a server means, and how often it is asked."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imager.base.errors import NetworkError
from imager.base.units import MiB
from imager.card.source.opened import WantedImage, opened_source
from imager.release.transfer.web import NotGiven, NotThere, TryAgain, Web
from tests.support.fetching import LIMITS
from tests.support.mirror import Manners, Mirror, serving

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def server() -> Iterator[Mirror]:
    with serving({"/x": b"12345678"}) as server:
        yield server


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(Web(replace(LIMITS, attempts=3, back_off_seconds=0))) as web:
        yield web


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (TryAgain, (408, 425, 429, 500, 502, 503, 504)),
        (NotThere, (404, 410)),
        (NotGiven, (400, 403, 407, 409, 424, 428, 430, 499)),
        (NetworkError, (206, 416, 501, 505, 520)),
    ],
)
def test_a_status_says_whether_to_try_again(
    server: Mirror, web: Web, kind: type[NetworkError], statuses: tuple[int, ...]
) -> None:
    for status in statuses:
        server.misbehave("/x", Manners(status=status))
        with pytest.raises(NetworkError, match=f"/x: the server answered {status}") as caught:
            web.small_file(server.address + "/x", 8)
        assert type(caught.value) is kind, status


def test_a_small_file_is_whole_and_small(server: Mirror, web: Web) -> None:
    url = server.address + "/x"
    server.misbehave("/x", Manners())
    assert web.small_file(url, 8) == b"12345678"
    with pytest.raises(NetworkError, match="is larger than 7 B"):
        web.small_file(url, 7)
    server.misbehave("/x", Manners(cut_after=[5]))
    with pytest.raises(TryAgain):
        web.small_file(url, 8)
    server.misbehave("/x", Manners(chunked=True))
    assert web.small_file(url, 8) == b"12345678"
    server.misbehave("/x", Manners(chunked=True, cut_after=[5]))
    with pytest.raises(TryAgain, match=r"/x: the connection was cut$"):
        web.small_file(url, 8)


def test_five_redirections_are_followed_and_no_more(web: Web) -> None:
    with serving({"/5": b"here"}) as way:
        for number in range(5):
            way.misbehave(f"/{number}", Manners(redirect=f"{way.address}/{number + 1}"))
        way.misbehave("/six", Manners(redirect=f"{way.address}/0"))
        way.misbehave("/file", Manners(redirect="file:///etc/passwd"))
        assert web.small_file(f"{way.address}/0", 8) == b"here"
        with pytest.raises(NetworkError, match="answered 302"):
            web.small_file(f"{way.address}/0", 8, follow=False)
        for path in ("/six", "/file"):
            with pytest.raises(NetworkError) as caught:
                web.small_file(way.address + path, 8)
            assert type(caught.value) is NetworkError, "another try is no use"


@pytest.mark.parametrize(("error", "times"), [(TryAgain, 3), (NotThere, 1), (NetworkError, 1)])
def test_what_may_pass_is_tried_so_often(web: Web, error: type[NetworkError], times: int) -> None:
    tried: list[int] = []

    def action() -> None:
        tried.append(1)
        raise error("no", hint="no")

    with pytest.raises(error):
        web.patiently(action)
    assert len(tried) == times


def test_each_pause_is_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    def action() -> None:
        raise TryAgain("no", hint="no")

    limits = replace(LIMITS, attempts=4, back_off_seconds=0.5)
    with closing(Web(limits)) as web, pytest.raises(TryAgain):
        web.patiently(action)
    assert pauses == [0.5, 1, 2]


def test_time_that_brought_nothing_is_added_up_until_headway() -> None:
    limits = replace(LIMITS, attempts=9, back_off_seconds=0, wasted_seconds=1)
    error = TryAgain("no", hint="no")
    with closing(Web(limits)) as web:
        for _ in range(2):
            web.try_again(error, 1, 0.5)
            with pytest.raises(TryAgain, match=r"^no; 2 tries in 1 s brought next to nothing$"):
                web.try_again(error, 1, 0.5)
            web.forget_failures()


@pytest.mark.parametrize("read", [False, True])
def test_no_connection_is_left_open(read: bool) -> None:
    """Neither that of an answer nobody read, nor one that was kept for another request."""
    left: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(5)
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1234")
                left.append(connection.recv(1))

        server = threading.Thread(target=answer)
        server.start()
        url, web = f"http://127.0.0.1:{listening.getsockname()[1]}/x", Web(LIMITS)
        if read:
            assert web.small_file(url, 4) == b"1234"
            web.close()
        else:
            with web.open(url) as response:
                pass
            assert response.status_code == 200, "it is held on to"
        server.join()
        web.close()
    assert left == [b""]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mirror, Path]]:
    """A server that speaks TLS, and the file with its certificate."""
    key, own = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(own, own, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with serving({"/x": b"12345678"}) as server:
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        server.address = server.address.replace("http:", "https:")
        yield server, file


def test_tls_is_spoken_and_a_slow_server_given_up(
    tls: tuple[Mirror, Path], web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert web.small_file(f"{server.address}/x", 8) == b"12345678"
    server.files["/slow"] = bytes(50_000)
    server.misbehave("/slow", Manners(seconds_per_kib=0.05))
    limits = replace(LIMITS, window_seconds=0.2, least_bytes=100_000)
    with closing(Web(limits)) as hasty, pytest.raises(TryAgain, match=r"came in in 0\.2 s"):
        hasty.small_file(f"{server.address}/slow", 100_000)


def test_a_slow_reader_is_no_slow_server(
    tls: tuple[Mirror, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = tls  # one that does not give all at once
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.files["/long"] = bytes(60_000)
    limits, size = replace(LIMITS, window_seconds=0.5, least_bytes=100_000), 0
    with closing(Web(limits)) as web, web.open(f"{server.address}/long") as response:
        for chunk in web.chunks(response):
            size += len(chunk)
            time.sleep(len(chunk) / 60_000)
    assert size == 60_000


def test_a_server_nobody_vouches_for_is_not_spoken_to(tls: tuple[Mirror, Path], web: Web) -> None:
    server, _ = tls
    server.log.clear()
    with pytest.raises(NetworkError, match="certificate verify failed") as caught:
        web.small_file(f"{server.address}/x", 8)
    assert type(caught.value) is NetworkError, "another try is no use"
    assert "ca-certificates" in caught.value.hint
    assert server.log == []


def test_an_image_behind_https_is_not_fetched_over_http(
    tls: tuple[Mirror, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    image = b"\xeb\x3c\x90".ljust(MiB, b"\1")
    secure, known = f"{server.address}/any.img", hashlib.sha256(image).hexdigest()
    server.files["/any.img"] = image
    with serving({"/any.img": image}) as plain:
        server.misbehave("/any.img", Manners(redirect=f"{plain.address}/any.img"))
        with pytest.raises(NetworkError) as caught, opened_source(WantedImage(secure)):
            raise AssertionError("it was opened")
        address = caught.value.hint.removeprefix("use another address, or ").partition(" ")[0]
        with opened_source(WantedImage(address, known)) as opened, opened.source.read(MiB) as found:
            assert b"".join(bytes(data) for _, data in found.pieces()) == image
        server.misbehave("/other.img", Manners(redirect=f"{plain.address}/on"))
        plain.misbehave("/on", Manners(redirect=f"{server.address}/again/other.img"))
        server.files["/again/other.img"] = image
        with (
            pytest.raises(NetworkError, match=r"/other\.img: the server redirects to http"),
            opened_source(WantedImage(f"{server.address}/other.img")),
        ):
            raise AssertionError("it was opened")


@pytest.mark.parametrize("there", [True, False])
def test_sums_behind_https_are_not_asked_for_over_http(
    tls: tuple[Mirror, Path], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    server, certificate = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.files["/one/any.img"] = image = b"\xeb\x3c\x90".ljust(MiB, b"\1")
    sums = f"{hashlib.sha256(image).hexdigest()}  any.img\n".encode()
    with serving({"/SHA256SUMS": sums} if there else {}) as plain:
        server.misbehave("/one/SHA256SUMS", Manners(redirect=f"{plain.address}/SHA256SUMS"))
        with (
            pytest.raises(NetworkError, match="/SHA256SUMS: the server redirects to http"),
            opened_source(WantedImage(f"{server.address}/one/any.img")),
        ):
            raise AssertionError("it was opened")


def test_the_cause_of_a_failure_is_said_in_one_line(web: Web) -> None:
    with serving() as gone:
        pass
    with pytest.raises(TryAgain, match=r"/x: Connection refused$"):
        web.small_file(gone.address + "/x", 8)
