"""The rack.toml that ``rack init`` writes: every key there is, with its default and its meaning.

In: what a person chose. Out: the text of the file, which is also the reference of its keys
(a test reads every commented key back).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imager.base.boards import ALARM_ARMV7, BOARDS, OWN_KERNEL
from imager.base.text import toml_text
from imager.release.catalogue import RELEASES

DEFAULT_NODES = "pi[0-13]"
DEFAULT_MASTER = "salt"
SALT_VERSION = "3008.3"
"""What ``rack init`` writes: the newest version with which a node was booted and joined here."""
_EXAMPLES: Mapping[str, str | list[str]] = {
    "slots": "A[1-7],B[1-7]",
    "addresses": "10.0.0.[10-23]",
    "authorized_keys_files": ["~/.ssh/id_ed25519.pub"],
}
"""The value that a key shows behind # when nothing was chosen for it."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a new rack.toml says; None leaves a key out. Nothing is checked here: whether the values
    are possible is seen when ``parse_rack`` reads the file."""

    nodes: str = DEFAULT_NODES
    master: str = DEFAULT_MASTER
    model: str = "pi2"
    slots: str | None = None
    addresses: str | None = None
    key_file: str | None = None


_TEXT = """\
# A rack of Raspberry Pis: which nodes there are, what they run, and how they find each other.
# Keys that begin with # show their default or an example. Every fault in this file is reported
# at once, with its line, before anything is fetched or written.

[rack]
name = "picloud"
# The nodes, in the order of their addresses. Ranges as in ClusterShell: "pi[0-13]",
# "pi[00-13]", "pi[0-3],head". A name is a host name: a-z, 0-9, hyphens (RFC 1123).
nodes = {nodes}
# The Salt master: a node of this rack (its card then gets the master's key and every node's
# accepted key, so that the whole rack joins with no prompt), or the name or address of another
# computer.
master = {master}
# The board: cm4, cm4s, cm5, pi2, pi3, pi4, pi400, pi5, pi500 or zero2w. A single node may differ,
# see the end of this file.
model = {model}
# The labels of their places, in the same order: A1 is the first place of tower A. A label is also
# the name of the card reader slot where its card is written (picloud-image rack slots learn).
{slots}
# timezone = "Europe/Brussels"

[release]
# A built-in release: alarm-rpi-armv7 (Pi 2, Pi 3, Zero 2 W) or alarm-rpi-aarch64 (Pi 3, Pi 4,
# Pi 400, Zero 2 W; a CM4, CM4S, CM5, Pi 5 or 500 needs another kernel on it:
# picloud-image docs boards).
name = {release}
# Or any other one: the URL of a .tar.gz that has its signature beside it as .sig, and the
# fingerprint of the OpenPGP key that must have made the signature.
# url = "https://example.org/os/MyOS-rpi.tar.gz"
# signing_key = "68B3537F39A313B3E574D06777193F152BDBE6A6"

[network]
# Every node asks a DHCP server for its address, and the DNS server must know the master's name
# or [salt] say its address …
{dhcp}
# … or has one of its own: as many addresses as nodes, dealt out in their order.
{addresses}
# prefix = 24
# gateway = "10.0.0.1"
# dns = ["10.0.0.1"]
# Which interfaces this is for (systemd.network(5), [Match] Name=).
# interface = "en* eth* usb*"

[login]
# Who may log in, as root and as the release's own user: lines as in authorized_keys(5), and
# files of them. The release's default passwords are locked on every card, so without a key
# nobody can log in.
# authorized_keys = ["ssh-ed25519 AAAA… you@laptop"]
{key_files}

[swap]
# The swap file that first boot makes on each node: 1MiB to 64GiB, or "0" for none.
# size = "1GiB"

[salt]
# Where the master is when its name cannot be looked up; it goes into every node's /etc/hosts.
# Those of [network] addresses are there anyhow.
# master_address = "10.0.0.2"
# The public key of a master outside this rack (its /etc/salt/pki/master/master.pub): with it the
# nodes trust that master only; without it they trust the first one that answers.
# master_public_key = "master.pub"
# The version of Salt on every card, master and minions alike: fetched from PyPI by pip, pinned in
# rack.lock. The release must bring what Salt needs (Python, ZeroMQ …); what it lacks is named when
# the image is composed. A release with a Salt of its own keeps that. Without this line no Salt is
# put on the cards, and first boot looks for it elsewhere (picloud-image docs firstboot).
version = {salt}
# A folder, relative to this one, of pacman packages that bring what the release lacks for it: they
# lie on every card, and first boot installs them with no network (picloud-image docs salt).
# packages = "packages"
# The version a master outside this rack has, if you know it: versions that cannot talk to each
# other are then refused before anything is written.
# master_version = "3008.3"
# Whether first boot asks the master to put the node in order as soon as it has joined: "once"
# runs salt-call state.apply until it has succeeded a single time; "never" leaves it to you.
# highstate = "never"

[packages]
# What every node has beyond the release, from the release's own mirrors: resolved once by this
# computer's pacman, pinned in rack.lock and archived, so that each card gets the same bytes until
# picloud-image lock --update (picloud-image docs locking). What Salt needs is added by itself. A
# bound is written "openssl>=3.6".
# install = ["htop"]
# Packages of the release that the nodes do not have.
{remove}
# The release's own package = the one to have in its place.
{replace}
# Units that start at boot.
# enable = ["docker.service"]
# Packages that picloud-image lock --update never moves.
# hold = ["linux-rpi"]
# Nodes that get what picloud-image lock --update moved before all others do. The others keep what
# they have until picloud-image lock promote, which asks the Salt master whether these nodes answer,
# and runs this command on each.
# canary = ["pi3"]
# check = "docker run --rm hello-world"
# All keys above hold, for the nodes that have a role, and for one node (the last in this file).
# [roles.docker.packages]
# install = ["docker"]

# One table for each node that differs from the rest.
# [nodes.pi7]
# address = "10.0.0.77"
# model = "pi3"
# slot = "C1"
# roles = ["salt-minion"]
# authorized_keys = ["ssh-ed25519 AAAA… somebody@else"]
# [nodes.pi7.packages]
# install = ["i2c-tools"]

# Files of your own for the cards go into overlays/ beside this file, in folders shaped like the
# card: overlays/base/root/etc/motd, overlays/model/pi2/boot/config.txt,
# overlays/role/<role>/root/…, overlays/node/pi7/root/…. A name ending .j2 is a Jinja2 template.
"""


def initial_rack_toml(choices: Choices | None = None) -> str:
    """The text of a new rack.toml."""
    chosen = choices or Choices()
    return _TEXT.format(
        nodes=toml_text(chosen.nodes),
        master=toml_text(chosen.master),
        model=toml_text(chosen.model),
        release=toml_text(_release_for(chosen.model)),
        slots=_line("slots", chosen.slots),
        dhcp="# dhcp = true" if chosen.addresses else "dhcp = true",
        addresses=_line("addresses", chosen.addresses),
        salt=toml_text(SALT_VERSION),
        **_kernel_lines(chosen.model),
        key_files=_line("authorized_keys_files", [chosen.key_file] if chosen.key_file else None),
    )


def _release_for(model: str) -> str:
    """The first built-in release that boots ``model``, if need be with another kernel. For an
    unknown board it is just the first one: ``parse_rack`` then says what is wrong with it."""
    known = (board for board in BOARDS if board.name == model)
    return next(
        (name for board in known for name in RELEASES if name in board.kernels), ALARM_ARMV7
    )


def _line(key: str, value: str | list[str] | None) -> str:
    return f"{key} = {toml_text(value)}" if value else f"# {key} = {toml_text(_EXAMPLES[key])}"


def _kernel_lines(model: str) -> Mapping[str, str]:
    """The lines of [packages] that put a kernel on the board where its release has none for it."""
    board = next((board for board in BOARDS if board.name == model), None)
    release = _release_for(model)
    if board is None or board.boots(release):
        return {
            "remove": '# remove = ["nano"]',
            "replace": '# replace = { vi = "vim" }',
        }
    kernel, loader = OWN_KERNEL[release]
    return {
        "remove": f"remove = {toml_text([loader])}",
        "replace": f"replace = {{ {kernel} = {toml_text(board.kernels[release][0])} }}",
    }
