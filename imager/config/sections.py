"""The tables of rack.toml, one function each.

In: a Table. Out: the checked value. Where something is wrong a fault is noted and a harmless value
returned, so that the rest of the file is still read and checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Interface
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from imager.base.below import read_named
from imager.base.boards import ALARM_ARMV7, ARMV6_NAMES, MODELS, NO_ARMV6, kernel_among
from imager.base.errors import ConfigurationError
from imager.base.json_fields import shown
from imager.base.ownership import at_home
from imager.base.units import GiB, MiB, format_chosen, parse_size
from imager.config.addresses import address_in, parse_address
from imager.config.authorized_keys import EXAMPLE, key_fault, keys_in
from imager.config.example import DEFAULT_MASTER
from imager.config.fields import Table, Unknown
from imager.config.hostname import domain_fault, name_fault
from imager.config.nodeset import expand
from imager.config.rack import MASTER, MINION, Master, Node, ReleaseChoice
from imager.release.catalogue import spec_for
from imager.release.salt.version import cannot_talk, master_version_fault, version_fault

DEFAULT_RELEASE = ALARM_ARMV7

DEFAULT_MODEL = "pi2"
DEFAULT_SWAP_BYTES = GiB
_SWAP_BYTES = (MiB, 64 * GiB)
"""mkswap(8) makes none below 40 KiB; more than 64 GiB is a slip of the finger."""
_LARGEST_KEY_FILE = MiB
_MOST_KEY_FILES = 100
_PUBLIC_KEY = re.compile(
    r"-----BEGIN (RSA )?PUBLIC KEY-----\s[A-Za-z0-9+/=\s]++-----END (RSA )?PUBLIC KEY-----"
)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}\Z")


def read_rack_name(table: Table) -> str:
    """[rack] name."""
    name = table.string("name", example='"picloud"') or "picloud"
    fault = name_fault(name)
    if fault:
        table.fault("name", f"{shown(name)} {fault}")
    return name


def read_names(table: Table) -> tuple[str, ...]:
    """[rack] nodes: the names of all nodes, in the order written."""
    text = table.string("nodes", example='"pi[0-13]"')
    if text is None:
        if "nodes" not in table:
            table.fault("nodes", 'is missing; name every node, like nodes = "pi[0-13]"')
        return ()
    try:
        names = expand(text)
    except ValueError as error:
        table.fault("nodes", f"{shown(text)} {error}")
        return ()
    for name in names:
        fault = name_fault(name)
        if fault:
            table.fault("nodes", f"{shown(name)} {fault}")
    return names


def read_model(table: Table, default: str) -> str:
    """``model`` of [rack] or of one node."""
    model = table.string("model", example='"pi2"')
    if model is None or model in MODELS:
        return model or default
    if model.lower() in ARMV6_NAMES:
        table.fault("model", f"{shown(model)} {NO_ARMV6}")
    else:
        table.fault("model", f"{shown(model)} is not a board", Unknown(model, MODELS))
    return default


def read_roles(table: Table, known: Sequence[str], *, is_master: bool) -> tuple[str, ...]:
    """``roles`` of one node: by default salt-minion, and also salt-master on the rack's master."""
    roles = table.strings("roles", example='["salt-minion"]')
    if roles is None:
        return (MINION, MASTER) if is_master else (MINION,)
    for role in roles:
        if role not in known:
            table.fault("roles", f"{shown(role)} is not a role", Unknown(role, known))
    if len(set(roles)) != len(roles):
        table.fault("roles", "names a role twice")
    if is_master and MASTER not in roles:
        table.fault("roles", f'the node named by [rack] master needs "{MASTER}" among its roles')
    if not is_master and MASTER in roles:
        table.fault("roles", f'only the node named by [rack] master can have "{MASTER}"')
    return tuple(dict.fromkeys(role for role in roles if role in known))


def read_keys(table: Table) -> tuple[str, ...]:
    """``authorized_keys`` of [login] or of one node."""
    keys = table.strings("authorized_keys", example=f"[{EXAMPLE}]") or ()
    good = []
    for key in keys:
        fault = key_fault(key.strip())
        if fault:
            where = "" if "PRIVATE KEY" in key else f"{shown(key)} "
            table.fault("authorized_keys", f"{where}{fault}")
        else:
            good.append(key.strip())
    return tuple(good)


def read_key_files(table: Table, folder: Path) -> tuple[str, ...]:
    """[login] authorized_keys_files: the keys in these files, all of which may be as large as one
    could be. A name may begin with ``~`` and is else relative to the rack's folder."""
    example = '["~/.ssh/id_ed25519.pub"]'
    found = []
    names = table.strings("authorized_keys_files", example=example) or ()
    if len(names) > _MOST_KEY_FILES:
        table.fault("authorized_keys_files", f"names more than {_MOST_KEY_FILES} files")
    room = _LARGEST_KEY_FILE
    for name in names[:_MOST_KEY_FILES]:
        text = _read_beside(table, "authorized_keys_files", folder, name, room)
        room -= len(text)
        for line in keys_in(text):
            fault = key_fault(line)
            if fault:
                table.fault("authorized_keys_files", f"{shown(name)}: a line of it {fault}")
                break
            found.append(line)
    return tuple(found)


def read_master(
    rack: Table, salt: Table, folder: Path, nodes: Mapping[str, IPv4Interface | None]
) -> Master:
    """[rack] master with [salt] master_address and master_public_key. ``nodes`` maps every
    node's name to its fixed address or None."""
    name = rack.string("master", example='"pi0"') or DEFAULT_MASTER
    address = address_in(salt, "master_address")
    public_key = _read_public_key(salt, folder)
    if name in nodes:
        own = nodes[name]
        if own and address and address != own.ip:
            salt.fault("master_address", f"{address} is not {name}'s address, which is {own.ip}")
        if public_key:
            salt.fault("master_public_key", f"{name} is a node, so its key is made here; leave out")
        return Master(name, True, own.ip if own else address)
    alike = name.lower().rstrip(".")  # to a DNS server it is the same
    if alike in nodes:
        rack.fault("master", f'{shown(name)} is a node; write master = "{alike}"')
    try:
        address = parse_address(name)
    except ValueError:
        fault = domain_fault(name)
        if fault:
            names = f"a node ({', '.join(list(nodes)[:3])}, …) or another computer's name"
            rack.fault("master", f"{shown(name)} {fault}; write {names} or address")
    owner = next((node for node, own in nodes.items() if own and own.ip == address), None)
    if owner and str(address) == name:
        rack.fault("master", f'{shown(name)} is the address of {owner}; write master = "{owner}"')
    elif owner:
        what = f"{address} is the address of {owner}, and the master is {name}"
        salt.fault("master_address", f'{what}; if they are one, write master = "{owner}"')
    return Master(name, False, address, public_key)


def _read_public_key(table: Table, folder: Path) -> str | None:
    name = table.string("master_public_key", example='"master.pub"')
    if name is None:
        return None
    text = _read_beside(table, "master_public_key", folder, name)
    if not text:
        return None
    try:
        # The text goes on every card, so it must be that key and nothing beside it.
        if not _PUBLIC_KEY.fullmatch(text.strip()):
            raise ValueError
        key = load_pem_public_key(text.encode())
        if not isinstance(key, RSAPublicKey):
            raise ValueError
    except (ValueError, UnsupportedAlgorithm):
        table.fault(
            "master_public_key",
            f"{shown(name)} holds no RSA public key; copy /etc/salt/pki/master/master.pub from it",
        )
        return None
    return "\n".join(text.strip().splitlines()) + "\n"


def read_release(table: Table, nodes: Sequence[Node]) -> ReleaseChoice:
    """[release]: a built-in name, or url and signing_key. It is a fault when the release cannot
    boot each of ``nodes`` with the packages it gets."""
    name = table.string("name", example=shown(DEFAULT_RELEASE))
    url = table.string("url", example='"https://example.org/os/MyOS-rpi.tar.gz"')
    key = table.string("signing_key", example='"68B3 537F …", 40 hex digits')
    if name and url:
        table.fault("url", "and name exclude each other; leave one of the two out")
    if name and "://" in name:
        table.fault("name", f"{shown(name)} is a URL; write it as url = {shown(name)}")
        return ReleaseChoice(DEFAULT_RELEASE)
    source = url or name or DEFAULT_RELEASE
    told: set[str] = set()
    for model, kernel in sorted({(n.model, kernel_among(n.packages.names)) for n in nodes}):
        try:
            spec_for(source, key, model, [kernel])
        except ConfigurationError as error:
            if error.what not in told:
                table.fault("url" if url else "name", f"{error.what}; {error.hint}")
            told.add(error.what)
    return ReleaseChoice(source, key)


def read_swap(table: Table) -> int:
    """[swap] size in bytes; 0 for none."""
    text = table.string("size", example='"1GiB"')
    if text is None:
        return DEFAULT_SWAP_BYTES
    if text.strip() in ("0", "none"):
        return 0
    try:
        size = parse_size(text)
    except ValueError as error:
        table.fault("size", f'{error}, or "0" for no swap file')
        return DEFAULT_SWAP_BYTES
    low, high = _SWAP_BYTES
    if not low <= size <= high:
        limits = f"{format_chosen(low)} to {format_chosen(high)}"
        table.fault("size", f'{shown(text)} is not from {limits}, nor "0" for no swap file')
    return size


def read_timezone(table: Table) -> str | None:
    """[rack] timezone. Whether the release has that time zone is checked when a card is made."""
    return _read_pattern(table, "timezone", _ZONE, "a time zone", '"Europe/Brussels"')


def read_salt_version(table: Table, master: Master) -> str | None:
    """[salt] version. It must be able to talk to a ``master`` outside the rack; a master in the
    rack gets the same version."""
    version = _read_version(table, "version", version_fault)
    outside = _read_version(table, "master_version", master_version_fault)
    if outside and master.is_node:
        table.fault("master_version", f"{master.name} is a node and gets the version of the others")
    elif version and outside and (why := cannot_talk(version, outside)):
        table.fault("version", f"{shown(version)} cannot join {master.name}: {why}")
    return version


def read_salt_packages(table: Table, folder: Path, version: str | None) -> Path | None:
    """[salt] packages: a folder, relative to the rack's, of pacman packages for every card. They
    are there for what Salt ``version`` needs, so it is a fault to give them without a version."""
    name = table.string("packages", example='"packages"')
    if name is None:
        return None
    place = _folder_at(folder, name)
    if place is None:
        table.fault("packages", f"{shown(name)}: no such folder{_taken_from(folder, name)}")
    elif version is None:
        table.fault("packages", "needs version beside it: they are what that Salt needs")
    return place


def _read_version(table: Table, name: str, fault_of: Callable[[str], str | None]) -> str | None:
    text = table.string(name, example='"3008.3"')
    fault = fault_of(text) if text is not None else None
    if fault:
        table.fault(name, f'{shown(text)} {fault}; write it like "3008.3"')
    return None if fault else text


def read_highstate_once(table: Table) -> bool:
    """[salt] highstate: whether first boot applies the highstate once the node has joined."""
    text = table.string("highstate", example='"once"')
    if text not in (None, "once", "never"):
        table.fault("highstate", f'{shown(text)} is neither "once" nor "never"')
    return text == "once"


def _read_pattern(
    table: Table, name: str, pattern: re.Pattern[str], what: str, example: str
) -> str | None:
    text = table.string(name, example=example)
    if text is not None and not pattern.match(text):
        table.fault(name, f"{shown(text)} is not {what}; write it like {example}")
        return None
    return text


def _taken_from(folder: Path, name: str) -> str:
    """Where a path that was not found begins, which only one that is relative does not say."""
    relative = not (Path(name).is_absolute() or name.startswith("~"))
    return f"; the path is taken from {folder}" if relative else ""


def _folder_at(folder: Path, name: str) -> Path | None:
    """The folder ``name``, relative to the rack's; None where there is none of that name."""
    try:
        place = folder / at_home(name)
        return place if place.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _read_beside(
    table: Table, key: str, folder: Path, name: str, most_bytes: int = _LARGEST_KEY_FILE
) -> str:
    """The text of the file ``name``, relative to the rack's folder; "" and a fault when it cannot
    be read, or is larger than ``most_bytes``."""
    try:
        data = read_named(folder / at_home(name), most_bytes)
        return "\n".join(data.decode().splitlines())
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "is not a text file"
        table.fault(key, f"{shown(name)}: {why}{_taken_from(folder, name)}")
        return ""
