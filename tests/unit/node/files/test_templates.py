"""Templates of strangers: they compute from plain values, within limits, and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Undefined

from imager.base.errors import ToolFailed
from imager.config.load import parse_rack
from imager.config.shipped_trees import trees_folder
from imager.node.files import template_limits, templates
from imager.node.files.card_values import CardValues
from imager.node.files.sandbox import Environment, Record, TextRecord, Value, frozen
from imager.node.files.template_values import card_plain, node_values, rack_values
from imager.node.files.templates import (
    Allowance,
    Renderer,
    TemplateFault,
    TemplateOverLimit,
    Templates,
)

RACK = parse_rack(
    Path("/nowhere"),
    """
[rack]
nodes = "pi[7-9]"
master = "pi7"
timezone = "Europe/Brussels"
[network]
addresses = "10.0.0.[17-19]"
prefix = 24
gateway = "10.0.0.1"
dns = ["10.0.0.1", "9.9.9.9"]
[login]
authorized_keys = [
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJu2LrqDrzaLM4B5Oi0xZbCvxDbYzNjdBOfCjD8a+mNU a",
]
""",
)
NODE = RACK.node("pi8")
CARD = CardValues("m" * 32, "b-01", "r-02", "uuid", 1_790_000_000, "aa:bb")
PATH = Path("/rack/overlays/base/root/etc/motd.j2")


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


def rendered(renderer: Renderer, text: str) -> str:
    return Templates(renderer, RACK, NODE, CARD).render(PATH, text)


def children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def child_of(renderer: Renderer, before: set[str]) -> str:
    assert rendered(renderer, "x") == "x"
    (pid,) = children() - before
    return pid


READS_AND_WRITES = [
    '{% set p = rack.folder.joinpath("NEW") %}{% set _ = p.write_text("x") %}'
    "{% set _ = p.chmod(2541) %}",
    '{{ rack.folder.joinpath("/etc/shadow").read_bytes().hex() }}',
    "{{ rack.state.parent }}",
    "{{ rack.keys.path.iterdir() }}",
    "{{ rack.overlays.parent }}",
    '{{ rack.node("pi7").name }}',
    "{{ node.name.open() }}",
    "{{ card.__dict__ }}",
    "{{ node.__class__ }}",
    '{{ node["__class__"] }}',
    "{{ node.address.__dict__ }}",
    "{{ node.address.ip.__class__ }}",
    "{{ ().__class__.__mro__ }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ ['x'] | map(attribute='__class__') | join }}",
    "{{ '{0.__class__}'.format(node) }}",
    "{{ '{x.__init__.__globals__}'.format_map({'x': node}) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner() }}",
    "{{ namespace(a=1).a }}",
    "{{ dict.__base__ }}",
    "{{ range.__self__ }}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
    "{{ (1).to_bytes.__self__.__class__ }}",
    "{{ [1].append(2) }}",
    "{{ {'a': 1}.update({}) }}",
    "{% set node.name = 'x' %}",
    "{% do node %}",
    "{{ [1, 2] | random }}",
    "{{ node | pprint }}",
    "{{ open('/etc/passwd') }}",
    "{{ __import__('os') }}",
    "{{ '\\ud800' }}",
    "{{ 10 ** 5000 }}",
    "{{ range(10 ** 9) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
    "{{ " + "-" * 20000 + "1 }}",
]
"""What must be a fault of a line of the template, and no more than that."""

NESTED = "{% for i in [0] * 99999 %}{% for j in [0] * 99999 %}{% endfor %}{% endfor %}"
COSTS = [
    '{{ "a"*9999999999 }}',
    '{{ 9999999999 * "ab" }}',
    "{{ 'a' * 300000000 }}",
    "{{ 'a' * 1100000 }}",
    "{% for i in [0] * 99999 %}0123456789012{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ 'x' | center(999999999) }}",
    "{{ 'x\n' | indent(999999999, true) }}",
    "{{ '\t'.expandtabs(2000000000) }}",
    "{{ 'a'.zfill(999999999) }}",
    "{{ (1).to_bytes(999999999, 'big') }}",
    "{{ ((1,) * 999999999) | length }}",
    "{{ [rack] * 999999999 }}",
    "{{ 'a' | replace('a', 'b' * 9999999) | replace('b', 'c' * 9999999) }}",
    "{{ ([0] * 99999) | map('string') | map('center', 99999) | join }}",
    "{{ ([0] * 99999) | string * 99999 }}",
    "{% filter center(999999999) %}x{% endfilter %}",
    NESTED,
    "{% set x = 9 ** 99999999 %}",
    "{% set x = 99999 ** (([999] * 99999) | sum) %}",
    "x" * (template_limits.SOURCE_BYTES + 1),
]
"""What must end at a limit."""


def short(text: str) -> str:
    return re.sub(r"\W+", " ", text)[:40]


@pytest.mark.parametrize("text", READS_AND_WRITES, ids=short)
def test_what_a_template_may_not_is_a_fault_of_its_line(
    renderer: Renderer, tmp_path: Path, text: str
) -> None:
    new = tmp_path / "new"
    with pytest.raises(TemplateFault) as caught:
        rendered(renderer, "\n" + text.replace("NEW", str(new)))
    assert re.match(rf"{PATH}:[0-2]: .{{3,}}\Z", str(caught.value)), "names file and line, on one"
    assert not new.exists()
    assert rendered(renderer, "{{ node.name }}") == "pi8"


@pytest.mark.parametrize("text", COSTS, ids=short)
def test_what_costs_too_much_is_named_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(templates, "SECONDS", 2)
    before = children()
    with Renderer() as renderer:
        with pytest.raises(TemplateOverLimit) as caught:
            rendered(renderer, text)
        assert str(caught.value).startswith(f"{PATH}: ")
        assert children() == before
        assert rendered(renderer, "{{ node.name }}") == "pi8"
    assert children() == before


def test_the_templates_of_a_card_have_one_clock(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer
) -> None:
    monkeypatch.setattr(templates, "SECONDS", 2)
    card = Templates(renderer, RACK, NODE, CARD)
    slow = "{% for i in [0] * 3000 %}{% for j in [0] * 100 %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateOverLimit, match="the templates of one card have 2 s"):
        for _ in range(1000):
            card.render(PATH, slow)


def test_cards_that_are_looked_at_have_one_clock(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer
) -> None:
    monkeypatch.setattr(templates, "SECONDS", 1)
    together = Allowance(5)
    assert together.seconds == 1 + 5 * template_limits.SECONDS_MORE
    slow = "{% for i in [0] * 3000 %}{% for j in [0] * 100 %}{% endfor %}{% endfor %}"
    made = 0
    with pytest.raises(TemplateOverLimit, match="the templates of all cards take too long"):
        for _ in range(1000):
            card = Templates(renderer, RACK, NODE, CARD, together)
            card.render(PATH, slow)
            made += 1
    assert 1 < made < 1000
    assert rendered(renderer, "x") == "x", "who makes a card has the clock of that card alone"


@pytest.fixture
def many_groups() -> Iterator[None]:
    """As root is a member of some on most computers."""
    groups = os.getgroups()
    if os.geteuid() == 0:
        os.setgroups([4, 6])
    yield
    if os.geteuid() == 0:
        os.setgroups(groups)


@pytest.mark.usefixtures("many_groups")
def test_the_process_that_renders_can_neither_open_write_nor_start_anything() -> None:
    before = children()
    with Renderer() as renderer:
        process = Path("/proc") / child_of(renderer, before)
        limits = process.joinpath("limits").read_text()
        status = process.joinpath("status").read_text()
        for what, most in (
            ("Max file size", 0),
            ("Max core file size", 0),
            ("Max processes", 0),
            ("Max open files", 0),
            ("Max address space", template_limits.MEMORY_BYTES),
        ):
            assert re.search(rf"^{what} +{most} +{most} ", limits, re.MULTILINE), what
        if os.geteuid() == 0:
            assert "Uid:\t65534\t65534\t65534\t65534" in status
            assert "Gid:\t65534\t65534\t65534\t65534" in status
            assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
            assert "CapEff:\t0000000000000000" in status
            assert "CapPrm:\t0000000000000000" in status
    assert children() == before


@pytest.mark.long(minutes=8)  # not really, but 40 s of a processor: for --all
def test_a_process_nobody_waits_for_ends_by_itself() -> None:
    """Whoever asked may be killed in the middle, and then nobody looks at the clock."""
    before = children()
    with Renderer() as renderer:
        pid = child_of(renderer, before)
        assert renderer._link is not None
        with pytest.raises(EOFError):
            renderer._link.ask({"values": {}, "template": NESTED}, 300)
        assert Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_a_process_that_is_killed_is_the_template_s_fault_and_the_next_one_is_new() -> None:
    before = children()
    with Renderer() as renderer:
        os.kill(int(child_of(renderer, before)), 9)
        with pytest.raises(TemplateOverLimit, match="ends the process that renders it"):
            rendered(renderer, "x")
        assert rendered(renderer, "x") == "x"


def test_a_process_that_cannot_start_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_START", "import nothing_of_the_kind")
    before = children()
    with Renderer() as renderer, pytest.raises(ToolFailed, match="No module named 'nothing_of_"):
        rendered(renderer, "x")
    assert children() == before


def test_no_process_is_started_where_there_is_no_template() -> None:
    before = children()
    with Renderer():
        assert children() == before


def test_each_rack_and_node_sees_its_own_values(renderer: Renderer) -> None:
    other = parse_rack(Path("/nowhere"), '[rack]\nname = "other"\nnodes = "a,b"\n')
    text = "{{ rack.name }} {{ node.name }} {{ rack.nodes | length }}"
    for rack, name, said in (
        (RACK, "pi7", "picloud pi7 3"),
        (RACK, "pi8", "picloud pi8 3"),
        (other, "a", "other a 2"),
        (RACK, "pi9", "picloud pi9 3"),
    ):
        assert Templates(renderer, rack, rack.node(name), CARD).render(PATH, text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ node.address }}", "10.0.0.18/24"),
        ("{{ node.address.ip }}", "10.0.0.18"),
        ("{{ node.address.network }}", "10.0.0.0/24"),
        ("{{ node.address.network.prefixlen }}", "24"),
        ("{{ node.address.netmask }}", "255.255.255.0"),
        ("{{ node.address.ip.reverse_pointer }}", "18.0.0.10.in-addr.arpa"),
        ("{{ node.address.ip == rack.nodes[1].address.ip }}", "True"),
        ("{{ rack.master.address | string }}", "10.0.0.17"),
        ("{% for n in rack.nodes if n != node %}{{ n.name }} {% endfor %}", "pi7 pi9 "),
        ("{{ rack.network.dns | join(' ') }}", "10.0.0.1 9.9.9.9"),
        ("{{ node['name'] }} {{ node.slot is none }}", "pi8 True"),
        ("{{ 'salt-minion' in node.roles }} {{ node.roles | join }}", "True salt-minion"),
        ("{{ rack.folder }}", "/nowhere"),
        ("{{ node.naem | default('none') }}", "none"),
        ("{% for x in [1] %}{{ loop.cycle('a', 'b') }}{% endfor %}\n", "a"),
    ],
)
def test_values_are_what_they_were_when_they_were_objects(
    renderer: Renderer, text: str, said: str
) -> None:
    assert rendered(renderer, text) == said


def test_every_value_the_documentation_names_is_there(renderer: Renderer) -> None:
    text = (trees_folder() / "overlays/README.md").read_text()
    names = set(re.findall(r"`((?:rack|node|card)\.[a-z_.]+)`", text)) - {"rack.toml"}
    assert len(names) >= 20
    for name in names:
        rendered(renderer, f"{{{{ {name} }}}}")


def test_nothing_a_template_is_given_has_a_method_but_text_numbers_and_tuples() -> None:
    environment = Environment()
    plain = {"rack": rack_values(RACK), "node": node_values(NODE), "card": card_plain(CARD)}
    seen: list[object] = []

    def walk(value: object, way: str) -> None:
        seen.append(value)
        assert isinstance(value, str | int | float | tuple | Record | None), f"{way}: {type(value)}"
        if isinstance(value, Record | TextRecord):
            base = str if isinstance(value, str) else object
            ours = set(dir(type(value))) - set(dir(base)) - {"__module__", "__slots__", "__dict__"}
            assert ours <= {"__weakref__"}, f"{way}: {ours}"
        if isinstance(value, tuple):
            for number in range(len(value)):
                walk(environment.getitem(value, number), f"{way}[{number}]")
        for name in dir(value):
            found = environment.getattr(value, name)
            where = f"{way}.{name}"
            if isinstance(found, Undefined):
                continue
            if not callable(found):
                if isinstance(value, Record | TextRecord) and name in vars(value):
                    walk(found, where)
                else:
                    assert type(found) is int, where  # numerator and the like
                continue
            assert isinstance(value, str | int | float | tuple), where
            kind = next(k for k in (str, int, float, tuple) if isinstance(value, k))
            assert name in dir(kind) and not name.startswith("_"), where
            is_formatter = kind is str and name in ("format", "format_map")
            assert is_formatter or type(found).__name__ == _BUILT_IN, where

    walk(frozen(json.loads(json.dumps(plain))), "values")
    assert len(seen) > 50
    assert not environment.globals
    assert not {"attr", "random", "pprint"} & set(environment.filters)
    assert "callable" not in environment.tests


@pytest.mark.parametrize("value", [Path("/"), b"bytes", {1}, len, RACK], ids=str)
def test_what_is_not_plain_cannot_be_given(value: object) -> None:
    with pytest.raises(TypeError, match="is nothing a template may have"):
        frozen({"x": [value]})


@pytest.mark.parametrize("record", [Record({"a": 1}), TextRecord("t", {"a": 1})], ids=str)
def test_records_are_frozen(record: Value) -> None:
    with pytest.raises(AttributeError):
        record.a = 2  # type: ignore[union-attr]
    with pytest.raises(AttributeError):
        del record.a  # type: ignore[union-attr]
    assert record.a == 1  # type: ignore[union-attr]
    hash(record)


_BUILT_IN = type("".join).__name__
PIECES = st.sampled_from(
    [
        *("{{", "}}", "{%", "%}", "{#", "#}", "if ", "else", "endif", "for x in ", "endfor"),
        *(
            "rack",
            "node",
            "card",
            ".name",
            ".address",
            ".ip",
            ".nodes",
            "[0]",
            "['a']",
            "x",
            "self",
        ),
        *("(", ")", "*", "+", "~", "%", "|", "=", ",", "-", "9", "99999", "'a'", "\n", " "),
        *(".format", ".join", ".__class__", "set x = ", "macro m()", "endmacro", "loop", "not "),
        *("is ", "defined", "length", "center", "list", "in ", "[", "]", "{", "}", ":"),
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_text_is_rendered_or_refused(renderer: Renderer, text: str) -> None:
    try:
        assert isinstance(rendered(renderer, text), str)
    except (TemplateFault, TemplateOverLimit) as error:
        assert str(error).startswith(f"{PATH}:")
        assert "\n" not in str(error)
