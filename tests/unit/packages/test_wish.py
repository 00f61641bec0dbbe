"""Wishes put together: what comes later wins, equal ones have one key."""

from __future__ import annotations

from imager.packages.wish import PackageWish


def test_later_wins_by_name_and_units_add_up() -> None:
    rack = PackageWish(("a", "b>=1"), ("c",), ("x.service",))
    node = PackageWish(("c", "b>=2"), ("a",), ("y.timer", "x.service"))
    assert rack.then(node) == PackageWish(("c", "b>=2"), ("a",), ("x.service", "y.timer"))
    assert rack.then(PackageWish()) == rack


def test_the_key_is_of_what_is_wished_not_of_its_order() -> None:
    one = PackageWish(("a", "b"), ("c", "d"))
    assert one.key == PackageWish(("b", "a"), ("d", "c"), ("x.service",)).key
    others = (
        PackageWish(("a",), ("c", "d")),
        PackageWish(("a", "b"), ("c",)),
        PackageWish(("c", "d"), ("a", "b")),
        PackageWish(("a>=1", "b"), ("c", "d")),
    )
    assert one.key not in {other.key for other in others}
    assert PackageWish((), (), ("x.service",)).is_plain
