"""chmod, chown, utimensat, truncate: each field alone, and together."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.tools import UTIME_NOW, UTIME_OMIT, as_user, expect, ids, mode, next_tick, opened, utimensat

SECOND = 1_000_000_000
KINDS = ("file", "dir", "fifo", "new-file", "new-dir")


def lower_tree(d: Path) -> None:
    (d / "file").write_bytes(b"0123456789")
    (d / "dir").mkdir()
    (d / "dir" / "in").write_bytes(b"x")
    os.mkfifo(d / "fifo")
    (d / "link").symlink_to("file")
    for name in ("file", "dir", "fifo"):
        os.chmod(d / name, 0o750)
        os.utime(d / name, ns=(1_111_111_111_111_111_111, 1_222_222_222_222_222_222))


def with_new(mnt: Path, kind: str) -> Path:
    """The thing of this kind; new ones are made now."""
    if kind == "new-file":
        (mnt / kind).write_bytes(b"new")
    elif kind == "new-dir":
        (mnt / kind).mkdir()
    return mnt / kind


def untouched(st: os.stat_result) -> tuple[int, int, int]:
    """What neither chmod nor chown may change. A directory's size is its file system's affair."""
    return st.st_mtime_ns, st.st_ino, 0 if stat.S_ISDIR(st.st_mode) else st.st_size


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [0o000, 0o604, 0o1777, 0o7711])
def test_chmod_changes_the_mode_alone(mnt: Path, kind: str, bits: int) -> None:
    path = with_new(mnt, kind)
    before = os.lstat(path)
    os.chmod(path, bits)
    after = os.lstat(path)
    assert stat.S_IMODE(after.st_mode) == bits
    assert stat.S_IFMT(after.st_mode) == stat.S_IFMT(before.st_mode)
    assert untouched(after) == untouched(before)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("owner", [(7, -1), (-1, 8), (7, 8), (2**31 + 5, 2**32 - 2)])
def test_chown_of_either_id(mnt: Path, kind: str, owner: tuple[int, int]) -> None:
    path = with_new(mnt, kind)
    before = os.lstat(path)
    os.chown(path, *owner)
    after = os.lstat(path)
    assert after.st_uid == (before.st_uid if owner[0] == -1 else owner[0])
    assert after.st_gid == (before.st_gid if owner[1] == -1 else owner[1])
    assert untouched(after) == untouched(before)
    assert after.st_mode == before.st_mode


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [(1, 2), (1_600_000_000_123_456_789, 1_700_000_000_987_654_321), (0, 0)])
def test_times_are_kept_to_the_nanosecond(mnt: Path, kind: str, times: tuple[int, int]) -> None:
    path = with_new(mnt, kind)
    os.utime(path, ns=times)
    st = os.lstat(path)
    assert (st.st_atime_ns, st.st_mtime_ns) == times


@pytest.mark.populate(base=lower_tree)
def test_times_before_the_epoch(mnt: Path) -> None:
    os.utime(mnt / "file", ns=(-1 * SECOND - 1, -86400 * SECOND + 5))
    st = os.stat(mnt / "file")
    assert (st.st_atime_ns, st.st_mtime_ns) == (-1 * SECOND - 1, -86400 * SECOND + 5)


@pytest.mark.populate(base=lower_tree)
def test_times_after_2038_and_2106(mnt: Path) -> None:
    for moment in (2**31 + 5, 2**32 + 5):
        os.utime(mnt / "file", ns=(moment * SECOND, moment * SECOND + 1))
        assert os.stat(mnt / "file").st_mtime_ns == moment * SECOND + 1


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("kind", ["file", "dir", "fifo", "link"])
def test_omitted_time_stays(mnt: Path, kind: str) -> None:
    path = mnt / kind
    utimensat(path, (5, 6), (7, 8))
    utimensat(path, (0, UTIME_OMIT), (9, 10))
    assert (os.lstat(path).st_atime_ns, os.lstat(path).st_mtime_ns) == (5 * SECOND + 6, 9 * SECOND + 10)
    utimensat(path, (11, 12), (0, UTIME_OMIT))
    assert (os.lstat(path).st_atime_ns, os.lstat(path).st_mtime_ns) == (11 * SECOND + 12, 9 * SECOND + 10)
    utimensat(path, (0, UTIME_OMIT), (0, UTIME_OMIT))
    assert (os.lstat(path).st_atime_ns, os.lstat(path).st_mtime_ns) == (11 * SECOND + 12, 9 * SECOND + 10)


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("which", ["atime", "mtime", "both"])
def test_time_now_is_the_clock(mnt: Path, which: str) -> None:
    path = mnt / "file"
    utimensat(path, (5, 6), (7, 8))
    # The kernel stamps with its coarse clock, which may lag by one tick.
    start = time.time_ns() - 20_000_000
    now, keep = (0, UTIME_NOW), (0, UTIME_OMIT)
    utimensat(path, now if which != "mtime" else keep, now if which != "atime" else keep)
    st = os.stat(path)
    end = time.time_ns() + 20_000_000
    assert start <= st.st_atime_ns <= end if which != "mtime" else st.st_atime_ns == 5 * SECOND + 6
    assert start <= st.st_mtime_ns <= end if which != "atime" else st.st_mtime_ns == 7 * SECOND + 8


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_setting_times_is_the_owner_s_and_now_is_the_writer_s(mnt: Path) -> None:
    path = mnt / "file"
    os.chmod(path, 0o666)
    with expect(errno.EPERM):
        as_user(lambda: os.utime(path, ns=(1, 2)))
    as_user(lambda: os.utime(path))
    assert os.stat(path).st_mtime_ns > 1_222_222_222_222_222_222
    os.chmod(path, 0o644)
    with expect(errno.EACCES):
        as_user(lambda: os.utime(path))


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 4096, 100_000])
def test_truncate_to_any_size(mnt: Path, size: int) -> None:
    os.truncate(mnt / "file", size)
    assert os.stat(mnt / "file").st_size == size
    assert (mnt / "file").read_bytes() == b"0123456789"[:size] + bytes(max(0, size - 10))


@pytest.mark.populate(base=lower_tree)
def test_ftruncate_down_and_up_reads_zeros(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDWR) as fd:
        os.ftruncate(fd, 3)
        assert os.fstat(fd).st_size == 3
        os.ftruncate(fd, 8)
        assert os.fstat(fd).st_size == 8
        assert os.pread(fd, 20, 0) == b"012\0\0\0\0\0"
    assert (mnt / "file").read_bytes() == b"012\0\0\0\0\0"


@pytest.mark.populate(base=lower_tree)
def test_truncate_moves_mtime_and_ctime(mnt: Path) -> None:
    before = os.stat(mnt / "file")
    os.truncate(mnt / "file", 3)
    after = os.stat(mnt / "file")
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns >= before.st_ctime_ns


@pytest.mark.populate(base=lower_tree)
def test_truncate_errors(mnt: Path) -> None:
    with expect(errno.EISDIR):
        os.truncate(mnt / "dir", 0)
    with expect(errno.EINVAL):
        os.truncate(mnt / "fifo", 0)
    with expect(errno.EINVAL):
        os.truncate(mnt / "file", -1)
    with expect(errno.ENOENT):
        os.truncate(mnt / "no", 0)
    with opened(mnt / "file", os.O_RDONLY) as fd, expect(errno.EINVAL):
        os.ftruncate(fd, 0)
    assert os.stat(mnt / "file").st_size == 10


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_truncate_of_a_readonly_file_is_eacces(mnt: Path) -> None:
    with expect(errno.EACCES):
        as_user(lambda: os.truncate(mnt / "file", 0))
    assert os.stat(mnt / "file").st_size == 10


def change_mode(path: Path) -> None:
    os.chmod(path, 0o700)


def change_owner(path: Path) -> None:
    os.chown(path, -1, os.stat(path).st_gid)


def change_times(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def change_links(path: Path) -> None:
    os.link(path, path.with_name("second"))


def change_name(path: Path) -> None:
    os.rename(path, path.with_name("renamed"))
    os.rename(path.with_name("renamed"), path)


def change_xattr(path: Path) -> None:
    os.setxattr(path, "user.x", b"1")


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("change", [change_mode, change_owner, change_times, change_links, change_xattr, change_name])
def test_ctime_moves_and_mtime_does_not(mnt: Path, change: Callable[[Path], None]) -> None:
    path = mnt / "file"
    os.chmod(path, 0o755)  # from here on it is in the upper, if there is one
    before = os.stat(path)
    next_tick(before.st_ctime_ns)
    change(path)
    after = os.stat(path)
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_mtime_ns == (1 if change is change_times else before.st_mtime_ns)


@pytest.mark.needs_root
@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6755])
def test_chown_strips_set_ids(mnt: Path, bits: int) -> None:
    (mnt / "f").write_bytes(b"x")
    os.chmod(mnt / "f", bits)
    os.chown(mnt / "f", 1, 1)
    assert mode(mnt / "f") == 0o755


@pytest.mark.needs_root
def test_chown_keeps_setgid_without_group_execution_and_on_directories(mnt: Path) -> None:
    # S_ISGID without S_IXGRP meant mandatory locking (chown(2)).
    (mnt / "f").write_bytes(b"x")
    os.chmod(mnt / "f", 0o2745)
    os.chown(mnt / "f", 1, 1)
    assert mode(mnt / "f") == 0o2745
    os.mkdir(mnt / "d")
    os.chmod(mnt / "d", 0o2755)
    os.chown(mnt / "d", 1, 1)
    assert mode(mnt / "d") == 0o2755


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("how", ["write", "truncate", "ftruncate", "open"])
def test_changed_data_strips_set_ids_for_users(mnt: Path, how: str) -> None:
    path = mnt / "file"
    os.chown(path, 1, 1)
    os.chmod(path, 0o6777)

    def change() -> None:
        if how == "truncate":
            os.truncate(path, 3)
            return
        with opened(path, os.O_WRONLY | (os.O_TRUNC if how == "open" else 0)) as fd:
            if how == "write":
                os.write(fd, b"X")
            elif how == "ftruncate":
                os.ftruncate(fd, 3)

    as_user(change)
    assert mode(path) == 0o777


@pytest.mark.needs_root
def test_write_by_root_keeps_set_ids(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"x")
    os.chmod(mnt / "f", 0o6755)
    (mnt / "f").write_bytes(b"y")
    assert mode(mnt / "f") == 0o6755


@pytest.mark.needs_root
def test_write_strips_file_capabilities(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"x")
    # struct vfs_cap_data, revision 2 (linux/capability.h): cap_net_raw=ep
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(mnt / "f", "security.capability", value)
    assert os.getxattr(mnt / "f", "security.capability") == value
    with opened(mnt / "f", os.O_WRONLY) as fd:
        os.write(fd, b"y")
    with expect(errno.ENODATA):
        os.getxattr(mnt / "f", "security.capability")


@pytest.mark.populate(base=lower_tree)
def test_fchmod_and_futimens_through_a_descriptor(mnt: Path) -> None:
    with opened(mnt / "file", os.O_RDONLY) as fd:
        os.fchmod(fd, 0o711)
        os.utime(fd, ns=(5, 6))
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o711
        assert os.fstat(fd).st_mtime_ns == 6
    assert mode(mnt / "file") == 0o711
    assert os.stat(mnt / "file").st_mtime_ns == 6


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_everything_at_once_and_the_file_is_otherwise_the_same(mnt: Path) -> None:
    path = mnt / "file"
    ino = os.stat(path).st_ino
    os.chown(path, 11, 12)
    os.chmod(path, 0o4711)
    os.truncate(path, 5)
    os.utime(path, ns=(100, 200))
    st = os.stat(path)
    assert (st.st_uid, st.st_gid, st.st_size, st.st_atime_ns, st.st_mtime_ns) == (11, 12, 5, 100, 200)
    assert st.st_ino == ino
    assert path.read_bytes() == b"01234"


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_only_the_owner_may_chmod_and_only_root_may_chown(mnt: Path) -> None:
    path = mnt / "file"
    with expect(errno.EPERM):
        as_user(lambda: os.chmod(path, 0o777))
    with expect(errno.EPERM):
        as_user(lambda: os.chown(path, 65534, -1))
    os.chown(path, 65534, 65534)
    as_user(lambda: os.chmod(path, 0o600))
    as_user(lambda: os.chown(path, -1, 1000), groups=(1000,))
    with expect(errno.EPERM):
        as_user(lambda: os.chown(path, -1, 1001), groups=(1000,))
    assert mode(path) == 0o600
    assert ids(path) == (65534, 1000)


@pytest.mark.needs_root
def test_chmod_by_a_stranger_to_the_group_drops_setgid(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"x")
    os.chown(mnt / "f", 65534, 1000)
    as_user(lambda: os.chmod(mnt / "f", 0o2755))
    assert mode(mnt / "f") == 0o755
    as_user(lambda: os.chmod(mnt / "f", 0o2755), groups=(1000,))
    assert mode(mnt / "f") == 0o2755
