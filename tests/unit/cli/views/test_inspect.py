"""The first screen of ``inspect``: one sentence, the findings, what was looked at and what not."""

from __future__ import annotations

from dataclasses import replace

from imager.bootcheck.check import BootReport, check_boot
from imager.bootcheck.findings import Code
from imager.bootcheck.meanings import finding
from imager.bootcheck.route.chain import Chain, Route
from imager.cli.views.inspect import finding_lines, scope_lines, verdict

START = finding(Code.START, "start.elf is missing", path="start.elf")
FSTAB = finding(Code.FSTAB, "/etc/fstab names another card")


def report(
    *found: object, models: tuple[str, ...] = (), judged_as: str | None = "pi2"
) -> BootReport:
    return BootReport(found, models, judged_as, "pi7", None)  # type: ignore[arg-type]


def test_the_first_sentence_says_where_it_boots_and_as_whom() -> None:
    assert verdict(report(models=("pi2", "pi3"))) == "would boot on pi2, pi3 as pi7"


def test_the_first_sentence_names_the_first_thing_in_the_way() -> None:
    assert verdict(report(START, FSTAB)) == (
        "would not boot on a Raspberry Pi 2: start.elf is missing"
    )
    other = verdict(report(START, models=("pi4",)))
    assert other.endswith("start.elf is missing; it would boot on pi4")


def test_what_another_program_starts_gets_no_verdict() -> None:
    told = ("EEPROM", "start4.elf", "RPI_EFI.fd (UEFI)")
    route = Route(Chain.UEFI, "RPI_EFI.fd", told, followed=False)
    seen = replace(report(models=("pi4",), judged_as="pi4"), route=route)
    assert verdict(seen) == (
        "starts RPI_EFI.fd (UEFI) on pi4; what comes after that is not checked from here"
    )
    assert "the way EEPROM → start4.elf → RPI_EFI.fd (UEFI)" in scope_lines(seen)[0]
    broken = replace(seen, findings=(START,))
    assert verdict(broken).startswith("would not boot")


def test_what_is_no_card_has_no_board() -> None:
    nothing = check_boot(lambda at, n: bytes(n), 4096)
    assert verdict(nothing) == "would not boot: it holds only zeros"
    seen, unseen = scope_lines(nothing)
    assert seen == "    looked at: the partition table"
    assert "a boot partition" in unseen
    assert "the root filesystem" in unseen


def test_a_root_that_was_not_read_is_not_said_to_be_looked_at() -> None:
    seen, unseen = scope_lines(report(models=("pi2",)))
    assert "boot partition" in seen
    assert "root" not in seen
    assert "the root filesystem" in unseen


def test_a_finding_says_what_why_seen_and_mend() -> None:
    assert [line.split()[0] for line in finding_lines(START)] == [
        "error:",
        "why:",
        "seen:",
        "mend:",
    ]
