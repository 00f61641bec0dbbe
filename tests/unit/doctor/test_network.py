"""Mirrors are asked for a short time only, and any answer is one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from imager.doctor import network
from imager.doctor.checkup import Verdict
from imager.doctor.network import mirror_checkup
from imager.release.transfer.web import TransferLimits


class Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/release.tar.gz"
        finally:
            server.shutdown()
            thread.join()


def test_one_mirror_that_answers_is_enough_and_a_silent_one_costs_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(network, "_SECONDS", 2)
    short = TransferLimits(connect_seconds=2, read_seconds=2)
    monkeypatch.setattr(network, "_LIMITS", short)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as mute, answering() as url:
        silent = f"http://127.0.0.1:{mute.getsockname()[1]}/release.tar.gz"
        found = mirror_checkup([silent, url])
        assert (found.verdict, found.found) == (Verdict.OK, "1 of 2 answer")
        none = mirror_checkup([silent])
    assert time.monotonic() - began < 60
    assert none.verdict is Verdict.WARNING
    assert none.found.startswith("0 of 1 answer; 127.0.0.1: ")
    assert none.exit_code == 0, "what is archived is enough"
