"""``clone`` as a person types it, from image file to image files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imager.base.run import run as run_tool
from imager.base.units import KiB, MiB, format_size
from imager.card.save.original import opened_original
from imager.cli.main import run
from imager.disk.extents import Extent
from imager.disk.rescue_map import BlockState, RescueMap

pytestmark = pytest.mark.image

SIZE = 40 * MiB
START, LENGTH = 8 * MiB, 24 * MiB
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Typed:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def typing(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return typing


@pytest.fixture
def card(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small ext4 in a partition, leftovers where nothing lies, also behind it."""
    path, kind = tmp_path / "card.img", getattr(request, "param", "dos")
    path.write_bytes(b"\x5a" * SIZE)
    with path.open("r+b") as file:
        file.write(bytes(MiB))
    type_ = "83" if kind == "dos" else "L"
    table = f"label: {kind}\nstart={START // 512}, size={LENGTH // 512}, type={type_}\n"
    run_tool(["sfdisk", "--quiet", path], stdin=table.encode())
    words = ["-q", "-F", "-t", "ext4", "-E", f"offset={START}", str(path)]
    run_tool(["mke2fs", *words, f"{LENGTH // KiB}k"])
    return path


def same(first: Path, second: Path, extent: Extent) -> bool:
    with first.open("rb") as one, second.open("rb") as other:
        where = extent.length, extent.offset
        return os.pread(one.fileno(), *where) == os.pread(other.fileno(), *where)


@pytest.mark.parametrize("card", ["dos", "gpt"], indirect=True)
def test_copies_have_what_is_in_use_and_nothing_else(typed: Typed, card: Path) -> None:
    code, out, _ = typed("clone", card, "one.img", "two.img", "--json")
    assert code == 0
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert [one["verified"] for one in result["cards"]] == [True, True]
    with opened_original(card) as original:
        extents = original.extents
        assert original.size_bytes < SIZE
    assert extents.total_bytes < 16 * MiB
    for name in ("one.img", "two.img"):
        copy = Path(name)
        assert copy.stat().st_size == SIZE
        assert copy.stat().st_mode & 0o777 == 0o600
        assert all(same(card, copy, extent) for extent in extents)
        said = run_tool(["sfdisk", "--verify", copy])
        assert b"corrupt" not in said.stdout + said.stderr
        run_tool(["e2fsck", "-fn", f"{copy}?offset={START}"])
        free = Extent(START + LENGTH + 64 * KiB, MiB)
        assert not same(card, copy, free), "what lies behind the last partition is left out"
    receipts = [*Path("data/picloud-image/receipts").iterdir()]
    assert sorted(path.name.split("-", 1)[1] for path in receipts) == [
        "card.img-one.img.json",
        "card.img-two.img.json",
    ]


def test_a_dry_run_shows_the_plan_and_makes_nothing(
    typed: Typed, card: Path, tmp_path: Path
) -> None:
    code, out, _ = typed("clone", card, "one.img", "two.img", "--dry-run", "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert [one["target"] for one in result["targets"]] == [
        str(tmp_path / name) for name in ("one.img", "two.img")
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"card.img"}


def test_nothing_is_copied_onto_itself_by_any_name(typed: Typed, card: Path) -> None:
    Path("link.img").symlink_to(card)
    before = card.read_bytes()
    for targets in (("card.img",), ("link.img",), ("new.img", "./new.img")):
        code, _, err = typed("clone", card, *targets, "--yes")
        assert code == 2
        assert "nothing can be copied onto itself" in err
    assert card.read_bytes() == before
    assert not Path("new.img").exists()


def test_node_is_for_one_target(typed: Typed, card: Path) -> None:
    code, _, err = typed("clone", card, "one.img", "two.img", "--node", "pi8")
    assert (code, "2 targets are named" in err) == (2, True)


def test_of_one_copy_the_result_says_where_its_receipt_lies(typed: Typed, card: Path) -> None:
    code, out, _ = typed("clone", card, "one.img", "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert json.loads(Path(result["receipt"]).read_text())["result"] == "verified"


def test_an_image_that_lacks_something_is_copied_with_a_warning(typed: Typed, card: Path) -> None:
    state = RescueMap(SIZE)
    state.put(Extent(0, SIZE), BlockState.SAVED)
    state.put(Extent(9 * MiB, 4096), BlockState.BAD)
    card.with_name("card.img.map").write_bytes(state.encode())
    code, _, err = typed("clone", card, "one.img")
    assert code == 0
    assert f"card.img is not whole: {format_size(4096)} were lost" in err
    card.with_name("card.img.map").write_bytes(b"torn")
    code, _, err = typed("clone", card, "two.img")
    assert code == 0
    assert "card.img is whole cannot be told" in err


def test_a_source_that_changes_while_it_is_read_makes_no_card(
    typed: Typed, card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody mounts it: the superblock says so."""
    real = os.preadv

    def busy(fd: int, buffers: Any, offset: int) -> int:
        count = real(fd, buffers, offset)
        if offset >= START + MiB:
            with card.open("r+b") as file:
                file.seek(START + 1024 + 52)
                file.write(b"\x01")
        return count

    monkeypatch.setattr(os, "preadv", busy)
    code, _, err = typed("clone", card, "one.img")
    assert code == 41
    assert "somebody wrote to it" in err
    assert not Path("one.img").exists()
