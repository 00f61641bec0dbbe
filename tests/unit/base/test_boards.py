"""One table of boards, and everything else that lists boards agrees with it."""

from __future__ import annotations

import re
from inspect import getsource

import pytest

from imager.base.boards import ARMV6_NAMES, AS_IT_IS, BOARDS, MODELS, Board, board_named
from imager.base.errors import ConfigurationError
from imager.bootcheck.formats.config import MODEL_FILTERS
from imager.config import example, sections
from imager.config.shipped_trees import trees_folder
from imager.release.catalogue import RELEASES, spec_for
from tests.support.boarddoc import DOCUMENT, with_table

SPOKEN = f"{', '.join(MODELS[:-1])} or {MODELS[-1]}"
EACH_BOARD = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def test_no_two_boards_share_a_name() -> None:
    assert len(set(MODELS)) == len(BOARDS)
    assert not set(MODELS) & set(ARMV6_NAMES)
    with pytest.raises(ValueError, match="known are pi2, pi3"):
        board_named("pi9")


@EACH_BOARD
def test_each_built_in_release_boots_a_board_or_is_refused_with_a_reason(board: Board) -> None:
    assert sorted([*board.kernels, *board.refused]) == sorted(RELEASES)
    assert board.kernels, "a board that no release boots is not one of the table"
    for name, spec in RELEASES.items():
        assert (board.name in spec.models) is board.boots(name)
        if board.boots(name):
            continue
        with pytest.raises(ConfigurationError) as caught:
            spec_for(name, None, board.name)
        assert caught.value.hint == board.why_not(name)
        instead = board.kernels.get(name, board.kernels)
        assert any(other in board.why_not(name) for other in instead), "what to use instead"


@EACH_BOARD
def test_a_board_boots_with_each_kernel_that_the_reason_names(board: Board) -> None:
    for release, kernels in board.kernels.items():
        for kernel in set(kernels) - {AS_IT_IS}:
            spec = spec_for(release, None, board.name, ["python", kernel])
            assert board.name in spec.models
            assert spec.urls == RELEASES[release].urls


@EACH_BOARD
def test_the_boot_check_knows_what_a_board_loads(board: Board) -> None:
    assert board.filters
    assert board.filters | board.undecided <= MODEL_FILTERS
    assert not board.filters & board.undecided
    assert board.kernels32 or board.kernels64
    assert board.kernels64 or not board.prefers_64bit
    assert board.device_trees
    for trees in (board.device_trees, board.uboot_trees):
        files = [tree.file for tree in trees]
        assert len(set(files)) == len(files)


def test_no_two_boards_have_the_same_sections_or_trees() -> None:
    assert len({board.filters for board in BOARDS}) == len(BOARDS)
    files = [tree.file for board in BOARDS for tree in board.device_trees]
    assert len(set(files)) == len(files)


def test_every_board_has_its_overlay_and_every_such_overlay_its_board() -> None:
    folders = trees_folder().joinpath("overlays/model").iterdir()
    assert sorted(folder.name for folder in folders) == list(MODELS)


def test_the_document_says_what_the_table_says() -> None:
    text = DOCUMENT.read_text()
    assert text == with_table(text), "run: python -m tests.support.boarddoc"


def test_defaults_are_boards_and_releases_that_fit() -> None:
    assert example.Choices(nodes="pi0").model == sections.DEFAULT_MODEL
    assert board_named(sections.DEFAULT_MODEL).boots(sections.DEFAULT_RELEASE)


def test_texts_for_a_person_list_the_same_boards() -> None:
    assert f"The board: {SPOKEN}." in getsource(example)


def test_the_example_says_which_release_boots_which_board() -> None:
    source = getsource(example).replace("\n# ", " ")
    said = dict(re.findall(r"(alarm-rpi-\w+) \(([^)]*)\)", source))
    titles = {board.name: board.title.removeprefix("Raspberry ") for board in BOARDS}
    assert said.keys() == RELEASES.keys()
    for name, text in said.items():
        boards, _, others = text.partition("; ")
        assert sorted(boards.replace("Zero", "Pi Zero").split(", ")) == sorted(
            titles[model] for model in RELEASES[name].models
        )
        for board in BOARDS:
            if name in board.kernels and not board.boots(name):
                assert board.name.removeprefix("pi").upper() in others
