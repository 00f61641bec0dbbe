"""The rack: whether rack.toml, rack.lock, the keys and the ledger can be used as they are.

In: a rack's folder. Out: Checkups, and the Rack where it loads. Every key is read, and none made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from imager.base.errors import PicloudError
from imager.base.units import MiB
from imager.config.nodeset import fold
from imager.config.rack import Node, Rack
from imager.doctor.checkup import Checkup, counted, failed, warned, well
from imager.doctor.storage import place_checkup, room_checkup
from imager.node.keys.identity import has_identity, salt_keys_at_hand, ssh_keys_at_hand
from imager.rack.history.ledger import ROOM_PER_CARD, read_ledger
from imager.release.catalogue import spec_for
from imager.release.lock import RackLock

AREA = "rack"
_MOST_FAULTS = 10
"""Of a folder of keys that was damaged as a whole, so many faults say enough."""


def rack_checkups(rack: Rack) -> Iterator[Checkup]:
    """What there is to say about ``rack``, whose rack.toml is as it should be."""
    nodes = fold([node.name for node in rack.nodes])
    yield well(AREA, "rack.toml", f"{rack.name}: {counted(len(rack.nodes), 'node')}, {nodes}")
    yield place_checkup(AREA, rack.folder)
    need = max(MiB, len(rack.nodes) * ROOM_PER_CARD)
    yield room_checkup(AREA, rack.folder, need, "move the rack elsewhere")
    for name, look in (("rack.lock", _lock), ("ledger", _ledger)):
        try:
            yield look(rack)
        except PicloudError as error:
            yield failed(AREA, name, error)
    yield from _keys(rack)


def _lock(rack: Rack) -> Checkup:
    lock = RackLock.load(rack.lock_file)
    node = rack.nodes[0]
    source = rack.release
    spec = spec_for(source.source, source.signing_key, node.model, node.packages.names)
    pin = lock.pin(spec.name)
    told = f"pins {spec.name}, sha256 {pin.sha256[:12]}…" if pin else "pins no release yet"
    return well(AREA, "rack.lock", told)


def _ledger(rack: Rack) -> Checkup:
    ledger = read_ledger(rack.folder)
    told = counted(len(ledger.events), "line") if ledger.events else "no card was written yet"
    if not ledger.unread:
        return well(AREA, "ledger", told)
    found = f"{told}, and {ledger.unread} that were not read"
    to_do = (
        "they are damaged, or older than is looked at: rack show tells what is known of each node"
    )
    return warned(AREA, "ledger", found, to_do)


def _keys(rack: Rack) -> Iterator[Checkup]:
    faults = list(islice(_damaged_keys(rack), _MOST_FAULTS))
    yield from faults
    if faults:
        return
    made = sum(has_identity(rack, node) for node in rack.nodes)
    of = counted(len(rack.nodes), "node")
    told = f"{made} of {of} {'has its' if made == 1 else 'have their'} keys, and all are whole"
    none_yet = "none made yet: a node gets its keys when its first card is written"
    yield well(AREA, "keys", told if made else none_yet)


def _damaged_keys(rack: Rack) -> Iterator[Checkup]:
    looks: tuple[Callable[[Rack, list[Node]], object], ...] = (salt_keys_at_hand, ssh_keys_at_hand)
    for node in rack.nodes:
        for look in looks:
            try:
                look(rack, [node])
            except PicloudError as error:
                yield failed(AREA, f"keys of {node.name}", error)
