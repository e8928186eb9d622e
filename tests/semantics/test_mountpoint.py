"""Where the mount lies: on one of its own layers, and beside other mounts of the same layers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.posix.tools import names
from tests.semantics.unions import Union, contents

pytestmark = [pytest.mark.needs("union"), pytest.mark.engine]


def a_tree(d: Path) -> None:
    (d / "dir").mkdir()
    (d / "dir" / "f").write_bytes(b"f")


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "below-another"])
def test_mountpoint_is_one_of_the_lowers(union: Union, others: int) -> None:
    """fuse-overlayfs waits for itself here: the daemon's own paths lead through its mount."""
    a_tree(union.lower(union.mnt))
    for _ in range(others):
        (union.lower() / "above").write_bytes(b"above")
    mnt = union.mount()
    assert (mnt / "dir" / "f").read_bytes() == b"f"
    with open(mnt / "dir" / "f", "ab") as f:
        f.write(b" changed")
    os.rename(mnt / "dir", mnt / "moved")
    (mnt / "new").write_bytes(b"new")
    wanted = {"moved": None, "moved/f": b"f changed", "new": b"new"} | ({"above": b"above"} if others else {})
    assert contents(mnt) == dict(sorted(wanted.items()))
    union.unmount()
    assert contents(mnt) == {"dir": None, "dir/f": b"f"}
    union.mount()
    assert contents(mnt) == dict(sorted(wanted.items()))


def test_two_mounts_share_a_lower(union: Union) -> None:
    base = union.lower()
    a_tree(base)
    another = union.another()
    another.lower(base)
    one, two = union.mount(), another.mount()
    (one / "dir" / "f").write_bytes(b"one")
    os.unlink(two / "dir" / "f")
    assert names(one / "dir") == {"f"}
    assert names(two / "dir") == set()
    assert (base / "dir" / "f").read_bytes() == b"f"


def test_union_is_a_layer_of_another_union(union: Union) -> None:
    a_tree(union.lower())
    (union.layers[0] / "gone").write_bytes(b"gone")
    inner = union.mount()
    os.chmod(inner / "dir" / "f", 0o600)
    os.unlink(inner / "gone")
    outer = union.another()
    outer.lower(inner)
    mnt = outer.mount()
    (mnt / "dir" / "f").write_bytes(b"outer")
    os.rename(mnt / "dir", mnt / "moved")
    os.mkdir(mnt / "dir")
    wanted = {"dir": None, "moved": None, "moved/f": b"outer"}
    assert contents(mnt) == wanted
    outer.remount()
    assert contents(mnt) == wanted
    outer.unmount()
    union.remount()
    assert contents(inner) == {"dir": None, "dir/f": b"f"}
    outer.mount()
    assert contents(mnt) == wanted


@pytest.mark.unlike("kernel", "it takes no upper that lies in an overlay (ovl_mount_dir)")
def test_upper_lies_in_another_union(union: Union) -> None:
    """As in a container that builds containers: whiteouts cannot be made there, and the outer must find another way."""
    (union.lower() / "private").mkdir()
    inner = union.mount()
    outer = union.another()
    base = outer.lower()
    a_tree(base)
    (base / "gone").write_bytes(b"gone")
    (base / "full").mkdir()
    (base / "full" / "hidden").write_bytes(b"hidden")
    outer.use(inner / "private")
    mnt = outer.mount()
    (mnt / "dir" / "f").write_bytes(b"outer")
    os.rename(mnt / "dir", mnt / "moved")
    os.mkdir(mnt / "dir")
    os.unlink(mnt / "gone")
    shutil.rmtree(mnt / "full")
    os.mkdir(mnt / "full")
    wanted = {"dir": None, "full": None, "moved": None, "moved/f": b"outer"}
    assert contents(mnt) == wanted
    outer.remount()
    assert contents(mnt) == wanted
    outer.unmount()
    union.remount()
    outer.mount()
    assert contents(mnt) == wanted
