"""link(2): one inode with several names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.tools import expect, mode, names, opened


def lower_links(d: Path) -> None:
    (d / "a").write_bytes(b"shared")
    os.link(d / "a", d / "b")
    (d / "dir").mkdir()
    os.link(d / "a", d / "dir" / "c")


def lower_file(d: Path) -> None:
    (d / "file").write_bytes(b"data")
    (d / "dir").mkdir()
    (d / "link").symlink_to("file")


@pytest.mark.populate(base=lower_file)
def test_link_is_the_same_inode(mnt: Path) -> None:
    os.link(mnt / "file", mnt / "dir" / "second")
    one, two = os.stat(mnt / "file"), os.stat(mnt / "dir" / "second")
    assert (one.st_ino, one.st_dev) == (two.st_ino, two.st_dev)
    assert one.st_nlink == two.st_nlink == 2


def test_data_and_attributes_are_shared(mnt: Path) -> None:
    (mnt / "a").write_bytes(b"one")
    os.link(mnt / "a", mnt / "b")
    (mnt / "b").write_bytes(b"two!")
    assert (mnt / "a").read_bytes() == b"two!"
    os.chmod(mnt / "a", 0o600)
    assert mode(mnt / "b") == 0o600
    assert os.stat(mnt / "a").st_size == 4


def test_unlink_of_one_name_leaves_the_other(mnt: Path) -> None:
    (mnt / "a").write_bytes(b"data")
    os.link(mnt / "a", mnt / "b")
    os.unlink(mnt / "a")
    assert (mnt / "b").read_bytes() == b"data"
    assert os.stat(mnt / "b").st_nlink == 1


@pytest.mark.populate(base=lower_links)
def test_old_links_are_one_inode(mnt: Path) -> None:
    found = [os.stat(mnt / name) for name in ("a", "b", "dir/c")]
    assert len({st.st_ino for st in found}) == 1
    assert [st.st_nlink for st in found] == [3, 3, 3]


@pytest.mark.populate(base=lower_links)
def test_write_through_one_old_name_is_seen_through_all(mnt: Path) -> None:
    ino = os.stat(mnt / "a").st_ino
    (mnt / "b").write_bytes(b"changed")
    for name in ("a", "b", "dir/c"):
        assert (mnt / name).read_bytes() == b"changed"
        assert os.stat(mnt / name).st_ino == ino
        assert os.stat(mnt / name).st_nlink == 3


@pytest.mark.populate(base=lower_links)
def test_chmod_of_one_old_name_is_seen_through_all(mnt: Path) -> None:
    os.chmod(mnt / "dir" / "c", 0o604)
    assert {mode(mnt / name) for name in ("a", "b", "dir/c")} == {0o604}


@pytest.mark.populate(base=lower_links)
def test_link_count_follows_unlink_and_link_of_old_names(mnt: Path) -> None:
    os.unlink(mnt / "a")
    assert os.stat(mnt / "b").st_nlink == 2
    os.link(mnt / "b", mnt / "d")
    assert {os.stat(mnt / name).st_nlink for name in ("b", "d", "dir/c")} == {3}
    os.unlink(mnt / "b")
    os.unlink(mnt / "dir" / "c")
    assert os.stat(mnt / "d").st_nlink == 1
    assert (mnt / "d").read_bytes() == b"shared"


@pytest.mark.populate(base=lower_links)
def test_rename_over_one_old_name_lowers_the_count(mnt: Path) -> None:
    (mnt / "new").write_bytes(b"new")
    os.rename(mnt / "new", mnt / "a")
    assert os.stat(mnt / "b").st_nlink == 2
    assert (mnt / "b").read_bytes() == b"shared"
    assert os.stat(mnt / "a").st_nlink == 1


@pytest.mark.populate(base=lower_file)
def test_link_of_a_symlink_is_a_second_name_of_the_symlink(mnt: Path) -> None:
    os.link(mnt / "link", mnt / "link2", follow_symlinks=False)
    assert os.readlink(mnt / "link2") == "file"
    assert os.lstat(mnt / "link2").st_nlink == 2
    assert os.stat(mnt / "file").st_nlink == 1


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_link_of_a_special_file(mnt: Path, kind: str) -> None:
    os.mknod(mnt / "s", {"fifo": 0o010644, "socket": 0o140644}[kind])
    os.link(mnt / "s", mnt / "t")
    assert os.lstat(mnt / "s").st_ino == os.lstat(mnt / "t").st_ino
    assert os.lstat(mnt / "t").st_nlink == 2


@pytest.mark.populate(base=lower_file)
def test_link_errors(mnt: Path) -> None:
    with expect(errno.EPERM):
        os.link(mnt / "dir", mnt / "dir2")
    with expect(errno.EEXIST):
        os.link(mnt / "file", mnt / "dir")
    with expect(errno.EEXIST):
        os.link(mnt / "file", mnt / "file")
    with expect(errno.ENOENT):
        os.link(mnt / "no", mnt / "x")
    with expect(errno.ENOENT):
        os.link(mnt / "file", mnt / "no" / "x")
    with expect(errno.ENOTDIR):
        os.link(mnt / "file", mnt / "file" / "x")
    with expect(errno.ENAMETOOLONG):
        os.link(mnt / "file", mnt / ("x" * 256))
    assert os.stat(mnt / "file").st_nlink == 1
    assert names(mnt) == {"file", "dir", "link"}


@pytest.mark.populate(base=lower_file)
def test_link_of_an_open_old_file_shares_later_writes(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDWR) as fd:
        os.link(mnt / "file", mnt / "second")
        os.write(fd, b"DATA")
    assert (mnt / "second").read_bytes() == b"DATA"


def test_hundred_links(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"x")
    for i in range(100):
        os.link(mnt / "f", mnt / f"l{i}")
    assert os.stat(mnt / "f").st_nlink == 101
    for i in range(100):
        os.unlink(mnt / f"l{i}")
    assert os.stat(mnt / "f").st_nlink == 1
