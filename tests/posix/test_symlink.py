"""symlink(2) and readlink(2)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, expect, ids, names


def lower_links(d: Path) -> None:
    (d / "file").write_bytes(b"data")
    (d / "dir").mkdir()
    (d / "dir" / "inner").write_bytes(b"inner")
    (d / "to-file").symlink_to("file")
    (d / "to-dir").symlink_to("dir")
    (d / "up").symlink_to("../" * 30 + "etc")
    (d / "loop").symlink_to("loop")


@pytest.mark.parametrize("target", ["file", "/absolute/path", "../..", "x" * 4095, "with space", "a//b/./c/"])
def test_target_is_kept_literally(mnt: Path, target: str) -> None:
    os.symlink(target, mnt / "link")
    assert os.readlink(mnt / "link") == target
    st = os.lstat(mnt / "link")
    assert stat.S_ISLNK(st.st_mode)
    assert st.st_size == len(target)
    assert stat.S_IMODE(st.st_mode) == 0o777


def test_target_is_bytes(mnt: Path) -> None:
    os.symlink(b"\xff\xfe", os.fsencode(mnt / "link"))
    assert os.readlink(os.fsencode(mnt / "link")) == b"\xff\xfe"


def test_target_too_long_or_empty(mnt: Path) -> None:
    with expect(errno.ENAMETOOLONG):
        os.symlink("x" * 4096, mnt / "link")
    with expect(errno.ENOENT):
        os.symlink("", mnt / "link")
    assert names(mnt) == set()


@pytest.mark.populate(base=lower_links)
def test_links_are_followed(mnt: Path) -> None:
    assert (mnt / "to-file").read_bytes() == b"data"
    assert (mnt / "to-dir" / "inner").read_bytes() == b"inner"
    (mnt / "to-dir" / "new").write_bytes(b"new")
    assert names(mnt / "dir") == {"inner", "new"}


@pytest.mark.populate(base=lower_links)
def test_write_through_a_link_changes_the_target(mnt: Path) -> None:
    (mnt / "to-file").write_bytes(b"changed")
    assert (mnt / "file").read_bytes() == b"changed"
    assert os.readlink(mnt / "to-file") == "file"


@pytest.mark.populate(base=lower_links)
def test_loops_are_eloop(mnt: Path) -> None:
    with expect(errno.ELOOP):
        os.stat(mnt / "loop")
    with expect(errno.ELOOP):
        os.open(mnt / "to-file", os.O_RDONLY | os.O_NOFOLLOW)


@pytest.mark.populate(base=lower_links)
def test_readlink_of_other_things_is_einval(mnt: Path) -> None:
    for name in ("file", "dir"):
        with expect(errno.EINVAL):
            os.readlink(mnt / name)


@pytest.mark.populate(base=lower_links)
def test_symlink_over_anything_is_eexist(mnt: Path) -> None:
    for name in ("file", "dir", "to-file", "loop"):
        with expect(errno.EEXIST):
            os.symlink("x", mnt / name)


@pytest.mark.needs_root
def test_new_link_belongs_to_the_caller(mnt: Path) -> None:
    mnt.chmod(0o777)
    as_user(lambda: os.symlink("x", mnt / "link"))
    assert ids(mnt / "link") == (NOBODY, NOBODY)


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_links)
def test_chown_of_the_link_itself(mnt: Path) -> None:
    os.lchown(mnt / "to-file", 5, 6)
    assert ids(mnt / "to-file") == (5, 6)
    assert ids(mnt / "file") == (0, 0)
    assert os.readlink(mnt / "to-file") == "file"


@pytest.mark.populate(base=lower_links)
def test_times_of_the_link_itself(mnt: Path) -> None:
    os.utime(mnt / "to-file", ns=(1_000_000_001, 2_000_000_002), follow_symlinks=False)
    assert os.lstat(mnt / "to-file").st_mtime_ns == 2_000_000_002
    assert os.stat(mnt / "file").st_mtime_ns != 2_000_000_002


@pytest.mark.populate(base=lower_links)
def test_links_out_of_the_tree_lead_out_of_it(mnt: Path) -> None:
    # The link is the client's to follow: it ends in the real /etc, whatever the layer's own place is.
    assert os.stat(mnt / "up").st_ino == os.stat("/etc").st_ino
