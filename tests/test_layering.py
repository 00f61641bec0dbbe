"""Imports point one way, between the wings of imager and between the rooms of a wing.

The order of the wings is ``WINGS``, lowest first. Inside a wing, ``ROOMS`` has the order: a name is
a folder or a module. The modules beside the rooms that are not named there come last: they put the
rooms together, and no room imports them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "imager"
WINGS = (
    "base",
    "disk",
    "release",
    "packages",
    "config",
    "bootcheck",
    "image",
    "node",
    "card",
    "rack",
    "stations",
    "doctor",
    "cli",
)
ROOMS: dict[str, tuple[str, ...]] = {
    "disk": ("budget", "extents", "layout", "manifest", "fat", "ext4"),
    "release": ("transfer", "content_store", "lock", "verified", "terms", "salt"),
    "packages": (
        "metadata",
        "verified",
        "wish",
        "resolve",
        "python",
        "fetch",
        "plan",
        "fulfilled",
        "locking",
        "carry",
    ),
    "bootcheck": (
        "findings",
        "symptoms",
        "route_meanings",
        "meanings",
        "formats",
        "root",
        "contents",
        "route",
    ),
    "image": ("unpack", "packages", "salt", "compose"),
    "node": ("image", "keys", "files", "edit", "stamp"),
    "card": (
        "image",
        "medium",
        "source",
        "host",
        "diagnosis",
        "stages",
        "claim",
        "probe",
        "write",
        "receipt",
        "inspect",
        "save",
        "make",
    ),
    "rack": ("history", "plan", "batch", "live", "master", "report", "page"),
    "stations": ("wire", "salt", "desk", "head"),
    "doctor": ("checkup", "storage"),
    "cli": (
        "terminal",
        "paths",
        "settings",
        "pages",
        "pasting",
        "console",
        "lazy",
        "session",
        "packages",
        "choice",
        "consent",
        "master",
        "views",
        "about",
        "release",
        "card",
        "stations",
        "rack",
        "saves",
    ),
}
MOST_MODULES = 14
"""More doors than that in one corridor, and nobody finds the right one."""
SELF_CONTAINED = {
    "disk": {"base"},
    "config": {"base", "release", "packages"},
    "bootcheck": {"base", "disk"},
}
"""Wings that stand nearly alone, and all that each may import."""
PAGE_LINES = 90
FOREIGN_TO_DISK = re.compile(
    r"\b(raspberry|pi|pis|cards?|racks?|releases?|stamps?|receipts?|golden)\b", re.IGNORECASE
)
"""What a library that reads disks has never heard of."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of ours that ``path`` imports anywhere in it, each as its path below imager."""
    for statement in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "imports are absolute here"
            module = statement.module or ""
            names = [f"{module}.{alias.name}" for alias in statement.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "imager":
                yield existing(tuple(parts[1:]))


def existing(parts: tuple[str, ...]) -> tuple[str, ...]:
    """``parts`` without the name of what is imported from the module."""
    while parts:
        place = PACKAGE.joinpath(*parts)
        if place.with_suffix(".py").is_file() or place.is_dir():
            return parts
        parts = parts[:-1]
    return ()


def place_in_wing(parts: tuple[str, ...]) -> int:
    """How high in its wing a module stands: the rooms in order, then what puts them together."""
    order = ROOMS.get(parts[0], ())
    return order.index(parts[1]) if len(parts) > 1 and parts[1] in order else len(order)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts
    for other in imported(path):
        if not other or other[0] not in WINGS:
            continue
        assert WINGS.index(other[0]) <= WINGS.index(own[0]), f"imports {'.'.join(other)}"
        if other[0] == own[0]:
            assert place_in_wing(other) <= place_in_wing(own), f"imports {'.'.join(other)}"


@pytest.mark.parametrize("wing", SELF_CONTAINED)
def test_a_wing_that_stands_alone_imports_nothing_above_it(wing: str) -> None:
    files = (PACKAGE / wing).rglob("*.py")
    seen = {parts[0] for path in files for parts in imported(path) if parts}
    assert seen <= {wing, *SELF_CONTAINED[wing]}


@pytest.mark.parametrize("wing", SELF_CONTAINED)
def test_a_wing_that_stands_alone_has_a_page(wing: str) -> None:
    """What its examples say is run by tests/image/test_wing_pages.py."""
    page = (PACKAGE / wing / "README.md").read_text()
    assert page.startswith(f"# {wing}: ")
    assert page.count("\n") <= PAGE_LINES
    for promise in ("**In", "**Out", "**What it promises.**", "**Errors.**", "**What it does not"):
        assert promise in page


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Names, comments and docstrings of a module, by line; messages are left out."""
    text = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.NAME:
            yield token.start[0], token.string.replace("_", " ")
    for statement in ast.walk(ast.parse(text)):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            yield statement.lineno, str(statement.value.value)


def test_disk_is_a_library_that_somebody_else_could_use() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {word[0]}"
        for path in (PACKAGE / "disk").rglob("*.py")
        for line, text in words_of(path)
        if (word := FOREIGN_TO_DISK.search(text))
    ]
    assert found == []
    assert not FOREIGN_TO_DISK.search((PACKAGE / "disk/README.md").read_text())


def test_no_module_is_part_of_a_circle() -> None:
    seen: dict[Path, list[Path]] = {}
    for path in modules():
        targets = (PACKAGE.joinpath(*parts).with_suffix(".py") for parts in imported(path) if parts)
        seen[path] = [target for target in targets if target.is_file() and target != path]
    done: set[Path] = set()

    def follow(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, [str(step.relative_to(PACKAGE)) for step in (*way, path)]
        if path not in done:
            for target in seen.get(path, ()):
                follow(target, (*way, path))
            done.add(path)

    for path in seen:
        follow(path, ())


def test_no_folder_has_more_modules_than_a_person_looks_through() -> None:
    folders = {path.parent for path in modules()}
    count = {
        str(folder.relative_to(PACKAGE)): sum(
            path.name != "__init__.py" for path in folder.glob("*.py")
        )
        for folder in folders
    }
    assert not {name: number for name, number in count.items() if number > MOST_MODULES}


def test_every_folder_has_its_place_in_the_order() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts for path in modules()}
    assert {parts[0] for parts in folders} == set(WINGS)
    for parts in folders:
        if len(parts) > 1:
            assert parts[1] in ROOMS.get(parts[0], ()), f"{'/'.join(parts)} has no place in ROOMS"
    for wing, names in ROOMS.items():
        for name in names:
            assert existing((wing, name)) == (wing, name), f"there is no {wing}/{name}"


def test_the_map_shows_every_folder_and_nothing_else() -> None:
    text = (PACKAGE.parent / "HACKING.md").read_text()
    shown = re.findall(r"^\| `imager/([a-z0-9_/]+)` \|", text, re.MULTILINE)
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in modules()}
    assert sorted(shown) == sorted(folders)
    wings = [name for name in shown if "/" not in name]
    assert tuple(wings) == WINGS, "the map has the wings in their order"
    for wing in WINGS:
        order = [room for room in ROOMS.get(wing, ()) if f"{wing}/{room}" in folders]
        assert [n.partition("/")[2] for n in shown if n.startswith(f"{wing}/")] == order


def test_the_architecture_has_the_wings_in_their_order() -> None:
    text = (PACKAGE.parent / "docs/architecture.md").read_text()
    (line,) = re.findall(r"^ +(base ← .*)$", text, re.MULTILINE)
    assert tuple(line.split(" ← ")) == WINGS


def test_readme_leads_to_every_document() -> None:
    root = PACKAGE.parent
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (root / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in root.glob("docs/*.md")} - linked == set()


def test_no_line_of_the_changes_stands_there_twice() -> None:
    """As a merge leaves them that went wrong."""
    lines = (PACKAGE.parent / "CHANGELOG.md").read_text().splitlines()
    long = [line for line in lines if len(line) > 40]
    assert sorted(long) == sorted(set(long))


@pytest.mark.parametrize("page", ["HACKING.md", "docs/architecture.md"])
def test_a_page_names_only_what_is_there(page: str) -> None:
    root = PACKAGE.parent
    text = (root / page).read_text()
    paths = re.findall(r"(?:imager|tests|docs|overlays|firstboot|scripts)/[\w./-]*\w", text)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert paths
    gone = [path for path in paths if not (root / path).exists() and "/NN-" not in path]
    gone += [link for link in links if not (root / page).parent.joinpath(link).exists()]
    assert gone == []


def test_unit_tests_stand_where_what_they_test_does() -> None:
    unit = PACKAGE.parent / "tests/unit"
    for path in unit.rglob("test_*.py"):
        room = path.parent.relative_to(unit)
        assert (PACKAGE / room).is_dir(), f"{path.relative_to(unit)}: imager has no {room}"


def test_a_class_name_means_one_thing() -> None:
    """A search for a class finds the one that is meant."""
    places: dict[str, list[str]] = {}
    for path in modules():
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.ClassDef):
                places.setdefault(statement.name, []).append(str(path.relative_to(PACKAGE)))
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=str)
def test_init_files_hold_only_a_docstring(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
