"""The files of a boot partition: of the same bytes the same is said again, for the same price."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from imager.bootcheck.contents import Contents, Heard, Judge, remember, said_by
from imager.disk.budget import Budget, ReadLimits
from tests.support.bootmemory import volume_of


def judge_of(asked: list[bytes]) -> Judge[int]:
    """A judge that notes what it is asked, and spends 1,000 steps and 50 unpacked bytes."""

    def judge(data: bytes, budget: Budget) -> int:
        asked.append(data)
        budget.step(1000)
        budget.unpack(50)
        return len(data)

    return judge


def looked_at(data: bytes, judge: Judge[int], budget: Budget) -> Contents:
    contents = Contents(volume_of({"kernel.img": data}), {}, budget)
    contents.about("KERNEL.IMG", judge)
    return contents


def test_the_same_bytes_on_another_card_are_judged_once_and_paid_for_twice() -> None:
    asked: list[bytes] = []
    judge = judge_of(asked)
    budgets = Budget(), Budget()
    for budget in budgets:
        assert looked_at(b"same", judge, budget).about("kernel.img", judge) == 4
    assert asked == [b"same"]
    assert budgets[0].spent == budgets[1].spent
    assert budgets[0].spent[0] >= 1000
    assert budgets[0].spent[1] == 50


def test_other_bytes_and_other_questions_are_judged_anew() -> None:
    asked: list[bytes] = []
    first, second = judge_of(asked), judge_of(asked)
    looked_at(b"one", first, Budget())
    looked_at(b"two", first, Budget())
    looked_at(b"one", second, Budget())
    assert asked == [b"one", b"two", b"one"]


@pytest.mark.parametrize("limit", [{"steps": 999}, {"unpacked_bytes": 49}])
def test_a_disk_that_cannot_pay_gets_no_answer_though_it_is_known(limit: dict[str, int]) -> None:
    asked: list[bytes] = []
    judge = judge_of(asked)
    looked_at(b"dear", judge, Budget())
    contents = looked_at(b"dear", judge, Budget(replace(ReadLimits(), **limit)))
    assert "kernel.img" in contents.unseen
    assert contents.about("kernel.img", judge) is None
    assert asked == [b"dear"]


def test_what_was_too_dear_for_one_disk_is_asked_again_for_the_next() -> None:
    asked: list[bytes] = []
    judge = judge_of(asked)
    assert looked_at(b"dear", judge, Budget(ReadLimits(steps=10))).unseen
    assert not looked_at(b"dear", judge, Budget()).unseen
    assert asked == [b"dear", b"dear"]


def test_a_file_that_was_judged_is_not_read_again_for_its_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contents = looked_at(b"once", judge_of([]), Budget())
    monkeypatch.setattr(type(contents.volume), "sha256", lambda *_: "read again")
    assert contents.digest("kernel.img") != "read again"


def test_what_an_earlier_run_heard_is_not_asked_again_and_paid_for_all_the_same() -> None:
    asked: list[bytes] = []
    judge, budget = judge_of(asked), Budget()
    remember(judge, {hashlib.sha256(b"told").hexdigest(): Heard(17, 2000, 60)})
    assert looked_at(b"told", judge, budget).about("kernel.img", judge) == 17
    assert not asked
    assert budget.spent[0] >= 2000
    assert budget.spent[1] == 60


def test_a_text_is_read_once_and_paid_for_by_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget()
    contents = Contents(volume_of({"config.txt": b"a=1\n", "empty.txt": b""}), {}, budget)
    before = budget.spent[0]
    assert contents.text("CONFIG.TXT") == b"a=1\n"
    assert contents.text("empty.txt") == b""
    assert budget.spent[0] > before
    monkeypatch.setattr(type(contents.volume), "read_file", lambda *_, **__: b"read again")
    assert contents.text("config.txt") == b"a=1\n"
    assert contents.text("none.txt") is None


def test_a_text_that_cannot_be_paid_for_is_there_and_not_looked_at() -> None:
    contents = Contents(volume_of({"config.txt": b"a=1\n"}), {}, Budget(ReadLimits(steps=5)))
    assert contents.text("config.txt") == b""
    assert contents.unseen == {"config.txt": "looking at it takes too long"}


def test_what_was_heard_is_told_by_digest_of_one_judge_alone() -> None:
    judge, other = judge_of([]), judge_of([])
    looked_at(b"heard", judge, Budget())
    digest = hashlib.sha256(b"heard").hexdigest()
    assert said_by(judge, [digest, "0" * 64]) == {digest: Heard(5, 1000, 50)}
    assert said_by(other, [digest]) == {}
