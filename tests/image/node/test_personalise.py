"""One node's card: checked inside the finished image with the tools a person would use."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.boards import ALARM_AARCH64
from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, TargetRefused
from imager.base.progress import Quiet
from imager.base.units import GiB, MiB
from imager.bootcheck.check import check_boot
from imager.bootcheck.sums import SUMS_PATH, parse_sums
from imager.card.host.swap_room import free_bytes
from imager.config.rack import Rack
from imager.disk import mbr
from imager.disk.ext4.filesystem import Ext4, Inode
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.node.content import recipe_of, recipes_at_hand
from imager.node.edit.edit import opened
from imager.node.image import NodeImage
from imager.node.keys.identity import identity_of
from imager.node.keys.rotate import KeyKind, rotate, undo
from imager.node.keys.salt import fingerprint
from imager.node.personalise import personalise
from imager.release.catalogue import RELEASES
from tests.support.alarmfiles import boot_files
from tests.support.bootfiles import boot_script
from tests.support.racks import (
    KEY,
    Card,
    Heard,
    check_filesystems,
    junk_reader,
    rack_in,
    tool,
    written,
)
from tests.support.release import build_release, everyday_tree

pytestmark = pytest.mark.image

TIME = 1_790_000_000
RACK = f"""
[rack]
nodes = "pi[0-1],pi7"
master = "pi0"
timezone = "Europe/Brussels"
[login]
authorized_keys = ["{KEY}"]
[swap]
size = "512MiB"
"""


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    folder = tmp_path_factory.mktemp("golden")
    tree = everyday_tree()
    passwd = "systemd-timesync:x:996:995::/:/usr/bin/nologin\nsalt:x:963:963::/:/usr/bin/nologin\n"
    for info, data in list(tree.members):
        if info.name == "./etc/passwd":
            tree.members.remove((info, data))
            tree.file("./etc/passwd", data + passwd.encode())
    for name in ("ssh_host_rsa_key", "ssh_host_dsa_key", "ssh_host_dsa_key.pub"):
        tree.file(f"./etc/ssh/{name}", "one for all", 0o600)
    for path in ("./etc/salt/pki", "./etc/salt/pki/minion", "./var/lib/systemd"):
        tree.folder(path)
    for name in ("etc/salt/pki/minion/minion_master.pub.old", "var/lib/systemd/random-seed"):
        tree.file(f"./{name}", "one for all", 0o600)
    for path in ("./usr/share", "./usr/share/zoneinfo", "./usr/share/zoneinfo/Europe"):
        tree.folder(path)
    tree.file("./usr/share/zoneinfo/Europe/Brussels", "TZif2")
    unit = "[Service]\nExecStart=/usr/bin/sshd -D\n[Install]\nWantedBy=multi-user.target\n"
    tree.file("./usr/lib/systemd/system/ssh.service", unit)
    tree.symlink("./etc/resolv.conf", "../run/systemd/resolve/resolv.conf")
    return compose(build_release(folder, tree), Cache(folder / "cache"), Quiet())


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    return rack_in(tmp_path_factory.mktemp("rack"), RACK)


@pytest.fixture(autouse=True)
def imaging_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(TIME))


@pytest.fixture(scope="module")
def images(golden: GoldenImage, rack: Rack) -> dict[str, NodeImage]:
    """Every node of the rack, made under umask 0 for a card of 8 GiB."""
    mask = os.umask(0)
    os.environ["SOURCE_DATE_EPOCH"] = str(TIME)
    try:
        return {node.name: personalise(golden, rack, node, 8 * GiB, Quiet()) for node in rack.nodes}
    finally:
        os.umask(mask)
        del os.environ["SOURCE_DATE_EPOCH"]


@pytest.fixture(scope="module")
def pi7(images: dict[str, NodeImage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    with written(images["pi7"], tmp_path_factory.mktemp("card") / "pi7.img") as card:
        yield card


@pytest.fixture(scope="module")
def pi0(images: dict[str, NodeImage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    with written(images["pi0"], tmp_path_factory.mktemp("card") / "pi0.img") as card:
        yield card


def test_both_filesystems_are_clean_and_the_root_fills_the_card(pi7: Card, tmp_path: Path) -> None:
    check_filesystems(pi7, tmp_path / "fat")
    assert pi7.root.blocks_count * pi7.root.block_size == pi7.layout.root.length
    assert pi7.layout.root.end == 8 * GiB


def free_on(card: Card) -> int:
    """Bytes that are neither used nor root's own."""
    said = tool("dumpe2fs", "-h", card.root_device)
    counts = dict(re.findall(r"^(Free blocks|Reserved block count): +(\d+)$", said, re.MULTILINE))
    free = int(counts["Free blocks"]) - int(counts["Reserved block count"])
    return free * card.root.block_size


@pytest.mark.parametrize("extra", [0, 512, 3 * MiB + 512, GiB, 40 * GiB])
def test_any_size_from_the_golden_one_up_is_clean(
    golden: GoldenImage, rack: Rack, tmp_path: Path, extra: int
) -> None:
    size = golden.layout.size_bytes + extra
    image = personalise(golden, rack, rack.node("pi7"), size, Quiet())
    with written(image, tmp_path / "card") as card:
        assert card.path.stat().st_size == size
        check_filesystems(card, tmp_path / "fat")
        free = free_on(card)
    assert free - 32 * MiB < free_bytes(golden, size) <= free, "as near as a plan can tell"
    assert image.delta.extents.total_bytes < 4 * MiB


def test_it_is_clean_on_a_card_that_was_used_before(
    images: dict[str, NodeImage], golden: GoldenImage, rack: Rack, tmp_path: Path
) -> None:
    size = golden.layout.size_bytes + 512 * MiB
    image = personalise(golden, rack, rack.node("pi7"), size, Quiet())
    with written(image, tmp_path / "card", junk=b"\xa5" * 65536) as card:
        check_filesystems(card, tmp_path / "fat")


def test_every_file_can_be_read_when_all_that_is_not_written_is_junk(
    images: dict[str, NodeImage], golden: GoldenImage
) -> None:
    image = images["pi7"]
    with image.open() as reader:
        clean = Ext4.open(reader.read, image.layout.root.offset)
        junk = junk_reader(golden, image.manifest.extents, reader.read)
        dirty = Ext4.open(junk, image.layout.root.offset)
        assert described(clean) == described(dirty)


def described(root: Ext4) -> dict[str, tuple[object, ...]]:
    """Everything a program could see of each file."""
    return {path: seen(root, inode) for path, inode in root.walk()}


def seen(root: Ext4, inode: Inode) -> tuple[object, ...]:
    content = root.content(inode) if inode.is_file else inode.raw.block
    if inode.is_dir:
        content = b""
    return (inode.mode, inode.uid, inode.gid, inode.mtime_ns, content, root.xattrs(inode))


def test_all_else_is_as_in_the_release(golden: GoldenImage, pi7: Card) -> None:
    with golden.path.open("rb") as file:
        old = described(
            Ext4.open(lambda at, n: os.pread(file.fileno(), n, at), golden.layout.root.offset)
        )
    new = described(pi7.root)
    changed = {path for path in old if path in new and new[path] != old[path]}
    assert changed == {
        "/etc/fstab",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/machine-id",
        "/etc/salt/pki/minion",
        "/etc/shadow",
        "/etc/ssh/ssh_host_rsa_key",
    }
    assert old.keys() - new.keys() == {
        "/etc/ssh/ssh_host_dsa_key",
        "/etc/ssh/ssh_host_dsa_key.pub",
        "/etc/salt/pki/minion/minion_master.pub.old",
        "/var/lib/systemd/random-seed",
    }


def test_the_partition_table_is_this_card_s_own(pi7: Card, rack: Rack) -> None:
    numbers = identity_of(rack, rack.node("pi7")).numbers
    table = mbr.parse(read_head(pi7))
    assert table.disk_id == numbers.disk_id
    assert [part.type_id for part in table.partitions] == [0x0C, 0x83]
    assert table.partitions[1].extent == pi7.layout.root
    assert str(pi7.root.uuid) == numbers.root_uuid
    assert pi7.boot.volume_id == numbers.volume_id
    assert f"label-id: 0x{numbers.disk_id:08x}" in tool("sfdisk", "-d", pi7.path)


def read_head(card: Card) -> bytes:
    with card.path.open("rb") as file:
        return file.read(512)


def test_root_and_boot_are_found_by_partuuid(pi7: Card, rack: Rack) -> None:
    partuuid = f"{identity_of(rack, rack.node('pi7')).numbers.disk_id:08x}"
    words = pi7.boot.read_file("cmdline.txt").split()
    assert words[:3] == [f"root=PARTUUID={partuuid}-02".encode(), b"rw", b"rootwait"]
    assert b"console=tty1" in words
    fields = [line.split()[:3] for line in pi7.text("/etc/fstab").splitlines() if line[0] != "#"]
    assert fields == [
        [f"PARTUUID={partuuid}-02", "/", "ext4"],
        [f"PARTUUID={partuuid}-01", "/boot", "vfat"],
    ]


DOCKER = f"""
[rack]
nodes = "pi7"
model = "MODEL"
[release]
name = "RELEASE"
[login]
authorized_keys = ["{KEY}"]
[nodes.pi7]
roles = ["salt-minion", "docker"]
"""


def test_the_role_docker_adds_its_kernel_word_and_keeps_one_line(
    golden: GoldenImage, tmp_path: Path
) -> None:
    text = DOCKER.replace("MODEL", "pi2").replace("RELEASE", "alarm-rpi-armv7")
    rack = rack_in(tmp_path / "rack", text)
    unit = "overlays/base/root/usr/lib/systemd/system/docker.service"
    (rack.folder / unit).parent.mkdir(parents=True)
    (rack.folder / unit).write_text("[Install]\nWantedBy=multi-user.target\n")
    image = personalise(golden, rack, rack.nodes[0], 2 * GiB, Quiet())
    with written(image, tmp_path / "card") as card:
        line = card.boot.read_file("cmdline.txt")
        assert line.endswith(b" console=tty1 cgroup_enable=memory\n")
        assert line.count(b"\n") == 1
        wants = "/etc/systemd/system/multi-user.target.wants/docker.service"
        assert card.root.readlink(wants) == "/usr/lib/systemd/system/docker.service"
        assert found_on(card, "pi2") == []


def test_where_u_boot_starts_the_kernel_its_script_gets_the_words(tmp_path: Path) -> None:
    tree = everyday_tree()
    tree.members = [m for m in tree.members if not m[0].name.startswith("./boot/")]
    for name, data in boot_files(ALARM_AARCH64).items():
        tree.file(f"./boot/{name}", data, 0o755)
    models = RELEASES[ALARM_AARCH64].models
    release = build_release(tmp_path, tree, models=models)
    heard = Heard()
    golden = compose(release, Cache(tmp_path / "cache"), heard)
    text = DOCKER.replace("MODEL", "pi4").replace("RELEASE", ALARM_AARCH64)
    rack = rack_in(tmp_path / "rack", text)
    image = personalise(golden, rack, rack.nodes[0], 2 * GiB, heard)
    counted = heard.counted
    assert [*counted] == ["make filesystems", "check filesystems", f"prepare {rack.nodes[0].name}"]
    # Hard links, devices and lost+found make the numbers of files an estimate.
    assert all(done == pytest.approx(count, rel=0.01) for count, done in counted.values()), counted
    with written(image, tmp_path / "card") as card:
        for name in ("boot.scr", "boot.txt"):
            assert b'addr}" cgroup_enable=memory\n' in card.boot.read_file(name)
        assert found_on(card, "pi4") == []
    script = rack.overlays / "base/boot/boot.scr"
    script.parent.mkdir(parents=True)
    script.write_bytes(boot_script(b"booti\n"))
    with pytest.raises(ConfigurationError, match=r"boot\.scr: 0 of its lines") as caught:
        personalise(golden, rack, rack.nodes[0], 2 * GiB, Quiet())
    assert "cgroup_enable=memory cannot be put into it" in caught.value.what


def test_kernel_words_that_do_not_fit_are_refused(golden: GoldenImage, tmp_path: Path) -> None:
    rack = rack_in(tmp_path / "rack", RACK)
    words = [f"word{number}={'x' * 90}" for number in range(10)]
    path = rack.overlays / "base/overlay.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f"kernel_words = {json.dumps(words)}\n")
    with pytest.raises(ConfigurationError, match=r"cmdline.txt would have 10\d\d bytes"):
        personalise(golden, rack, rack.nodes[0], 2 * GiB, Quiet())


def found_on(card: Card, model: str) -> list[str]:
    """What the boot check finds on ``card``."""
    with card.path.open("rb") as file:
        size = card.path.stat().st_size
        report = check_boot(lambda at, n: os.pread(file.fileno(), n, at), size, model=model)
    return [finding.what for finding in report.findings]


def test_the_boot_check_takes_it_for_a_bootable_card_of_this_node(pi7: Card) -> None:
    with pi7.path.open("rb") as file:
        report = check_boot(
            lambda at, n: os.pread(file.fileno(), n, at), 8 * GiB, model="pi2", expected=None
        )
    assert [finding.what for finding in report.findings] == []
    assert (report.bootable, report.node) == (True, "pi7")


def test_the_list_of_boot_files_holds_every_file_and_the_truth(
    pi7: Card, images: dict[str, NodeImage]
) -> None:
    files = {path for path, entry in pi7.boot.entries.items() if not entry.is_dir}
    hashes = {path: hashlib.sha256(pi7.boot.read_file(path)).hexdigest() for path in files}
    assert images["pi7"].boot_files == hashes
    assert parse_sums(pi7.boot.read_file(SUMS_PATH)) == {
        path: digest for path, digest in hashes.items() if path != SUMS_PATH
    }


def test_the_boot_partition_says_which_node_this_is(pi7: Card, golden: GoldenImage) -> None:
    facts = json.loads(pi7.boot.read_file("picloud/node.json"))
    assert facts == {
        "format": 1,
        "rack": "picloud",
        "node": "pi7",
        "model": "pi2",
        "master": "pi0",
        "release": golden.release_name,
        "release_sha256": golden.release_sha256,
        "imaged_at": TIME,
    }


def test_names_clock_and_network_of_a_node_with_dhcp(pi7: Card, rack: Rack) -> None:
    assert pi7.text("/etc/hostname") == "pi7\n"
    assert (
        pi7.text("/etc/machine-id") == identity_of(rack, rack.node("pi7")).numbers.machine_id + "\n"
    )
    assert "\n127.0.1.1 pi7\n" in pi7.text("/etc/hosts")
    network = pi7.text("/etc/systemd/network/10-picloud.network")
    assert "Name=en* eth* usb*\n" in network
    assert "DHCP=yes\n" in network
    assert sorted(pi7.root.list_directory("/etc/systemd/network"))[0] == "10-picloud.network"
    assert pi7.root.readlink("/etc/localtime") == "../usr/share/zoneinfo/Europe/Brussels"
    clock = pi7.root.lookup("/var/lib/systemd/timesync/clock")
    assert clock is not None
    assert clock.mtime_ns == TIME * 10**9
    assert pi7.owner_and_mode("/var/lib/systemd/timesync/clock") == (996, 995, 0o644)
    assert pi7.owner_and_mode("/var/lib/systemd/timesync") == (996, 995, 0o755)


MODES = {
    "/etc/ssh/ssh_host_ed25519_key": (0, 0, 0o600),
    "/etc/ssh/ssh_host_ecdsa_key": (0, 0, 0o600),
    "/etc/ssh/ssh_host_rsa_key": (0, 0, 0o600),
    "/etc/ssh/ssh_host_rsa_key.pub": (0, 0, 0o644),
    "/etc/salt/pki/minion": (0, 0, 0o700),
    "/etc/salt/pki/minion/minion.pem": (0, 0, 0o400),
    "/etc/salt/pki/minion/minion.pub": (0, 0, 0o644),
    "/etc/salt/pki/minion/minion_master.pub": (0, 0, 0o644),
    "/etc/shadow": (0, 0, 0o600),
    "/root/.ssh": (0, 0, 0o700),
    "/root/.ssh/authorized_keys": (0, 0, 0o600),
    "/home/alarm/.ssh": (1000, 1000, 0o700),
    "/home/alarm/.ssh/authorized_keys": (1000, 1000, 0o600),
    "/etc/machine-id": (0, 0, 0o444),
    "/etc/hostname": (0, 0, 0o644),
    "/etc/picloud": (0, 0, 0o755),
    "/etc/picloud/firstboot.conf": (0, 0, 0o644),
    "/usr/lib/picloud/firstboot/picloud-firstboot": (0, 0, 0o755),
    "/usr/lib/picloud/firstboot/steps/10-clock": (0, 0, 0o755),
    "/etc/systemd/system/picloud-firstboot.service": (0, 0, 0o644),
}


@pytest.mark.parametrize("path", MODES)
def test_modes_and_owners_inside_the_image_whatever_the_umask(pi7: Card, path: str) -> None:
    assert pi7.owner_and_mode(path) == MODES[path]


def test_the_default_passwords_work_no_more_and_the_keys_do(pi7: Card) -> None:
    assert pi7.text("/etc/shadow") == "root:*:14871::::::\nalarm:*:14871::::::\n"
    for home in ("/root", "/home/alarm"):
        assert pi7.text(f"{home}/.ssh/authorized_keys") == KEY + "\n"


def test_host_keys_are_the_rack_s_and_no_old_one_is_left(pi7: Card, rack: Rack) -> None:
    keys = identity_of(rack, rack.node("pi7")).ssh
    names = [name for name in pi7.root.list_directory("/etc/ssh") if name.startswith("ssh_host")]
    assert names == sorted(name for key in keys for name in (key.name, f"{key.name}.pub"))
    for key in keys:
        assert pi7.root.read_file(f"/etc/ssh/{key.name}") == key.private
        assert pi7.root.read_file(f"/etc/ssh/{key.name}.pub") == key.public


def test_the_minion_knows_its_master_before_it_ever_saw_it(pi7: Card, rack: Rack) -> None:
    mine = identity_of(rack, rack.node("pi7"))
    pki = "/etc/salt/pki/minion"
    assert pi7.root.read_file(f"{pki}/minion.pem") == mine.minion.private
    assert pi7.root.read_file(f"{pki}/minion.pub") == mine.minion.public
    assert pi7.root.read_file(f"{pki}/minion_master.pub") == mine.master.public
    assert mine.master.public is not None
    config = pi7.text("/etc/salt/minion.d/picloud.conf")
    assert f"master_finger: '{fingerprint(mine.master.public)}'\n" in config
    assert "\nid: 'pi7'\nmaster: 'pi0'\n" in config
    assert pi7.text("/etc/salt/minion_id") == "pi7\n"
    assert pi7.root.lookup("/etc/salt/pki/master") is None


def test_the_master_s_card_carries_its_key_and_every_accepted_one(pi0: Card, rack: Rack) -> None:
    """The release has a user salt, so the master's files belong to it."""
    identity = identity_of(rack, rack.node("pi0"))
    pki = "/etc/salt/pki/master"
    assert identity.master.pair is not None
    assert pi0.root.read_file(f"{pki}/pi0.pem") == identity.master.pair.private
    assert pi0.root.read_file(f"{pki}/pi0.pub") == identity.master.pair.public
    assert pi0.root.readlink(f"{pki}/master.pem") == "pi0.pem"
    assert pi0.root.readlink(f"{pki}/master.pub") == "pi0.pub"
    assert "\nid: 'pi0_master'\n" in pi0.text("/etc/salt/master.d/picloud.conf")
    assert pi0.root.list_directory(f"{pki}/minions") == ("pi0", "pi1", "pi7")
    for name in ("pi0", "pi1", "pi7"):
        public = identity_of(rack, rack.node(name)).minion.public
        assert pi0.root.read_file(f"{pki}/minions/{name}") == public
        assert pi0.owner_and_mode(f"{pki}/minions/{name}") == (963, 963, 0o644)
    assert pi0.owner_and_mode(pki) == (963, 963, 0o700)
    assert pi0.owner_and_mode(f"{pki}/minions") == (963, 963, 0o700)
    assert pi0.owner_and_mode(f"{pki}/pi0.pem") == (963, 963, 0o400)
    assert pi0.root.read_file("/etc/salt/pki/minion/minion_master.pub") == identity.master.public


def test_a_master_that_is_called_master_has_its_key_too(
    golden: GoldenImage, tmp_path: Path
) -> None:
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "master,pi1"\nmaster = "master"\n')
    image = personalise(golden, rack, rack.node("master"), 8 * GiB, Quiet())
    pair = identity_of(rack, rack.node("master")).master.pair
    assert pair is not None
    with written(image, tmp_path / "card.img") as card:
        assert card.root.read_file("/etc/salt/pki/master/master.pem") == pair.private


PRIVATE = {
    "pi7": {
        "/etc/ssh/ssh_host_ecdsa_key": (0, 0, 0o600),
        "/etc/ssh/ssh_host_ed25519_key": (0, 0, 0o600),
        "/etc/ssh/ssh_host_rsa_key": (0, 0, 0o600),
        "/etc/salt/pki/minion/minion.pem": (0, 0, 0o400),
    },
}
PRIVATE["pi0"] = PRIVATE["pi7"] | {"/etc/salt/pki/master/pi0.pem": (963, 963, 0o400)}


@pytest.mark.parametrize("name", PRIVATE)
def test_no_other_file_of_the_card_holds_a_private_key_and_nobody_else_can_read_these(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Every file was looked into; the images were made under umask 0."""
    card: Card = request.getfixturevalue(name)
    holding = {
        path
        for path, inode in card.root.walk()
        if inode.is_file and b"PRIVATE KEY-----" in card.root.content(inode)
    }
    assert {path: card.owner_and_mode(path) for path in holding} == PRIVATE[name]
    for folder in {path.rpartition("/")[0] for path in holding if "/pki/" in path}:
        assert card.owner_and_mode(folder)[2] == 0o700
    entries = [path for path, entry in card.boot.entries.items() if not entry.is_dir]
    assert not [path for path in entries if b"PRIVATE KEY" in card.boot.read_file(path)]


def test_units_are_enabled_where_the_release_has_them(pi7: Card) -> None:
    wants = "/etc/systemd/system/multi-user.target.wants"
    assert pi7.root.list_directory(wants) == ("picloud-firstboot.service", "ssh.service")
    target = pi7.root.readlink(f"{wants}/picloud-firstboot.service")
    assert target == "/etc/systemd/system/picloud-firstboot.service"
    assert pi7.root.readlink(f"{wants}/ssh.service") == "/usr/lib/systemd/system/ssh.service"
    assert pi7.owner_and_mode(f"{wants}/ssh.service") == (0, 0, 0o777)


def test_first_boot_is_told_what_it_needs(pi7: Card) -> None:
    assert pi7.text("/etc/picloud/firstboot.conf").splitlines() == [
        "NODE=pi7",
        "MASTER=pi0",
        "MINION=yes",
        "HIGHSTATE=never",
        "SWAP_BYTES=536870912",
        "GROW_ROOT=yes",
        f"IMAGED_AT={TIME}",
    ]


def test_same_identity_and_time_give_the_same_bytes(
    golden: GoldenImage, rack: Rack, images: dict[str, NodeImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = personalise(golden, rack, rack.node("pi7"), 8 * GiB, Quiet())
    assert again.image_id == images["pi7"].image_id
    assert again.delta.extents == images["pi7"].delta.extents
    assert again.manifest == images["pi7"].manifest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(TIME + 60))
    later = personalise(golden, rack, rack.node("pi7"), 8 * GiB, Quiet())
    assert later.image_id != again.image_id


def test_two_nodes_share_the_golden_image_and_differ_only_in_their_deltas(
    images: dict[str, NodeImage], golden: GoldenImage
) -> None:
    one, other = images["pi1"], images["pi7"]
    assert one.golden is other.golden is golden
    assert one.image_id != other.image_id
    assert one.delta.extents.total_bytes < 2 * MiB
    differing = [
        (mine, theirs)
        for (mine, a), (theirs, b) in zip(
            one.manifest.chunks(), other.manifest.chunks(), strict=True
        )
        if a != b
    ]
    for mine, _ in differing:
        assert next(one.delta.extents.within(mine.offset, MiB), None) is not None
    assert len(differing) < 20


def test_the_golden_image_is_never_written(golden: GoldenImage, rack: Rack) -> None:
    before = golden.path.stat()
    personalise(golden, rack, rack.node("pi7"), 2 * GiB, Quiet())
    assert golden.path.stat().st_mtime_ns == before.st_mtime_ns
    assert stat.S_IMODE(golden.path.stat().st_mode) == stat.S_IMODE(before.st_mode)


@pytest.mark.parametrize("less", [512, MiB])
def test_a_card_too_small_is_refused_with_both_sizes(
    golden: GoldenImage, rack: Rack, less: int
) -> None:
    need = golden.layout.size_bytes
    with pytest.raises(TargetRefused) as caught:
        personalise(golden, rack, rack.node("pi7"), need - less, Quiet())
    assert caught.value.exit_code == 20
    assert str(need - less) in caught.value.what
    assert str(need) in caught.value.what


def test_a_release_without_this_board_is_refused(golden: GoldenImage, rack: Rack) -> None:
    node = replace(rack.node("pi7"), model="pi4")
    with pytest.raises(ConfigurationError, match="pi7 is a pi4"):
        personalise(golden, rack, node, 8 * GiB, Quiet())


def test_a_time_that_is_none_is_refused(
    golden: GoldenImage, rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("yesterday", "0", "-5", str(1 << 33)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        with pytest.raises(ConfigurationError, match="SOURCE_DATE_EPOCH"):
            personalise(golden, rack, rack.node("pi7"), 8 * GiB, Quiet())


def test_a_time_zone_the_release_does_not_know_is_refused(golden: GoldenImage, rack: Rack) -> None:
    with pytest.raises(ConfigurationError, match="does not know 'Mars/Olympus'"):
        personalise(golden, replace(rack, timezone="Mars/Olympus"), rack.nodes[0], 8 * GiB, Quiet())


def test_no_key_means_a_warning_and_a_key_means_none(golden: GoldenImage, tmp_path: Path) -> None:
    silent = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi7"\n')
    heard = Heard()
    image = personalise(golden, silent, silent.nodes[0], 2 * GiB, heard)
    assert len(heard.warned) == 1
    assert "nobody can log in to pi7" in heard.warned[0]
    with written(image, tmp_path / "card") as card:
        assert card.root.lookup("/root/.ssh") is None
        assert card.root.lookup("/etc/salt/pki/minion/minion_master.pub") is None
        assert "master_finger" not in card.text("/etc/salt/minion.d/picloud.conf")
        assert "master: 'salt'\n" in card.text("/etc/salt/minion.d/picloud.conf")


def test_a_recipe_changes_with_the_card_and_not_with_the_time(
    golden: GoldenImage, rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(of: Rack, node: str) -> str:
        with opened(golden) as view:
            return recipe_of(view, of, of.node(node))

    pi7 = recipe(rack, "pi7")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(TIME + 1000))
    assert recipe(rack, "pi7") == pi7
    assert recipe(rack, "pi1") != pi7
    grown = rack_in(rack.folder, RACK.replace("pi[0-1],pi7", "pi[0-1],pi7,pi9"))
    assert recipe(grown, "pi7") == pi7, "a new node changes no other node's card"
    assert recipe(grown, "pi0") != recipe(rack, "pi0"), "but the master's, which knows its key"
    other = rack_in(rack.folder, RACK.replace("512MiB", "256MiB"))
    assert recipe(other, "pi7") != pi7
    rack_in(rack.folder, RACK)
    (rack.overlays / "base/root/etc").mkdir(parents=True)
    motd = rack.overlays / "base/root/etc/motd"
    try:
        motd.write_text("hello\n")
        assert recipe(rack, "pi7") != pi7
    finally:
        shutil.rmtree(rack.overlays)
    assert recipe(rack, "pi7") == pi7


def test_a_rotated_key_makes_the_cards_that_hold_it_outdated_and_no_others(
    golden: GoldenImage, tmp_path: Path
) -> None:
    rack = rack_in(tmp_path / "rack", RACK)
    for place in ("base", "role/salt-minion", "node/pi1"):
        motd = rack.overlays / place / "root/etc/motd.j2"
        motd.parent.mkdir(parents=True)
        motd.write_text(f"{place}: {{{{ node.name }}}}\n")
    with opened(golden) as view:
        keyless = [recipe for _, recipe in recipes_at_hand(view, rack, rack.nodes)]
    assert keyless == [None] * 3
    assert not rack.keys.exists(), "whoever only looks makes no key"

    def recipes() -> dict[str, str]:
        with opened(golden) as view:
            found = {node.name: recipe_of(view, rack, node) for node in rack.nodes}
            at_hand = {
                node.name: recipe for node, recipe in recipes_at_hand(view, rack, rack.nodes)
            }
            assert at_hand == found, "what is shared by all nodes changes none"
            return found

    def changed(before: dict[str, str]) -> set[str]:
        return {name for name, recipe in recipes().items() if recipe != before[name]}

    first = recipes()
    rotate(rack, rack.node("pi7"), KeyKind.SALT)
    assert changed(first) == {"pi0", "pi7"}
    undo(rack, rack.node("pi7"), KeyKind.SALT)
    assert changed(first) == set()
    rotate(rack, rack.node("pi7"), KeyKind.SSH)
    assert changed(first) == {"pi7"}
    rotate(rack, rack.node("pi0"), KeyKind.MASTER)
    assert changed(first) == {"pi0", "pi1", "pi7"}
