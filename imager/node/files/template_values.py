"""What the templates of overlays may know: ``rack``, ``node`` and ``card``, as plain values.

In: a rack, one of its nodes, the values of its card. Out: text, numbers, lists and mappings of
them, as JSON has them. Each is named here, so that a new field of a rack is not given away unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from imager.config.rack import Node, Rack
from imager.node.files.card_values import CardValues
from imager.node.files.template_limits import TEXT

Plain = Mapping[str, object]


def rack_values(rack: Rack) -> Plain:
    """``rack`` in a template."""
    master, network = rack.master, rack.network
    return {
        "folder": str(rack.folder),
        "name": rack.name,
        "nodes": [node_values(node) for node in rack.nodes],
        # Made here once: a loop over a thousand nodes on each of a thousand cards takes a minute.
        "hosts": [f"{node.address.ip} {node.name}" for node in rack.nodes if node.address],
        "master": {
            "name": master.name,
            "is_node": master.is_node,
            "address": _address(master.address),
            "public_key": master.public_key,
        },
        "release": {"source": rack.release.source, "signing_key": rack.release.signing_key},
        "network": {
            "interface": network.interface,
            "gateway": _address(network.gateway),
            "dns": [_address(server) for server in network.dns],
        },
        "swap_bytes": rack.swap_bytes,
        "timezone": rack.timezone,
        "salt_version": rack.salt_version,
        "highstate_once": rack.highstate_once,
    }


def node_values(node: Node) -> Plain:
    """``node`` in a template, and each of ``rack.nodes``."""
    return {
        "name": node.name,
        "model": node.model,
        "roles": list(node.roles),
        "address": _interface(node.address),
        "authorized_keys": list(node.authorized_keys),
        "slot": node.slot,
    }


def card_plain(card: CardValues) -> Plain:
    """``card`` in a template."""
    return asdict(card)


def _interface(address: IPv4Interface | None) -> Plain | None:
    """An address with its prefix: ``10.0.0.7/24``."""
    if address is None:
        return None
    return {
        TEXT: str(address),
        "ip": _address(address.ip),
        "network": _network(address.network),
        "netmask": str(address.netmask),
        "hostmask": str(address.hostmask),
        "with_prefixlen": address.with_prefixlen,
        "with_netmask": address.with_netmask,
        "with_hostmask": address.with_hostmask,
    }


def _network(network: IPv4Network) -> Plain:
    return {
        TEXT: str(network),
        "network_address": str(network.network_address),
        "broadcast_address": str(network.broadcast_address),
        "netmask": str(network.netmask),
        "hostmask": str(network.hostmask),
        "prefixlen": network.prefixlen,
        "num_addresses": network.num_addresses,
    }


def _address(address: IPv4Address | None) -> Plain | None:
    if address is None:
        return None
    return {TEXT: str(address), "reverse_pointer": address.reverse_pointer, "version": 4}
