"""Overlays of strangers: nothing outside the rack is read, and what is odd is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from imager.base.below import Below
from imager.base.errors import ConfigurationError
from imager.config.load import parse_rack
from imager.node.files import overlay_files
from imager.node.files.card_values import CardValues
from imager.node.files.templates import Renderer, Templates
from imager.node.files.tree import CardLink, CardTree
from imager.node.overlays import Overlays

CARD = CardValues("m" * 32, "b-01", "r-02", "uuid", 1_790_000_000, None)
SECRET = "nobody may read this"


class Stranger:
    """A rack's folder with a secret beside it, and a built-in overlays folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "rack"
        self.secret = folder / "outside/secret"
        self.built_in = folder / "built-in/overlays"
        self.base = self.folder / "overlays/base"
        for made in (self.secret.parent, self.built_in, self.base / "root/etc"):
            made.mkdir(parents=True)
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)

    def include(self, name: str) -> None:
        self.config(f'[include]\n"root/etc/x" = "{name}"\n')

    def config(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        (self.base / "overlay.toml").write_bytes(data)

    def load(self) -> CardTree:
        rack = parse_rack(self.folder, '[rack]\nnodes = "pi7"\n')
        with Renderer() as renderer:
            given = Templates(renderer, rack, rack.nodes[0], CARD)
            return Overlays(self.built_in, rack.overlays).tree(rack.nodes[0], given)

    def faults(self) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load()
        assert SECRET not in str(caught.value.details)
        return list(caught.value.details)

    def fault(self) -> str:
        (fault,) = self.faults()
        return fault


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    return Stranger(tmp_path)


def test_an_include_that_is_absolute_leads_out(stranger: Stranger) -> None:
    stranger.include(str(stranger.secret))
    assert f"leads out of {stranger.folder}" in stranger.fault()


@pytest.mark.parametrize(
    "name", ["../outside/secret", "a/../../outside", "/", ".", "./", "a\\u0000"]
)
def test_an_include_that_leads_out_is_refused(stranger: Stranger, name: str) -> None:
    stranger.include(name)
    assert f"leads out of {stranger.folder}" in stranger.fault()


@pytest.mark.parametrize(
    ("link", "to", "name"),
    [
        ("kept", "../outside", "kept/secret"),
        ("kept", "../outside", "kept"),
        ("kept", "../outside/secret", "kept"),
        ("kept", "overlays", "kept/base/root"),
        ("kept", "nowhere", "kept"),
    ],
)
def test_an_include_through_a_link_is_refused(
    stranger: Stranger, link: str, to: str, name: str
) -> None:
    (stranger.folder / link).symlink_to(to)
    stranger.include(name)
    fault = stranger.fault()
    assert str(stranger.folder / "kept") in fault
    assert "links are not followed here" in fault


@pytest.mark.parametrize("name", [".picloud/keys", ".picloud", "./.picloud/x", ".git/config"])
def test_an_include_of_what_is_private_is_refused(stranger: Stranger, name: str) -> None:
    place = stranger.folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("x")
    stranger.include(name)
    assert "is private to this rack and goes on no card" in stranger.fault()


@pytest.mark.parametrize("name", ["overlays", "overlays/base", "overlays/base/root"])
def test_a_link_in_the_place_of_a_folder_is_refused(stranger: Stranger, name: str) -> None:
    place = stranger.folder / name
    moved = stranger.secret.parent / "moved"
    place.rename(moved)
    place.symlink_to(moved)
    fault = stranger.fault()
    assert fault == f"{place}: is a symbolic link, and links are not followed here"


def test_a_link_in_the_place_of_overlay_toml_is_refused(stranger: Stranger) -> None:
    (stranger.base / "overlay.toml").symlink_to(stranger.secret)
    assert stranger.fault().endswith(
        "overlay.toml: is a symbolic link, and links are not followed here"
    )


def test_a_link_in_an_overlay_is_a_link_on_the_card_and_not_followed(stranger: Stranger) -> None:
    (stranger.base / "root/etc/shadow").symlink_to(stranger.secret)
    (stranger.base / "root/etc/folder").symlink_to(stranger.secret.parent)
    (stranger.base / "root/etc/motd.j2").symlink_to(stranger.secret)
    links = {e.path: e.target for e in stranger.load().root if isinstance(e, CardLink)}
    assert links == {
        "/etc/shadow": str(stranger.secret),
        "/etc/folder": str(stranger.secret.parent),
        "/etc/motd.j2": str(stranger.secret),
    }


def test_a_file_with_a_second_name_is_refused(stranger: Stranger) -> None:
    os.link(stranger.secret, stranger.base / "root/etc/x")
    assert stranger.fault() == (
        f"{stranger.base}/root/etc/x: has 2 names (hard links); copy it, so that it has one"
    )


def test_built_in_files_may_have_one_as_installers_make_them(stranger: Stranger) -> None:
    place = stranger.built_in / "base/root/etc"
    place.mkdir(parents=True)
    os.link(stranger.secret, place / "x")
    assert stranger.load().root_file("/etc/x") is not None


@pytest.mark.parametrize("name", ["root/etc/x", "root/etc/x.j2", "overlay.toml"])
def test_a_fifo_is_refused_and_not_waited_for(stranger: Stranger, name: str) -> None:
    os.mkfifo(stranger.base / name)
    assert stranger.fault().startswith(f"{stranger.base / name}: is n")


def test_a_socket_is_refused(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stranger.base / "root/etc")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("x")
        assert "is neither file, folder nor symbolic link" in stranger.fault()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device files")
def test_a_device_is_refused(stranger: Stranger) -> None:
    os.mknod(stranger.base / "root/etc/x", 0o20666, os.makedev(1, 5))
    assert "is neither file, folder nor symbolic link" in stranger.fault()


def test_a_file_larger_than_memory_is_refused_unread(stranger: Stranger) -> None:
    with (stranger.base / "root/etc/x").open("wb") as file:
        file.truncate(1 << 40)
    assert stranger.fault() == (
        f"{stranger.base}/root/etc/x: with it the overlays hold more than 512 MiB"
    )


def test_many_files_are_too_large_together(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (stranger.base / f"root/etc/{number}").write_bytes(bytes(40))
    room = overlay_files.OverlayRoom
    monkeypatch.setattr("imager.node.overlays.OverlayRoom", lambda: room(size_bytes=100))
    assert f"{stranger.base}/root/etc/2: with it the overlays hold more than" in stranger.fault()
    monkeypatch.setattr("imager.node.overlays.OverlayRoom", lambda: room(entries=2))
    assert f"{stranger.base}/root/etc/1: with it the overlays hold more than" in stranger.fault()


def test_the_same_file_included_again_and_again_counts_each_time(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stranger.folder / "x").write_bytes(bytes(40))
    stranger.config("[include]\n" + "".join(f'"root/{n}" = "x"\n' for n in range(3)))
    room = overlay_files.OverlayRoom
    monkeypatch.setattr("imager.node.overlays.OverlayRoom", lambda: room(size_bytes=100))
    assert "with it the overlays hold more than" in stranger.fault()


def test_folders_without_end_are_refused(stranger: Stranger) -> None:
    (stranger.base / "root").joinpath(*["d"] * 70).mkdir(parents=True)
    assert stranger.fault().endswith(": lies more than 64 folders deep")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"\xff\xfe", "overlay.toml: is not UTF-8 text"),
        (b"x" * 70_000, "overlay.toml: is larger than 65536 bytes"),
        (b"x = " + b"9" * 5000, "not TOML: a value in it is too large, or nested too deeply"),
        (b"x = " + b"[" * 20_000, "not TOML: a value in it is too large, or nested too deeply"),
        (b'[links]\n"root/etc/x" = "a\\u0000b"', "is nothing a symbolic link can point to"),
        (b'[links]\n"root/etc/x" = "' + b"a" * 5000 + b'"', "is nothing a symbolic link can"),
        (b'[links]\n"root/a\\u0000b" = "c"', "is no place on the card"),
        (b'[links]\n"root/' + b"a" * 256 + b'" = "c"', "is no place on the card"),
        (b'[links]\n"root' + b"/abc" * 1100 + b'" = "c"', "is no place on the card"),
        (b'[files]\n"root/x" = { owner = "99999999999" }', "is not user:group"),
    ],
    ids=range(10),
)
def test_an_odd_overlay_toml_is_a_fault(stranger: Stranger, text: bytes, fault: str) -> None:
    stranger.config(text)
    assert fault in stranger.fault()


@pytest.mark.parametrize("part", ["root/etc", "boot"])
def test_a_name_that_is_not_utf_8_is_refused(stranger: Stranger, part: str) -> None:
    folder = os.fsencode(stranger.base / part)
    os.makedirs(folder, exist_ok=True)
    with open(folder + b"/caf\xe9", "wb"):
        pass
    fault = stranger.fault()
    assert "is not UTF-8" in fault
    assert "caf\\udce9" in fault


def test_after_a_limit_nothing_more_is_rendered(stranger: Stranger) -> None:
    (stranger.base / "root/etc/a.j2").write_text("{{ nobody }}")
    (stranger.base / "root/etc/b.j2").write_text('{{ "a" * 9999999999 }}')
    (stranger.base / "root/etc/c.j2").write_text("{{ nobody }}")
    assert stranger.faults() == [
        f"{stranger.base}/root/etc/a.j2:1: 'nobody' is undefined",
        f"{stranger.base}/root/etc/b.j2: needs more than 256 MiB of memory",
    ]


def test_too_many_files_are_found_out_before_all_are_looked_at(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        (stranger.base / f"root/etc/{number}").touch()
    room, status = overlay_files.OverlayRoom, Below.status
    looked_at: list[Path] = []

    def counted(at: Below) -> os.stat_result | None:
        looked_at.append(at.path)
        return status(at)

    monkeypatch.setattr("imager.node.overlays.OverlayRoom", lambda: room(entries=10))
    monkeypatch.setattr(Below, "status", counted)
    assert "with it the overlays hold more than" in stranger.fault()
    assert len(looked_at) < 100


def test_many_lines_about_files_are_refused(stranger: Stranger) -> None:
    lines = "".join(f'"root/{n}" = {{ mode = "0600" }}\n' for n in range(201))
    stranger.config(f"[files]\n{lines}")
    assert stranger.fault() == (
        f"{stranger.base}/overlay.toml:1: files: has 201 lines; at most 200 can be given"
    )
