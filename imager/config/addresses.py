"""Which address each node has.

In: the [network] table and the nodes' own addresses. Out: an IPv4Interface for each node that
has a fixed one, and a fault for every address that cannot work. Pure. It is checked before any card
is written: two nodes with the same address, or one with an address outside its network, can be
reached only now and then, and nobody sees why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network

from imager.base.json_fields import shown
from imager.config.fields import Table
from imager.config.nodeset import expand
from imager.config.rack import Network

DEFAULT_INTERFACE = "en* eth* usb*"
"""Names of systemd.link(5) for built-in and USB network cards, and the kernel's own names."""

DEFAULT_PREFIX = 24
_NOT_IPV4 = "is not an IPv4 address; write four numbers 0-255, like 10.0.0.10"


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The [network] table: what all nodes share, and the addresses to give them, in their order."""

    network: Network
    prefix: int
    addresses: tuple[IPv4Address, ...] | None
    table: Table


def parse_address(text: str) -> IPv4Address:
    """``text`` as an IPv4 address. Raises ValueError with a message that can be shown."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise ValueError(_NOT_IPV4) from None


def address_in(table: Table, name: str) -> IPv4Address | None:
    """The address under the key ``name`` of ``table``; None when the key is absent, None and a
    fault when its value is no address."""
    text = table.string(name, example='"10.0.0.10"')
    if text is None:
        return None
    try:
        return parse_address(text)
    except ValueError as error:
        table.fault(name, f"{shown(text)} {error}")
        return None


def read_network(table: Table, *, nodes_have_own: bool) -> AddressPlan:
    """The [network] table; ``nodes_have_own``: some have an address in a table of their own."""
    dhcp = table.boolean("dhcp")
    addresses = _read_addresses(table)
    if dhcp and "addresses" in table:
        table.fault("dhcp", "true and addresses exclude each other; leave one of the two out")
    if dhcp is False and "addresses" not in table:
        table.fault("dhcp", 'false needs the addresses: addresses = "10.0.0.[10-23]"')
    prefix = table.number("prefix", 1, 30) or DEFAULT_PREFIX
    gateway = address_in(table, "gateway")
    if gateway and dhcp is not False and "addresses" not in table and not nodes_have_own:
        table.fault(
            "gateway",
            "counts only for a node with an address of its own, and here each asks DHCP; give "
            "addresses, or leave it out",
        )
    interface = table.string("interface", example=shown(DEFAULT_INTERFACE)) or DEFAULT_INTERFACE
    letters = all(letter.isalnum() or letter in "-_.*?[]! " for letter in interface)
    if not letters or not interface.removeprefix("!").split():
        table.fault(
            "interface",
            f"{shown(interface)} is not a list of interface names; write it like "
            f"{shown(DEFAULT_INTERFACE)} (systemd.network(5), [Match] Name=)",
        )
    dns = _read_servers(table)
    table.close()
    return AddressPlan(Network(interface, gateway, dns), prefix, addresses, table)


def _read_addresses(table: Table) -> tuple[IPv4Address, ...] | None:
    text = table.string("addresses", example='"10.0.0.[10-23]"')
    if text is None:
        return None
    try:
        names = expand(text, example="10.0.0.[10-23]")
    except ValueError as error:
        table.fault("addresses", f"{shown(text)} {error}")
        return None
    found = []
    for name in names:
        try:
            found.append(parse_address(name))
        except ValueError as error:
            table.fault("addresses", f"{shown(name)} {error}")
            return None
    return tuple(found)


def _read_servers(table: Table) -> tuple[IPv4Address, ...]:
    servers = []
    for text in table.strings("dns", example='["10.0.0.1"]') or ():
        try:
            servers.append(parse_address(text))
        except ValueError as error:
            table.fault("dns", f"{shown(text)} {error}")
    return tuple(servers)


def deal_addresses(
    plan: AddressPlan, names: Sequence[str], own: Mapping[str, tuple[Table, IPv4Address]]
) -> dict[str, IPv4Interface]:
    """Node name -> address. A node's own address comes first; ``own`` has it with the table in
    which it stands. The others get the address of [network] at their place in ``names``. Faults
    are noted in the table that an address comes from."""
    dealt = plan.addresses
    if dealt is not None and len(dealt) != len(names):
        plan.table.fault(
            "addresses",
            f"{len(dealt)} addresses for {len(names)} nodes; give one for each, in their order",
        )
    found: dict[str, IPv4Interface] = {}
    taken: dict[IPv4Address, str] = {}
    for index, name in enumerate(names):
        table, key = plan.table, "addresses"
        if name in own:
            (table, address), key = own[name], "address"
        elif dealt is not None and index < len(dealt):
            address = dealt[index]
        else:
            continue
        interface = IPv4Interface((address, plan.prefix))
        owner = taken.setdefault(address, name)
        fault = _fault_of(plan, interface)
        if owner != name:
            fault = f"is given to both {owner} and {name}"
        if fault:
            table.fault(key, f"{shown(str(address))} {fault}")
        found[name] = interface
    return found


def _fault_of(plan: AddressPlan, interface: IPv4Interface) -> str | None:
    address, gateway = interface.ip, plan.network.gateway
    network = IPv4Network((gateway, plan.prefix), strict=False) if gateway else interface.network
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        return "cannot be a node's address (RFC 6890)"
    if address == gateway:
        return "is the gateway's address"
    if address not in network:
        return f"is outside {network}, the network of the gateway {gateway}"
    if address == network.network_address:
        return f"is the address of the network {network} itself"
    if address == network.broadcast_address:
        return f"is the broadcast address of {network}"
    return None
