"""What a person sees of a Raspberry Pi that does not start, in the words of all findings.

In: nothing. Out: sentences, and the two grades of a Meaning. Sources: see ``meanings``.
"""

from __future__ import annotations

from imager.bootcheck.findings import Meaning, Severity

NO_START = (
    "ACT blinks 4 times (3 times with firmware from before 2020), or not at all; "
    "the screen stays black."
)
START_FAILS = (
    "ACT blinks 3 times (4 times with firmware from before 2020), or the rainbow screen stays."
)
SILENT = "The rainbow screen, then black; ACT does not blink."


def error(why: str, symptom: str, mend: str) -> Meaning:
    return Meaning(Severity.ERROR, why, symptom, mend)


def warning(why: str, symptom: str, mend: str) -> Meaning:
    return Meaning(Severity.WARNING, why, symptom, mend)
