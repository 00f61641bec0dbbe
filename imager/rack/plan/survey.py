"""What a plan is made from: the cards that are there, and what is known of each wanted node.

In: the rack, its ledger, its golden images as far as they are composed, this computer's disks. Out:
the arguments of ``make_plan``. Nothing is changed; of each card only the first MiB is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from imager.base.errors import TargetRefused, UsageError
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.disks import list_disks
from imager.card.host.refusals import accept
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, Target
from imager.card.host.targets import target_at
from imager.config.rack import Node, Rack
from imager.image.compose.golden import GoldenImage
from imager.node.content import recipes_at_hand
from imager.node.edit.edit import opened
from imager.node.files.templates import Allowance
from imager.rack.history.ledger import Ledger
from imager.rack.plan.candidates import Candidate, Unfit, look_at, reasons_against, sort_disks
from imager.rack.plan.plan import Want
from imager.rack.plan.slots import Slots

GoldenImages = Mapping[str, GoldenImage]
"""By node: nodes of one model that have the same packages share one. A node whose image is not
composed is absent."""
KEYS_TO_BE_MADE = "keys to be made"
"""The recipe of a card that needs a key which nobody has made yet, as the master's does once a node
was added. No card has it, and whoever only looks makes no key to learn the real one."""


def wants_of(
    rack: Rack,
    nodes: Sequence[Node],
    ledger: Ledger,
    images: GoldenImages,
    together: Allowance | None = None,
) -> tuple[Want, ...]:
    """What is known of ``nodes``. The recipe of a card made now is calculated only for nodes that
    have a good card: the others may have no keys yet, and a plan makes none. All templates take
    from ``together``.

    Raises ConfigurationError for what is wrong with overlays or keys.
    """
    recipes = dict(_recipes(rack, nodes, ledger, images, together))
    return tuple(
        Want(
            node,
            ledger.state_of(node.name),
            recipes.get(node.name),
            images[node.name].key if node.name in images else None,
        )
        for node in nodes
    )


def _recipes(
    rack: Rack,
    nodes: Sequence[Node],
    ledger: Ledger,
    images: GoldenImages,
    together: Allowance | None,
) -> Iterator[tuple[str, str]]:
    for golden in different(images):
        with opened(golden) as view:
            its = [
                node
                for node in nodes
                if (last := ledger.state_of(node.name).last) is not None
                and last.is_verified
                and node.name in images
                and images[node.name].key == golden.key
            ]
            for node, recipe in recipes_at_hand(view, rack, its, together):
                yield node.name, recipe or KEYS_TO_BE_MADE


def different(images: GoldenImages) -> tuple[GoldenImage, ...]:
    """Each golden image once."""
    return tuple({golden.key: golden for golden in images.values()}.values())


def cards_here(
    rack: Rack, slots: Slots, images: GoldenImages, limits: Limits, kernel: HostTrees
) -> tuple[list[Candidate], list[Unfit]]:
    """Every card in this computer's readers that a batch may use, and those it may not use."""
    found = list_disks(limits.ours, kernel)
    goldens = different(images)
    disks, unfit = sort_disks(
        found, slots, lambda disk: reasons_against(disk, goldens, rack, limits)
    )
    return [look_at(disk, slots, rack.folder) for disk in disks], unfit


def cards_named(
    paths: Sequence[Path],
    rack: Rack,
    slots: Slots,
    images: GoldenImages,
    limits: Limits,
    kernel: HostTrees,
) -> list[Candidate]:
    """The disks a person named; all that is wrong with any of them is raised as TargetRefused,
    before the first is touched."""
    disks: dict[str, Target] = {}
    reasons: list[str] = []
    for path in paths:
        target = target_at(path, limits.ours, kernel)
        if target.made_anew:
            raise UsageError(
                f"{path} is no disk", hint="for image files say --images DIR, one for each node"
            )
        reasons += reasons_against(target, different(images), rack, limits)
        if (
            target.capacity_bytes is not None
            and disks.setdefault(target.node, target) is not target
        ):
            raise UsageError(f"{path}: {target.node} is named twice", hint="name each disk once")
    if reasons:
        raise TargetRefused(
            f"{len(paths)} disks were named and not all of them may be overwritten"
            if len(paths) > 1
            else f"{paths[0]} must not be overwritten",
            hint="mend what is named here, or leave the disk out; nothing was touched",
            details=reasons,
        )
    return [look_at(disk, slots, rack.folder) for disk in disks.values()]


def files_for(
    nodes: Iterable[Node], folder: TrustedFolder, rack: Rack, slots: Slots, limits: Limits
) -> list[Candidate]:
    """An image file for each node, ``folder``/<node>.img; raises TargetRefused for one that may
    not be made, ConfigurationError for what is there and is no file, as a link that leads out of
    the folder or to a disk."""
    found = []
    for node in nodes:
        name = f"{node.name}.img"
        folder.require_file(name)
        target = target_at(folder.path / name, limits.ours)
        accepted = accept(target, 0, limits).target
        found.append(look_at(accepted, slots, rack.folder, wanted=node.name))
    return found
