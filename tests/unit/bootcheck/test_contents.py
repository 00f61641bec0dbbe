"""The files of a boot partition: of the same bytes the same is said again, for the same price."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from imager.bootcheck.contents import Contents, Heard, Judge, remember, said_by
from imager.bootcheck.route.needs import LOST
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


def test_a_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = Contents(volume_of({"config.txt": b"a=1\n", "empty.txt": b""}), {}, Budget())
    assert contents.text("CONFIG.TXT") == b"a=1\n"
    assert contents.text("empty.txt") == b""
    monkeypatch.setattr(type(contents.volume), "read_file", lambda *_, **__: b"read again")
    assert contents.text("config.txt") == b"a=1\n"
    assert contents.text("none.txt") is None


def test_a_text_is_read_whatever_is_left_of_the_budget() -> None:
    contents = Contents(volume_of({"config.txt": b"a=1\n"}), {}, Budget(ReadLimits(steps=0)))
    assert contents.text("config.txt") == b"a=1\n"
    assert not contents.unseen


def test_a_text_that_is_longer_than_any_is_cut_and_each_time_said_to_be() -> None:
    contents = Contents(volume_of({"config.txt": b"#" * 65_537}), {}, Budget())
    for _ in range(2):
        assert contents.text("CONFIG.TXT") == b"#" * 65_536
        assert contents.unseen == {"config.txt": "it has 65537 bytes; the first 65536 were read"}
        contents.unseen.clear()


def test_what_lies_in_a_folder_that_was_not_read_is_not_said_to_be_missing() -> None:
    volume = replace(volume_of({"config.txt": b"", "a/b/c": b"x"}), unseen={"a/b": "why"})
    contents = Contents(volume, {}, Budget())
    for path in ("a/b/kernel.img", "A/B/no/kernel.img"):
        assert contents.entry(path) is None
        assert contents.may_have(path)
        assert contents.fault(path, LOST) is None
        assert contents.about(path, LOST) is None
        assert contents.text(path) == b""
        assert contents.unseen[path] == "why"
    contents.unseen.clear()
    for path in ("kernel.img", "a/kernel.img", "b/kernel.img"):
        assert contents.fault(path, LOST) == f"{path} is missing"
        assert contents.text(path) is None
    assert contents.text("a/b/c") == b"x"
    assert not contents.unseen


def test_a_file_that_was_not_followed_to_its_end_is_not_judged() -> None:
    volume = volume_of({"kernel.img": b"x" * 2000, "config.txt": b"a=1\n"})
    left_off = {"kernel.img": "why", "config.txt": "why"}
    volume = replace(volume, unseen=left_off, hurt=frozenset(left_off))
    contents = Contents(volume, {}, Budget())
    assert contents.fault("kernel.img", LOST) is None
    contents.text("config.txt")
    assert contents.unseen == left_off


def test_what_was_heard_is_told_by_digest_of_one_judge_alone() -> None:
    judge, other = judge_of([]), judge_of([])
    looked_at(b"heard", judge, Budget())
    digest = hashlib.sha256(b"heard").hexdigest()
    assert said_by(judge, [digest, "0" * 64]) == {digest: Heard(5, 1000, 50)}
    assert said_by(other, [digest]) == {}
