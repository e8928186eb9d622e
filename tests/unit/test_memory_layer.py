"""MemoryLayer: the same operations on it and on a directory of the host come to the same, call by call."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.layers.memory_disk import PAGE
from unionfs.layers.upper import WritableDirectory
from unionfs.vfs import (
    DT_DIR,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    NOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    XATTR_CREATE,
    XATTR_REPLACE,
)

ROOT = os.geteuid() == 0
SECOND = 1_000_000_000


class Op(NamedTuple):
    """One call: of the upper (0) or of the work directory (1)."""

    name: str
    tree: int
    args: tuple[Any, ...]


# operations -----------------------------------------------------------------------------------------------------------
paths = st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/e", b"d/e/a", b"e", b"e/d"])
tree = st.integers(0, 1)
modes = st.sampled_from([0o755, 0o700, 0o2775, 0o4711] if ROOT else [0o755, 0o700])
names = st.sampled_from([b"user.a", b"user.b", b"trusted.a", b"odd"] if ROOT else [b"user.a", b"user.b"])
kinds = st.sampled_from([stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFCHR])
ids = st.sampled_from([-1, 0, 1000]) if ROOT else st.just(-1)
times = st.sampled_from([None, 0, 1_400_000_000 * SECOND + 7])
flags = st.sampled_from([0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, RENAME_EXCHANGE | RENAME_NOREPLACE])
OPERATIONS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "write": (paths, modes, st.integers(0, 3 * PAGE), st.binary(max_size=4)),
    "read": (paths, st.integers(0, PAGE + 2), st.integers(0, 2 * PAGE)),
    "mkdir": (paths, modes),
    "mknod": (paths, kinds, modes),
    "symlink": (paths, st.sampled_from([b"a", b"../x"])),
    "link": (paths, tree, paths),
    "tmpfile": (paths, modes, paths),
    "unlink": (paths,),
    "rmdir": (paths,),
    "rename": (paths, tree, paths, flags),
    "chmod": (paths, modes),
    "chown": (paths, ids, ids),
    "utime": (
        paths,
        times,
        st.sampled_from([0, 1_400_000_000 * SECOND + 7]),
    ),  # utimensat(2) of nothing looks at nothing
    "truncate": (paths, st.integers(0, 3 * PAGE)),
    "punch": (paths, st.integers(0, PAGE), st.integers(1, 2 * PAGE)),
    "setxattr": (paths, names, st.binary(max_size=3), st.sampled_from([0, XATTR_CREATE, XATTR_REPLACE])),
    "removexattr": (paths, names),
    "getxattr": (paths, names),
    "readlink": (paths,),
}
operations = st.one_of([st.builds(Op, st.just(name), tree, st.tuples(*args)) for name, args in OPERATIONS.items()])


#: There is something to act on, so that few operations are refused for want of it.
BEGINNING = [
    Op("mkdir", 0, (b"d", 0o755)),
    Op("mkdir", 0, (b"d/e", 0o700)),
    Op("mkdir", 1, (b"e", 0o755)),
    Op("write", 0, (b"a", 0o755, 0, b"data")),
    Op("write", 0, (b"d/a", 0o700, PAGE + 1, b"x")),
    Op("symlink", 0, (b"b", b"a")),
    Op("link", 0, (b"a", 1, b"a")),
]


class Pair:
    """Two trees on one file system, and the operations on them."""

    def __init__(self, *trees: WritableLayer) -> None:
        self.trees = trees

    def run(self, op: Op) -> object:
        """What it comes to: an errno's name, or what it answers."""
        own: Callable[..., object] | None = getattr(self, "_" + op.name, None)
        try:
            if own is not None:
                return own(self.trees[op.tree], *op.args)
            return getattr(self.trees[op.tree], op.name)(*op.args)
        except OSError as e:
            return errno.errorcode[e.errno or 0]

    def _write(self, tree: WritableLayer, path: bytes, mode: int, offset: int, data: bytes) -> int:
        """In a new file, else in the old one."""
        try:
            file = tree.create(path, mode)
        except FileExistsError:
            file = tree.open(path, os.O_WRONLY)
        try:
            return file.pwrite(data, offset)
        finally:
            file.close()

    def _read(self, tree: WritableLayer, path: bytes, size: int, offset: int) -> bytes:
        file = tree.open(path)
        try:
            return file.pread(size, offset)
        finally:
            file.close()

    def _mknod(self, tree: WritableLayer, path: bytes, kind: int, mode: int) -> None:
        tree.mknod(path, kind | mode, 0)

    def _link(self, tree: WritableLayer, path: bytes, to: int, to_path: bytes) -> None:
        tree.link(path, self.trees[to], to_path)

    def _rename(self, tree: WritableLayer, path: bytes, to: int, to_path: bytes, flags: int) -> None:
        tree.rename(path, self.trees[to], to_path, flags)

    def _tmpfile(self, tree: WritableLayer, directory: bytes, mode: int, path: bytes) -> None:
        file = tree.tmpfile(directory, mode)
        try:
            file.pwrite(b"unnamed", 1)
            tree.link_file(file, path)
        finally:
            file.close()

    def _punch(self, tree: WritableLayer, path: bytes, offset: int, length: int) -> None:
        file = tree.open(path, os.O_RDWR)
        try:
            file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)
        finally:
            file.close()

    # what there is then -------------------------------------------------------------------------------------------
    def state(self) -> list[dict[bytes, tuple[object, ...]]]:
        return [dict(_walk(tree)) for tree in self.trees]


def _walk(tree: Layer, path: bytes = b"") -> Iterator[tuple[bytes, tuple[object, ...]]]:
    found = tree.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    xattrs = {name: tree.getxattr(path, name) for name in sorted(tree.listxattr(path))}
    row: tuple[object, ...] = (oct(found.st_mode), found.st_uid, found.st_gid, xattrs)
    if kind != stat.S_IFDIR:
        row += (found.st_nlink, found.st_size, found.st_rdev, kind == stat.S_IFLNK and tree.readlink(path))
    elif path:
        row += (found.st_mtime_ns if found.st_mtime_ns < 1_500_000_000 * SECOND else "now",)
    if kind == stat.S_IFREG:
        file = tree.open(path)
        row += (file.pread(1 << 20, 0), found.st_mtime_ns if found.st_mtime_ns < 1_500_000_000 * SECOND else "now")
        file.close()
    yield path, row
    if kind == stat.S_IFDIR:
        stat_in = tree.stat_in(path)
        for entry in tree.scan(path):
            assert (stat.S_IFMT(stat_in(entry.name).st_mode) >> 12, stat_in(entry.name).st_ino) == entry[1:]
            yield from _walk(tree, path + b"/" + entry.name if path else entry.name)


def ticking(start: int = 1_700_000_000 * SECOND) -> Callable[[], int]:
    counter = itertools.count(start)
    return lambda: next(counter)


def memory_pair() -> Pair:
    disk = MemoryDisk(ticking(), owner=(os.geteuid(), os.getegid()))
    return Pair(MemoryLayer(disk, "upper"), MemoryLayer(disk, "work"))


@settings(max_examples=200, deadline=None)
@given(st.lists(operations, min_size=10, max_size=30))
@example([Op("rename", 0, (b"a", 0, b"d", RENAME_EXCHANGE)), Op("rename", 0, (b"a/a", 1, b"e", RENAME_EXCHANGE))])
@example([Op("mkdir", 0, (b"d", 0o755)), Op("rename", 0, (b"d", 0, b"d/e", 0))])
@example([Op("link", 1, (b"b", 0, b"a/a"))])
@example([Op("chmod", 1, (b"e", 0o2775)), Op("mkdir", 1, (b"e/d", 0o4711 if ROOT else 0o755))])
@example([Op("mkdir", 0, (b"d", 0o755)), Op("mkdir", 0, (b"e", 0o755)), Op("rename", 0, (b"d", 1, b"e", 0))])
@example([Op("write", 0, (b"a", 0o755, 5000, b"x")), Op("link", 0, (b"a", 1, b"b")), Op("unlink", 0, (b"a",))])
@example([Op("write", 0, (b"a", 0o755, 0, b"x")), Op("rename", 0, (b"a", 0, b"b", RENAME_WHITEOUT))])
def test_the_same_operations_come_to_the_same_as_in_a_directory(sequence: list[Op]) -> None:
    old = os.umask(0)
    try:
        with tempfile.TemporaryDirectory() as home:
            for name in ("upper", "work"):
                os.mkdir(os.path.join(home, name))
            os.chmod(home, 0o755)
            stored = Pair(*(WritableDirectory(os.path.join(home, name)) for name in ("upper", "work")))
            held = memory_pair()
            for layer in held.trees:
                layer.chmod(b"", 0o755)
            for layer in stored.trees:
                layer.chmod(b"", 0o755)
            try:
                for op in BEGINNING + sequence:
                    assert held.run(op) == stored.run(op), op
                    assert held.state() == stored.state(), op
            finally:
                for layer in stored.trees:
                    layer.close()
    finally:
        os.umask(old)


# what the host's file systems do not agree about, or cannot be asked --------------------------------------------------
@pytest.fixture
def layer() -> MemoryLayer:
    return MemoryLayer(MemoryDisk(ticking()), "memory")


def refusal(function: Callable[..., object], *args: object) -> str:
    with pytest.raises(OSError) as caught:
        function(*args)
    return errno.errorcode[caught.value.errno or 0]


def test_what_was_not_written_is_a_hole(layer: MemoryLayer) -> None:
    file = layer.create(b"f", 0o644)
    file.pwrite(b"x", 2 * PAGE)
    assert (file.fstat().st_size, file.fstat().st_blocks) == (2 * PAGE + 1, PAGE // 512)
    assert (file.seek_data(0), file.seek_hole(0), file.seek_hole(2 * PAGE)) == (2 * PAGE, 0, 2 * PAGE + 1)
    file.ftruncate(10 * PAGE)
    assert (file.seek_hole(2 * PAGE), file.pread(3, 2 * PAGE)) == (3 * PAGE, b"x\0\0")
    assert refusal(file.seek_data, 3 * PAGE) == "ENXIO"
    file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10 * PAGE)
    assert (file.fstat().st_size, file.fstat().st_blocks) == (10 * PAGE, 0)


def test_what_was_cut_off_does_not_come_back(layer: MemoryLayer) -> None:
    file = layer.create(b"f", 0o644)
    file.pwrite(b"abcdef", 0)
    file.ftruncate(2)
    file.ftruncate(6)
    assert file.pread(10, 0) == b"ab\0\0\0\0"


def test_a_file_that_takes_anothers_place_is_read_through_the_old_handle(layer: MemoryLayer) -> None:
    for name, data in ((b"old", b"old"), (b"new", b"new")):
        layer.create(name, 0o644).pwrite(data, 0)
    reader, other = layer.open(b"old"), layer.open(b"new")
    reader.replace(other)
    assert (reader.pread(3, 0), reader.fstat().st_ino) == (b"new", layer.lstat(b"new").st_ino)
    assert refusal(reader.pwrite, b"x", 0) == "EBADF"


def test_times_are_those_of_the_clock(layer: MemoryLayer) -> None:
    layer.disk.clock = lambda: 5
    layer.mkdir(b"d", 0o755)
    layer.disk.clock = lambda: 6
    layer.utime(b"d", NOW, None)
    assert [getattr(layer.lstat(b"d"), f"st_{name}time_ns") for name in "amc"] == [6, 5, 6]


def test_a_handle_finds_its_object_until_that_is_gone(layer: MemoryLayer) -> None:
    layer.create(b"f", 0o644)
    handle = layer.handle(b"f")
    assert handle is not None
    layer.rename(b"f", layer, b"g")
    assert layer.stat_handle(handle).st_ino == layer.lstat(b"g").st_ino
    layer.unlink(b"g")
    assert refusal(layer.stat_handle, handle) == "ESTALE"
    other = MemoryLayer(MemoryDisk(ticking(), device=2), "other")
    assert refusal(other.stat_handle, handle) == "ESTALE"


def test_trees_on_two_disks_cannot_be_linked_into_each_other(layer: MemoryLayer) -> None:
    other = MemoryLayer(MemoryDisk(ticking(), device=2), "other")
    layer.create(b"f", 0o644)
    assert refusal(layer.rename, b"f", other, b"f") == "EXDEV"
    assert refusal(layer.link, b"f", other, b"f") == "EXDEV"


def test_a_disk_that_holds_no_marks(layer: MemoryLayer) -> None:
    layer.disk.xattrs = layer.disk.devices = False
    assert refusal(layer.mknod, b"w", stat.S_IFCHR, 0) == "EPERM"
    assert refusal(layer.setxattr, b"", b"user.a", b"") == "ENOTSUP"
    assert refusal(MemoryLayer(MemoryDisk(ticking()), "x").setxattr, b"", b"system.posix_acl_access", b"") == (
        "ENOTSUP"
    )


def test_directories_count_those_in_them(layer: MemoryLayer) -> None:
    layer.mkdir(b"d", 0o755)
    layer.mkdir(b"d/e", 0o755)
    assert (layer.lstat(b"d").st_nlink, layer.scan(b"")[0].type) == (3, DT_DIR)


def test_a_name_of_256_bytes(layer: MemoryLayer, tmp_path: Path) -> None:
    host = WritableDirectory(os.fsencode(tmp_path))
    for call in ("lstat", "unlink", "readlink"):
        assert refusal(getattr(layer, call), b"x" * 256) == refusal(getattr(host, call), b"x" * 256) == "ENAMETOOLONG"
    host.close()
