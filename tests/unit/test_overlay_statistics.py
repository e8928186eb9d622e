"""The engine's counters without and with a transport's."""

from __future__ import annotations

import errno
from pathlib import Path

from tests.posix.tools import expect
from tests.unit.overlay_rig import tree, union
from unionfs.overlay.statistics import COUNTERS
from unionfs.vfs import ROOT


def test_without_a_transport_only_what_layers_were_asked(tmp_path: Path) -> None:
    with union(tmp_path, [tree(tmp_path / "base", d__f="f")]) as rig:
        assert rig.fs.statistics() == {**dict.fromkeys(COUNTERS, 0), "inodes": 1, "handles": 0, "fetched_bytes": 0}
        rig.read("d/f")
        assert not rig.exists("d/no")
        assert (rig.fs.statistics()["lookups"], rig.fs.statistics()["negative_lookups"]) == (3, 1)


def test_hits_are_the_requests_that_asked_no_layer(tmp_path: Path) -> None:
    with union(tmp_path, [tree(tmp_path / "base", f="f")]) as rig:
        requests = {"request_lookup": 0, "request_getattr": 0, "passthrough_open": 7}
        rig.fs.attach(None, lambda: requests)
        node = rig.fs.lookup(ROOT, b"f").node
        for _ in range(4):
            rig.fs.lookup(ROOT, b"f")
            rig.fs.getattr(node)
        with expect(errno.ENOENT):
            rig.fs.lookup(ROOT, b"no")
        requests.update(request_lookup=6, request_getattr=4)
        counts = rig.fs.statistics()
        assert (counts["lookup_hits"], counts["lookups"], counts["negative_lookups"]) == (4, 1, 1)
        assert (counts["attribute_hits"], counts["attribute_misses"]) == (4, 0)
        assert (counts["listings"], counts["listing_hits"], counts["passthrough_open"]) == (1, 1, 7)
        rig.fs.forget(node, 5)
