"""WritableDirectory: changing a tree of the host, with the descriptors of directories kept right."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.as_user import NOBODY, run_as_nobody
from unionfs.errors import LayerError
from unionfs.layers.layer import WritableLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.linux import process as linux_process
from unionfs.vfs import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    NOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
)


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """A WritableDirectory takes the umask to be 0."""
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[WritableDirectory, WritableDirectory]]:
    """An upper and a work directory on one file system; every descriptor is given back at the end."""
    before = set(os.listdir("/proc/self/fd"))
    layers = []
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
        layers.append(WritableDirectory(os.fsencode(tmp_path / name)))
    yield layers[0], layers[1]
    for layer in layers:
        layer.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def upper(pair: tuple[WritableDirectory, WritableDirectory]) -> WritableDirectory:
    return pair[0]


@pytest.fixture
def work(pair: tuple[WritableDirectory, WritableDirectory]) -> WritableDirectory:
    return pair[1]


def errno_of(function: Callable[..., object], *args: object) -> int | None:
    with pytest.raises(OSError) as caught:
        function(*args)
    return caught.value.errno


def touch(layer: WritableDirectory, path: bytes, content: bytes = b"") -> None:
    file = layer.create(path, 0o644)
    file.pwrite(content, 0)
    file.close()


def read(layer: WritableDirectory, path: bytes) -> bytes:
    file = layer.open(path)
    try:
        return file.pread(1 << 20, 0)
    finally:
        file.close()


def names(layer: WritableDirectory, path: bytes = b"") -> list[bytes]:
    return sorted(entry.name for entry in layer.scan(path))


# creation ----------------------------------------------------------------------------------------------------------
def test_everything_is_created_with_the_mode_given(upper: WritableDirectory) -> None:
    as_layer: WritableLayer = upper
    as_layer.create(b"file", stat.S_IFREG | 0o6777).close()
    as_layer.mkdir(b"dir", 0o777)
    as_layer.mkdir(b"setgid", stat.S_IFDIR | 0o3775)
    as_layer.mknod(b"fifo", stat.S_IFIFO | 0o666, 0)
    as_layer.mknod(b"sock", stat.S_IFSOCK | 0o622, 0)
    as_layer.mknod(b"whiteout", stat.S_IFCHR, 0)
    as_layer.mknod(b"reg", stat.S_IFREG | 0o606, 0)
    as_layer.symlink(b"link", b"\xff target")
    modes = {entry.name: upper.lstat(entry.name).st_mode for entry in upper.scan(b"")}
    assert modes == {
        b"file": stat.S_IFREG | 0o6777,
        b"dir": stat.S_IFDIR | 0o777,
        b"setgid": stat.S_IFDIR | 0o3775,
        b"fifo": stat.S_IFIFO | 0o666,
        b"sock": stat.S_IFSOCK | 0o622,
        b"whiteout": stat.S_IFCHR,
        b"reg": stat.S_IFREG | 0o606,
        b"link": stat.S_IFLNK | 0o777,
    }
    assert upper.readlink(b"link") == b"\xff target"
    for path in modes:
        assert errno_of(upper.create, path, 0o600) == errno.EEXIST
        assert errno_of(upper.mkdir, path, 0o600) == errno.EEXIST


@pytest.mark.needs_root
def test_device_numbers(upper: WritableDirectory) -> None:
    upper.mknod(b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    upper.mknod(b"block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    assert upper.lstat(b"null").st_rdev == os.makedev(1, 3)
    assert upper.lstat(b"block").st_rdev == os.makedev(259, 70000)


def test_create_through_a_dangling_link_is_refused(upper: WritableDirectory, tmp_path: Path) -> None:
    upper.symlink(b"link", os.fsencode(tmp_path / "outside"))
    assert errno_of(upper.create, b"link", 0o600) == errno.EEXIST
    assert errno_of(upper.truncate, b"link", 0) == errno.ELOOP
    assert not (tmp_path / "outside").exists()


def test_created_file_reads_writes_and_is_close_on_exec(upper: WritableDirectory) -> None:
    file = upper.create(b"f", 0o600)
    assert file.pwrite(memoryview(b"hello world"), 2) == 11
    assert file.pread(20, 0) == b"\0\0hello world"
    file.ftruncate(7)
    file.fsync(True)
    file.fsync(False)
    assert file.fstat().st_size == 7
    assert not os.get_inheritable(file.fd)
    file.close()


def test_punched_hole_is_seen(upper: WritableDirectory) -> None:
    file = upper.create(b"f", 0o600)
    page = 1 << 16
    file.pwrite(b"x" * 3 * page, 0)
    file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page, page)
    assert (file.seek_hole(0), file.seek_data(page)) == (page, 2 * page)
    copy = upper.create(b"copy", 0o600)
    assert copy.copy_range(file, 2 * page, 0, 10) == 10
    assert copy.copy_range(file, 3 * page, 0, 10) == 0
    assert copy.pread(20, 0) == b"x" * 10
    file.close()
    copy.close()


def test_copy_range_from_a_file_without_descriptor(upper: WritableDirectory) -> None:
    class InMemory:
        fd = -1

        def pread(self, size: int, offset: int) -> bytes:
            return b"in memory"[offset : offset + size]

    file = upper.create(b"f", 0o600)
    assert file.copy_range(InMemory(), 3, 0, 100) == 6  # type: ignore[arg-type]  # all that copy_range uses
    assert file.copy_range(InMemory(), 9, 6, 100) == 0  # type: ignore[arg-type]
    assert file.pread(10, 0) == b"memory"
    file.close()


# O_TMPFILE ---------------------------------------------------------------------------------------------------------
def test_tmpfile_gets_a_name(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    file = upper.tmpfile(b"d", 0o1646)
    assert file.fstat().st_nlink == 0
    file.pwrite(b"data", 0)
    upper.link_file(file, b"d/named")
    assert file.fstat().st_nlink == 1
    assert errno_of(upper.link_file, file, b"d/named") == errno.EEXIST
    file.close()
    assert stat.S_IMODE(upper.lstat(b"d/named").st_mode) == 0o1646
    assert read(upper, b"d/named") == b"data"
    upper.tmpfile(b"", 0o600).close()


def test_tmpfile_in_what_is_no_directory(upper: WritableDirectory) -> None:
    touch(upper, b"f")
    assert errno_of(upper.tmpfile, b"f", 0o600) == errno.ENOTDIR
    assert errno_of(upper.tmpfile, b"none", 0o600) == errno.ENOENT


def test_tmpfile_in_a_removed_directory_is_enoent(upper: WritableDirectory, tmp_path: Path) -> None:
    upper.mkdir(b"d", 0o755)
    upper.dir_fd(b"d")
    (tmp_path / "upper/d").rmdir()  # behind the layer's back: its descriptor is of a dead directory
    assert errno_of(upper.tmpfile, b"d", 0o600) == errno.ENOENT


@pytest.mark.needs_root
def test_tmpfile_where_the_storage_has_none() -> None:
    layer = WritableDirectory("/proc")
    try:
        assert errno_of(layer.tmpfile, b"", 0o600) == errno.EOPNOTSUPP
    finally:
        layer.close()


# links and removal -------------------------------------------------------------------------------------------------
def test_link_within_and_into_the_other_layer(upper: WritableDirectory, work: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    touch(upper, b"f", b"x")
    upper.link(b"f", upper, b"d/g")
    upper.link(b"f", work, b"h")
    assert {upper.lstat(b"d/g").st_ino, work.lstat(b"h").st_ino} == {upper.lstat(b"f").st_ino}
    assert upper.lstat(b"f").st_nlink == 3
    assert errno_of(upper.link, b"f", work, b"h") == errno.EEXIST
    assert errno_of(upper.link, b"d", upper, b"e") == errno.EPERM


def test_link_of_a_symlink_is_of_the_link(upper: WritableDirectory) -> None:
    touch(upper, b"f")
    upper.symlink(b"s", b"f")
    upper.link(b"s", upper, b"t")
    assert upper.lstat(b"t").st_ino == upper.lstat(b"s").st_ino
    assert upper.lstat(b"f").st_nlink == 1


def test_unlink_and_rmdir(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    touch(upper, b"d/f")
    assert errno_of(upper.unlink, b"d") == errno.EISDIR
    assert errno_of(upper.rmdir, b"d/f") == errno.ENOTDIR
    assert errno_of(upper.rmdir, b"d") == errno.ENOTEMPTY
    assert names(upper, b"d") == [b"f"]
    upper.unlink(b"d/f")
    upper.rmdir(b"d")
    assert names(upper) == []
    assert errno_of(upper.rmdir, b"d") == errno.ENOENT


def test_directory_made_again_after_rmdir_is_the_new_one(upper: WritableDirectory) -> None:
    for turn in range(3):
        upper.mkdir(b"d", 0o755)
        upper.mkdir(b"d/e", 0o755)
        touch(upper, b"d/e/f", b"%d" % turn)
        assert read(upper, b"d/e/f") == b"%d" % turn
        upper.unlink(b"d/e/f")
        upper.rmdir(b"d/e")
        upper.rmdir(b"d")


# rename ------------------------------------------------------------------------------------------------------------
def test_rename_file_replaces_and_respects_noreplace(upper: WritableDirectory, work: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    touch(work, b"new", b"new")
    touch(upper, b"d/f", b"old")
    assert errno_of(work.rename, b"new", upper, b"d/f", RENAME_NOREPLACE) == errno.EEXIST
    work.rename(b"new", upper, b"d/f")
    assert read(upper, b"d/f") == b"new"
    assert names(work) == []
    assert errno_of(work.rename, b"new", upper, b"d/f") == errno.ENOENT


def test_renamed_directory_with_children_at_hand(upper: WritableDirectory) -> None:
    upper.mkdir(b"a", 0o755)
    upper.mkdir(b"a/b", 0o755)
    touch(upper, b"a/b/f", b"moved")
    upper.rename(b"a", upper, b"z")
    assert read(upper, b"z/b/f") == b"moved"
    assert errno_of(upper.lstat, b"a/b/f") == errno.ENOENT
    upper.mkdir(b"a", 0o755)
    upper.mkdir(b"a/b", 0o755)
    touch(upper, b"a/b/f", b"other")
    assert (read(upper, b"a/b/f"), read(upper, b"z/b/f")) == (b"other", b"moved")


def test_directory_renamed_into_the_other_layer(upper: WritableDirectory, work: WritableDirectory) -> None:
    work.mkdir(b"new", 0o755)
    work.mkdir(b"new/sub", 0o755)
    touch(work, b"new/sub/f", b"built")
    upper.mkdir(b"d", 0o755)
    upper.mkdir(b"d/e", 0o755)
    upper.dir_fd(b"d/e")  # an empty directory with a descriptor is replaced
    work.rename(b"new", upper, b"d/e")
    assert read(upper, b"d/e/sub/f") == b"built"
    assert errno_of(work.lstat, b"new/sub/f") == errno.ENOENT


def test_exchanged_directories_with_children_at_hand(upper: WritableDirectory, work: WritableDirectory) -> None:
    for layer, name in ((upper, b"a"), (work, b"b")):
        layer.mkdir(name, 0o755)
        layer.mkdir(name + b"/sub", 0o755)
        touch(layer, name + b"/sub/f", name)
    upper.rename(b"a", work, b"b", RENAME_EXCHANGE)
    assert (read(upper, b"a/sub/f"), read(work, b"b/sub/f")) == (b"b", b"a")


def test_file_exchanged_with_a_directory_at_hand(upper: WritableDirectory, work: WritableDirectory) -> None:
    touch(work, b"file", b"file")
    upper.mkdir(b"d", 0o755)
    upper.mkdir(b"d/sub", 0o755)
    touch(upper, b"d/sub/f", b"x")
    work.rename(b"file", upper, b"d", RENAME_EXCHANGE)
    assert errno_of(upper.lstat, b"d/sub/f") == errno.ENOTDIR
    assert read(upper, b"d") == b"file"
    assert read(work, b"file/sub/f") == b"x"


@pytest.mark.needs_root
def test_rename_of_directory_leaves_whiteout(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    touch(upper, b"d/f", b"x")
    upper.rename(b"d", upper, b"e", RENAME_WHITEOUT)
    assert stat.S_ISCHR(upper.lstat(b"d").st_mode)
    assert errno_of(upper.lstat, b"d/f") == errno.ENOTDIR
    assert read(upper, b"e/f") == b"x"


def test_rename_into_own_child_is_refused_and_harmless(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    upper.mkdir(b"d/e", 0o755)
    assert errno_of(upper.rename, b"d", upper, b"d/e/d") == errno.EINVAL
    touch(upper, b"d/e/f", b"still")
    assert read(upper, b"d/e/f") == b"still"


def test_two_path_calls_with_the_smallest_bound(tmp_path: Path) -> None:
    layer = WritableDirectory(str(tmp_path), dir_fds=2)
    try:
        for path in (b"a", b"a/b", b"a/b/c", b"x", b"x/y", b"x/y/z"):
            layer.mkdir(path, 0o755)
        touch(layer, b"a/b/c/f", b"1")
        for turn in range(10):
            layer.rename(b"a/b/c/f", layer, b"x/y/z/g")
            layer.link(b"x/y/z/g", layer, b"a/b/c/f")
            layer.unlink(b"x/y/z/g")
            assert read(layer, b"a/b/c/f") == b"1", turn
    finally:
        layer.close()


# attributes --------------------------------------------------------------------------------------------------------
@pytest.mark.needs_root
def test_owner_and_mode_never_through_a_link(upper: WritableDirectory) -> None:
    touch(upper, b"f")
    upper.symlink(b"s", b"f")
    upper.chown(b"s", 7, 8)
    upper.chown(b"f", -1, 9)
    upper.chmod(b"f", 0o4755)
    assert errno_of(upper.chmod, b"s", 0o600) == errno.EOPNOTSUPP
    upper.chmod(b"", 0o701)
    link, file = upper.lstat(b"s"), upper.lstat(b"f")
    assert (link.st_uid, link.st_gid) == (7, 8)
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (0, 9, 0o4755)
    assert stat.S_IMODE(upper.lstat(b"").st_mode) == 0o701


def test_times_given_now_and_omitted(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    upper.symlink(b"d/s", b"nowhere")
    upper.utime(b"d/s", -5, 1_700_000_000_123_456_789)
    upper.utime(b"d/s", None, None)
    st = upper.lstat(b"d/s")
    assert (st.st_atime_ns, st.st_mtime_ns) == (-5, 1_700_000_000_123_456_789)
    upper.utime(b"d/s", None, NOW)
    st = upper.lstat(b"d/s")
    assert (st.st_atime_ns, st.st_mtime_ns) == (-5, st.st_ctime_ns)
    upper.utime(b"", 1, 2)
    assert upper.lstat(b"").st_mtime_ns == 2


def test_truncate_by_name(upper: WritableDirectory) -> None:
    touch(upper, b"f", b"0123")
    upper.truncate(b"f", 2)
    assert read(upper, b"f") == b"01"
    upper.truncate(b"f", 4)
    assert read(upper, b"f") == b"01\0\0"
    assert errno_of(upper.truncate, b"", 0) == errno.EISDIR
    upper.mknod(b"fifo", stat.S_IFIFO | 0o600, 0)
    assert errno_of(upper.truncate, b"fifo", 0) == errno.ENXIO


def test_xattrs_set_and_removed(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    touch(upper, b"d/f")
    for path in (b"", b"d", b"d/f"):
        upper.setxattr(path, b"user.a", path)
        assert upper.getxattr(path, b"user.a") == path
        assert errno_of(upper.setxattr, path, b"user.a", b"", os.XATTR_CREATE) == errno.EEXIST
        upper.removexattr(path, b"user.a")
        assert upper.getxattr(path, b"user.a") is None
        assert errno_of(upper.removexattr, path, b"user.a") == errno.ENODATA


@pytest.mark.needs_root
def test_trusted_xattr_of_a_link(upper: WritableDirectory) -> None:
    touch(upper, b"f")
    upper.symlink(b"s", b"f")
    upper.setxattr(b"s", b"trusted.overlay.origin", b"\0\xfb")
    assert upper.getxattr(b"s", b"trusted.overlay.origin") == b"\0\xfb"
    assert upper.getxattr(b"f", b"trusted.overlay.origin") is None


# the whole ---------------------------------------------------------------------------------------------------------
def test_sync_of_tree_and_directories(upper: WritableDirectory) -> None:
    upper.mkdir(b"d", 0o755)
    touch(upper, b"f")
    upper.sync()
    upper.fsync_dir(b"")()
    upper.fsync_dir(b"d")()
    assert errno_of(upper.fsync_dir, b"f") == errno.ENOTDIR


def test_root_descriptor_can_be_locked(upper: WritableDirectory, tmp_path: Path) -> None:
    linux_process.flock_exclusive(upper.root_fd)
    again = WritableDirectory(str(tmp_path / "upper"))
    try:
        with pytest.raises(BlockingIOError):
            linux_process.flock_exclusive(again.root_fd)
    finally:
        again.close()


def test_no_call_passes_a_link_in_the_middle(upper: WritableDirectory, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("untouched")
    upper.symlink(b"d", os.fsencode(tmp_path / "outside"))
    touch(upper, b"f")
    calls: list[Callable[[], object]] = [
        lambda: upper.create(b"d/x", 0o600),
        lambda: upper.tmpfile(b"d", 0o600),
        lambda: upper.mkdir(b"d/x", 0o700),
        lambda: upper.mknod(b"d/x", stat.S_IFIFO | 0o600, 0),
        lambda: upper.symlink(b"d/x", b"y"),
        lambda: upper.link(b"f", upper, b"d/x"),
        lambda: upper.unlink(b"d/f"),
        lambda: upper.rmdir(b"d/f"),
        lambda: upper.rename(b"f", upper, b"d/x"),
        lambda: upper.rename(b"d/f", upper, b"x"),
        lambda: upper.chmod(b"d/f", 0),
        lambda: upper.chown(b"d/f", -1, -1),
        lambda: upper.utime(b"d/f", 0, 0),
        lambda: upper.truncate(b"d/f", 0),
        lambda: upper.setxattr(b"d/f", b"user.a", b""),
        lambda: upper.removexattr(b"d/f", b"user.a"),
        lambda: upper.fsync_dir(b"d/f"),
    ]
    for number, attempt in enumerate(calls):
        assert errno_of(attempt) == errno.ENOTDIR, number
    assert os.listdir(tmp_path / "outside") == ["f"]
    assert (tmp_path / "outside/f").read_text() == "untouched"


@pytest.mark.needs_root
def test_as_nobody_in_a_directory_of_ones_own() -> None:
    with tempfile.TemporaryDirectory() as top:
        os.chown(top, NOBODY, NOBODY)

        def attempt() -> None:
            layer = WritableDirectory(top)
            layer.mkdir(b"d", 0o755)
            file = layer.tmpfile(b"d", 0o600)
            layer.link_file(file, b"d/f")
            file.close()
            layer.mknod(b"d/whiteout", stat.S_IFCHR, 0)
            assert errno_of(layer.mknod, b"d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)) == errno.EPERM
            assert errno_of(layer.chown, b"d/f", 0, 0) == errno.EPERM
            layer.setxattr(b"d", b"user.overlay.opaque", b"y")
            assert errno_of(layer.setxattr, b"d", b"trusted.overlay.opaque", b"y") == errno.EPERM
            layer.chmod(b"d/f", 0o640)
            layer.utime(b"d/f", NOW, 3)
            layer.rename(b"d", layer, b"e")
            assert names(layer, b"e") == [b"f", b"whiteout"]
            layer.close()

        run_as_nobody(attempt)


def test_missing_upper_is_a_layer_error(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="no such directory"):
        WritableDirectory(str(tmp_path / "none"))
