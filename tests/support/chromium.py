"""Pages in a real browser: Chromium without a window, with a profile of its own for each page.

In: an HTML file. Out: what the browser made of it: its document, its pictures, its paper, every
complaint of its console and every address it asked for.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("chromium", "pdfinfo", "pdftotext")
_BROWSER = "not an origin"
QUIET = (
    "--headless",
    "--no-sandbox",  # the sandbox refuses root, as which the tests run
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def missing_programs() -> str:
    """Why no page can be looked at here; empty when it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(absent)}" if absent else ""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a page: what was printed, the console's lines, and the addresses it asked for."""

    printed: str
    console: list[str]
    asked: list[str]


def look(page: Path | str, *switches: str) -> Look:
    """Open ``page``, a file or an address, once with ``switches``."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        done = subprocess.run(
            [
                "chromium",
                *QUIET,
                f"--user-data-dir={folder}/profile",
                f"--log-net-log={log}",
                *switches,
                page if isinstance(page, str) else page.absolute().as_uri(),
            ],
            env={"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        return Look(done.stdout, console, _asked(json.loads(log.read_text())))


def _asked(log: dict[str, object]) -> list[str]:
    """Every address the page had requested. Chromium asks its maker's servers for the time and
    for updates as well; those requests begin at no page ("not an origin")."""
    events = log["events"]
    assert isinstance(events, list)
    found = [event.get("params", {}) for event in events]
    return sorted({str(one["url"]) for one in found if one.get("initiator", _BROWSER) != _BROWSER})


def picture(page: Path, out: Path, width: int, height: int, *switches: str) -> Path:
    """A screenshot of the page's top."""
    look(page, f"--window-size={width},{height}", f"--screenshot={out}", *switches)
    return out


def corner_colour(png: Path) -> tuple[int, int, int]:
    """Red, green and blue of the top left pixel of an 8-bit PNG: whatever the filter of its first
    row, its first pixel stands there as it is (PNG specification, 9.2)."""
    data, offset, packed = png.read_bytes(), 8, b""
    while offset < len(data):
        (length,), kind = struct.unpack_from(">I", data, offset), data[offset + 4 : offset + 8]
        packed += data[offset + 8 : offset + 8 + length] if kind == b"IDAT" else b""
        offset += length + 12
    red, green, blue = zlib.decompress(packed)[1:4]
    return red, green, blue


def paper(page: Path, out: Path) -> tuple[str, str]:
    """What pdfinfo says of the printed page, and the text that is on it."""
    look(page, "--no-pdf-header-footer", f"--print-to-pdf={out}")

    def said(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    return said("pdfinfo", str(out)), said("pdftotext", "-layout", str(out), "-")


_FRAME = '<iframe style="width:{width}px; height:900px; border:0" srcdoc="{page}"></iframe>'
MEASURE = """\
(view) => {
  const page = view.document, lost = [];
  for (const each of page.body.querySelectorAll("*")) {
    const style = view.getComputedStyle(each), box = each.getBoundingClientRect();
    if (each.closest(".said") || style.position === "absolute") continue;
    const hides = style.overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1;
    const sinks = style.overflowY !== "visible" && each.scrollHeight > each.clientHeight + 1;
    const breaks = each.matches(".place") && box.height > 2 * parseFloat(style.fontSize);
    if (hides || sinks || breaks || box.right > view.innerWidth + 1 || box.left < -1)
      lost.push(each.tagName + ": " + each.textContent.trim().slice(0, 60));
  }
  const tops = {};
  for (const each of page.querySelectorAll("[id]"))
    tops[each.id] = each.getBoundingClientRect().top;
  return {columns: view.innerWidth, wide: page.documentElement.scrollWidth, lost, tops};
}"""
"""A function of JavaScript that returns the fields of a ``Fit`` of the page in a window."""
_MEASURING = f"""\
<script>
const measure = {MEASURE};
onload = () => {{
  const views = [...document.querySelectorAll("iframe")].map((each) => each.contentWindow);
  document.title = JSON.stringify(views.map(measure));
}};
</script>
"""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a page fits a screen: the pixels of the screen and of the page, side by side, each
    element that is cut off or stands out, or a number that goes on in the next line, and how far
    from the top each stands that has an id."""

    columns: int
    wide: int
    lost: list[str]
    tops: dict[str, float] = field(repr=False)

    @property
    def loses_nothing(self) -> bool:
        """Whether all of the page can be seen without moving it to the side."""
        return self.wide == self.columns and not self.lost


def fits(pages: Sequence[Path], folder: Path, widths: Sequence[int]) -> list[Fit]:
    """Lay each of ``pages`` out on screens of so many pixels and measure it. That is done from
    another page, in ``folder``; the pages themselves run no script."""
    measuring = folder / "measuring.html"
    measuring.write_text(
        '<!DOCTYPE html><meta charset="utf-8">'
        + _MEASURING
        + "".join(
            _FRAME.format(width=width, page=html.escape(page.read_text()))
            for page in pages
            for width in widths
        )
    )
    seen = look(measuring, "--dump-dom")
    found = re.search(r"<title>(.+?)</title>", seen.printed)
    assert found is not None, seen.console
    return [Fit(**each) for each in json.loads(html.unescape(found[1]))]


@dataclass(frozen=True, slots=True)
class Word:
    """A word on paper: where it begins and ends from the left edge, in points."""

    text: str
    left: float
    right: float


_WORD = re.compile(r'<word xMin="([0-9.-]+)" yMin="[^"]*" xMax="([0-9.-]+)"[^>]*>(.*?)</word>')


def words_on_paper(pdf: Path) -> list[Word]:
    """Every word of a printed page, in the order of the page's source."""
    said = subprocess.run(
        ["pdftotext", "-bbox", str(pdf), "-"], capture_output=True, text=True, check=True
    ).stdout
    return [Word(html.unescape(text), float(a), float(b)) for a, b, text in _WORD.findall(said)]
