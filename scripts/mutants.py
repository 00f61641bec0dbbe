"""Small changes of a module, each of which a test should notice.

In: the path of a module. Out: Mutants, each with the whole changed source. Not every way to be
wrong is here, but those that a lost check looks like: a comparison that is off by one or turned
round, a guard that never holds, a call or a ``raise`` that is gone, a lock that is shared.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TURNED: list[tuple[type[ast.cmpop], type[ast.cmpop]]] = [
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
]
COMPARED = {one: other for pair in _TURNED for one, other in (pair, pair[::-1])}
RECKONED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.FloorDiv: ast.Mult,
}
FLAGS = {"LOCK_EX": "LOCK_SH", "O_EXCL": "O_CLOEXEC", "O_NOFOLLOW": "O_CLOEXEC"}
SHOWN = re.compile(r"(self\._?)?(progress|meter|report|board)\.")
"""Calls that only tell people how far the work is."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: ``source`` is the whole file after it, ``span`` the lines of its function."""

    path: Path
    line: int
    before: str
    after: str
    span: tuple[int, int]
    source: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The change without its place, as the list of equivalent ones names it."""
        return f"{self.before} → {self.after}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What ``node`` itself may become."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare():
            new.ops[0] = COMPARED[type(new.ops[0])]()
            yield new
        case ast.BoolOp(op=op):
            new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield new
        case ast.BinOp(op=op) if type(op) in RECKONED:
            new.op = RECKONED[type(op)]()
            yield new
        case ast.UnaryOp(op=ast.Not()):
            yield new.operand
        case ast.Constant(value=bool() as truth):
            yield ast.Constant(not truth)
        case ast.Constant(value=int() as number):
            yield ast.Constant(number + 1)
            yield ast.Constant(number - 1)
        case ast.Attribute(attr=name) if name in FLAGS:
            new.attr = FLAGS[name]
            yield new
        case ast.Raise():
            yield ast.Pass()
        case ast.Expr(value=ast.Call(func=called)) if not SHOWN.match(ast.unparse(called)):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value):
            # Whoever asks takes None for False, 0 and "".
            if not (isinstance(value, ast.Constant) and not value.value):
                yield ast.Return(None)


def conditions(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The condition of ``node`` and what it may become: its opposite; for a guard, never true."""
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)
        if isinstance(node, ast.If) and not node.orelse:
            yield node.test, ast.Constant(False)


def places(tree: ast.AST, span: tuple[int, int]) -> Iterator[tuple[ast.AST, tuple[int, int]]]:
    """Every node that may be changed, with its function's lines. Left out are types, decorators
    and texts for people (f-strings, what is raised)."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.JoinedStr | ast.arg | ast.alias):
            continue
        outer = [getattr(tree, name, None) for name in ("annotation", "returns")]
        if child in [*outer, *getattr(tree, "decorator_list", ())]:
            continue
        inner = span
        if isinstance(child, ast.FunctionDef):
            first = min([child.lineno, *(word.lineno for word in child.decorator_list)])
            inner = (first, child.end_lineno or first)
        yield child, inner
        if not isinstance(child, ast.Raise):
            yield from places(child, inner)


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of the module at ``path``."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for row in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    for node, span in places(ast.parse(source), (0, 0)):
        pairs = [*((node, new) for new in changes(node)), *conditions(node)]
        for old, new in pairs:
            assert isinstance(old, ast.expr | ast.stmt)
            assert old.end_lineno is not None and old.end_col_offset is not None
            low = starts[old.lineno - 1] + old.col_offset
            high = starts[old.end_lineno - 1] + old.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(new))
            word = f"({text})" if isinstance(new, ast.expr) else text
            changed = source[:low] + word.encode() + source[high:]
            was, now = (_row(whole, starts[old.lineno - 1]) for whole in (source, changed))
            yield Mutant(path, old.lineno, was, now, span, changed)


def _row(source: bytes, start: int) -> str:
    return source[start : source.find(b"\n", start)].decode().strip()
