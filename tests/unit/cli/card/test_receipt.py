"""A receipt as people see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import MiB
from imager.card.medium.meter import PhaseFigures
from imager.card.receipt.receipt import ReceiptResult
from imager.cli.card.receipt import _lines, curve
from tests.support.updates import SIZE, node_image, receipt_of


@pytest.mark.parametrize(
    ("samples", "drawn"),
    [
        ((), ""),
        ((5,), ""),
        ((0, 0, 0), ""),
        ((0, 7), "▁█"),
        ((7, 7, 7), "███"),
        ((0, 1, 2, 3, 4, 5, 6, 7), "▁▂▃▄▅▆▇█"),
    ],
)
def test_a_curve_goes_from_nothing_to_the_fastest(samples: tuple[int, ...], drawn: str) -> None:
    assert curve(samples) == drawn


@given(st.lists(st.integers(0, 10**9), max_size=4000))
def test_a_curve_fits_a_line_however_long_it_took(samples: list[int]) -> None:
    assert len(curve(samples)) <= 60


def test_a_receipt_names_card_phases_and_result(tmp_path: Path) -> None:
    receipt = receipt_of(node_image(tmp_path, "pi7"), SIZE, cid="1b534d30")
    phases = (PhaseFigures("write", 40 * MiB, 2.0, (30 * MiB, 10 * MiB)),)
    image = replace(receipt.image, salt="3006.9")
    lines = list(_lines(tmp_path / "r.json", replace(receipt, phases=phases, image=image)))
    assert "salt      3006.9" in lines
    assert lines[0] == "pi7: verified, 2026-11-23T07:00:00.000Z"
    assert any("/dev/faulty" in line and "25.2 MB" in line for line in lines)
    assert any("CID 1b534d30" in line for line in lines)
    assert any("write" in line and "21.0 MB/s" in line and "█▃" in line for line in lines)
    assert not any("caution" in line for line in lines)


def test_a_failed_receipt_says_why_and_what_could_not_be_had(tmp_path: Path) -> None:
    receipt = replace(
        receipt_of(node_image(tmp_path, "pi7"), SIZE),
        result=ReceiptResult.FAKE_CAPACITY,
        failure="/dev/sdb is a fake",
        cache_bypassed=False,
        fallbacks=("the device cannot be locked",),
    )
    text = "\n".join(_lines(tmp_path / "r.json", receipt))
    assert "pi7: fake-capacity" in text
    assert "/dev/sdb is a fake" in text
    assert "salt" not in text
    assert "caution   the device cannot be locked" in text
    assert "computer's cache" in text
