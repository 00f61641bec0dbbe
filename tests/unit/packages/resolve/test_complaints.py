"""What pacman says is told once, by its cause."""

from __future__ import annotations

from imager.packages.resolve.complaints import Known, explained

NOTHING = Known("the release", {}, ())


def unmet(word: str, who: str) -> str:
    return f":: unable to satisfy dependency '{word}' required by {who}"


def test_what_follows_from_another_need_is_left_out() -> None:
    lines = [unmet("glibc>=3", "runc"), unmet("runc>=1", "containerd"), unmet("containerd", "x")]
    assert list(explained(lines, NOTHING)) == ["runc needs glibc>=3: no repository has it"]


def test_needs_in_a_circle_are_all_told() -> None:
    lines = [unmet("one", "two"), unmet("two", "one")]
    assert len(list(explained(lines, NOTHING))) == 2
