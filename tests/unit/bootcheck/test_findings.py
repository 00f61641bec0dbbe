"""Every finding has a meaning, is made somewhere, is tried by a test, and is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imager.bootcheck.findings import Code, Severity
from imager.bootcheck.meanings import MEANINGS, finding
from tests.support.bootdoc import DOCUMENT, with_table

ROOT = Path(__file__).resolve().parents[3]


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Code)


@pytest.mark.parametrize("code", Code)
def test_a_meaning_is_said_in_whole_sentences(code: Code) -> None:
    meaning = MEANINGS[code]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    for text in (meaning.why, meaning.symptom, meaning.mend):
        assert text[0].isupper() or re.match(r"[a-z]+\S*[./=]", text), "no sentence or file name"
        assert text.endswith(".")
        assert "  " not in text


@pytest.mark.parametrize("code", Code)
def test_every_code_is_made_by_the_check_and_tried_by_a_test(code: Code) -> None:
    sources = "".join(path.read_text() for path in (ROOT / "imager/bootcheck").rglob("*.py"))
    assert len(re.findall(rf"\bCode\.{code.name}\b", sources)) >= 2, "only its meaning names it"
    tests = [
        *(ROOT / "tests/image").glob("test_*.py"),
        *(ROOT / "tests/unit/bootcheck").rglob("*.py"),
    ]
    assert any(f'"{code}"' in path.read_text() for path in tests), "no test makes this finding"


def test_the_document_says_what_the_code_says() -> None:
    text = DOCUMENT.read_text()
    assert text == with_table(text), "run: python -m tests.support.bootdoc"


def test_a_case_can_be_less_grave_than_its_code() -> None:
    assert finding(Code.FAT_COPIES_DIFFER, "x").severity is Severity.ERROR
    mild = finding(Code.FAT_COPIES_DIFFER, "x", severity=Severity.WARNING)
    assert mild.severity is Severity.WARNING
    assert mild.to_json()["severity"] == "warning"
