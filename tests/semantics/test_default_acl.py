"""Default ACLs of lower directories: inherited in the union, kept over copy-up, rename, rotation and commit."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from tests.posix.tools import umask
from tests.semantics.unions import Union, copy_tree, same_tree

pytestmark = [pytest.mark.needs("union", "acl"), pytest.mark.needs_root]

USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 16, 32
UNDEFINED = 0xFFFFFFFF
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """(tag, permissions, id) as linux/posix_acl_xattr.h has them: version 2, then 8 bytes an entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def entries(value: bytes) -> set[tuple[int, int, int]]:
    return {(tag, allowed, who) for tag, allowed, who in struct.iter_unpack("<HHI", value[4:])}


PARENT = acl(
    (USER_OBJ, 7, UNDEFINED), (USER, 6, 1234), (GROUP_OBJ, 5, UNDEFINED), (MASK, 7, UNDEFINED), (OTHER, 0, UNDEFINED)
)


def with_default(d: Path) -> None:
    (d / "dir" / "sub").mkdir(parents=True)
    for name in ("dir", "dir/sub"):
        os.setxattr(d / name, DEFAULT, PARENT)
    (d / "dir" / "old").write_bytes(b"old")
    os.setxattr(d / "dir" / "old", ACCESS, PARENT)


@pytest.mark.parametrize("when", ["lower", "renamed", "rotated"])
def test_new_entries_inherit_whatever_the_umask(union: Union, when: str) -> None:
    with_default(union.lower())
    mnt = union.mount()
    place = mnt / "dir" / "sub"
    if when == "renamed":
        os.rename(mnt / "dir", mnt / "moved")
        place = mnt / "moved" / "sub"
    elif when == "rotated":
        os.chmod(mnt / "dir" / "sub", 0o711)
        union.rotate()
    with umask(0o077):
        os.close(os.open(place / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(place / "made", 0o777)
        os.mkfifo(place / "fifo", 0o666)
    # acl(5): the mode the call asks for, intersected with the default ACL; no umask.
    for name in ("file", "fifo"):
        assert stat.S_IMODE(os.stat(place / name).st_mode) == 0o660
        assert entries(os.getxattr(place / name, ACCESS)) == entries(PARENT) ^ {
            (USER_OBJ, 7, UNDEFINED), (USER_OBJ, 6, UNDEFINED), (MASK, 7, UNDEFINED), (MASK, 6, UNDEFINED),
        }  # fmt: skip
    assert os.getxattr(place / "made", DEFAULT) == PARENT
    assert entries(os.getxattr(place / "made", ACCESS)) == entries(PARENT)
    assert os.getxattr(place, DEFAULT) == PARENT


def test_acls_are_kept_over_copy_up_remount_and_commit(union: Union) -> None:
    with_default(union.lower())
    mnt = union.mount()
    with open(mnt / "dir" / "old", "ab") as f:
        f.write(b" new")
    (mnt / "dir" / "sub" / "file").write_bytes(b"x")
    assert entries(os.getxattr(mnt / "dir" / "old", ACCESS)) == entries(PARENT)
    os.chmod(mnt / "dir" / "old", 0o600)  # the mask follows the group bits
    assert (MASK, 0, UNDEFINED) in entries(os.getxattr(mnt / "dir" / "old", ACCESS))
    union.remount()
    assert (MASK, 0, UNDEFINED) in entries(os.getxattr(mnt / "dir" / "old", ACCESS))
    assert os.getxattr(mnt / "dir", DEFAULT) == PARENT
    seen = copy_tree(mnt, union.directory / "seen")
    same_tree(union.flattened(union.directory / "flat"), seen)
