"""A rack's own overlays on a real filesystem: odd names, links of the release, what cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, ToolFailed
from imager.base.programs import ToolUse, tools_for
from imager.base.progress import Quiet
from imager.base.run import find_tool
from imager.base.units import GiB
from imager.bootcheck.own_files import NODE_PATH
from imager.bootcheck.sums import SUMS_PATH, parse_sums
from imager.config.rack import Rack
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.node.content import recipe_of
from imager.node.edit.edit import opened
from imager.node.keys.identity import identity_of
from imager.node.keys.salt import fingerprint
from imager.node.personalise import personalise
from tests.support.racks import Card, Heard, check_filesystems, rack_in, written
from tests.support.release import build_release, everyday_tree

pytestmark = pytest.mark.image

TIME = "1790000000"
RACK = '[rack]\nnodes = "pi[7-8]"\n'
STATIC = """
[rack]
nodes = "pi[7-8]"
master = "pi8"
[network]
addresses = "10.0.0.[17-18]"
prefix = 16
gateway = "10.0.0.1"
dns = ["10.0.0.1", "9.9.9.9"]
interface = "end0"
"""


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    folder = tmp_path_factory.mktemp("golden")
    return compose(build_release(folder), Cache(folder / "cache"), Quiet())


@pytest.fixture(autouse=True)
def imaging_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", TIME)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", RACK)


def put(rack: Rack, name: str, content: str | bytes = "") -> Path:
    """Make a file in the rack's own ``overlays/base``."""
    path = rack.overlays / "base" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def card_of(golden: GoldenImage, rack: Rack, folder: Path) -> Iterator[Card]:
    """The finished card of pi7, its filesystems checked."""
    image = personalise(golden, rack, rack.node("pi7"), 2 * GiB, Quiet())
    with written(image, folder / "card.img") as card:
        check_filesystems(card, folder / "fat")
        yield card


def refused(golden: GoldenImage, rack: Rack) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        personalise(golden, rack, rack.node("pi7"), 2 * GiB, Quiet())
    return list(caught.value.details)


ODD_NAMES = [
    "with space",
    'quo"te',
    'two""quotes"',
    "back\\slash",
    "-dash",
    "<12>",
    "#hash",
    "  leading",
    "{}",
    "größe-日本語",
    "n" * 255,
    "$HOME`id`;",
]


def test_odd_names_and_any_content_arrive_as_they_are(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    contents = {name: f"content of {name}".encode() for name in ODD_NAMES}
    for name, content in contents.items():
        put(rack, f"root/srv/{name}", content)
        put(rack, f"root/srv/in {name[:200]}/below", content)
    contents["empty"], contents["zeros"] = b"", bytes(200_000)
    contents["large"] = os.urandom(3_000_000) + bytes(100_000) + b"end"
    for name in ("empty", "zeros", "large"):
        put(rack, f"root/srv/{name}", contents[name])
    with card_of(golden, rack, tmp_path) as card:
        for name, content in contents.items():
            assert card.root.read_file(f"/srv/{name}") == content
        for name in ODD_NAMES:
            assert card.root.read_file(f"/srv/in {name[:200]}/below") == contents[name]


def test_more_files_than_fit_one_run_of_the_tool(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    for number in range(450):
        put(rack, f"root/srv/many/{number}", str(number))
    with card_of(golden, rack, tmp_path) as card:
        assert len(card.root.list_directory("/srv/many")) == 450
        assert card.text("/srv/many/449") == "449"


def test_links_of_the_release_are_followed_on_the_way_and_replaced_at_the_end(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    """In the release /lib is a link to usr/lib and /usr/bin/init one to systemd."""
    put(rack, "root/lib/of-mine/x", "mine")
    put(rack, "root/usr/bin/init", "replaced")
    put(rack, "root/usr/odd/nowhere", "was dangling")
    with card_of(golden, rack, tmp_path) as card:
        assert card.root.readlink("/lib") == "usr/lib"
        assert card.text("/usr/lib/of-mine/x") == "mine"
        assert card.text("/usr/bin/init") == "replaced"
        assert card.root.read_file("/usr/lib/systemd/systemd").startswith(b"\x7fELF")
        assert card.text("/usr/odd/nowhere") == "was dangling"


def test_one_name_of_a_file_with_two_can_be_replaced(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    put(rack, "root/usr/bin/ping4", "other")
    with card_of(golden, rack, tmp_path) as card:
        assert card.text("/usr/bin/ping4") == "other"
        ping = card.root.lookup("/usr/bin/ping")
        assert ping is not None
        assert ping.links == 1
        assert card.root.content(ping) == b"\x7fELF ping"


def test_links_short_and_long_and_owners_by_name(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    long = "/" + "x" * 120
    put(rack, "root/srv/x")
    put(
        rack,
        "overlay.toml",
        f'[links]\n"root/srv/short" = "a b"\n"root/srv/long" = "{long}"\n'
        '[files]\n"root/srv*" = { mode = "2750", owner = "alarm:wheel" }\n',
    )
    with card_of(golden, rack, tmp_path) as card:
        assert card.root.readlink("/srv/short") == "a b"
        assert card.root.readlink("/srv/long") == long
        assert card.owner_and_mode("/srv/x") == (1000, 998, 0o2750)
        assert card.owner_and_mode("/srv") == (1000, 998, 0o2750)
        folder = card.root.lookup("/srv")
        assert folder is not None
        assert stat.S_ISDIR(folder.mode)


def test_boot_files_replace_those_of_the_release_whatever_the_case(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    put(rack, "boot/CONFIG.TXT", "gpu_mem=16\ninitramfs initramfs-linux.img followkernel\n")
    put(rack, "boot/cmdline.txt", "quiet root=LABEL=mine\n")
    put(rack, "boot/overlays/my own.dtbo", b"\xd0\x0d\xfe\xed" * 3000)
    with card_of(golden, rack, tmp_path) as card:
        assert "config.txt" in card.boot.entries
        assert card.boot.read_file("config.txt").startswith(b"gpu_mem=16\n")
        assert card.boot.read_file("cmdline.txt").startswith(b"quiet root=PARTUUID=")
        assert card.boot.read_file("overlays/my own.dtbo") == b"\xd0\x0d\xfe\xed" * 3000
        sums = parse_sums(card.boot.read_file(SUMS_PATH))
        for path, digest in sums.items():
            assert hashlib.sha256(card.boot.read_file(path)).hexdigest() == digest
        assert "overlays/my own.dtbo" in sums


def test_a_rack_that_brings_its_own_shadow_keeps_it(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    put(rack, "root/etc/shadow", "root:$6$mine:1::::::\n")
    put(rack, "overlay.toml", '[files]\n"root/etc/shadow" = { mode = "0600" }\n')
    heard = Heard()
    image = personalise(golden, rack, rack.node("pi7"), 2 * GiB, heard)
    assert heard.warned == []
    with written(image, tmp_path / "card") as card:
        assert card.text("/etc/shadow") == "root:$6$mine:1::::::\n"


REFUSED = [
    ("root/home", "", "/home: is a folder in the release"),
    ("root/etc/hostname/x", "", "/etc/hostname"),
    ("root/srv/new\nline", "", "has a control character in its name"),
    ("boot/overlays", "", "overlays is a folder in the release"),
    ("boot/OVERLAYS", "", "OVERLAYS is a folder in the release"),
    ("boot/kernel7.img/x", "", "kernel7.img is a file in the release"),
    ("boot/KERNEL7.IMG/x/y", "", "KERNEL7.IMG is a file in the release"),
    ("boot/in [x]/y", "", "the name has '[' in it"),
    ("boot/€.txt", "", "the name has '€' in it"),
    ("boot/a b~", "", "the name has a '~' in a place"),
    ("boot/picloud/node.json", "", "picloud/node.json is a file that picloud-image writes"),
    ("boot/picloud/sha256sums", "", "picloud/sha256sums is a file that picloud-image writes"),
    ("boot/picloud/firstboot.json", "", "firstboot.json is a file that picloud-image writes"),
    ("boot/picloud", "", "picloud is a file, and picloud-image writes into a folder"),
    ("boot/PICLOUD", "", "PICLOUD is a file, and picloud-image writes into a folder"),
    ("boot/picloud/node.json/x", "", "picloud/node.json is a folder, and picloud-image writes"),
    ("boot/cmdline.TXT/x", "", "cmdline.TXT is a folder, and picloud-image writes"),
]


@pytest.mark.parametrize(("name", "content", "fault"), REFUSED, ids=[f for _, _, f in REFUSED])
def test_what_cannot_be_laid_over_the_release_is_named(
    golden: GoldenImage, rack: Rack, name: str, content: str, fault: str
) -> None:
    path = put(rack, name, content)
    lines = refused(golden, rack)
    assert any(fault in line for line in lines)
    assert any(str(path).split("\n")[0] in line for line in lines)


def test_boot_files_are_spelt_as_what_is_there_or_was_there_first(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    put(rack, "boot/OVERLAYS/Mine.dtbo", "a")
    put(rack, "boot/PICLOUD/Mine.txt", "b")
    put(rack, "boot/CmdLine.txt", "quiet\n")
    put(rack, "boot/New/a", "c")
    node = rack.overlays / "node/pi7/boot/new/b"
    node.parent.mkdir(parents=True)
    node.write_text("d")
    with card_of(golden, rack, tmp_path) as card:
        for path, content in {
            "overlays/Mine.dtbo": b"a",
            "picloud/Mine.txt": b"b",
            "New/a": b"c",
            "New/b": b"d",
        }.items():
            assert path in card.boot.entries
            assert card.boot.read_file(path) == content
        assert [p for p in card.boot.entries if p.casefold() == "cmdline.txt"] == ["cmdline.txt"]
        assert card.boot.read_file("cmdline.txt").endswith(b" quiet\n")
        sums = parse_sums(card.boot.read_file(SUMS_PATH))
        assert sums.keys() | {SUMS_PATH} == {
            path for path, entry in card.boot.entries.items() if not entry.is_dir
        }


ODD_BOOT_NAMES = [
    *("x", "x]", "a;b", "$HOME`id`;", "a+b=c,d.e", ".a", "-i", "@@1", "n" * 255),
    *("größe-日本語 №1.txt", "Übersicht.txt", "config.txt~", "kernel-seven~.img"),
]


def test_odd_names_on_the_boot_partition_arrive_as_they_are(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    for name in ODD_BOOT_NAMES:
        put(rack, f"boot/{name}", f"content of {name}")
        put(rack, f"boot/in {name[:200]}/{name}", f"below {name}")
    with card_of(golden, rack, tmp_path) as card:
        for name in ODD_BOOT_NAMES:
            for path, says in ((name, "content of"), (f"in {name[:200]}/{name}", "below")):
                assert path in card.boot.entries
                assert card.boot.read_file(path).decode() == f"{says} {name}"


def test_a_name_that_mtools_write_as_another_after_all_is_named(
    golden: GoldenImage, rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mtools of another version may know other letters."""
    monkeypatch.setattr("imager.node.files.overlay.name_fault", lambda _: None)
    path = put(rack, "boot/€.txt")
    assert refused(golden, rack) == [f"{path}: mtools cannot write the name €.txt"]


def test_a_release_with_our_files_in_another_spelling_has_them_once(tmp_path: Path) -> None:
    tree = everyday_tree()
    tree.file("./boot/Picloud/sha256sums", "of another card")
    tree.file("./boot/Picloud/NODE.json", "another card")
    golden = compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), Quiet())
    rack = rack_in(tmp_path / "rack", RACK)
    with card_of(golden, rack, tmp_path) as card:
        node = json.loads(card.boot.read_file(NODE_PATH))
        assert node["node"] == "pi7"
        sums = parse_sums(card.boot.read_file(SUMS_PATH))
        assert [path for path in sums if path.casefold().startswith("picloud/")] == [NODE_PATH]
        for path, digest in sums.items():
            assert hashlib.sha256(card.boot.read_file(path)).hexdigest() == digest


def test_an_owner_the_release_does_not_have_is_named(golden: GoldenImage, rack: Rack) -> None:
    path = put(rack, "root/srv/x")
    put(rack, "overlay.toml", '[files]\n"root/srv/x" = { owner = "pi:pi" }\n')
    assert refused(golden, rack) == [f"{path}: /srv/x: the release has no user 'pi'"]


def test_boot_files_that_do_not_fit_are_refused(golden: GoldenImage, rack: Rack) -> None:
    path = put(rack, "boot/huge")
    with path.open("wb") as file:
        file.truncate(300 << 20)
    assert "do not fit" in refused(golden, rack)[0]


def test_static_addresses_gateway_and_name_servers(golden: GoldenImage, tmp_path: Path) -> None:
    rack = rack_in(tmp_path / "rack", STATIC)
    with card_of(golden, rack, tmp_path) as card:
        network = card.text("/etc/systemd/network/10-picloud.network").splitlines()
        assert network[2:] == [
            "[Match]",
            "Name=end0",
            "",
            "[Network]",
            "MulticastDNS=yes",
            "DNS=10.0.0.1",
            "DNS=9.9.9.9",
            "Address=10.0.0.17/16",
            "Gateway=10.0.0.1",
        ]
        hosts = card.text("/etc/hosts").splitlines()
        assert hosts[-2:] == ["10.0.0.17 pi7", "10.0.0.18 pi8"]
        assert "127.0.1.1" not in card.text("/etc/hosts")
        assert card.text("/etc/resolv.conf") == "nameserver 10.0.0.1\nnameserver 9.9.9.9\n"


def test_a_node_that_asks_dhcp_has_its_domain_and_the_rack_s_name_servers(
    golden: GoldenImage, tmp_path: Path
) -> None:
    rack = rack_in(tmp_path / "rack", f'{RACK}[network]\ndns = ["10.0.0.53"]\n')
    with card_of(golden, rack, tmp_path) as card:
        network = card.text("/etc/systemd/network/10-picloud.network")
        sections = network.partition("[Network]\n")[2].partition("[DHCPv4]\n")
        assert {"DNS=10.0.0.53", "DHCP=yes"} < set(sections[0].splitlines())
        assert sections[2] == "UseDomains=yes\n"
        resolved = "/etc/systemd/resolved.conf.d/10-picloud.conf"
        assert "ResolveUnicastSingleLabel=yes" in card.text(resolved)


@pytest.mark.parametrize(
    ("master", "salt", "line"),
    [
        ("salt.lab", 'master_address = "10.1.0.9"', "10.1.0.9 salt.lab"),
        ("pi8", 'master_address = "10.1.0.9"', "10.1.0.9 pi8"),
        ("10.1.0.9", "", "127.0.1.1 pi7"),
        ("pi7", 'master_address = "10.1.0.9"', "127.0.1.1 pi7"),
    ],
)
def test_the_master_s_address_is_in_hosts_where_a_name_needs_it(
    golden: GoldenImage, tmp_path: Path, master: str, salt: str, line: str
) -> None:
    rack = rack_in(
        tmp_path / "rack", f'[rack]\nnodes = "pi[7-8]"\nmaster = "{master}"\n[salt]\n{salt}\n'
    )
    with card_of(golden, rack, tmp_path) as card:
        assert card.text("/etc/hosts").splitlines()[-1] == line


def test_no_private_key_leaves_the_store_but_on_the_card(
    golden: GoldenImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tool is run through a script that notes its words and its environment."""
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[7-8]"\nmaster = "pi7"\n')
    log, bin_folder = tmp_path / "log", tmp_path / "bin"
    bin_folder.mkdir()
    tools = tools_for(ToolUse.NODE)
    for name in tools:
        real = find_tool(name)
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\n{{ echo "$0 $@"; env; }} >>{log}\nexec {real} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    heard = Heard()
    image = personalise(golden, rack, rack.node("pi7"), 2 * GiB, heard)
    assert log.read_text().count(str(bin_folder)) > len(tools), "every tool went through us"
    secrets = [path for path in rack.keys.path.rglob("*") if path.is_file() and is_private(path)]
    assert len(secrets) == 1 + 1 + 1 + 3 + 1, "two minions, the master, three host keys, the rack"
    for path in tmp_path.rglob("*"):
        if path.is_file() and path not in secrets:
            assert not is_private(path), f"{path} holds a private key"
    shown = log.read_text() + repr(image) + " ".join((*heard.said, *heard.warned))
    for path in secrets:
        assert path.read_text().splitlines()[3] not in shown


def is_private(path: Path) -> bool:
    return b"PRIVATE KEY-----" in path.read_bytes()


def test_a_complaint_of_the_editing_tool_is_an_error_though_it_exits_with_0(
    golden: GoldenImage, rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_tool("debugfs")
    fake = tmp_path / "bin/debugfs"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n{real} "$@"; echo "write: No free space" >&2\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(ToolFailed, match="write: No free space"):
        personalise(golden, rack, rack.node("pi7"), 2 * GiB, Quiet())


def test_a_filesystem_left_damaged_is_found_before_any_card(
    golden: GoldenImage, rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_tool("tune2fs")
    fake = tmp_path / "bin/tune2fs"
    fake.parent.mkdir()
    damage = 'debugfs -w -R "clri /etc/hostname" "$3" 2>/dev/null'
    fake.write_text(f'#!/bin/sh\n{real} "$@"; {damage}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(ToolFailed, match="e2fsck"):
        personalise(golden, rack, rack.node("pi7"), 2 * GiB, Quiet())


def test_contents_moved_by_a_tool_are_found_out(
    golden: GoldenImage, rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working copy has no file contents: blocks of a file that is not ours would be holes."""
    real = find_tool("resize2fs")
    fake = tmp_path / "bin/resize2fs"
    fake.parent.mkdir()
    foreign = f'debugfs -w -R "write {Path(__file__)} foreign" "$2" 2>/dev/null'
    fake.write_text(f'#!/bin/sh\n{real} "$@" && {foreign}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(ToolFailed, match="moved file contents to byte"):
        personalise(golden, rack, rack.node("pi7"), 2 * GiB, Quiet())


def test_the_key_of_a_master_elsewhere_is_pinned(golden: GoldenImage, tmp_path: Path) -> None:
    other = rack_in(tmp_path / "other", '[rack]\nnodes = "boss"\nmaster = "boss"\n')
    pair = identity_of(other, other.node("boss")).master.pair
    assert pair is not None
    text = '[rack]\nnodes = "pi7"\nmaster = "boss.lab"\n[salt]\nmaster_public_key = "boss.pub"\n'
    (tmp_path / "rack").mkdir()
    (tmp_path / "rack/boss.pub").write_bytes(pair.public)
    with card_of(golden, rack_in(tmp_path / "rack", text), tmp_path) as card:
        pinned = card.root.read_file("/etc/salt/pki/minion/minion_master.pub")
        assert pinned == pair.public
        assert fingerprint(pair.public) in card.text("/etc/salt/minion.d/picloud.conf")
        assert card.root.lookup("/etc/salt/pki/master") is None


def test_a_template_of_a_stranger_writes_and_reads_nothing(
    golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    secret = tmp_path / "secret"
    secret.write_text("-----BEGIN PRIVATE KEY-----")
    write = put(
        rack,
        "root/etc/motd.j2",
        f'{{% set p = rack.folder.joinpath("{new}") %}}{{% set _ = p.write_text("x") %}}'
        "{% set _ = p.chmod(2541) %}",
    )
    read = put(
        rack, "root/etc/x.j2", f'{{{{ rack.folder.joinpath("{secret}").read_bytes().hex() }}}}'
    )
    first, second = refused(golden, rack)
    assert first.startswith(f"{write}:1: ")
    assert second.startswith(f"{read}:1: ")
    with opened(golden) as view, pytest.raises(ConfigurationError):
        recipe_of(view, rack, rack.node("pi7"))
    assert not new.exists()


def test_a_template_that_takes_all_memory_is_named(golden: GoldenImage, rack: Rack) -> None:
    path = put(rack, "root/etc/motd.j2", '{{ "a"*9999999999 }}')
    assert refused(golden, rack) == [f"{path}: needs more than 256 MiB of memory"]
