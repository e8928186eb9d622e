"""DirectoryLayer: reading a tree of the host by descriptor, never following a link."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.as_user import run_as_nobody
from unionfs.errors import LayerError
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import Layer
from unionfs.linux import handle as linux_handle
from unionfs.vfs import DT_CHR, DT_DIR, DT_FIFO, DT_LNK, DT_REG, DT_SOCK


@pytest.fixture
def open_layer() -> Iterator[Callable[..., DirectoryLayer]]:
    """Layers that are closed at the end, when every descriptor taken since the start must have been given back."""
    gc.collect()  # what earlier tests left to it is not to be closed in the middle of this one
    before = set(os.listdir("/proc/self/fd"))
    made: list[DirectoryLayer] = []

    def make(path: str | Path, dir_fds: int = 256) -> DirectoryLayer:
        layer = DirectoryLayer(str(path), dir_fds=dir_fds)
        made.append(layer)
        return layer

    yield make
    for layer in made:
        layer.close()
        layer.close()
    assert not set(os.listdir("/proc/self/fd")) - before


@pytest.fixture
def layer(tmp_path: Path, open_layer: Callable[..., DirectoryLayer]) -> DirectoryLayer:
    return open_layer(tmp_path)


def errno_of(function: Callable[..., object], *args: object) -> int | None:
    with pytest.raises(OSError) as caught:
        function(*args)
    return caught.value.errno


# construction ------------------------------------------------------------------------------------------------------
def test_missing_directory_is_a_layer_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="no such directory") as caught:
        DirectoryLayer(str(tmp_path / "none"))
    assert str(tmp_path / "none") in str(caught.value)
    assert caught.value.hint


def test_file_is_no_layer(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(LayerError, match="not a directory") as caught:
        DirectoryLayer(os.fsencode(tmp_path / "f"), name="base")
    assert "layer base" in str(caught.value)
    assert caught.value.hint


def test_link_to_a_directory_is_a_layer(tmp_path: Path, open_layer: Callable[..., DirectoryLayer]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").touch()
    (tmp_path / "link").symlink_to("real")
    layer: Layer = open_layer(tmp_path / "link")
    assert stat.S_ISREG(layer.lstat(b"f").st_mode)
    assert layer.name == str(tmp_path / "link")


# lstat and paths ---------------------------------------------------------------------------------------------------
def test_lstat_root_file_and_deep(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_bytes(b"123")
    assert layer.lstat(b"").st_ino == tmp_path.stat().st_ino
    assert layer.lstat(b"a").st_ino == (tmp_path / "a").stat().st_ino
    assert layer.lstat(b"a/b/f").st_size == 3


def test_lstat_shows_the_link_itself(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert stat.S_ISLNK(layer.lstat(b"link").st_mode)
    assert layer.readlink(b"link") == b"/etc/passwd"
    assert errno_of(layer.readlink, b"") == errno.EINVAL


def test_missing_names_and_parents(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    for function in (layer.lstat, layer.scan, layer.readlink, layer.listxattr, layer.open, layer.handle, layer.dir_fd):
        assert errno_of(function, b"none") == errno.ENOENT
        assert errno_of(function, b"d/none/x") == errno.ENOENT
        assert errno_of(function, b"f/x") == errno.ENOTDIR
        assert errno_of(function, b"f/x/y") == errno.ENOTDIR
        assert errno_of(function, b"d/" + b"n" * 256) == errno.ENAMETOOLONG


def test_name_of_255_bytes(layer: DirectoryLayer) -> None:
    name = b"\xc3\xa9" * 127 + b"x"
    os.mkdir(name, dir_fd=layer.root_fd)
    os.close(os.open(name + b"/" + name, os.O_CREAT, dir_fd=layer.root_fd))
    assert stat.S_ISREG(layer.lstat(name + b"/" + name).st_mode)
    assert [entry.name for entry in layer.scan(name)] == [name]


def test_name_that_is_not_utf8(layer: DirectoryLayer) -> None:
    name = bytes(range(128, 256))
    os.mkdir(name, dir_fd=layer.root_fd)
    os.close(os.open(name + b"/" + name, os.O_CREAT, dir_fd=layer.root_fd))
    assert [entry.name for entry in layer.scan(b"")] == [name]
    assert [entry.name for entry in layer.scan(name)] == [name]
    with layer_file(layer, name + b"/" + name) as fd:
        assert os.fstat(fd).st_ino == layer.lstat(name + b"/" + name).st_ino


class layer_file:
    """`with layer_file(layer, path) as fd`."""

    def __init__(self, layer: DirectoryLayer, path: bytes) -> None:
        self.file = layer.open(path)

    def __enter__(self) -> int:
        return self.file.fd

    def __exit__(self, *_: object) -> None:
        self.file.close()


def test_path_longer_than_path_max(open_layer: Callable[..., DirectoryLayer]) -> None:
    top = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    name = b"d" * 250
    try:
        layer = open_layer(top)
        path = b""
        for _ in range(40):
            path = path + b"/" + name if path else name
            os.mkdir(name, dir_fd=layer.dir_fd(path.rpartition(b"/")[0]))
        fd = os.open(b"f", os.O_CREAT | os.O_WRONLY, dir_fd=layer.dir_fd(path))
        os.write(fd, b"deep")
        os.close(fd)
        assert len(path) > 2 * 4096
        layer.invalidate()
        assert layer.lstat(path + b"/f").st_size == 4
        assert [entry.name for entry in layer.scan(path)] == [b"f"]
        file = layer.open(path + b"/f")
        assert file.pread(10, 0) == b"deep"
        file.close()
        assert layer.listxattr(path + b"/f") == []
    finally:
        shutil.rmtree(top)


# links are never followed ------------------------------------------------------------------------------------------
def test_link_in_the_middle_is_enotdir(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "real/f").touch()
    (tmp_path / "link").symlink_to("real")
    for function in (layer.lstat, layer.scan, layer.readlink, layer.listxattr, layer.open, layer.handle):
        assert errno_of(function, b"link/f") == errno.ENOTDIR
        assert errno_of(function, b"link/sub/x") == errno.ENOTDIR
    assert errno_of(layer.scan, b"link") == errno.ENOTDIR
    assert errno_of(layer.dir_fd, b"link") == errno.ENOTDIR


def test_directory_swapped_for_a_link_leads_nowhere_else(
    layer: DirectoryLayer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("secret")
    (secret / "f").write_text("secret")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("mine")
    assert layer.lstat(b"d/f").st_size == 4  # the descriptor of d is at hand now
    (tmp_path / "d").rename(tmp_path / "old")
    (tmp_path / "d").symlink_to(secret)
    file = layer.open(b"d/f")
    assert file.pread(10, 0) == b"mine"
    file.close()
    layer.invalidate(b"d")
    assert errno_of(layer.open, b"d/f") == errno.ENOTDIR


# scan --------------------------------------------------------------------------------------------------------------
def test_scan_gives_every_type_and_inode(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "sock", stat.S_IFSOCK | 0o600)
    os.mknod(tmp_path / "whiteout", stat.S_IFCHR | 0o600, 0)
    found = {entry.name: entry for entry in layer.scan(b"")}
    assert {name: entry.type for name, entry in found.items()} == {
        b"file": DT_REG,
        b"dir": DT_DIR,
        b"link": DT_LNK,
        b"fifo": DT_FIFO,
        b"sock": DT_SOCK,
        b"whiteout": DT_CHR,
    }
    for name, entry in found.items():
        assert entry.ino == layer.lstat(name).st_ino
    assert layer.scan(b"dir") == []


def test_scan_of_a_file_is_enotdir(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.mkfifo(tmp_path / "fifo")
    assert errno_of(layer.scan, b"f") == errno.ENOTDIR
    assert errno_of(layer.scan, b"fifo") == errno.ENOTDIR


def test_scan_of_many_entries(layer: DirectoryLayer, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"f{number}").touch()
    assert {entry.name for entry in layer.scan(b"")} == {b"f%d" % number for number in range(3000)}


# open --------------------------------------------------------------------------------------------------------------
def test_open_reads_and_descriptor_is_close_on_exec(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    file = layer.open(b"f")
    try:
        assert file.pread(3, 4) == b"456"
        assert file.pread(3, 10) == b""
        assert file.fstat().st_size == 10
        assert file.seek_hole(0) == 10
        assert file.seek_data(5) == 5
        assert errno_of(file.seek_data, 10) == errno.ENXIO
        assert errno_of(file.pwrite, b"x", 0) == errno.EBADF
        assert not os.get_inheritable(file.fd)
    finally:
        file.close()
        file.close()
    assert file.fd == -1
    assert errno_of(file.pread, 1, 0) == errno.EBADF


def test_open_refuses_everything_but_regular_files(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "sock", stat.S_IFSOCK | 0o600)
    os.mknod(tmp_path / "whiteout", stat.S_IFCHR | 0o600, 0)
    before = os.listdir("/proc/self/fd")
    assert errno_of(layer.open, b"dir") == errno.EISDIR
    assert errno_of(layer.open, b"") == errno.EISDIR
    assert errno_of(layer.open, b"link") == errno.ELOOP
    for name in (b"fifo", b"sock", b"whiteout"):
        assert errno_of(layer.open, name) == errno.ENXIO
    assert errno_of(layer.open, b"link", os.O_PATH) == errno.ELOOP
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.needs_root
def test_open_refuses_a_device_that_would_open(open_layer: Callable[..., DirectoryLayer]) -> None:
    assert errno_of(open_layer("/dev").open, b"null") == errno.ENXIO


def test_open_never_creates(layer: DirectoryLayer, tmp_path: Path) -> None:
    assert errno_of(layer.open, b"new", os.O_RDWR | os.O_CREAT) == errno.ENOENT
    assert os.listdir(tmp_path) == []


def test_replace_puts_another_file_in_place(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    file, other = layer.open(b"old"), layer.open(b"new", os.O_RDWR)
    number = file.fd
    file.replace(other)
    assert file.fd == number
    other.close()
    assert file.pread(9, 0) == b"new"
    assert file.pwrite(b"N", 0) == 1
    assert not os.get_inheritable(file.fd)
    file.close()
    assert (tmp_path / "new").read_bytes() == b"New"


# attributes --------------------------------------------------------------------------------------------------------
def test_xattrs_present_absent_and_of_the_root(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    os.setxattr(tmp_path / "d/f", "user.a", b"1")
    os.setxattr(tmp_path, "user.r", b"")
    assert layer.getxattr(b"d/f", b"user.a") == b"1"
    assert layer.getxattr(b"d/f", b"user.none") is None
    assert layer.getxattr(b"d/f", b"nonsense") is None
    assert layer.listxattr(b"d/f") == [b"user.a"]
    assert layer.getxattr(b"", b"user.r") == b""
    assert layer.listxattr(b"") == [b"user.r"]
    assert errno_of(layer.getxattr, b"d/none", b"user.a") == errno.ENOENT


@pytest.mark.needs_root
def test_xattr_of_a_link_that_points_anywhere(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self/fd/0")
    os.setxattr(tmp_path / "link", "trusted.x", b"own", follow_symlinks=False)
    assert layer.getxattr(b"link", b"trusted.x") == b"own"
    assert layer.listxattr(b"link") == [b"trusted.x"]


@pytest.mark.needs_root
def test_handle_opens_the_same_file(layer: DirectoryLayer, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"origin")
    found = layer.handle(b"d/f")
    assert found is not None
    assert len(found.uuid) == 16
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        assert found.uuid == linux_handle.fs_uuid(root)
        fd = linux_handle.open_by_handle_at(root, found.type, found.handle, os.O_RDONLY)
        assert os.read(fd, 10) == b"origin"
        os.close(fd)
    finally:
        os.close(root)
    of_root = layer.handle(b"")
    assert of_root is not None
    assert of_root.handle != found.handle
    assert of_root.uuid == found.uuid


def test_handle_where_the_storage_has_none(open_layer: Callable[..., DirectoryLayer]) -> None:
    assert open_layer("/proc").handle(b"version") is None


def test_handle_of_a_mount_below_has_that_file_systems_uuid(open_layer: Callable[..., DirectoryLayer]) -> None:
    shm = os.open("/dev/shm", os.O_RDONLY)
    uuid = linux_handle.fs_uuid(shm)
    os.close(shm)
    if os.stat("/dev").st_dev == os.stat("/dev/shm").st_dev:
        pytest.skip("missing: a /dev/shm that is a mount of its own")
    found = open_layer("/dev").handle(b"shm")
    assert found is not None
    assert found.uuid == uuid


def test_statfs_is_the_storages(layer: DirectoryLayer, tmp_path: Path) -> None:
    expected = os.statvfs(tmp_path)
    found = layer.statfs()
    assert (found.bsize, found.frsize, found.blocks, found.namemax) == (
        expected.f_bsize,
        expected.f_frsize,
        expected.f_blocks,
        255,
    )


# descriptors -------------------------------------------------------------------------------------------------------
def test_descriptors_stay_within_the_bound(tmp_path: Path, open_layer: Callable[..., DirectoryLayer]) -> None:
    layer = open_layer(tmp_path, dir_fds=2)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        (tmp_path / f"d{number}/e/g").mkdir(parents=True)
        (tmp_path / f"d{number}/e/g/f").write_text(str(number))
    for turn in (range(20), range(19, -1, -1)):
        for number in turn:
            assert layer.lstat(b"d%d/e/g/f" % number).st_size == len(str(number))
            assert len(os.listdir("/proc/self/fd")) <= before + 2
            file = layer.open(b"d%d/e/g/f" % number)
            assert file.pread(9, 0) == b"%d" % number
            file.close()


@pytest.mark.parametrize("use", [DirectoryLayer.dir_fd, lambda layer, path: layer.lstat(path + b"/f")])
def test_least_recently_used_goes_first(
    tmp_path: Path, open_layer: Callable[..., DirectoryLayer], use: Callable[[DirectoryLayer, bytes], object]
) -> None:
    layer = open_layer(tmp_path, dir_fds=2)
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
    a = layer.dir_fd(b"a")
    layer.dir_fd(b"b")
    use(layer, b"a")
    layer.dir_fd(b"c")  # b goes
    (tmp_path / "a").rename(tmp_path / "was-a")
    (tmp_path / "b").rename(tmp_path / "was-b")
    assert layer.dir_fd(b"a") == a
    assert errno_of(layer.dir_fd, b"b") == errno.ENOENT


def test_invalidate_forgets_a_path_and_what_is_below_only(layer: DirectoryLayer, tmp_path: Path) -> None:
    for name in ("d/x", "d-e", "dd"):
        (tmp_path / name).mkdir(parents=True)
    paths = (b"d", b"d/x", b"d-e", b"dd")
    for path in paths:
        layer.dir_fd(path)
    shutil.rmtree(tmp_path / "d")
    (tmp_path / "d-e").rmdir()
    (tmp_path / "dd").rmdir()
    layer.invalidate(b"d")
    assert [errno_of(layer.dir_fd, path) for path in paths[:2]] == [errno.ENOENT] * 2
    assert layer.dir_fd(b"d-e") != layer.dir_fd(b"dd")
    layer.invalidate()
    assert [errno_of(layer.dir_fd, path) for path in paths[2:]] == [errno.ENOENT] * 2
    assert layer.lstat(b"").st_ino == tmp_path.stat().st_ino


def test_out_of_descriptors_gives_up_its_own_first(tmp_path: Path, open_layer: Callable[..., DirectoryLayer]) -> None:
    resource = pytest.importorskip("resource")
    layer = open_layer(tmp_path)
    for number in range(30):
        (tmp_path / f"d{number}").mkdir()
        layer.dir_fd(b"d%d" % number)
    (tmp_path / "last").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    filler: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        with pytest.raises(OSError) as caught:
            while True:
                filler.append(os.dup(layer.root_fd))
        assert caught.value.errno == errno.EMFILE
        assert stat.S_ISDIR(os.fstat(layer.dir_fd(b"last")).st_mode)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in filler:
            os.close(fd)


def test_closed_layer_answers_ebadf(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    layer = DirectoryLayer(str(tmp_path))
    layer.dir_fd(b"d")
    layer.close()
    assert errno_of(layer.lstat, b"") == errno.EBADF
    assert errno_of(layer.lstat, b"d/f") == errno.EBADF
    assert errno_of(layer.statfs) == errno.EBADF


@pytest.mark.needs_root
def test_as_nobody_permissions_of_the_storage_hold() -> None:
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o711)
        for name, mode in (("open", 0o755), ("closed", 0o700)):
            os.mkdir(os.path.join(top, name))
            Path(top, name, "f").touch()
            os.chmod(os.path.join(top, name), mode)

        def attempt() -> None:
            layer = DirectoryLayer(top)
            assert stat.S_ISREG(layer.lstat(b"open/f").st_mode)
            assert layer.getxattr(b"open/f", b"user.none") is None
            assert errno_of(layer.lstat, b"closed/f") == errno.EACCES
            assert errno_of(layer.scan, b"closed") == errno.EACCES
            assert errno_of(layer.scan, b"") == errno.EACCES  # searchable, not readable
            layer.close()

        run_as_nobody(attempt)
