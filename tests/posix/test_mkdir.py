"""mkdir(2) and rmdir(2)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, expect, ids, mode, names, opened


def lower_tree(d: Path) -> None:
    (d / "dir").mkdir()
    (d / "dir" / "file").write_bytes(b"x")
    (d / "empty").mkdir()
    (d / "file").write_bytes(b"x")


def upper_tree(d: Path) -> None:
    (d / "dir").mkdir(exist_ok=True)
    (d / "dir" / "other").write_bytes(b"y")


def test_new_directory_is_empty(mnt: Path) -> None:
    os.mkdir(mnt / "d")
    st = (mnt / "d").stat()
    assert stat.S_ISDIR(st.st_mode)
    assert os.listdir(mnt / "d") == []


@pytest.mark.parametrize("bits", [0o700, 0o755, 0o1777, 0o000])
def test_mode_of_new_directory_is_as_given(mnt: Path, bits: int) -> None:
    os.mkdir(mnt / "d", bits)
    assert mode(mnt / "d") == bits & ~0o022


@pytest.mark.needs_root
def test_new_directory_belongs_to_the_caller(mnt: Path) -> None:
    mnt.chmod(0o777)
    as_user(lambda: os.mkdir(mnt / "d"))
    assert ids(mnt / "d") == (NOBODY, NOBODY)


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("name", ["dir", "file", "."])
def test_mkdir_over_anything_is_eexist(mnt: Path, name: str) -> None:
    with expect(errno.EEXIST):
        os.mkdir(f"{mnt}/{name}")


def test_mkdir_over_dangling_symlink_is_eexist(mnt: Path) -> None:
    (mnt / "link").symlink_to("nowhere")
    with expect(errno.EEXIST):
        os.mkdir(mnt / "link")


@pytest.mark.populate(base=lower_tree)
def test_mkdir_in_a_missing_or_wrong_place(mnt: Path) -> None:
    with expect(errno.ENOENT):
        os.mkdir(mnt / "no" / "d")
    with expect(errno.ENOTDIR):
        os.mkdir(mnt / "file" / "d")
    with expect(errno.ENAMETOOLONG):
        os.mkdir(mnt / ("d" * 256))


@pytest.mark.populate(base=lower_tree, above=upper_tree)
def test_rmdir_of_a_directory_with_entries_is_enotempty(mnt: Path) -> None:
    with expect(errno.ENOTEMPTY):
        os.rmdir(mnt / "dir")
    assert "file" in names(mnt / "dir")


@pytest.mark.populate(base=lower_tree)
def test_rmdir_of_an_empty_directory(mnt: Path) -> None:
    os.rmdir(mnt / "empty")
    assert names(mnt) == {"dir", "file"}
    with expect(errno.ENOENT):
        os.stat(mnt / "empty")
    with expect(errno.ENOENT):
        os.rmdir(mnt / "empty")


@pytest.mark.populate(base=lower_tree, above=upper_tree)
def test_rmdir_after_all_entries_went(mnt: Path) -> None:
    for name in os.listdir(mnt / "dir"):
        os.unlink(mnt / "dir" / name)
    assert os.listdir(mnt / "dir") == []
    os.rmdir(mnt / "dir")
    assert "dir" not in names(mnt)


@pytest.mark.populate(base=lower_tree, above=upper_tree)
def test_directory_made_again_after_removal_is_empty(mnt: Path) -> None:
    for name in os.listdir(mnt / "dir"):
        os.unlink(mnt / "dir" / name)
    os.rmdir(mnt / "dir")
    os.mkdir(mnt / "dir", 0o711)
    assert os.listdir(mnt / "dir") == []
    assert mode(mnt / "dir") == 0o711
    with expect(errno.ENOENT):
        os.stat(mnt / "dir" / "file")


@pytest.mark.populate(base=lower_tree)
def test_file_can_take_the_place_of_a_removed_directory(mnt: Path) -> None:
    os.rmdir(mnt / "empty")
    (mnt / "empty").write_bytes(b"now a file")
    assert (mnt / "empty").read_bytes() == b"now a file"


@pytest.mark.populate(base=lower_tree)
def test_directory_can_take_the_place_of_a_removed_file(mnt: Path) -> None:
    os.unlink(mnt / "file")
    os.mkdir(mnt / "file")
    (mnt / "file" / "in").write_bytes(b"x")
    assert names(mnt / "file") == {"in"}


@pytest.mark.populate(base=lower_tree)
def test_rmdir_of_wrong_things(mnt: Path) -> None:
    with expect(errno.ENOTDIR):
        os.rmdir(mnt / "file")
    with expect(errno.EINVAL):
        os.rmdir(f"{mnt}/empty/.")
    with expect(errno.ENOTEMPTY):
        os.rmdir(f"{mnt}/empty/..")
    os.symlink("empty", mnt / "link")
    with expect(errno.ENOTDIR):
        os.rmdir(mnt / "link")


def test_deep_tree_is_made_and_removed(mnt: Path) -> None:
    path = mnt
    for depth in range(40):
        path = path / f"level{depth}"
        path.mkdir()
    (path / "leaf").write_bytes(b"deep")
    assert (path / "leaf").read_bytes() == b"deep"
    (path / "leaf").unlink()
    while path != mnt:
        path.rmdir()
        path = path.parent
    assert names(mnt) == set()


def test_removed_directory_that_is_open_refuses_new_entries(mnt: Path) -> None:
    os.mkdir(mnt / "d")
    with opened(mnt / "d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(mnt / "d")
        with expect(errno.ENOENT):
            os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)


@pytest.mark.needs("removed_listing")
def test_removed_directory_that_is_open_is_listed_empty(mnt: Path) -> None:
    os.mkdir(mnt / "d")
    (mnt / "d" / "f").write_bytes(b"x")
    with opened(mnt / "d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.unlink(mnt / "d" / "f")
        os.rmdir(mnt / "d")
        assert os.listdir(fd) == []
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
