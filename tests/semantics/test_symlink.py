"""Symbolic links that lead into the mount: every operation is on the link itself, whoever follows it is the client.

A daemon that follows one waits for itself, for good (fuse-overlayfs: getxattr on such a link hangs the mount).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import expect, opened
from tests.rigs import Mounted
from tests.semantics.unions import Union, contents

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

KINDS = ("to_file", "to_directory", "to_itself", "to_nothing", "to_root", "new")


def links(d: Path) -> None:
    """Absolute links that point into the mount which is going to show `d`."""
    mnt = d.parents[1] / "mnt" / d.name  # tests/rigs.py: the mount lies beside its layers
    (d / "file").write_bytes(b"target")
    (d / "directory").mkdir()
    (d / "directory" / "inner").write_bytes(b"inner")
    for name, target in (
        ("to_file", "file"), ("to_directory", "directory"), ("to_itself", "to_itself"), ("to_nothing", "nothing"),
        ("to_root", ""),
    ):  # fmt: skip
        os.symlink(mnt / target, d / name)


def existing(mnt: Path, kind: str) -> Path:
    if kind == "new":
        os.symlink(mnt / "file", mnt / "new")
    return mnt / kind


@pytest.mark.populate(base=links)
@pytest.mark.parametrize("kind", KINDS)
def test_xattr_calls_on_an_absolute_link_into_the_mount(mnt: Path, kind: str) -> None:
    link = existing(mnt, kind)
    assert os.listxattr(link, follow_symlinks=False) == []
    with expect(errno.ENODATA):
        os.getxattr(link, "trusted.note", follow_symlinks=False)
    with expect(errno.ENODATA):
        os.removexattr(link, "trusted.note", follow_symlinks=False)
    with expect(errno.EPERM):  # xattr_permission(): user.* is for files and directories
        os.setxattr(link, "user.note", b"1", follow_symlinks=False)
    os.setxattr(link, "trusted.note", b"of the link", follow_symlinks=False)
    assert os.getxattr(link, "trusted.note", follow_symlinks=False) == b"of the link"
    assert os.listxattr(link, follow_symlinks=False) == ["trusted.note"]
    assert os.listxattr(mnt / "file") == os.listxattr(mnt / "directory") == []
    os.removexattr(link, "trusted.note", follow_symlinks=False)
    assert os.listxattr(link, follow_symlinks=False) == []


@pytest.mark.populate(base=links)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_else_is_of_the_link_too(mnt: Path, kind: str) -> None:
    link = existing(mnt, kind)
    target = os.readlink(link)
    os.chown(link, 7, 8, follow_symlinks=False)
    os.utime(link, ns=(1_000_000_001, 2_000_000_002), follow_symlinks=False)
    os.link(link, mnt / "second", follow_symlinks=False)
    os.rename(link, mnt / "third")
    for name in ("second", "third"):
        st = os.lstat(mnt / name)
        assert stat.S_ISLNK(st.st_mode)
        assert (st.st_uid, st.st_gid, st.st_mtime_ns, st.st_nlink) == (7, 8, 2_000_000_002, 2)
        assert os.readlink(mnt / name) == target
    with opened(mnt / "third", os.O_PATH | os.O_NOFOLLOW) as fd:
        assert os.readlink("", dir_fd=fd) == target
    os.unlink(mnt / "second")
    os.unlink(mnt / "third")
    st = os.lstat(mnt / "file")
    assert (st.st_uid, st.st_nlink, (mnt / "file").read_bytes()) == (0, 1, b"target")


@pytest.mark.populate(base=links)
def test_client_that_follows_ends_up_in_the_mount(mnt: Path) -> None:
    assert (mnt / "to_file").read_bytes() == b"target"
    assert (mnt / "to_directory" / "inner").read_bytes() == b"inner"
    assert os.listdir(mnt / "to_root" / "to_root" / "to_directory") == ["inner"]
    with expect(errno.ELOOP):
        os.stat(mnt / "to_itself")
    with expect(errno.ENOENT):
        os.stat(mnt / "to_nothing")
    (mnt / "to_nothing").write_bytes(b"made through the link")
    assert (mnt / "nothing").read_bytes() == b"made through the link"


@pytest.mark.populate(base=links)
def test_write_through_a_link_copies_up_its_target_alone(mounted: Mounted, mnt: Path) -> None:
    with open(mnt / "to_file", "ab") as f:
        f.write(b" written")
    with open(mnt / "to_directory" / "inner", "ab") as f:
        f.write(b" written")
    assert mounted.upper is not None
    assert contents(mounted.upper / mnt.name) == {
        "directory": None,
        "directory/inner": b"inner written",
        "file": b"target written",
    }


def test_link_in_an_upper_layer_over_a_directory_is_not_followed_in_the_layers(union: Union, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "passwd").write_bytes(b"of the host")
    base = union.lower()
    (base / "etc").mkdir()
    (base / "etc" / "passwd").write_bytes(b"hidden")
    above = union.lower()
    os.symlink(tmp_path / "outside", above / "etc")
    mnt = union.mount()
    assert stat.S_ISLNK(os.lstat(mnt / "etc").st_mode)
    # In place of the link a directory: nothing of what lay behind the link or below it comes to light.
    os.unlink(mnt / "etc")
    os.mkdir(mnt / "etc")
    assert os.listdir(mnt / "etc") == []
    (mnt / "etc" / "passwd").write_bytes(b"new")
    union.remount()
    assert contents(mnt) == {"etc": None, "etc/passwd": b"new"}
    assert (tmp_path / "outside" / "passwd").read_bytes() == b"of the host"
