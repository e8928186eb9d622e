"""Directory listing: inode numbers, types, offsets, changes while reading, size, strange names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import DirStream, expect, names, opened


def lower_tree(d: Path) -> None:
    (d / "file").write_bytes(b"x")
    (d / "dir").mkdir()
    (d / "link").symlink_to("file")
    os.mkfifo(d / "fifo")
    os.mknod(d / "sock", stat.S_IFSOCK | 0o644)
    (d / "both").write_bytes(b"lower")


def upper_tree(d: Path) -> None:
    (d / "both").write_bytes(b"upper")
    (d / "above").write_bytes(b"x")


def lower_300(d: Path) -> None:
    for i in range(300):
        (d / f"lower{i:04d}").write_bytes(b"")


def upper_300(d: Path) -> None:
    for i in range(150, 450):
        (d / f"lower{i:04d}").write_bytes(b"")


@pytest.mark.populate(base=lower_tree, above=upper_tree)
def test_inode_numbers_and_types_are_those_of_stat(mnt: Path) -> None:
    (mnt / "new").write_bytes(b"x")
    (mnt / "file").write_bytes(b"copied up")
    os.rename(mnt / "dir", mnt / "dir2")
    with DirStream(mnt) as stream:
        entries = stream.rest()
    assert {e.name for e in entries} == {
        b".", b"..", b"file", b"dir2", b"link", b"fifo", b"sock", b"both", b"above", b"new",
    }  # fmt: skip
    for entry in entries:
        st = os.lstat(os.fsencode(mnt) + b"/" + entry.name)
        assert entry.type == stat.S_IFMT(st.st_mode) >> 12
        # A mount point's ".." is the client's affair; that of a directory inside must agree.
        assert entry.ino == st.st_ino, entry


@pytest.mark.populate(base=lower_tree, above=upper_tree)
def test_each_name_once(mnt: Path) -> None:
    with DirStream(mnt) as stream:
        listed = [entry.name for entry in stream.rest()]
    assert sorted(listed) == [b".", b"..", b"above", b"both", b"dir", b"fifo", b"file", b"link", b"sock"]


@pytest.mark.populate(base=lower_300, above=upper_300)
def test_merged_directory_of_many_names(mnt: Path) -> None:
    expected = {f"lower{i:04d}" for i in range(450)}
    assert sorted(os.listdir(mnt)) == sorted(expected)
    for i in range(0, 450, 3):
        os.unlink(mnt / f"lower{i:04d}")
    expected -= {f"lower{i:04d}" for i in range(0, 450, 3)}
    assert sorted(os.listdir(mnt)) == sorted(expected)


@pytest.mark.populate(base=lower_300, above=upper_300)
def test_every_position_can_be_returned_to(mnt: Path) -> None:
    with DirStream(mnt) as stream:
        positions, order = [], []
        while True:
            position = stream.tell()
            entry = stream.read()
            if entry is None:
                break
            positions.append(position)
            order.append(entry.name)
        assert len(set(order)) == len(order) == 452
        for index in (451, 0, 300, 17, 151, 2):
            stream.seek(positions[index])
            assert [e.name for e in stream.rest()] == order[index:]


@pytest.mark.populate(base=lower_300, above=upper_300)
def test_names_removed_while_reading_cost_no_others(mnt: Path) -> None:
    with DirStream(mnt) as stream:
        seen = [stream.read() for _ in range(100)]
        for entry in seen:
            assert entry is not None
            if entry.name not in (b".", b".."):
                os.unlink(os.fsencode(mnt) + b"/" + entry.name)
        seen += stream.rest()
    listed = [entry.name for entry in seen if entry is not None]
    assert sorted(listed) == sorted([b".", b"..", *(b"lower%04d" % i for i in range(450))])


@pytest.mark.populate(base=lower_300)
def test_names_added_while_reading_double_no_others(mnt: Path) -> None:
    with DirStream(mnt) as stream:
        listed = [entry.name for entry in (stream.read() for _ in range(100)) if entry is not None]
        for i in range(300):
            (mnt / f"added{i}").write_bytes(b"")
        listed += [entry.name for entry in stream.rest()]
    assert len(set(listed)) == len(listed)
    assert {name for name in listed if name.startswith(b"lower")} == {b"lower%04d" % i for i in range(300)}


@pytest.mark.populate(base=lower_300)
def test_rm_rf_by_the_book_while_reading(mnt: Path) -> None:
    # What rm -r does: read one directory stream to its end and unlink each name as it comes.
    with DirStream(mnt) as stream:
        while (entry := stream.read()) is not None:
            if entry.name not in (b".", b".."):
                os.unlink(os.fsencode(mnt) + b"/" + entry.name)
    assert os.listdir(mnt) == []


@pytest.mark.populate(base=lower_tree)
def test_rewind_looks_anew(mnt: Path) -> None:
    with DirStream(mnt) as stream:
        before = {entry.name for entry in stream.rest()}
        (mnt / "new").write_bytes(b"")
        os.unlink(mnt / "file")
        stream.rewind()
        assert {entry.name for entry in stream.rest()} == before - {b"file"} | {b"new"}


@pytest.mark.populate(base=lower_tree)
def test_two_streams_do_not_disturb_each_other(mnt: Path) -> None:
    with DirStream(mnt) as one, DirStream(mnt) as two:
        first = one.read()
        assert len(two.rest()) == 8
        assert first is not None
        assert len(one.rest()) == 7


def lower_9000(d: Path) -> None:
    directory = os.open(d, os.O_RDONLY)
    for i in range(9000):
        os.mkfifo(f"entry-{i:05d}", dir_fd=directory)
    os.close(directory)


@pytest.mark.populate(base=lower_9000)
def test_ten_thousand_entries(mnt: Path) -> None:
    for i in range(9000, 10_000):
        os.mkfifo(mnt / f"entry-{i:05d}")
    listed = os.listdir(mnt)
    assert len(listed) == 10_000
    assert set(listed) == {f"entry-{i:05d}" for i in range(10_000)}
    with os.scandir(mnt) as entries:
        assert all(not entry.is_dir(follow_symlinks=False) for entry in entries)


def test_names_of_255_bytes(mnt: Path) -> None:
    wanted = {f"{i:03d}" + "n" * 252 for i in range(200)}
    for name in wanted:
        os.close(os.open(mnt / name, os.O_CREAT | os.O_WRONLY))
    assert names(mnt) == wanted


def test_names_that_are_not_utf8(mnt: Path) -> None:
    place = os.fsencode(mnt)
    wanted = {b"\xff%c" % i for i in range(128, 200)} | {b"latin-\xe9", b"\xed\xa0\x80", b"tab\there"}
    for name in wanted:
        os.close(os.open(place + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(place)) == wanted
    for name in wanted:
        os.rename(place + b"/" + name, place + b"/renamed-" + name)
    assert set(os.listdir(place)) == {b"renamed-" + name for name in wanted}


def test_path_of_4095_bytes(mnt: Path) -> None:
    # PATH_MAX counts the terminating zero. The layer's own prefix must not eat into it.
    path = os.fsencode(mnt)
    while 4095 - len(path) > 256:
        path += b"/" + b"d" * 200
        os.mkdir(path)
    leaf = path + b"/" + b"f" * (4095 - len(path) - 1)
    assert len(leaf) == 4095
    with opened(leaf, os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"far away")
    os.chmod(leaf, 0o600)
    os.setxattr(leaf, "user.x", b"1")
    assert os.getxattr(leaf, "user.x") == b"1"
    assert stat.S_IMODE(os.stat(leaf).st_mode) == 0o600
    assert os.listdir(path) == [b"f" * (4095 - len(path) - 1)]
    with expect(errno.ENAMETOOLONG):
        os.stat(leaf + b"x")
    other = leaf[:-1] + b"g"
    os.rename(leaf, other)
    with open(other, "rb") as f:
        assert f.read() == b"far away"
    os.unlink(other)


def deep_lower(d: Path) -> None:
    """A path longer than PATH_MAX, which only relative calls can reach."""
    here = os.open(d, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@pytest.mark.populate(base=deep_lower)
def test_tree_deeper_than_path_max_is_walked_by_descriptors(mnt: Path) -> None:
    here = os.open(mnt, os.O_RDONLY)
    for _ in range(25):
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    try:
        assert os.listdir(here) == ["leaf"]
        assert os.stat("leaf", dir_fd=here).st_size == 0
    finally:
        os.close(here)


@pytest.mark.populate(base=lower_tree)
def test_listing_of_what_is_no_directory(mnt: Path) -> None:
    with expect(errno.ENOTDIR):
        os.listdir(mnt / "file")
    with expect(errno.ENOENT):
        os.listdir(mnt / "no")
