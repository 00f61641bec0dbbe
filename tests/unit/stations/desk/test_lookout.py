"""A station says when a card is put in or taken out, and now and then that nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.stations.desk import lookout
from imager.stations.desk.lookout import changes
from tests.support.sysfs import FakeHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(lookout, "_LOOK_SECONDS", 0.001)
    host = FakeHost(tmp_path)
    host.disk("sdb", "8:16", gib=4, diskseq="7")
    return host


def test_a_change_is_told_at_once(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    said = changes(host.kernel, 60.0)
    assert next(said) is False, "it is there"
    host.disk("sdc", "8:32", gib=4, diskseq="8")
    assert next(said) is True
    (host.root / "dev/disk/by-path").mkdir()
    (host.root / "dev/disk/by-path/pci-sdc").symlink_to("../../sdc")
    assert next(said) is True, "only now its slot has a name"
    (host.root / "sys/class/block/sdb/size").write_text("0\n")
    assert next(said) is True, "it was taken out"
    monkeypatch.setattr(lookout, "_BEAT_SECONDS", 0.01)
    assert next(said) is False
    assert set(changes(host.kernel, 0.05)) == {False}
