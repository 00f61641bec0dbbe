"""One table of boards, and everything else that lists boards agrees with it."""

from __future__ import annotations

import re
from inspect import getsource

import pytest

from imager.base.boards import ARMV6_NAMES, BOARDS, MODELS, Board, board_named
from imager.base.errors import ConfigurationError
from imager.bootcheck.formats.config import MODEL_FILTERS
from imager.cli.rack import init
from imager.config import example, sections
from imager.config.shipped_trees import trees_folder
from imager.release.catalogue import RELEASES, spec_for

SPOKEN = f"{', '.join(MODELS[:-1])} or {MODELS[-1]}"
EACH_BOARD = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def test_no_two_boards_share_a_name() -> None:
    assert len(set(MODELS)) == len(BOARDS)
    assert not set(MODELS) & set(ARMV6_NAMES)
    with pytest.raises(ValueError, match="known are pi2, pi3"):
        board_named("pi9")


@EACH_BOARD
def test_each_built_in_release_boots_a_board_or_is_refused_with_a_reason(board: Board) -> None:
    assert sorted([*board.releases, *board.refused]) == sorted(RELEASES)
    assert board.releases, "a board that no release boots is not one of the table"
    for name, spec in RELEASES.items():
        assert (board.name in spec.models) is (name in board.releases)
    for name, reason in board.refused.items():
        with pytest.raises(ConfigurationError) as caught:
            spec_for(name, None, board.name)
        assert caught.value.hint == reason
        assert any(other in reason for other in board.releases), "it says what to use instead"


@EACH_BOARD
def test_the_boot_check_knows_what_a_board_loads(board: Board) -> None:
    assert board.filters
    assert board.filters | board.undecided <= MODEL_FILTERS
    assert not board.filters & board.undecided
    assert board.kernels32
    assert board.kernel64 or not board.prefers_64bit
    files = [tree.file for tree in board.device_trees]
    assert files
    assert len(set(files)) == len(files)


def test_no_two_boards_share_a_section_of_config_txt() -> None:
    names = [name for board in BOARDS for name in board.filters | board.undecided]
    assert len(set(names)) == len(names)


def test_every_board_has_its_overlay_and_every_such_overlay_its_board() -> None:
    folders = trees_folder().joinpath("overlays/model").iterdir()
    assert sorted(folder.name for folder in folders) == list(MODELS)


def test_defaults_are_boards_and_releases_that_fit() -> None:
    assert example.Choices(nodes="pi0").model == sections.DEFAULT_MODEL
    assert sections.DEFAULT_RELEASE in board_named(sections.DEFAULT_MODEL).releases


def test_texts_for_a_person_list_the_same_boards() -> None:
    for module in (example, init):
        source = getsource(module)
        lists = re.findall(r"The board: ([a-z0-9, ]*\w)", source)
        assert lists
        assert {text.replace(" or ", ", ") for text in lists} == {", ".join(MODELS)}
    assert f"The board: {SPOKEN}." in getsource(example)


def test_the_example_says_which_release_boots_which_board() -> None:
    said = dict(re.findall(r"(alarm-rpi-\w+) \(([^)]*)\)", getsource(example)))
    titles = {board.name: board.title.removeprefix("Raspberry ") for board in BOARDS}
    assert said.keys() == RELEASES.keys()
    for name, boards in said.items():
        assert sorted(boards.replace("Zero", "Pi Zero").split(", ")) == sorted(
            titles[model] for model in RELEASES[name].models
        )
