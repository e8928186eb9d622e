"""A union in process over directories on disk, driven by paths: what the engine's own tests stand on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import ROOT, Attr, Caller, SetAttr

ME = Caller(os.geteuid(), os.getegid(), os.getpid(), 0o022)

Names = list[str]
Upper = Callable[[str], WritableDirectory]


class Rig:
    """One union; every call is checked against the engine's invariants and gives its lookups back."""

    def __init__(self, fs: UnionFilesystem, upper: Path) -> None:
        self.fs = fs
        self.upper = upper

    @contextmanager
    def node(self, path: str) -> Iterator[int]:
        held, node = [], ROOT
        try:
            for part in path.split("/") if path else []:
                node = self.fs.lookup(node, os.fsencode(part)).node
                held.append(node)
            yield node
        finally:
            for one in held:
                self.fs.forget(one, 1)
            self.fs.check_invariants()

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        head, _, name = path.rpartition("/")
        with self.node(head) as node:
            yield node, os.fsencode(name)

    def stat(self, path: str) -> Attr:
        with self.node(path) as node:
            return Attr.unpack(self.fs.getattr(node))

    def exists(self, path: str) -> bool:
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def list(self, path: str = "") -> Names:
        with self.node(path) as node:
            fh = self.fs.opendir(node)
            names = []
            for entry in self.fs.readdir(fh, 0, 1 << 24, 24):
                if entry.name in (b".", b".."):
                    continue
                found = self.fs.lookup(node, entry.name)
                attr = Attr.unpack(found.attr)
                assert attr.ino == entry.ino, f"d_ino of {entry.name!r}"
                assert (attr.mode & 0o170000) >> 12 == entry.type, f"d_type of {entry.name!r}"
                self.fs.forget(found.node, 1)
                names.append(os.fsdecode(entry.name))
            self.fs.releasedir(fh)
        return sorted(names)

    def read(self, path: str) -> bytes:
        with self.node(path) as node:
            fh = self.fs.open(node, os.O_RDONLY).fh
            try:
                return self.fs.read(fh, 0, 1 << 24)
            finally:
                self.fs.release(fh)

    def write(self, path: str, data: bytes, offset: int = 0, flags: int = 0) -> None:
        with self.node(path) as node:
            fh = self.fs.open(node, os.O_WRONLY | flags).fh
            try:
                assert self.fs.write(fh, offset, data) == len(data)
            finally:
                self.fs.release(fh)

    def create(self, path: str, data: bytes = b"", mode: int = 0o644, caller: Caller = ME) -> None:
        with self.parent(path) as (parent, name):
            entry, opened = self.fs.create(parent, name, mode, os.O_WRONLY, caller)
            self.fs.write(opened.fh, 0, data)
            self.fs.release(opened.fh)
            self.fs.forget(entry.node, 1)

    def mkdir(self, path: str, mode: int = 0o755, caller: Caller = ME) -> None:
        with self.parent(path) as (parent, name):
            self.fs.forget(self.fs.mkdir(parent, name, mode, caller).node, 1)

    def link(self, path: str, new: str) -> None:
        with self.node(path) as node, self.parent(new) as (parent, name):
            self.fs.forget(self.fs.link(node, parent, name, ME).node, 1)

    def unlink(self, path: str) -> None:
        with self.parent(path) as (parent, name):
            self.fs.unlink(parent, name)

    def rmdir(self, path: str) -> None:
        with self.parent(path) as (parent, name):
            self.fs.rmdir(parent, name)

    def rename(self, path: str, new: str, flags: int = 0) -> None:
        with self.parent(path) as (parent, name), self.parent(new) as (new_parent, new_name):
            self.fs.rename(parent, name, new_parent, new_name, flags)

    def setattr(self, path: str, **changes: Any) -> Attr:
        with self.node(path) as node:
            return Attr.unpack(self.fs.setattr(node, SetAttr(**changes), ME))

    # what is stored -----------------------------------------------------------------------------------------------
    def is_whiteout(self, path: str) -> bool:
        st = os.lstat(self.upper / path)
        return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0

    def stored(self, path: str = "") -> Names:
        return sorted(os.listdir(self.upper / path))

    def mark(self, path: str, name: str) -> bytes | None:
        """One of the union's own attributes on a stored object, in whichever namespace."""
        for namespace in ("trusted", "user"):
            try:
                return os.getxattr(self.upper / path, f"{namespace}.overlay.{name}", follow_symlinks=False)
            except OSError:
                pass
        return None


@contextmanager
def union(
    base: Path, lowers: Sequence[Path], *, upper: Upper = WritableDirectory, options: UnionOptions | None = None
) -> Iterator[Rig]:
    """A union of `lowers` (topmost first) with upper and work directories below `base`, which may exist already."""
    for name in ("upper", "work"):
        (base / name).mkdir(exist_ok=True)
    old = os.umask(0)
    try:
        fs = UnionFilesystem(
            [DirectoryLayer(str(path)) for path in lowers],
            upper(str(base / "upper")),
            upper(str(base / "work")),
            options,
        )
        try:
            yield Rig(fs, base / "upper")
            fs.check_invariants()
        finally:
            fs.close()
    finally:
        os.umask(old)


def tree(root: Path, **entries: str | None) -> Path:
    """Make files (text) and directories (None) below `root`; "__" in a key stands for "/"."""
    root.mkdir(exist_ok=True)
    for key, text in entries.items():
        path = root / key.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(text)
    return root
