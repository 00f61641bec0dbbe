"""One rack that is fetched, composed and exported once, for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.image.salt.needs import ARCH_PACKAGES
from tests.support.mirror import serving
from tests.support.pacman import package, python_package
from tests.support.pypi import index
from tests.support.release import everyday_tree
from tests.support.repository import add_pacman, database_of, files_of
from tests.support.signing import SigningKey, make_key
from tests.support.workplace import Workplace, workplace


@dataclass(frozen=True)
class Exported:
    """A rack whose release, packages and Salt lie in ``file``; the mirrors are there no more."""

    place: Workplace
    file: Path
    key: SigningKey
    golden_key: str
    golden: Path


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder, key = tmp_path_factory.mktemp("exported"), make_key()
    needs = folder / "needs"
    paths = [
        python_package(needs),
        *(package(needs, name, "1.0-1", {f"usr/share/{name}": name}, depend="python")
          for name in ARCH_PACKAGES if name not in ("python", "openssl")),
    ]  # fmt: skip
    with serving(files_of(paths, database_of(paths, needs), key)) as repository:
        tree = everyday_tree()
        tree.file("./usr/bin/pacman", b"\x7fELF", 0o755)
        tree.file("./usr/lib/libcrypto.so.3", b"\x7fELF")
        add_pacman(tree, repository.address)
        with index() as pypi, workplace(folder, tree=tree, pypi=pypi, key=key) as place:
            composed = place.json("compose")
            assert composed.code == 0, composed.err
            said = place.json("archive", "export", folder / "rack.tar", "--offline")
            assert said.code == 0, said.err
    yield Exported(
        place,
        folder / "rack.tar",
        key,
        composed.result["key"],
        Path(composed.result["image"]),
    )
