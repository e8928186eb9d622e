"""The engine on layers in memory does what it does on directories of the host, operation by operation."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from unionfs.explain.shell import Shell
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.inode import join
from unionfs.vfs import DT_DIR

#: A namespace that everybody may write to.
OPTIONS = UnionOptions(xattr_prefix=b"user.")
#: Attributes whose values are numbers and handles of a file system.
OF_THE_DISK = (b".origin", b".number", b".slot")

paths = st.sampled_from(["a", "b", "d", "d/a", "d/e", "d/e/a", "e", "e/d", "n"])
OPERATIONS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "write": (paths, st.sampled_from([b"", b"new"])),
    "touch": (paths,),
    "rm": (paths,),
    "rm -r": (paths,),
    "mkdir": (paths,),
    "rmdir": (paths,),
    "mv": (paths, paths),
    "mv --exchange": (paths, paths),
    "ln": (paths, paths),
    "symlink": (st.sampled_from(["a", "../b", "nowhere"]), paths),
    "chmod": (st.sampled_from([0o700, 0o755]), paths),
    "cat": (paths,),
}
Operation = tuple[str, tuple[Any, ...]]
operations = st.one_of([st.tuples(st.just(name), st.tuples(*words)) for name, words in OPERATIONS.items()])


def fill(layer: WritableLayer, name: str) -> None:
    """The two lowers: a merged directory, one over a file, hard links, a whiteout."""

    def write(path: bytes, data: bytes) -> None:
        file = layer.create(path, 0o644)
        file.pwrite(data, 0)
        file.close()

    layer.mkdir(b"d", 0o755)
    if name == "base":
        layer.mkdir(b"d/e", 0o755)
        write(b"d/e/a", b"deep")
        write(b"d/a", b"hidden")
        write(b"a", b"linked")
        layer.link(b"a", layer, b"b")
        write(b"e", b"a file")
    else:
        layer.mknod(b"d/a", stat.S_IFCHR, 0)
        layer.mkdir(b"e", 0o755)
        write(b"e/d", b"over a file")


class Union:
    def __init__(self, lowers: Sequence[Layer], upper: WritableLayer, work: WritableLayer) -> None:
        self.upper = upper
        self.fs = UnionFilesystem(lowers, upper, work, OPTIONS)
        self._shell = Shell(self.fs, lambda node: node.attr._replace(size=0 if node.attr.is_dir else node.attr.size))

    def run(self, operation: Operation) -> object:
        name, words = operation
        shell = self._shell
        calls: dict[str, Callable[..., object]] = {
            "rm -r": lambda path: shell.rm(path, recursive=True),
            "mv --exchange": lambda old, new: shell.mv(old, new, exchange=True),
        }
        try:
            return calls.get(name, getattr(shell, name, shell.ls))(*words)
        except OSError as e:
            return errno.errorcode[e.errno or 0]
        finally:
            self.fs.check_invariants()

    def shown(self) -> list[object]:
        """`nlink` of a directory is the storage's own affair."""
        found: list[object] = []
        for path in self._shell.find(""):
            with self._shell.existing(path, follow=False) as (tree, node):
                attr = node.attr
                row: tuple[object, ...] = (path, oct(attr.mode), attr.uid, attr.gid)
                if stat.S_ISREG(attr.mode):
                    opened = tree.fs.open(node.node, os.O_RDONLY)
                    row += (attr.nlink, tree.fs.read(opened.fh, 0, 100))
                    tree.fs.release(opened.fh)
                found.append(row)
        return found

    def stored(self, directory: bytes = b"") -> Iterator[tuple[object, ...]]:
        for entry in sorted(self.upper.scan(directory)):
            path = join(directory, entry.name)
            marks = {
                name: None if name.endswith(OF_THE_DISK) else self.upper.getxattr(path, name)
                for name in sorted(self.upper.listxattr(path))
            }
            yield path, oct(self.upper.lstat(path).st_mode), self.upper.lstat(path).st_rdev, marks
            if entry.type == DT_DIR:
                yield from self.stored(path)


def in_memory() -> Union:
    ticks = itertools.count(1_700_000_000_000_000_000)
    disk = MemoryDisk(lambda: next(ticks), owner=(os.geteuid(), os.getegid()))
    layers = {name: MemoryLayer(disk, name) for name in ("upper", "work", "top", "base")}
    for name in ("top", "base"):
        fill(layers[name], name)
    return Union([layers["top"], layers["base"]], layers["upper"], layers["work"])


def on_the_host(home: str) -> Union:
    def made(name: str) -> str:
        os.mkdir(os.path.join(home, name))
        return os.path.join(home, name)

    upper, work = (WritableDirectory(made(name)) for name in ("upper", "work"))
    for name in ("top", "base"):
        layer = WritableDirectory(made(name))
        fill(layer, name)
        layer.close()
    return Union([DirectoryLayer(os.path.join(home, name)) for name in ("top", "base")], upper, work)


@settings(max_examples=100, deadline=None)
@given(st.lists(operations, min_size=8, max_size=25))
@example([("mv", ("d", "n")), ("mv", ("n/e", "e")), ("rm -r", ("e",)), ("mkdir", ("d",))])
@example([("write", ("a", b"new")), ("rm", ("b",)), ("mv --exchange", ("a", "d")), ("symlink", ("a", "n"))])
def test_the_same_operations_show_and_store_the_same(sequence: list[Operation]) -> None:
    old = os.umask(0)
    try:
        with tempfile.TemporaryDirectory() as home:
            held, real = in_memory(), on_the_host(home)
            try:
                for operation in sequence:
                    assert held.run(operation) == real.run(operation), operation
                assert held.shown() == real.shown()
                assert list(held.stored()) == list(real.stored())
            finally:
                held.fs.close()
                real.fs.close()
    finally:
        os.umask(old)
