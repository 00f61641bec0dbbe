"""The process in which templates are rendered: it can compute, and nothing else.

In: one JSON object a line on the socket that is descriptor 0: values by name, then a template.
Out: one JSON object a line there: the text, or what is wrong. Started by
``imager.node.files.templates``; imports nothing else of this program but the limits.

A template may come from a stranger. First wall: it is given text, numbers, truth values, tuples of
them and records of them, and nothing that has a method of ours. Second: Jinja2's sandbox, with the
filters named here. Third: a process without privileges that can open and write no file and start
no other, with so much memory and so much time.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import traceback
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType
from typing import NoReturn, TypeAlias

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from imager.node.files.template_limits import MEMORY_BYTES, OUTPUT_BYTES, SECONDS, TEXT, MiB

FILTERS = (
    *("abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape"),
    *("filesizeformat", "first", "float", "forceescape", "format", "groupby", "indent", "int"),
    *("items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject"),
    *("rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice"),
    *("sort", "string", "striptags", "sum", "title", "tojson", "trim", "truncate", "unique"),
    *("upper", "urlencode", "wordcount", "wordwrap"),
)
"""Of Jinja2's, those that compute. Not ``random``: a card made twice is the same twice."""
TESTS = (
    *("boolean", "defined", "divisibleby", "eq", "equalto", "==", "escaped", "even", "false"),
    *("float", "ge", ">=", "gt", ">", "greaterthan", "in", "integer", "iterable", "le", "<="),
    *("lower", "lt", "<", "lessthan", "mapping", "ne", "!=", "none", "number", "odd", "sameas"),
    *("sequence", "string", "true", "undefined", "upper"),
)
_NAME = "<template>"
_LARGEST_KEPT = 1 << 14
_NOBODY = 65534
_LONGEST_FAULT = 300

Value: TypeAlias = "str | int | float | bool | tuple[Value, ...] | Record | None"


class Record:
    """Values by name, as ``node``: they are its only attributes, it has no method, and nothing
    can be set."""

    __slots__ = ("__dict__",)

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} cannot be removed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return f"({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class TextRecord(str):
    """Text that has values by name besides, as ``node.address`` has ``ip``."""

    def __new__(cls, text: str, values: Mapping[str, Value]) -> TextRecord:
        made = super().__new__(cls, text)
        made.__dict__.update(values)
        return made

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} cannot be removed")


def frozen(plain: object) -> Value:
    """What a template is given for the JSON value ``plain``."""
    if isinstance(plain, dict):
        values = {name: frozen(value) for name, value in plain.items() if name != TEXT}
        return TextRecord(plain[TEXT], values) if TEXT in plain else Record(values)
    if isinstance(plain, list | tuple):
        return tuple(frozen(item) for item in plain)
    if plain is None or isinstance(plain, str | int | float):
        return plain
    raise TypeError(f"{type(plain).__name__} is nothing a template may have")


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2 with the few filters and tests named above, and no globals."""

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            # Else "a" * 9999 is worked out when a template is compiled, and kept with it.
            optimized=False,
        )
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.tests = {name: self.tests[name] for name in TESTS}
        self.globals = {}

    def getattr(self, obj: object, attribute: str) -> object:
        """As Jinja2; a record says which values it has when it is asked for another."""
        if isinstance(obj, Record) and attribute not in vars(obj):
            return self._no_value(vars(obj), attribute)
        if isinstance(obj, TextRecord) and not hasattr(obj, attribute):
            return self._no_value(vars(obj), attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        """``node["name"]`` is ``node.name``."""
        if isinstance(obj, Record) and isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def _no_value(self, values: Mapping[str, object], name: str) -> Undefined:
        known = ", ".join(sorted(values))
        return self.undefined(f"there is no value {name!r} here; there are {known}", name=name)


def render(environment: Environment, text: str, values: Mapping[str, Value]) -> dict[str, object]:
    """The answer for the template ``text``: its ``text``, or a ``fault`` of a ``line``, or the
    ``limit`` it breaks."""
    try:
        code = (_kept if len(text) <= _LARGEST_KEPT else _compiled)(environment, text)
        made = _joined(Template.from_code(environment, code, {}), values)
    except MemoryError:
        return {"limit": f"needs more than {MEMORY_BYTES // MiB} MiB of memory"}
    except TemplateSyntaxError as error:
        return {"line": error.lineno, "fault": _short(error.message or "")}
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        AssertionError,
        SyntaxError,
        RuntimeError,
    ) as error:
        return {"line": _line(error), "fault": _short(str(error) or type(error).__name__)}
    if made is None:
        return {"limit": f"makes more than {OUTPUT_BYTES // MiB} MiB of text"}
    return {"text": made}


def _compiled(environment: Environment, text: str) -> CodeType:
    return environment.compile(text, name=_NAME, filename=_NAME)


_kept = lru_cache(maxsize=64)(_compiled)
"""Most templates of a card are those of the card before."""


def _joined(template: Template, values: Mapping[str, Value]) -> str | None:
    pieces, size = [], 0
    for piece in template.generate(values):
        size += len(piece.encode())
        if size > OUTPUT_BYTES:
            return None
        pieces.append(piece)
    return "".join(pieces)


def _line(error: BaseException) -> int:
    """The template line that raised ``error``: Jinja2 rewrites its tracebacks to name it."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == _NAME]
    return lines[-1] if lines else 0


def _short(message: str) -> str:
    """``message`` on one line that is not long: it may hold what the template made."""
    return " ".join(message.split())[:_LONGEST_FAULT]


def give_up_everything() -> None:
    """Leave this process nothing but memory, time and the socket."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    os.chdir("/")
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        resource.setrlimit(limit, (value, value))


def main() -> None:
    """Answer until nobody asks any more."""
    environment = Environment()
    # What is imported only now and then must be there before no file can be opened.
    render(environment, "{{ '%s' % 1 }}{{ nobody }}", {})
    render(environment, "{% if", {})
    link = socket.socket(fileno=0)
    lines = link.makefile("rb")
    give_up_everything()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    link.sendall(b"{}\n")
    values: dict[str, Value] = {}
    for line in lines:
        asked = json.loads(line)
        values |= {name: frozen(plain) for name, plain in asked["values"].items()}
        # Whoever asked looks at the clock too, but may have been killed meanwhile.
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
        answer = render(environment, asked["template"], values)
        signal.setitimer(signal.ITIMER_REAL, 0)
        link.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
