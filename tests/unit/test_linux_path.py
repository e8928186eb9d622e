"""unionfs.linux.path on real files."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.as_user import NOBODY, run_as_nobody
from unionfs.linux import path as linux_path
from unionfs.linux import syscalls
from unionfs.linux.path import UTIME_NOW


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to open: the system call, and the walk for kernels without it."""
    if request.param == "walk":
        monkeypatch.setattr(linux_path, "has_openat2", lambda: False)
    elif not linux_path.has_openat2():
        pytest.skip("missing: openat2 (Linux 5.6)")
    return str(request.param)


def open_errno(root: int, path: bytes, flags: int = os.O_RDONLY) -> int:
    with pytest.raises(OSError) as caught:
        os.close(linux_path.openat2(root, path, flags))
    assert caught.value.errno is not None
    return caught.value.errno


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


# openat2 -----------------------------------------------------------------------------------------------------------
def test_open_file_several_components_down(root: int, tmp_path: Path, opener: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_bytes(b"deep")
    before = open_fds()
    fd = linux_path.openat2(root, b"a//b/./f", os.O_RDONLY)
    try:
        assert open_fds() == before + 1
        assert os.read(fd, 10) == b"deep"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_open_creates_with_the_given_mode(root: int, tmp_path: Path, opener: str) -> None:
    (tmp_path / "a").mkdir()
    fd = linux_path.openat2(root, b"a/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.close(fd)
    assert stat.S_IMODE((tmp_path / "a/new").stat().st_mode) == 0o640


def test_open_follows_no_link_anywhere(root: int, tmp_path: Path, opener: str) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/f").touch()
    (tmp_path / "to-dir").symlink_to("dir")
    (tmp_path / "to-file").symlink_to("dir/f")
    before = open_fds()
    assert open_errno(root, b"to-dir/f") == errno.ELOOP
    assert open_errno(root, b"to-file") == errno.ELOOP
    assert open_errno(root, b"to-file", os.O_PATH) == errno.ELOOP
    assert open_errno(root, b"dir/../to-dir/f") in (errno.ELOOP, errno.EXDEV)
    assert open_fds() == before


def test_open_link_itself_with_o_path_and_nofollow(root: int, tmp_path: Path, opener: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    fd = linux_path.openat2(root, b"link", os.O_PATH | os.O_NOFOLLOW)
    try:
        assert stat.S_ISLNK(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b"/etc", b"../x", b"a/../../x"])
def test_open_never_leaves_the_tree(root: int, tmp_path: Path, opener: str, path: bytes) -> None:
    (tmp_path / "a").mkdir()
    assert open_errno(root, path) == errno.EXDEV


def test_open_errors_of_a_path(root: int, tmp_path: Path, opener: str) -> None:
    (tmp_path / "f").touch()
    assert open_errno(root, b"") == errno.ENOENT
    assert open_errno(root, b"none/f") == errno.ENOENT
    assert open_errno(root, b"f/x") == errno.ENOTDIR
    assert open_errno(root, b"f/") == errno.ENOTDIR
    assert open_errno(root, b"n" * 256) == errno.ENAMETOOLONG


def test_open_refuses_nul(root: int, tmp_path: Path, opener: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ValueError, match="null"):
        linux_path.openat2(root, b"f\0g", os.O_RDONLY)


def test_walk_refuses_other_resolution(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_path, "has_openat2", lambda: False)
    with pytest.raises(OSError) as caught:
        linux_path.openat2(root, b".", os.O_PATH, resolve=linux_path.RESOLVE_IN_ROOT)
    assert caught.value.errno == errno.ENOSYS


# renameat2 ---------------------------------------------------------------------------------------------------------
def test_rename_plain_noreplace_and_exchange(root: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        linux_path.renameat2(root, b"a", root, b"b", linux_path.RENAME_NOREPLACE)
    linux_path.renameat2(root, b"a", root, b"b", linux_path.RENAME_EXCHANGE)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")
    linux_path.renameat2(root, b"a", root, b"b")
    assert os.listdir(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "b"


@pytest.mark.needs_root
def test_rename_leaves_whiteout(root: int, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    linux_path.renameat2(root, b"a", root, b"b", linux_path.RENAME_WHITEOUT)
    st = (tmp_path / "a").lstat()
    assert stat.S_ISCHR(st.st_mode)
    assert st.st_rdev == 0


def test_rename_unknown_flags(root: int, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError) as caught:
        linux_path.renameat2(root, b"a", root, b"b", 1 << 30)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.filename == b"a"


# linkat ------------------------------------------------------------------------------------------------------------
def link_tmpfile(root: int) -> None:
    fd = os.open(b".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=root)
    try:
        linux_path.linkat_fd(fd, root, b"named")
        assert os.stat(b"named", dir_fd=root).st_ino == os.fstat(fd).st_ino
        with pytest.raises(FileExistsError):
            linux_path.linkat_fd(fd, root, b"named")
    finally:
        os.close(fd)


def test_link_tmpfile(root: int) -> None:
    link_tmpfile(root)


@pytest.mark.needs_root
def test_link_tmpfile_as_nobody(root: int) -> None:
    os.chown(b".", NOBODY, NOBODY, dir_fd=root)
    run_as_nobody(lambda: link_tmpfile(root))


def test_link_by_proc_where_the_empty_path_is_refused(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The answer of a kernel older than 6.10 to a caller without CAP_DAC_READ_SEARCH.
    def refuse(*_args: object) -> int:
        ctypes.set_errno(errno.ENOENT)
        return -1

    monkeypatch.setattr(linux_path, "_linkat", refuse)
    link_tmpfile(root)


# fchmodat ----------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["fchmodat2", "proc"])
def chmod_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "proc":
        monkeypatch.setattr(linux_path, "_fchmodat2", syscalls.declare("no_such_function"))


@pytest.mark.usefixtures("chmod_way")
def test_chmod_file_directory_and_self(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    linux_path.fchmodat_nofollow(root, b"f", 0o4711)
    linux_path.fchmodat_nofollow(root, b"d", stat.S_IFDIR | 0o1777)
    linux_path.fchmodat_nofollow(root, b".", 0o750)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("f", "d", ".")]
    assert modes == [0o4711, 0o1777, 0o750]


@pytest.mark.usefixtures("chmod_way")
def test_chmod_of_symlink_is_refused_and_leaves_the_target(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch(0o600)
    (tmp_path / "link").symlink_to("f")
    before = open_fds()
    with pytest.raises(OSError) as caught:
        linux_path.fchmodat_nofollow(root, b"link", 0o777)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
    with pytest.raises(FileNotFoundError):
        linux_path.fchmodat_nofollow(root, b"none", 0o777)
    assert open_fds() == before


@pytest.mark.needs_root
@pytest.mark.usefixtures("chmod_way")
def test_chmod_of_another_users_file_is_refused(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch(0o600)
    tmp_path.chmod(0o755)

    def attempt() -> None:
        with pytest.raises(PermissionError) as caught:
            linux_path.fchmodat_nofollow(root, b"f", 0o777)
        assert caught.value.errno == errno.EPERM

    run_as_nobody(attempt)


# utimensat ---------------------------------------------------------------------------------------------------------
def times(path: Path) -> tuple[int, int]:
    st = path.lstat()
    return st.st_atime_ns, st.st_mtime_ns


def test_times_set_together_and_alone(root: int, tmp_path: Path) -> None:
    f = tmp_path / "f"
    f.touch()
    linux_path.utimensat(root, b"f", 1_000_000_001, 2_999_999_999)
    assert times(f) == (1_000_000_001, 2_999_999_999)
    linux_path.utimensat(root, b"f", None, 5)
    assert times(f) == (1_000_000_001, 5)
    linux_path.utimensat(root, b"f", 7, None)
    assert times(f) == (7, 5)
    ctime = f.lstat().st_ctime_ns
    linux_path.utimensat(root, b"f", None, None)
    assert times(f) == (7, 5)
    assert f.lstat().st_ctime_ns == ctime


def test_time_now_is_the_kernels(root: int, tmp_path: Path) -> None:
    f = tmp_path / "f"
    f.touch()
    linux_path.utimensat(root, b"f", 1, 2)
    linux_path.utimensat(root, b"f", None, UTIME_NOW)
    atime, mtime = times(f)
    assert atime == 1
    assert mtime == f.lstat().st_ctime_ns
    linux_path.utimensat(root, b"f", UTIME_NOW, 3)
    assert times(f) == (f.lstat().st_ctime_ns, 3)


@pytest.mark.parametrize("mtime", [-1, -1_000_000_000, -1_500_000_000])
def test_times_before_the_epoch(root: int, tmp_path: Path, mtime: int) -> None:
    f = tmp_path / "f"
    f.touch()
    linux_path.utimensat(root, b"f", 4, mtime)  # by way of os.utime
    assert times(f) == (4, mtime)
    linux_path.utimensat(root, b"f", mtime, None)  # by way of libc
    assert times(f) == (mtime, mtime)


def test_time_of_symlink_is_its_own(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    before = times(tmp_path / "f")
    linux_path.utimensat(root, b"link", None, 11)
    linux_path.utimensat(root, b"link", 10, 12)
    assert times(tmp_path / "link") == (10, 12)
    assert times(tmp_path / "f") == before


def test_time_the_kernel_cannot_hold(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for atime, mtime in ((1, 10**30), (None, 10**30)):
        with pytest.raises(OSError) as caught:
            linux_path.utimensat(root, b"f", atime, mtime)
        assert caught.value.errno == errno.EINVAL


def test_futimens(tmp_path: Path) -> None:
    f = tmp_path / "f"
    with f.open("wb") as file:
        linux_path.futimens(file.fileno(), 100, -3)
        linux_path.futimens(file.fileno(), None, None)
    assert times(f) == (100, -3)


@pytest.mark.needs_root
def test_time_now_needs_write_permission_only(root: int, tmp_path: Path) -> None:
    """utimensat(2): both times now, for a file of somebody else that one may write; a given time is EPERM."""
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(0o666)
    tmp_path.chmod(0o755)

    def attempt() -> None:
        linux_path.utimensat(root, b"f", UTIME_NOW, UTIME_NOW)
        with pytest.raises(PermissionError):
            linux_path.utimensat(root, b"f", 1, 2)

    run_as_nobody(attempt)
