"""Flags of open(2)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.tools import as_user, expect, names, opened, python


def lower_tree(d: Path) -> None:
    (d / "file").write_bytes(b"0123456789")
    (d / "dir").mkdir()
    (d / "link").symlink_to("file")
    (d / "dirlink").symlink_to("dir")


@pytest.mark.populate(base=lower_tree)
def test_access_modes(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDONLY) as fd:
        assert os.read(fd, 3) == b"012"
        with expect(errno.EBADF):
            os.write(fd, b"x")
    with opened(mnt / "file", os.O_WRONLY) as fd:
        assert os.write(fd, b"ab") == 2
        with expect(errno.EBADF):
            os.read(fd, 1)
    with opened(mnt / "file", os.O_RDWR) as fd:
        assert os.read(fd, 3) == b"ab2"
        assert os.write(fd, b"c") == 1
    assert (mnt / "file").read_bytes() == b"ab2c456789"


@pytest.mark.populate(base=lower_tree)
def test_truncating_open(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDWR | os.O_TRUNC) as fd:
        assert os.fstat(fd).st_size == 0
        assert os.read(fd, 1) == b""
    assert os.stat(mnt / "file").st_size == 0


@pytest.mark.populate(base=lower_tree)
def test_truncating_open_is_seen_by_other_descriptors(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDWR) as fd:
        os.write(fd, b"AB")
        os.close(os.open(mnt / "file", os.O_WRONLY | os.O_TRUNC))
        assert os.fstat(fd).st_size == 0
        assert os.pread(fd, 10, 0) == b""


@pytest.mark.populate(base=lower_tree)
def test_directories_are_not_written(mnt: Path) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with expect(errno.EISDIR):
            os.open(mnt / "dir", flags)
    with opened(mnt / "dir", os.O_RDONLY) as fd, expect(errno.EISDIR):
        os.read(fd, 1)


@pytest.mark.populate(base=lower_tree)
def test_directory_flag(mnt: Path) -> None:
    os.close(os.open(mnt / "dir", os.O_RDONLY | os.O_DIRECTORY))
    os.close(os.open(mnt / "dirlink", os.O_RDONLY | os.O_DIRECTORY))
    with expect(errno.ENOTDIR):
        os.open(mnt / "file", os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.populate(base=lower_tree)
def test_nofollow_flag(mnt: Path) -> None:
    os.close(os.open(mnt / "file", os.O_RDONLY | os.O_NOFOLLOW))
    with expect(errno.ELOOP):
        os.open(mnt / "link", os.O_RDONLY | os.O_NOFOLLOW)
    with expect(errno.ENOTDIR):
        os.open(mnt / "dirlink", os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)


@pytest.mark.populate(base=lower_tree)
def test_path_descriptors(mnt: Path) -> None:
    with opened(mnt / "link", os.O_PATH | os.O_NOFOLLOW) as fd:
        assert stat.S_ISLNK(os.fstat(fd).st_mode)
        assert os.readlink("", dir_fd=fd) == "file"
    with opened(mnt / "file", os.O_PATH) as fd:
        assert os.fstat(fd).st_size == 10
        with expect(errno.EBADF):
            os.read(fd, 1)
        with open(f"/proc/self/fd/{fd}", "rb") as f:
            assert f.read() == b"0123456789"
    with opened(mnt / "dir", os.O_PATH) as fd:
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    assert names(mnt / "dir") == {"new"}


@pytest.mark.populate(base=lower_tree)
def test_append_writes_at_the_end_whatever_the_offset(mnt: Path) -> None:
    with opened(mnt / "file", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"A")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"B")
        assert os.lseek(fd, 0, os.SEEK_CUR) == 12
    assert (mnt / "file").read_bytes() == b"0123456789AB"


APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
sys.stdout.write("r"); sys.stdout.flush(); sys.stdin.read(1)
for i in range(200):
    os.write(fd, (sys.argv[2] * 31 + "\\n").encode())
"""


def test_two_appending_processes_lose_nothing(mnt: Path) -> None:
    (mnt / "log").write_bytes(b"")
    writers = [python(APPENDER, str(mnt / "log"), letter) for letter in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.read(1) == b"r"
    for writer in writers:
        writer.communicate(b"g", timeout=20)
    lines = (mnt / "log").read_bytes().split(b"\n")
    assert sorted(lines) == sorted([b""] + [b"a" * 31] * 200 + [b"b" * 31] * 200)


# O_TMPFILE -----------------------------------------------------------------------------------------------------------
def give_name(fd: int, path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


@pytest.mark.needs("tmpfile")
@pytest.mark.populate(base=lower_tree)
def test_tmpfile_has_no_name_until_linked(mnt: Path) -> None:
    before = names(mnt / "dir")
    with opened(mnt / "dir", os.O_TMPFILE | os.O_RDWR, 0o600) as fd:
        os.write(fd, b"unnamed")
        assert names(mnt / "dir") == before
        assert os.fstat(fd).st_nlink == 0
        give_name(fd, mnt / "dir" / "named")
        assert os.fstat(fd).st_nlink == 1
        os.write(fd, b", now named")
        ino = os.fstat(fd).st_ino
    st = os.stat(mnt / "dir" / "named")
    assert (st.st_ino, st.st_nlink, stat.S_IMODE(st.st_mode)) == (ino, 1, 0o600)
    assert (mnt / "dir" / "named").read_bytes() == b"unnamed, now named"


@pytest.mark.needs("tmpfile")
@pytest.mark.populate(base=lower_tree)
def test_tmpfile_named_in_another_directory_and_over_an_existing_name(mnt: Path) -> None:
    with opened(mnt / "dir", os.O_TMPFILE | os.O_WRONLY, 0o644) as fd:
        os.write(fd, b"x")
        with expect(errno.EEXIST):
            give_name(fd, mnt / "file")
        give_name(fd, mnt / "elsewhere")
    assert (mnt / "elsewhere").read_bytes() == b"x"


@pytest.mark.needs("tmpfile")
def test_exclusive_tmpfile_cannot_be_named(mnt: Path) -> None:
    with opened(mnt, os.O_TMPFILE | os.O_EXCL | os.O_RDWR, 0o600) as fd, expect(errno.ENOENT):
        give_name(fd, mnt / "named")
    assert names(mnt) == set()


@pytest.mark.needs("tmpfile")
@pytest.mark.needs_root
def test_tmpfile_belongs_to_the_caller_and_leaves_nothing(mnt: Path) -> None:
    mnt.chmod(0o777)

    def use() -> tuple[int, int]:
        with opened(mnt, os.O_TMPFILE | os.O_RDWR, 0o400) as fd:
            os.write(fd, b"written although read-only")
            st = os.fstat(fd)
            return st.st_uid, st.st_gid

    assert as_user(use) == (65534, 65534)
    assert names(mnt) == set()


@pytest.mark.needs("tmpfile")
@pytest.mark.populate(base=lower_tree)
def test_tmpfile_in_what_is_no_directory(mnt: Path) -> None:
    with expect(errno.ENOTDIR):
        os.open(mnt / "file", os.O_TMPFILE | os.O_RDWR)
