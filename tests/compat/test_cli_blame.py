"""`unionfs blame` and `waste` of a live mount, whose changes wait while they read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import blame_schemas, waste_schemas
from tests.compat.real_mount import RealStack, each_transport
from tests.unit.overlay_rig import tree

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@each_transport("devfuse")
def test_blame_and_waste_of_a_live_mount(stack: RealStack) -> None:
    tree(stack.lower(), etc__motd="base\n", gone__x="12345", keep="kept")
    with stack.mounted() as mnt:
        with open(mnt / "etc/motd", "a") as file:
            file.write("more\n")
        (mnt / "gone/x").unlink()
        (mnt / "keep").rename(mnt / "kept")

        lines = blame_schemas.BlamedLines.model_validate_json(
            stack.unionfs("blame", mnt / "etc/motd", "--lines", "--json")
        )
        assert [(line.layer, line.text) for line in lines.lines] == [(1, "base"), (0, "more")]
        deleted = blame_schemas.Blame.model_validate_json(stack.unionfs("blame", mnt / "gone/x", "--json"))
        assert (deleted.kind, [touch.action for touch in deleted.touches]) == (None, ["deleted", "added"])
        files = blame_schemas.BlamedTree.model_validate_json(stack.unionfs("blame", mnt, "--json")).files
        assert [(one.path, one.layer) for one in files] == [("etc/motd", 0), ("kept", 0)]

        for target in (mnt, Path(f"{mnt}/")):
            found = waste_schemas.Waste.model_validate_json(stack.unionfs("waste", target, "--json"))
            assert {(one.path, one.wasted, one.removed) for one in found.paths} == {
                ("/etc/motd", 5, False),
                ("/gone/x", 5, True),
                ("/keep", 4, True),
            }
