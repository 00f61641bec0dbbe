"""docs/boot-check.md's table, made from the code: ``python -m tests.support.bootdoc`` writes it."""

from __future__ import annotations

from pathlib import Path

from imager.bootcheck.meanings import MEANINGS
from tests.support.madedoc import made_anew

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/boot-check.md"
BEGIN = "<!-- findings: made by python -m tests.support.bootdoc -->"
END = "<!-- end of findings -->"


def table() -> str:
    """Every finding as one row."""
    rows = ["| finding | | why it matters | what a person sees | how to mend it |",
            "|---|---|---|---|---|"]  # fmt: skip
    for code, meaning in MEANINGS.items():
        cells = (f"`{code}`", meaning.severity, meaning.why, meaning.symptom, meaning.mend)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """The document with its table made anew."""
    return made_anew(text, BEGIN, table(), END)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
