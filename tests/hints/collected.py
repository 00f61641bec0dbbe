"""Every text of the package that tells a person to type something: a command, an option, a setting,
or a line for another program.

In: the source of ``imager``. Out: each such text as it stands there, ``{}`` for what is filled in,
and where it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import click

from imager.cli.main import cli
from tests.support.workplace import ROOT
from tests.unit.cli.test_looking import command_names

PACKAGE = ROOT / "imager"
_SETTING = re.compile(r"\w = [\"\[]|\[\w+\] in (?:rack|overlay)\.toml|under \[\w+\]")
_SHELL = re.compile(
    r"(?<![\w./-])(?:chmod|chown|cp|gpg|losetup|scp|sfdisk|ssh-keygen|swapoff|umount|zstd)"
    r" (?:-|\{)"
)
_TO_DO = {"hint", "advice", "mend"}
_ABOUT = re.compile(
    r"(Error|Refused|Authentic|Release|Faulty|Mismatch|Storage|Failed|Interrupted)$"
)
"""Classes whose first argument says what is wrong, not what to do."""
_DECLARES = re.compile(r"click\.(option|argument)|LazyCommand|re\.compile")


def texts_to_follow() -> dict[str, str]:
    """Text by text, the file and line where it stands."""
    follows = _Follows()
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node, key in follows.below(tree, to_do=False):
            found.setdefault(key, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


class _Follows:
    def __init__(self) -> None:
        names = "|".join(cli.list_commands(click.Context(cli)))
        self._command = re.compile(rf"(?<![\w/.-])picloud-image (?:{names})\b(?!')")
        self._option = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(_options()))})\b(?![=-])")

    def below(self, node: ast.AST, *, to_do: bool) -> Iterator[tuple[ast.expr, str]]:
        """The texts below ``node`` that are no docstring and declare no option. ``to_do``: whether
        it stands where it is said what to do."""
        text = _text(node)
        if text is not None:
            assert isinstance(node, ast.expr)
            if self._is_followed(node, text, to_do=to_do):
                yield node, text
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name == "command_line":
                yield node, ast.unparse(node)
                return
            if _DECLARES.search(name):
                return
            first = node.args[:1] if _ABOUT.search(name) else []
            for argument in node.args[len(first) :]:
                yield from self.below(argument, to_do=to_do)
            for keyword in node.keywords:
                yield from self.below(keyword.value, to_do=to_do or keyword.arg in _TO_DO)
            return
        for child in ast.iter_child_nodes(node):
            yield from self.below(child, to_do=to_do)

    def _is_followed(self, node: ast.expr, text: str, *, to_do: bool) -> bool:
        if text.startswith("#") or " " not in text:
            return False
        if self._command.search(text) or "command_line(" in ast.unparse(node):
            return True
        if _SHELL.search(text):
            return True
        return bool(self._option.search(text) or (to_do and _SETTING.search(text)))


def _options() -> set[str]:
    """Every long option that some command has."""
    return {
        word
        for name in command_names(cli)
        for parameter in command_called(name).params
        for word in (*parameter.opts, *parameter.secondary_opts)
        if word.startswith("--") and word not in ("--local", "--ssh")
    }


def command_called(name: str) -> click.Command:
    """The command of this name, such as ``rack show``."""
    command: click.Command = cli
    for word in name.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    return command


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
    return "".join(map(str, parts))
