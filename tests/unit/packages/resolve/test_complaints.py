"""What pacman says is told once, by its cause."""

from __future__ import annotations

from imager.packages.resolve.complaints import Known, explained, few_of, listed

NOTHING = Known("the release", {}, ())


def unmet(word: str, who: str) -> str:
    return f":: unable to satisfy dependency '{word}' required by {who}"


def test_what_follows_from_another_need_is_left_out() -> None:
    lines = [unmet("glibc>=3", "runc"), unmet("runc>=1", "containerd"), unmet("containerd", "x")]
    assert list(explained(lines, NOTHING)) == ["runc needs glibc>=3: no repository has it"]


def test_needs_in_a_circle_are_all_told() -> None:
    lines = [unmet("one", "two"), unmet("two", "one")]
    assert len(list(explained(lines, NOTHING))) == 2


def test_what_a_mirror_may_say_without_end_is_counted() -> None:
    reasons = [f"runc needs d{number}: no repository has it" for number in range(60_000)]
    few = few_of(reasons)
    assert (few[:20], few[20:]) == (tuple(reasons[:20]), ("and 59980 more",))
    assert few_of(reasons[:20]) == tuple(reasons[:20])
    (long,) = few_of([f"runc needs {'d' * 10**6}"])
    assert len(long) == 401
    assert listed([f"q{number}" for number in range(8)]) == "q0, q1, q2, q3, q4, q5, q6, q7"
    assert listed([f"q{number}" for number in range(3000)]).endswith(", q7 and 2992 more")
