"""The page of each wing that stands alone: its examples are run, on disks made by plain tools."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.support.bootdisk import make_disk
from tests.support.bootfiles import minimal_boot_files
from tests.test_layering import PACKAGE, SELF_CONTAINED

pytestmark = pytest.mark.image

_EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CALL = re.compile(r"`([a-z0-9_.]+)\.(\w+)")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: ``disk.img`` is any disk, ``card.img`` one that starts a Pi 2."""
    make_disk(tmp_path / "disk.img", {"config.txt": b"enable_uart=1\n"}, node="example")
    make_disk(tmp_path / "card.img", minimal_boot_files("pi2"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("wing", SELF_CONTAINED)
def test_the_examples_of_a_page_give_what_it_says(wing: str, folder: Path) -> None:
    page = PACKAGE / wing / "README.md"
    examples = "\n".join(_EXAMPLE.findall(page.read_text()))
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(examples, {}, wing, str(page), 0)
    assert test.examples
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert not result.failed, "".join(said)


@pytest.mark.parametrize("wing", SELF_CONTAINED)
def test_what_a_page_says_to_call_is_there(wing: str) -> None:
    rows = re.findall(r"^\|[^|]*\|([^|]*)\|", (PACKAGE / wing / "README.md").read_text(), re.M)
    calls = [call for row in rows for call in _CALL.findall(row)]
    assert calls
    for module, name in calls:
        parts = [*module.split("."), name]
        depth = max(n for n in range(len(parts)) if _is_module(wing, parts[:n]))
        found: object = importlib.import_module(".".join(["imager", wing, *parts[:depth]]))
        for part in parts[depth:]:
            found = getattr(found, part)


def _is_module(wing: str, parts: list[str]) -> bool:
    place = PACKAGE.joinpath(wing, *parts)
    return place.is_dir() or place.with_suffix(".py").is_file()
