"""Where a release's packages come from, as its own pacman.conf says."""

from __future__ import annotations

import pytest

from imager.base.errors import ConfigurationError, MalformedRelease
from imager.packages.resolve.base_system import BaseSystem
from imager.packages.resolve.repositories import repositories_of
from tests.support.pacman import description

LOCAL = {"glibc-2.40-1": description("glibc", "2.40-1", "armv7h")}
MIRRORS = """\
## Geo-IP based mirror selection
Server = http://mirror.archlinuxarm.org/$arch/$repo
### Denmark
# Server = http://dk.mirror.archlinuxarm.org/$arch/$repo
#Server = ftp://x/$arch/$repo
"""


def base(conf: str, mirrors: str = MIRRORS) -> BaseSystem:
    settings = {"etc/pacman.conf": conf, "etc/pacman.d/mirrorlist": mirrors}
    return BaseSystem("alarm", settings, LOCAL)


def test_the_distribution_s_own_file() -> None:
    found = repositories_of(
        base(
            "# /etc/pacman.conf\n[options]\nHoldPkg = pacman glibc\nArchitecture = armv7h\n"
            "DownloadUser = alpm\n#[testing]\n#Include = /etc/pacman.d/mirrorlist\n"
            "[core]\nInclude = /etc/pacman.d/mirrorlist\n\n[extra]\nInclude = /etc/pacman.d/*list\n"
            "[own]\nServer = https://h/own/\n[empty]\n"
        )
    )
    assert found.arch == "armv7h"
    assert [each.name for each in found.found] == ["core", "extra", "own"]
    geo, denmark = "http://mirror.archlinuxarm.org", "http://dk.mirror.archlinuxarm.org"
    assert found.mirrors() == (
        (
            ("core", f"{geo}/armv7h/core"),
            ("extra", f"{geo}/armv7h/extra"),
            ("own", "https://h/own"),
        ),
        (
            ("core", f"{denmark}/armv7h/core"),
            ("extra", f"{denmark}/armv7h/extra"),
            ("own", "https://h/own"),
        ),
    )


def test_an_architecture_that_is_left_to_pacman_is_that_of_the_release() -> None:
    text = "[options]\nArchitecture = auto\n[core]\nInclude = /etc/pacman.d/mirrorlist\n"
    assert repositories_of(base(text)).arch == "armv7h"


@pytest.mark.parametrize(
    "conf", ["", "[options]\n[core]\n", "[core]\nServer = file:///etc\n", "[core]\nServer = h\n"]
)
def test_a_release_without_a_repository_is_malformed(conf: str) -> None:
    with pytest.raises(MalformedRelease, match="no repository with a server"):
        repositories_of(base(conf))


def test_a_release_without_pacman_takes_no_packages() -> None:
    with pytest.raises(ConfigurationError, match="debian has no pacman"):
        repositories_of(BaseSystem("debian", {}, {}))
