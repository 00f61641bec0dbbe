"""The files of a card that overlays cannot have: keys, locked passwords, who may log in.

In: a node, its identity, the release's filesystem, and the merged overlays. Out: a CardTree, whose
files come before those of the overlays. The release is read, because users, passwords and services
differ from release to release.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from imager.base.errors import ConfigurationError
from imager.config.rack import MASTER, MINION, Node, Rack
from imager.disk.ext4.filesystem import Ext4
from imager.node.files.accounts import Accounts, without_passwords
from imager.node.files.systemd_units import enabling_links
from imager.node.files.tree import CardEntry, CardFile, CardFolder, CardLink, CardTree
from imager.node.keys.identity import Identity

PKI = "/etc/salt/pki"
SSH = "/etc/ssh"
_ZONES = "/usr/share/zoneinfo"
_CLOCK = "/var/lib/systemd/timesync"
_RESOLVED = "/usr/lib/systemd/system/systemd-resolved.service"
_SHARED = (
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
)
_PUBLIC, _SECRET, _SALT_SECRET = 0o644, 0o600, 0o400


def accounts_of(image: Ext4, overlays: CardTree) -> Accounts:
    """The accounts of the card: from the overlays' passwd and group, else from the release's."""
    return Accounts(
        _text(image, overlays, "/etc/passwd") or b"", _text(image, overlays, "/etc/group") or b""
    )


def node_files(
    rack: Rack, node: Node, identity: Identity, image: Ext4, overlays: CardTree
) -> CardTree:
    """Every file of ``node`` that is made here, without those of the boot partition."""
    accounts = accounts_of(image, overlays)
    root: list[CardEntry] = [
        *_ssh_host_keys(identity),
        *_salt(node, identity, accounts),
        *_logins(node, image, accounts),
        *_locked(image, overlays),
        *_clock(accounts),
        *_time_zone(rack, image),
        *_resolver(rack, node, image),
        *enabling_links(overlays.enable, image, overlays),
    ]
    return CardTree(root=tuple(root))


def shared_secrets(image: Ext4) -> tuple[str, ...]:
    """Files in the release that must not be the same on all cards: host keys, Salt keys, random
    seeds and other ids (systemd's "Building Images Safely")."""
    host_keys = (f"{SSH}/{n}" for n in image.list_directory(SSH) if n.startswith("ssh_host_"))
    folders = (f"{PKI}/minion", f"{PKI}/master", f"{PKI}/master/minions")
    salt_keys = (f"{folder}/{name}" for folder in folders for name in image.list_directory(folder))
    return (*host_keys, *salt_keys, *_SHARED)


def can_log_in(node: Node, overlays: CardTree) -> bool:
    """Whether anybody can log in: with a key of rack.toml, or by files of the rack's overlays."""
    brought = ("/.ssh/authorized_keys", "/etc/shadow")
    return bool(node.authorized_keys) or any(e.path.endswith(brought) for e in overlays.root)


def _ssh_host_keys(identity: Identity) -> Iterator[CardEntry]:
    for key in identity.ssh:
        yield CardFile(f"{SSH}/{key.name}", key.private, _SECRET)
        yield CardFile(f"{SSH}/{key.name}.pub", key.public, _PUBLIC)


def _salt(node: Node, identity: Identity, accounts: Accounts) -> Iterator[CardEntry]:
    if MINION in node.roles:
        yield CardFolder(f"{PKI}/minion", 0o700, "root:root")
        yield CardFile(f"{PKI}/minion/minion.pem", identity.minion.private, _SALT_SECRET)
        yield CardFile(f"{PKI}/minion/minion.pub", identity.minion.public, _PUBLIC)
        if identity.master.public:
            yield CardFile(f"{PKI}/minion/minion_master.pub", identity.master.public, _PUBLIC)
    pair = identity.master.pair
    if MASTER in node.roles and pair is not None:
        # Salt's own packages run the master as this user, the distribution's as root.
        owner = "salt" if "salt" in accounts.users else "root:root"
        yield CardFolder(f"{PKI}/master", 0o700, owner)
        # Named as Salt 3008 has them. It would move a master.pem to this name when it first starts,
        # without fsync(2), so a power cut then could leave pi0 with an empty key. Older ones follow
        # the links, which are those 3008 leaves itself (salt/crypt.py, MasterKeys._setup_keys).
        yield CardFile(f"{PKI}/master/{node.name}.pem", pair.private, _SALT_SECRET, owner)
        yield CardFile(f"{PKI}/master/{node.name}.pub", pair.public, _PUBLIC, owner)
        if node.name != "master":
            yield CardLink(f"{PKI}/master/master.pem", f"{node.name}.pem")
            yield CardLink(f"{PKI}/master/master.pub", f"{node.name}.pub")
        yield CardFolder(f"{PKI}/master/minions", 0o700, owner)
        for minion, public in identity.master.accepted:
            yield CardFile(f"{PKI}/master/minions/{minion}", public, _PUBLIC, owner)


def _logins(node: Node, image: Ext4, accounts: Accounts) -> Iterator[CardEntry]:
    lines = "".join(f"{key}\n" for key in node.authorized_keys).encode()
    for account in accounts.users.values() if lines else ():
        home = image.lookup(account.home)
        if account.may_log_in and home is not None and home.is_dir:
            owner = f"{account.uid}:{account.gid}"
            folder = f"{account.home.rstrip('/')}/.ssh"
            yield CardFolder(folder, 0o700, owner)
            yield CardFile(f"{folder}/authorized_keys", lines, _SECRET, owner)


def _locked(image: Ext4, overlays: CardTree) -> Iterator[CardEntry]:
    """The release's passwd and shadow without passwords; not where an overlay of the rack has the
    file."""
    for path in ("/etc/shadow", "/etc/passwd"):
        inode = image.lookup(path)
        if inode is None or not inode.is_file or overlays.root_file(path):
            continue
        locked, taken = without_passwords(image.content(inode))
        if taken:
            owner = f"{inode.uid}:{inode.gid}"
            yield CardFile(path, locked, stat.S_IMODE(inode.mode), owner)


def _clock(accounts: Accounts) -> Iterator[CardEntry]:
    """Two empty files whose time is the imaging time. On a computer without a clock that runs
    without power, systemd sets the time to the later of the two (systemd-timesyncd.service(8),
    FILES; systemd(1), /usr/lib/clock-epoch)."""
    owner = "systemd-timesync" if "systemd-timesync" in accounts.users else "root:root"
    yield CardFolder(_CLOCK, 0o755, owner)
    yield CardFile(f"{_CLOCK}/clock", b"", _PUBLIC, owner)
    yield CardFile("/usr/lib/clock-epoch", b"", _PUBLIC)


def _time_zone(rack: Rack, image: Ext4) -> Iterator[CardEntry]:
    if rack.timezone is None:
        return
    zone = image.lookup(f"{_ZONES}/{rack.timezone}")
    if zone is None or not zone.is_file:
        raise ConfigurationError(
            f"rack.toml: rack.timezone: the release does not know {rack.timezone!r}",
            hint='write it like "Europe/Brussels", or leave it out',
        )
    yield CardLink("/etc/localtime", f"..{_ZONES}/{rack.timezone}")


def _resolver(rack: Rack, node: Node, image: Ext4) -> Iterator[CardEntry]:
    """Name servers for a node with a fixed address, where the release has no systemd-resolved,
    which would read them from the network's file."""
    if node.address and rack.network.dns and image.lookup(_RESOLVED) is None:
        lines = "".join(f"nameserver {server}\n" for server in rack.network.dns)
        yield CardFile("/etc/resolv.conf", lines.encode())


def _text(image: Ext4, overlays: CardTree, path: str) -> bytes | None:
    given = overlays.root_file(path)
    if given is not None:
        return given.content
    inode = image.lookup(path)
    return image.content(inode) if inode is not None and inode.is_file else None
