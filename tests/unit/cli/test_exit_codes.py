"""The exit codes are a contract: the classes, the document and the design agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from imager.base import errors

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "exit-codes.md"


def subclasses(root: type[errors.PicloudError]) -> Iterator[type[errors.PicloudError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from subclasses(child)


def test_codes_are_the_contract() -> None:
    codes = {child.__name__: child.exit_code for child in subclasses(errors.PicloudError)}
    assert codes == {
        "UsageError": 2,
        "ConfigurationError": 10,
        "NetworkError": 11,
        "NotAuthentic": 12,
        "MalformedRelease": 13,
        "TargetRefused": 20,
        "CardFaulty": 21,
        "CardIOError": 22,
        "StampMismatch": 23,
        "FakeCapacity": 24,
        "WouldNotBoot": 25,
        "BatchFailed": 30,
        "MissingTool": 40,
        "HostStorage": 41,
        "ToolFailed": 70,
        "Interrupted": 130,
    }


def test_the_document_lists_every_code_under_its_name() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (\w+)", DOCUMENT.read_text(), flags=re.MULTILINE))
    for child in subclasses(errors.PicloudError):
        assert rows.get(str(child.exit_code)) == child.__name__
