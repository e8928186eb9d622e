"""unlink(2), and what is left afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.posix.tools import expect, names


def lower_tree(d: Path) -> None:
    (d / "file").write_bytes(b"lower")
    (d / "both").write_bytes(b"lower")
    (d / "link").symlink_to("file")
    (d / "dir").mkdir()
    os.mkfifo(d / "fifo")


def upper_tree(d: Path) -> None:
    (d / "both").unlink(missing_ok=True)
    (d / "both").write_bytes(b"upper")


@pytest.mark.populate(base=lower_tree, above=upper_tree)
@pytest.mark.parametrize("name", ["file", "both", "link", "fifo"])
def test_unlinked_name_is_gone(mnt: Path, name: str) -> None:
    before = names(mnt)
    os.unlink(mnt / name)
    assert names(mnt) == before - {name}
    with expect(errno.ENOENT):
        os.lstat(mnt / name)
    with expect(errno.ENOENT):
        os.open(mnt / name, os.O_RDONLY | os.O_NOFOLLOW)
    with expect(errno.ENOENT):
        os.unlink(mnt / name)


@pytest.mark.populate(base=lower_tree)
def test_unlink_of_a_link_leaves_its_target(mnt: Path) -> None:
    os.unlink(mnt / "link")
    assert (mnt / "file").read_bytes() == b"lower"


@pytest.mark.populate(base=lower_tree)
def test_unlink_of_a_directory_is_eisdir(mnt: Path) -> None:
    with expect(errno.EISDIR):
        os.unlink(mnt / "dir")
    assert "dir" in names(mnt)


@pytest.mark.populate(base=lower_tree)
def test_unlink_with_a_trailing_slash_or_below_a_file_is_enotdir(mnt: Path) -> None:
    with expect(errno.ENOTDIR):
        os.unlink(f"{mnt}/file/")
    with expect(errno.ENOTDIR):
        os.unlink(mnt / "file" / "x")


def test_unlink_of_what_never_was_is_enoent(mnt: Path) -> None:
    with expect(errno.ENOENT):
        os.unlink(mnt / "no")


def test_unlink_of_a_socket(mnt: Path) -> None:
    # sun_path holds 108 bytes
    with socket.socket(socket.AF_UNIX) as s, contextlib.chdir(mnt):
        s.bind("sock")
    assert names(mnt) == {"sock"}
    os.unlink(mnt / "sock")
    assert names(mnt) == set()


@pytest.mark.populate(base=lower_tree)
def test_create_and_unlink_again_and_again(mnt: Path) -> None:
    for turn in range(20):
        os.unlink(mnt / "file")
        assert not (mnt / "file").exists()
        (mnt / "file").write_bytes(b"%d" % turn)
        assert (mnt / "file").read_bytes() == b"%d" % turn


def test_rm_rf_of_a_tree_made_in_the_mount(mnt: Path) -> None:
    for i in range(5):
        for j in range(5):
            place = mnt / "tree" / f"d{i}" / f"e{j}"
            place.mkdir(parents=True)
            (place / "f").write_bytes(b"x")
    shutil.rmtree(mnt / "tree")
    assert names(mnt) == set()
