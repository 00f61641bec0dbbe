"""Overlays: later wins per file, and every fault is named before a card is touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.config.load import parse_rack
from imager.config.rack import Node
from imager.config.shipped_trees import roles_in, trees_folder
from imager.node.files.card_values import CardValues
from imager.node.files.overlay_files import OverlayRoom
from imager.node.files.templates import Renderer, Templates
from imager.node.files.tree import CardFile, CardFolder, CardLink, CardTree
from imager.node.overlays import Overlays

RACK = parse_rack(Path("/nowhere"), '[rack]\nnodes = "pi[7-8]"\n')
NODE = Node("pi7", "pi2", ("salt-minion", "web"), None, ())
CARD = CardValues("m" * 32, "b-01", "r-02", "uuid", 1_790_000_000, None)


@dataclass(frozen=True)
class Folders:
    """The two overlays folders of a test."""

    built_in: Path
    own: Path

    def put(self, name: str, content: str | bytes = "") -> Path:
        """Make a file: ``base/root/etc/x`` in the built-in folder, ``own/base/…`` in the rack's."""
        path = self.own / name[4:] if name.startswith("own/") else self.built_in / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def load(self) -> CardTree:
        with Renderer() as renderer:
            given = Templates(renderer, RACK, NODE, CARD)
            return Overlays(self.built_in, self.own).tree(NODE, given)

    def faults(self) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load()
        assert caught.value.exit_code == 10
        return list(caught.value.details)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "built-in/overlays", tmp_path / "rack/overlays")


def content(tree: CardTree, path: str) -> bytes:
    file = tree.root_file(path)
    assert file is not None, f"{path} is not in the tree"
    return file.content


def test_later_wins_per_file(folders: Folders) -> None:
    order = [
        "base",
        "model/pi2",
        "role/salt-minion",
        "role/web",
        "own/base",
        "own/model/pi2",
        "own/role/salt-minion",
        "own/role/web",
        "own/node/pi7",
    ]
    for number, name in enumerate(order):
        for later in range(number, len(order)):
            folders.put(f"{name}/root/etc/{later}", name) if later >= number else None
    tree = folders.load()
    found = [content(tree, f"/etc/{number}").decode() for number in range(len(order))]
    assert found == order


def test_other_models_roles_and_nodes_do_not_apply(folders: Folders) -> None:
    for name in ("model/pi3", "role/salt-master", "own/node/pi8"):
        folders.put(f"{name}/root/etc/x")
    assert folders.load() == CardTree()


def test_boot_files_are_kept_apart_and_fat_ignores_case(folders: Folders) -> None:
    folders.put("base/boot/config.txt", "one")
    folders.put("base/boot/overlays/x.dtbo", "two")
    folders.put("own/base/boot/CONFIG.TXT", "three")
    tree = folders.load()
    assert [(f.path, f.content) for f in tree.boot] == [
        ("CONFIG.TXT", b"three"),
        ("overlays/x.dtbo", b"two"),
    ]
    assert tree.root == ()


def test_kernel_words_of_every_overlay_come_in_order_and_once(folders: Folders) -> None:
    folders.put("base/overlay.toml", 'kernel_words = ["quiet", "panic=5"]\n')
    folders.put("role/web/overlay.toml", 'kernel_words = ["cgroup_enable=memory"]\n')
    folders.put("own/node/pi7/overlay.toml", 'kernel_words = ["panic=5", "panic=9"]\n')
    words = ("quiet", "panic=5", "cgroup_enable=memory", "panic=9")
    assert folders.load().kernel_words == words


def test_a_kernel_word_that_would_be_another_line_or_root_is_a_fault(folders: Folders) -> None:
    path = folders.put("base/overlay.toml", 'kernel_words = ["a\\nb", "root=/dev/sda", "ro"]\n')
    first, second = folders.faults()
    assert first.startswith(f'{path}:1: kernel_words: "a\\nb" is not one plain word')
    assert second.startswith(f'{path}:1: kernel_words: "root=/dev/sda" is set by this program')


def test_templates_are_rendered_and_lose_their_ending(folders: Folders) -> None:
    folders.put("base/root/etc/hostname.j2", "{{ node.name }}\n")
    assert content(folders.load(), "/etc/hostname") == b"pi7\n"


def test_modes_follow_the_executable_bit_and_overlay_toml(folders: Folders) -> None:
    folders.put("base/root/usr/bin/run").chmod(0o700)
    folders.put("base/root/etc/plain").chmod(0o600)
    folders.put("base/root/etc/secret.d/a")
    folders.put(
        "base/overlay.toml",
        '[files]\n"root/etc/secret.d*" = { mode = "0750", owner = "root:wheel" }\n'
        '"root/etc/secret.d/*" = { mode = "0600" }\n',
    )
    tree = folders.load()
    modes = {e.path: (e.mode, e.owner) for e in tree.root if not isinstance(e, CardLink)}
    assert modes == {
        "/etc": (None, None),
        "/etc/plain": (0o644, "root:root"),
        "/etc/secret.d": (0o750, "root:wheel"),
        "/etc/secret.d/a": (0o600, "root:wheel"),
        "/usr": (None, None),
        "/usr/bin": (None, None),
        "/usr/bin/run": (0o755, "root:root"),
    }


def test_a_later_overlay_silent_on_a_folder_keeps_its_mode(folders: Folders) -> None:
    folders.put("base/root/srv/a")
    folders.put("base/overlay.toml", '[files]\n"root/srv" = { mode = "0700" }\n')
    folders.put("own/base/root/srv/b")
    tree = folders.load()
    assert [e.mode for e in tree.root if isinstance(e, CardFolder)] == [0o700]


def test_links_come_from_the_tree_and_from_overlay_toml(folders: Folders) -> None:
    folders.put("base/overlay.toml", '[links]\n"root/etc/a" = "/run/a"\n')
    folders.put("base/root/etc/x").with_name("b").symlink_to("../run/b")
    links = {e.path: e.target for e in folders.load().root if isinstance(e, CardLink)}
    assert links == {"/etc/a": "/run/a", "/etc/b": "../run/b"}


def test_included_trees_lie_beside_the_overlays(folders: Folders) -> None:
    beside = folders.built_in.parent / "first"
    (beside / "steps").mkdir(parents=True)
    (beside / "steps/10-a").write_text("a")
    (beside / "run").write_text("r")
    folders.put(
        "base/overlay.toml",
        '[include]\n"root/usr/lib/p/steps" = "first/steps"\n"root/usr/lib/p/go" = "first/run"\n',
    )
    tree = folders.load()
    assert content(tree, "/usr/lib/p/steps/10-a") == b"a"
    assert content(tree, "/usr/lib/p/go") == b"r"


def test_units_to_enable_are_gathered_once(folders: Folders) -> None:
    folders.put("base/overlay.toml", 'enable = ["a.service", "b.timer"]\n')
    folders.put("own/base/overlay.toml", 'enable = ["a.service", "c.socket"]\n')
    assert folders.load().enable == ("a.service", "b.timer", "c.socket")


CONFIG_FAULTS = [
    ('enabel = ["a.service"]', ": enabel: no such key; did you mean enable?"),
    ('enable = ["a"]', ':1: enable: "a" is not a unit; write it like "sshd.service"'),
    (
        '[files]\n"root/x" = { mode = "0888" }',
        '.mode: "0888" is not an octal mode; write it like "0644"',
    ),
    ('[files]\n"root/x" = { mode = 644 }', '.mode: 644 is not text; write it like "0644"'),
    (
        '[files]\n"root/x" = { owner = "a:b:c" }',
        '.owner: "a:b:c" is not user:group; write it like "root:root"',
    ),
    ('[files]\n"root/x" = { mod = "0644" }', ".mod: no such key; did you mean mode?"),
    (
        '[files]\n"/etc/x" = { mode = "0644" }',
        'files./etc/x: is no path on the card; begin it with "root/" or "boot/"',
    ),
    ('[links]\n"boot/x" = "y"', "is on the boot partition, and FAT has no symbolic links"),
    ('[links]\n"root/../x" = "y"', 'is no place on the card; write it like "root/etc/motd"'),
    ('[include]\n"root/x" = "../../../etc"', '"../../../etc" leads out of'),
    ('[include]\n"root/x" = "nowhere"', "nowhere does not exist"),
    ("[links\n", ":1: not TOML: Expected ']'"),
]


@pytest.mark.parametrize(("text", "fault"), CONFIG_FAULTS, ids=[f for _, f in CONFIG_FAULTS])
def test_a_fault_of_overlay_toml_names_the_file(folders: Folders, text: str, fault: str) -> None:
    path = folders.put("base/overlay.toml", text)
    (line,) = folders.faults()
    assert line.startswith(str(path))
    assert fault in line


def test_an_undefined_variable_names_file_line_and_variable(folders: Folders) -> None:
    path = folders.put("base/root/etc/a.j2", "one\ntwo {{ node.naem }}\n")
    other = folders.put("own/base/root/etc/b.j2", "\n\n{{ nobody }}\n")
    first, second = folders.faults()
    assert first == (
        f"{path}:2: there is no value 'naem' here; there are address, authorized_keys, model, "
        "name, roles, slot"
    )
    assert second == f"{other}:3: 'nobody' is undefined"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("\n{% if %}", 2, "Expected an expression"),
        ("{{ 1 / 0 }}", 1, "division by zero"),
        ("{{ node.name + 1 }}", 1, "can only concatenate str"),
        ("{{ ().__class__.__mro__ }}", 1, "unsafe"),
        ("{% include '/etc/passwd' %}", 1, "no loader"),
    ],
)
def test_a_template_that_fails_names_file_and_line(
    folders: Folders, text: str, line: int, why: str
) -> None:
    path = folders.put("base/root/etc/a.j2", text)
    (fault,) = folders.faults()
    assert fault.startswith(f"{path}:{line}: ")
    assert why in fault


def test_a_private_key_in_an_overlay_is_refused_and_not_repeated(folders: Folders) -> None:
    path = folders.put(
        "own/base/root/root/.ssh/id", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0"
    )
    (fault,) = folders.faults()
    assert fault.startswith(f"{path}: holds a private key")
    assert "c2VjcmV0" not in fault


@pytest.mark.parametrize("name", ["a:b", "con.txt", "end.", "caf\ue000\U0001f600"])
def test_a_boot_name_fat_cannot_hold_is_refused(folders: Folders, name: str) -> None:
    path = folders.put(f"base/boot/{name}")
    (fault,) = folders.faults()
    assert fault.startswith(f"{path}: ")
    assert fault.endswith(", which FAT cannot hold")


def test_what_lies_where_nothing_looks_is_refused(folders: Folders) -> None:
    folders.put("own/root/etc/motd")
    folders.put("own/rol/web/root/x")
    folders.put("own/base/roto/etc/x")
    assert folders.faults() == [
        f"{folders.own}/rol: no such overlay; did you mean role?",
        f"{folders.own}/root: belongs below {folders.own}/base",
        f"{folders.own}/base/roto: is not boot/, root/ or overlay.toml",
    ]


def test_a_file_in_the_place_of_an_overlay_is_not_left_out_unsaid(folders: Folders) -> None:
    file = folders.put("own/node/pi7")
    assert folders.faults() == [f"{file}: is no folder"]


def test_a_file_over_a_folder_is_refused_with_both_names(folders: Folders) -> None:
    folder = folders.put("base/root/etc/x/y")
    file = folders.put("own/base/root/etc/x")
    assert folders.faults() == [f"{file} is no folder, but {folder} lies below it"]


def test_a_template_and_a_file_of_one_name_are_refused(folders: Folders) -> None:
    folders.put("base/root/etc/x")
    folders.put("base/root/etc/x.j2")
    assert "are for one path" in folders.faults()[0]


def test_two_boot_files_of_one_overlay_that_are_one_name_on_fat_are_refused(
    folders: Folders,
) -> None:
    upper = folders.put("base/boot/x/A.TXT")
    lower = folders.put("base/boot/X/a.txt")
    assert folders.faults() == [f"{lower} and {upper} are one name on FAT"] or (
        folders.faults() == [f"{upper} and {lower} are one name on FAT"]
    )


def test_an_included_boot_file_is_one_name_with_another_of_the_overlay(folders: Folders) -> None:
    file = folders.put("base/boot/a.txt")
    included = folders.put("../mine")
    folders.put("base/overlay.toml", '[include]\n"boot/A.txt" = "mine"\n')
    assert folders.faults() == [f"{file} and {included.resolve()} are one name on FAT"]


def test_of_two_overlays_the_later_one_wins_also_where_fat_takes_their_names_for_one(
    folders: Folders,
) -> None:
    folders.put("base/boot/x.txt", "first")
    folders.put("own/base/boot/X.TXT", "last")
    (file,) = folders.load().boot
    assert (file.path, file.content) == ("X.TXT", b"last")


def test_a_boot_file_in_the_place_of_a_folder_is_refused_whatever_the_case(
    folders: Folders,
) -> None:
    below = folders.put("base/boot/x/y")
    file = folders.put("own/base/boot/X")
    assert folders.faults() == [f"{file} is no folder, but {below} lies below it"]


def test_a_boot_name_that_would_be_written_as_another_is_refused(folders: Folders) -> None:
    folder = folders.put("base/boot/é/x")
    file = folders.put("base/boot/€.txt.j2")
    faults = folders.faults()
    assert len(faults) == 2
    for path, letter in ((folder, "é"), (file, "€")):
        says = f"{path}: the name has {letter!r} in it and is so short"
        assert any(fault.startswith(says) for fault in faults)


def test_a_symbolic_link_on_the_boot_partition_is_refused(folders: Folders) -> None:
    folders.put("base/boot/a").with_name("b").symlink_to("a")
    assert folders.faults() == [
        f"{folders.built_in}/base/boot/b: is a symbolic link, which FAT cannot hold"
    ]


def test_the_built_in_overlays_are_where_they_are_looked_for() -> None:
    overlays = trees_folder() / "overlays"
    assert (overlays / "base/overlay.toml").is_file()
    assert set(roles_in(overlays)) == {"docker", "salt-master", "salt-minion"}


def test_content_is_not_shown_when_a_file_is_printed() -> None:
    assert "secret" not in repr(CardFile("/x", b"secret"))


def test_what_nodes_have_in_common_is_read_once(folders: Folders) -> None:
    """Also what is wrong with it is told of each, and what one of them has alone is its own."""
    folders.put("base/root/etc/hostname.j2", "{{ node.name }}\n")
    motd = folders.put("own/base/root/etc/motd", "hello\n")
    folders.put("own/node/pi8/root/etc/own")
    overlays, other = Overlays(folders.built_in, folders.own), RACK.node("pi8")
    with Renderer() as renderer:

        def tree(node: Node) -> CardTree:
            return overlays.tree(node, Templates(renderer, RACK, node, CARD))

        first = tree(NODE)
        motd.unlink()
        assert tree(NODE) == first
        second = tree(other)
    assert [content(tree, "/etc/hostname") for tree in (first, second)] == [b"pi7\n", b"pi8\n"]
    assert content(second, "/etc/motd") == b"hello\n"
    assert first.root_file("/etc/own") is None
    assert second.root_file("/etc/own") is not None
    assert folders.load().root_file("/etc/motd") is None, "who reads anew sees what has changed"


def test_what_was_read_before_counts_for_each_card(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "imager.node.overlays.OverlayRoom", lambda: OverlayRoom(size_bytes=100, entries=100)
    )
    small = folders.put("own/base/root/a", bytes(40))
    large = folders.put("own/role/web/root/b", bytes(60))
    overlays = Overlays(folders.built_in, folders.own)
    with Renderer() as renderer:
        given = Templates(renderer, RACK, NODE, CARD)
        overlays.tree(NODE, given)
        for file in (small, large):
            file.unlink()
        folders.put("own/role/other/root/c", bytes(1))
        fault = f"{folders.own}/role/other/root/c: with it the overlays hold more than"
        with pytest.raises(ConfigurationError) as caught:
            overlays.tree(replace(NODE, roles=("web", "other")), given)
    assert fault in caught.value.details[0]
