"""rack.toml -> Rack: read whole, every fault of every key reported at once.

In: the folder of a rack. Out: a Rack in which every name, address and key has been checked, or
one ConfigurationError whose details hold all that is wrong. Nothing is fetched and no card is
looked at before this has passed.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.text import command_line
from imager.base.trusted_folder import TrustedFolder
from imager.config import sections
from imager.config.addresses import address_in, deal_addresses, read_network
from imager.config.fields import Table, Unknown, parse_document
from imager.config.packages import (
    read_canary,
    read_check,
    read_hold,
    read_packages,
    read_roles_packages,
    wish_of,
)
from imager.config.rack import RACK_FILE, Node, Rack
from imager.config.shipped_trees import roles_in, trees_folder
from imager.config.slot_labels import deal_slots

_LIMIT_BYTES = 1 << 20


def load_rack(folder: Path) -> Rack:
    """The rack described by ``folder``/rack.toml.

    Raises ConfigurationError when the file is a stranger's or no file, or with one line for each
    fault, and HostStorage when it cannot be read.
    """
    return parse_rack(folder, _read_text(folder.absolute()))


def no_rack_in(folder: Path) -> ConfigurationError:
    """What is raised where ``folder`` has no rack.toml, or has lost it since it was found."""
    return ConfigurationError(
        f"{folder / RACK_FILE}: no such file",
        hint=f"make one with {command_line('rack', 'init', '--rack', folder)}",
    )


def parse_rack(folder: Path, text: str) -> Rack:
    """The rack described by ``text``, as if it were ``folder``/rack.toml; raises as load_rack."""
    folder = folder.absolute()
    top, faults = parse_document(RACK_FILE, text)
    rack = None if faults else _read(folder, top)
    if rack is None or faults:
        raise faults.error(
            folder / RACK_FILE,
            "mend what is named here; picloud-image rack init --rack NEW writes a commented "
            "example",
        )
    return rack


def _read_text(folder: Path) -> str:
    path = folder / RACK_FILE
    try:
        data = TrustedFolder(folder).read(RACK_FILE, _LIMIT_BYTES)
    except FileNotFoundError as error:
        raise no_rack_in(folder) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}: line {line} is not UTF-8 text (byte {error.start} of the file)",
            hint="save the file as UTF-8, which TOML requires",
        ) from None


def _read(folder: Path, top: Table) -> Rack:
    rack, salt, login = top.table("rack"), top.table("salt"), top.table("login")
    release, swap, network = top.table("release"), top.table("swap"), top.table("network")
    packages = top.table("packages")
    name, names = sections.read_rack_name(rack), sections.read_names(rack)
    own = _own_tables(top, names)
    has_own = any("address" in table for table in own.values())
    plan = read_network(network, nodes_have_own=has_own)
    addresses = deal_addresses(plan, names, _own_addresses(own))
    master = sections.read_master(rack, salt, folder, {node: addresses.get(node) for node in names})
    model = sections.read_model(rack, sections.DEFAULT_MODEL)
    keys = (*sections.read_keys(login), *sections.read_key_files(login, folder))
    slots = deal_slots(rack, names, own)
    roles = roles_in(trees_folder() / "overlays", folder / "overlays")
    for_all, for_roles = read_packages(packages), read_roles_packages(top, roles)
    own_packages = {node: own[node].table("packages") for node in names}
    nodes = tuple(
        Node(
            name=node,
            model=sections.read_model(own[node], model),
            roles=(its := sections.read_roles(own[node], roles, is_master=node == master.name)),
            address=addresses.get(node),
            authorized_keys=(*keys, *sections.read_keys(own[node])),
            slot=slots[node],
            packages=wish_of(for_all, for_roles, its, read_packages(own_packages[node])),
        )
        for node in names
    )
    found = Rack(
        folder=folder,
        name=name,
        nodes=nodes,
        master=master,
        release=sections.read_release(release, nodes),
        network=plan.network,
        swap_bytes=sections.read_swap(swap),
        timezone=sections.read_timezone(rack),
        salt_version=(version := sections.read_salt_version(salt, master)),
        salt_packages=sections.read_salt_packages(salt, folder, version),
        highstate_once=sections.read_highstate_once(salt),
        held_packages=read_hold(packages),
        canary=(canary := read_canary(packages, nodes)),
        canary_check=read_check(packages, canary),
    )
    tables = (
        rack,
        salt,
        login,
        release,
        swap,
        packages,
        *own_packages.values(),
        *own.values(),
        top,
    )
    for table in tables:
        table.close()
    return found


def _own_tables(top: Table, names: tuple[str, ...]) -> dict[str, Table]:
    """Each node's own table, empty where the file has none. A table for a name that is no node is
    a fault."""
    nodes = top.table("nodes")
    found = {name: nodes.empty(name) for name in names}
    for name, table in nodes.tables():
        if name in found:
            found[name] = table
        elif names:
            nodes.fault(name, "is not one of the nodes under [rack]", Unknown(name, names))
    return found


def _own_addresses(own: dict[str, Table]) -> dict[str, tuple[Table, IPv4Address]]:
    found = {}
    for name, table in own.items():
        address = address_in(table, "address")
        if address is not None:
            found[name] = (table, address)
    return found
