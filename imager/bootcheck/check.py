"""The boot check: would a Raspberry Pi start from this card, and if not, why not?

In: a way to read a card or image, made by this program or by another. Out: a BootReport whose
findings say what is wrong, why it stops the boot, what a person would see and how to mend it.
Nothing is mounted or written. The rules are in ``requirements`` and ``partitions``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from imager.base.boards import BOARDS, Board, board_named
from imager.base.json_fields import JsonFault, read_object
from imager.bootcheck.boots import BootPartitions
from imager.bootcheck.contents import Contents
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.meanings import finding
from imager.bootcheck.own_files import FIRSTBOOT_PREFIX, NODE_PATH
from imager.bootcheck.partitions import Card, read_card
from imager.bootcheck.requirements import Requirements
from imager.bootcheck.root.filesystem import RootFilesystem
from imager.bootcheck.root.names import NamedPartition
from imager.bootcheck.route.chain import Route
from imager.bootcheck.sums import MAX_SUMS_BYTES, SUMS_PATH, SumsError, parse_sums
from imager.disk.budget import MAX_FINDINGS
from imager.disk.fat.volume import FatEntry, FatVolume
from imager.disk.manifest import Reader

__all__ = ["BootReport", "Finding", "Severity", "check_boot"]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class BootReport:
    """What the check found.

    ``models`` are the boards that would boot; ``judged_as`` is the board the findings are about
    (None when the card has no boot partition). ``node`` is the host name on the root partition,
    ``partuuid`` the one that root= should name, ``root`` that filesystem where it could be read.
    ``left_out`` counts findings past the first MAX_FINDINGS; errors are left out last. ``route`` is
    the chain that ``judged_as`` starts, None where that cannot be told. ``unseen`` is the first
    finding about something on the way of its boot that was not looked at: with no error besides
    it cannot be said whether it boots.
    """

    findings: tuple[Finding, ...]
    models: tuple[str, ...]
    judged_as: str | None
    node: str | None
    partuuid: str | None
    left_out: int = 0
    root: RootFilesystem | None = None
    route: Route | None = None
    unseen: Finding | None = None

    @property
    def bootable(self) -> bool:
        """Whether nothing is seen to stand in the way of a boot: no finding is an error."""
        return all(found.severity is not Severity.ERROR for found in self.findings)

    @property
    def undecided(self) -> Finding | None:
        """What was not looked at where there is no error, so that nobody may say that it boots."""
        return self.unseen if self.bootable else None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the boot."""
        return tuple(found for found in self.findings if found.severity is Severity.ERROR)

    def to_json(self) -> dict[str, object]:
        """The form of ``inspect --json``."""
        return {
            "bootable": None if self.undecided else self.bootable,
            "models": list(self.models),
            "judged_as": self.judged_as,
            "node": self.node,
            "partuuid": self.partuuid,
            "system": self.root.system if self.root else None,
            "route": self.route.to_json() if self.route else None,
            "findings": [found.to_json() for found in self.findings],
            **({"findings_left_out": self.left_out} if self.left_out else {}),
        }


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The first findings for one board, and how many there are."""

    model: str
    findings: tuple[Finding, ...]
    count: int
    errors: int
    unseen: Finding | None = None
    root: NamedPartition | None = None
    route: Route | None = None

    @property
    def boots(self) -> bool:
        """Whether all was looked at and nothing stops the boot."""
        return not self.errors and self.unseen is None

    @property
    def rank(self) -> tuple[int, bool, bool]:
        """The lower, the likelier is the card for this board: few errors, all looked at, and it
        runs on every board of the name."""
        some = any(found.code is Code.KERNEL_BOARD for found in self.findings)
        return self.errors, self.unseen is not None, some

    @classmethod
    def of(
        cls, model: str, findings: Iterable[Finding], aside: Collection[Finding] = ()
    ) -> _Verdict:
        """The verdict that ``findings`` make. What those ``aside`` say was not looked at may be
        nothing that the boot needs."""
        kept: dict[int, list[tuple[int, Finding]]] = {weight: [] for weight in range(3)}
        count = errors = 0
        unseen = None
        for found in findings:
            if found.code is Code.NOT_LOOKED_AT and found not in aside:
                unseen = unseen or found
            errors += found.severity is Severity.ERROR
            weighed = kept[_weight(found)]
            if len(weighed) < MAX_FINDINGS:
                weighed.append((count, found))
            count += 1
        first = [*kept[0], *kept[1], *kept[2]][:MAX_FINDINGS]
        shown = tuple(found for _, found in sorted(first, key=lambda pair: pair[0]))
        return cls(model, shown, count, errors, unseen)


def _weight(found: Finding) -> int:
    """The lower, the later it is left out where there are too many."""
    if found.severity is Severity.ERROR:
        return 0
    return 1 if found.code is Code.NOT_LOOKED_AT else 2


def check_boot(
    read: Reader,
    size_bytes: int,
    *,
    model: str | None = None,
    expected: Mapping[str, str] | None = None,
) -> BootReport:
    """Check the card of ``size_bytes`` behind ``read`` for ``model``, or for every known model.

    ``expected`` maps boot files to their SHA-256 (hex). Without it the card's own list,
    picloud/SHA256SUMS, is used if there is one. Without ``model`` the report is about the board
    that the card says it was made for (picloud/node.json), else the first board that would boot,
    else the one with the fewest errors. Raises ValueError for an unknown model, and whatever
    ``read`` raises.
    """
    return judge_card(read_card(read, size_bytes), model=model, expected=expected)


def judge_card(
    card: Card, *, model: str | None = None, expected: Mapping[str, str] | None = None
) -> BootReport:
    """``check_boot`` of a card that was read."""
    candidates = BOARDS if model is None else (board_named(model),)
    if card.fat is None:
        unseen = card.has_gpt and all(board.needs_bootcode for board in candidates)
        alone = chain(card.findings, _root_alone(card))
        seen = _Verdict.of("", card.findings_for(candidates[0]) if unseen else alone)
        return _report(replace(seen, root=card.roots.presumed), (), None, card)
    contents, found = _contents(card.fat, card, expected)
    found = [*card.findings, *found]
    boots = BootPartitions(card, contents)
    verdicts = [_judged(boots, found, candidate, expected, card) for candidate in candidates]
    made_for = _made_for(contents)
    own = next((verdict for verdict in verdicts if verdict.model == made_for), None)
    likely = _likely(verdicts, boots)
    # Of two with as many errors the card is rather for the one whose device tree it has.
    best = own or min(likely, key=lambda one: (*one.rank, not _has_tree(one, boots)))
    bootable = tuple(verdict.model for verdict in likely if verdict.boots)
    return _report(best, bootable, best.model, card)


def _judged(
    boots: BootPartitions,
    found: Iterable[Finding],
    candidate: Board,
    expected: Mapping[str, str] | None,
    card: Card,
) -> _Verdict:
    """The verdict for one board, on the partition that it starts from."""
    found = [*found, *card.findings_for(candidate)]
    if card.has_gpt and candidate.needs_bootcode:
        verdict = _Verdict.of(candidate.name, found)
        return replace(verdict, root=card.roots.presumed)
    boot, strict = boots.of(candidate), expected is not None
    first_needed = set(boot.used)
    if boots.unseen:
        # Which partition it starts from is not known.
        every = chain(found, _unseen(boots), _compare(boots.first, first_needed, strict=strict))
        return _Verdict.of(candidate.name, every, card.findings)
    if boot.contents is None:
        every = chain(found, boot.findings, _compare(boots.first, first_needed, strict=strict))
        return _Verdict.of(candidate.name, every, card.findings)
    requirements = Requirements(boot.contents, candidate, card.roots, boots.first, boot.arrived)
    seen = list(boot.placed(requirements.findings()))
    first_needed |= requirements.first_needed
    every = chain(
        found,
        boot.findings,
        seen,
        _compare(boots.first, first_needed, strict=strict),
        _unseen(boots),
    )
    verdict = _Verdict.of(candidate.name, every, card.findings)
    route = requirements.route if requirements.is_sure else None
    return replace(verdict, root=requirements.root, route=route)


def _report(
    verdict: _Verdict, models: tuple[str, ...], judged_as: str | None, card: Card
) -> BootReport:
    root = card.roots.filesystem(verdict.root)
    return BootReport(
        verdict.findings,
        models,
        judged_as,
        root.node if root else None,
        verdict.root.part.partuuid if verdict.root else None,
        verdict.count - len(verdict.findings),
        root,
        verdict.route,
        verdict.unseen,
    )


def _root_alone(card: Card) -> Iterator[Finding]:
    """What is wrong with the root where no boot partition says which one it is."""
    if card.roots.presumed is not None:
        yield from card.roots.presumed_findings()


def _likely(verdicts: Collection[_Verdict], boots: BootPartitions) -> Collection[_Verdict]:
    """The verdicts that count, and of which the one with the fewest errors is told.

    A board that has its firmware in a chip needs so few files that it would be nearest to any
    damaged card, so it counts only where the card has a device tree for it. So does a board of
    which not all was looked at: of that few faults are told.
    """
    found = [
        verdict
        for verdict in verdicts
        if _has_tree(verdict, boots)
        or (board_named(verdict.model).firmware is not None and verdict.unseen is None)
    ]
    return found or verdicts


def _has_tree(verdict: _Verdict, boots: BootPartitions) -> bool:
    """Whether the card has a device tree for the board of ``verdict``."""
    board = board_named(verdict.model)
    contents = boots.of(board).contents or boots.first
    return any(contents.may_have(tree.file) for tree in board.device_trees)


def _unseen(boots: BootPartitions) -> Iterator[Finding]:
    for path, why in boots.unseen.items():
        yield finding(Code.NOT_LOOKED_AT, f"{path}: {why}: not looked at further", path=path)


def _made_for(contents: Contents) -> str | None:
    """The model in the card's own description, None where that is missing or unreadable."""
    try:
        return read_object(contents.text(NODE_PATH) or b"").text("model")
    except JsonFault:
        return None


def _contents(
    fat: FatVolume, card: Card, expected: Mapping[str, str] | None
) -> tuple[Contents, list[Finding]]:
    """The boot files with the digests they should have, and what is wrong with the list."""
    listed = fat.find(SUMS_PATH)
    unread = fat.unseen_at(SUMS_PATH) is not None
    if expected is not None or listed is None or listed.is_dir or unread:
        return Contents(fat, expected or {}, card.budget), []
    try:
        if not 0 < listed.size_bytes <= MAX_SUMS_BYTES:
            raise SumsError(f"it is {listed.size_bytes} bytes long")
        sums = parse_sums(fat.read_file(SUMS_PATH))
        return Contents(fat, sums, card.budget), []
    except SumsError as error:
        found = finding(Code.SUMS_DAMAGED, f"{SUMS_PATH}: {error}", path=SUMS_PATH)
        return Contents(fat, {}, card.budget), [found]


def _compare(contents: Contents, needed: Collection[str], *, strict: bool) -> Iterator[Finding]:
    """Findings about files that differ from what was put on the card.

    Damage is an error in a file that the boot needs, and a warning in others. Unless ``strict``,
    a file with a later date than the card's own list was replaced on purpose, and not damaged: a
    failing card does not change dates.
    """
    if not contents.expected:
        return
    sums = contents.entry(SUMS_PATH)
    for path in sorted(contents.expected):
        if contents.volume.unseen_at(path) is not None:
            continue
        entry = contents.entry(path)
        in_use = (entry.path if entry else path) in needed
        gravity = None if in_use else Severity.WARNING
        if entry is None:
            yield finding(Code.FILE_LOST, f"{path} is gone", path=path, severity=gravity)
        elif contents.digest(entry.path) != contents.expected[path]:
            if not strict and sums is not None and entry.written > sums.written:
                what = f"{path} was replaced after the card was made"
                yield finding(Code.FILE_REPLACED, what, path=path)
            else:
                what = f"{path} is not what was put on the card"
                yield finding(Code.FILE_CHANGED, what, path=path, severity=gravity)
    yield from _unlisted(contents)


def _unlisted(contents: Contents) -> Iterator[Finding]:
    listed = {path.casefold() for path in (*contents.expected, SUMS_PATH)}
    extra = sorted(
        entry.path for entry in contents.volume.entries.values() if _is_extra(entry, listed)
    )
    if extra:
        more = f" and {len(extra) - _NAMED} more" if len(extra) > _NAMED else ""
        what = f"not there when the card was made: {', '.join(extra[:_NAMED])}{more}"
        yield finding(Code.FILE_UNLISTED, what, path=extra[0])


def _is_extra(entry: FatEntry, listed: set[str]) -> bool:
    folded = entry.path.casefold()
    return not entry.is_dir and folded not in listed and not folded.startswith(FIRSTBOOT_PREFIX)
