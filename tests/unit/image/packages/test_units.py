"""What enabling a unit means, read from the unit itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imager.image.packages.units import parse_install


def test_wanted_required_upheld_and_aliases_become_links() -> None:
    text = """[Unit]
WantedBy=not-here.target
[Install]
# a comment
WantedBy=multi-user.target \\
  graphical.target
RequiredBy = a.service
UpheldBy=b.service
Alias=dbus-org.example.service
Also=x.socket y.timer
"""
    install = parse_install("x.service", text)
    assert install.links == (
        "multi-user.target.wants/x.service",
        "graphical.target.wants/x.service",
        "a.service.requires/x.service",
        "b.service.upholds/x.service",
        "dbus-org.example.service",
    )
    assert install.also == ("x.socket", "y.timer")


def test_a_unit_without_install_section_cannot_be_enabled() -> None:
    text = "[Service]\nExecStart=/bin/true\n"
    install = parse_install("x.service", text)
    assert (install.links, install.also) == ((), ())
    assert parse_install("x.service", text) is install, "many nodes have the same"


def test_instances_are_left_out() -> None:
    text = "[Install]\nWantedBy=getty@.target\nAlias=%i.service autovt@.service\n"
    assert parse_install("x.service", text).links == ()


@given(st.text(max_size=100) | st.text(alphabet="[Install]\nAlso=\\ #x", max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    parse_install("x.service", text)
