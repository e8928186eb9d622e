"""`unionfs show` of a live mount: its layers are those of the record, and its changes wait while they are read."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from cli import show_schemas as schemas
from tests.compat.real_mount import RealStack, each_transport
from tests.unit.cli_runner import program, refused
from tests.unit.overlay_rig import tree

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def told(stack: RealStack, *words: str | Path) -> schemas.LayerTree:
    return schemas.LayerTree.model_validate_json(stack.unionfs("show", *words, "--json"))


def holds(stack: RealStack) -> int:
    """How often the changes of the mount waited."""
    (mount,) = [one for one in json.loads(stack.unionfs("mounts", "--json")) if one["mountpoint"] == str(stack.mnt)]
    return int(mount["statistics"]["holds"])


@each_transport("devfuse")
def test_show_of_a_live_mount(stack: RealStack) -> None:
    tree(stack.lower(), etc__motd="base", etc__passwd="root", srv__x="x")
    tree(stack.lower(), etc__motd="top")
    top, base = stack.layers
    with stack.mounted() as mnt:
        (mnt / "etc/passwd").unlink()
        os.rename(mnt / "srv", mnt / "www")
        with open(mnt / "etc/motd", "a") as file:
            file.write(" changed")
            file.flush()
            found = told(stack, mnt)
        assert (found.title, [layer.path for layer in found.layers]) == (
            str(mnt),
            [str(stack.upper), str(top), str(base)],
        )
        rows = {row.path: row for row in found.rows}
        assert {path: row.state for path, row in rows.items()} == {
            "": "merged",
            "etc": "merged",
            "etc/motd": "changed",
            "etc/passwd": "deleted",
            "srv": "deleted",
            "srv/x": "deleted",
            "www": "moved",
            "www/x": "single",
        }
        origin, data = rows["etc/motd"].origin, rows["www/x"].data
        assert origin is not None and (origin.layer, origin.path) == (1, "etc/motd")
        assert data is not None and data.file == str(base / "srv/x")
        assert rows["etc/motd"].parts[0].size == len("top changed")
        assert holds(stack) == 1
        assert (told(stack, mnt, "--no-pause"), holds(stack)) == (found, 1)

        assert [row.path for row in told(stack, mnt / "etc").rows] == ["etc", "etc/motd", "etc/passwd"]
        assert [row.path for row in told(stack, mnt, "--path", "www").rows] == ["www", "www/x"]
        stack.unionfs("show", mnt, "-o", mnt / "itself.svg")  # the mount does not wait for itself
        assert (mnt / "itself.svg").read_bytes().endswith(b"</svg>\n")
        refused(program("show", mnt / "nothing"), 1, "layer")


@each_transport("devfuse")
def test_a_mount_without_an_upper_has_nothing_to_wait_for(stack: RealStack) -> None:
    base = tree(stack.lower(), etc__motd="base")
    with tarfile.open(f"{base}.tar", "w") as tar:
        tar.add(base, ".")
    stack.unionfs("mount", "-l", base, "-l", f"{base}.tar", stack.mnt)
    try:
        found = told(stack, stack.mnt)
        assert [layer.name for layer in found.layers] == ["layer0", "layer0.tar"]
        assert {row.path: row.state for row in found.rows} == {"": "merged", "etc": "merged", "etc/motd": "overridden"}
    finally:
        stack.unionfs("umount", stack.mnt)
