"""The report's text: everything is on it, nothing secret is, and it needs nothing else."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imager.card.host.target import TargetFacts
from imager.card.receipt.store import save_receipt
from imager.cli.main import run
from imager.config.rack import Rack
from imager.node.keys.fingerprints import fingerprints_of
from imager.rack.report.report import render_report
from tests.support.rackhistory import PINNED, rack_with_history, receipt_of
from tests.support.racks import rack_in, tool

NOW = "2026-11-25 04:00 UTC"
VOID = {"meta", "link", "br", "line", "path"}


class Page(HTMLParser):
    """The page taken apart: text by the id of the element it is in, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.texts: dict[str, str] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, name in self.open:
            if name:
                self.texts[name] = self.texts.get(name, "") + data


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    found = rack_with_history(tmp_path_factory.mktemp("rack"), 7, keys=True)
    assert len(list(found.keys.path.rglob("*.pem"))) >= 6
    return found


@pytest.fixture(scope="module")
def page(rack: Rack) -> Page:
    return Page(render_report(rack, NOW))


def test_each_node_has_its_state_address_card_speed_and_fingerprints(
    rack: Rack, page: Page
) -> None:
    text = page.texts["node-pi1"]
    prints = fingerprints_of(rack, "pi1")
    for part in (
        "A2",
        "verified",
        "joined",
        "10.0.0.11/24",
        "Generic STORAGE DEVICE, 31.9 GB",
        "08150001",
        "usb-0:2.1",
        "write: ",
        "MB/s",
        PINNED[:16],
        prints.ssh,
        prints.minion,
    ):
        assert part in text, part
    assert "no card yet" in page.texts["node-pi6"]


def test_what_was_found_is_said_with_what_to_do(page: Page) -> None:
    faulty = page.texts["node-pi3"]
    assert "byte 209715217 differs after 2 attempts" in faulty
    assert "libcrypto.so.3" in faulty
    assert "throw this card away" in faulty
    assert "rack.lock pins" in page.texts["node-pi4"]
    assert "did not end" in page.texts["node-pi5"]


def test_the_fingerprint_is_the_one_ssh_keygen_prints(rack: Rack) -> None:
    public = rack.keys.path / "pi1/ssh/ssh_host_ed25519_key.pub"
    assert tool("ssh-keygen", "-lf", public).split()[1] == fingerprints_of(rack, "pi1").ssh


def test_a_node_without_keys_has_no_fingerprints_and_gets_no_keys(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    Page(render_report(rack, NOW))
    assert not rack.keys.exists()


def secrets_in(folder: Path) -> list[bytes]:
    """Pieces of every private key under ``folder``, as they stand there."""
    private = [p for p in folder.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert len(private) > 4
    lines = [line for path in private for line in path.read_bytes().splitlines()]
    return [line for line in lines if line and not line.startswith(b"-----")]


def holds_a_secret(text: str, secrets: list[bytes]) -> bool:
    data = text.encode()
    return any(one in data or base64.b64decode(one + b"==").hex().encode() in data
               for one in secrets)  # fmt: skip


def test_no_private_key_is_on_the_page(rack: Rack) -> None:
    secrets = secrets_in(rack.keys.path)
    text = render_report(rack, NOW)
    assert not holds_a_secret(text, secrets)
    assert holds_a_secret(text + secrets[3].decode(), secrets), "the search itself finds one"


def test_it_asks_for_nothing_and_has_no_script(page: Page) -> None:
    names = {(tag, name) for tag, name, _ in page.attributes}
    assert not {name for _, name in names if name.startswith("on")}
    assert ("script", "src") not in names
    links = {value for tag, name, value in page.attributes if name in ("href", "src")}
    assert all(value.startswith("#") or value == "data:," for value in links), links
    policy = next(value for _, name, value in page.attributes if value.startswith("default-src"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_drawing_says_in_words_what_it_shows(page: Page) -> None:
    spoken = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(spoken) == 6
    assert all("write 1" in words and "read back 3" in words for words in spoken)


def test_an_image_file_is_named_where_a_card_would_be(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi0"\n')
    made = receipt_of("pi0", 1)
    file = TargetFacts("/srv/pi0.img", 2 << 30, "file")
    save_receipt(replace(made, target=file), rack.receipts)
    assert "/srv/pi0.img, 2.1 GB" in Page(render_report(rack, NOW)).texts["node-pi0"]


def test_a_rack_just_made_has_a_report_too(tmp_path: Path) -> None:
    found = Page(render_report(rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n'), NOW))
    assert "no card yet" in found.texts["node-pi1"]


def test_the_command_writes_the_page_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rack = rack_with_history(tmp_path / "rack", 7)
    words = ["--rack", str(rack.folder), "rack", "report"]
    assert run([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert Path(result["report"]) == rack.folder / "report.html"
    assert run([*words, "--out", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    capsys.readouterr()
    assert run([*words, "--out", "-"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    assert run([*words, "--out", "-", "--json"]) == 2
    assert run([*words, "--out", str(tmp_path / "no.html/x.html")]) == 0
    (tmp_path / "file").write_text("")
    assert run([*words, "--out", str(tmp_path / "file/x.html")]) == 41
