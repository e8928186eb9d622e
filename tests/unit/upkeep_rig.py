"""Small stored trees for the tests of `unionfs.upkeep`: made from lines, seen as stored and as unions show them.

    store(root, "dir d opaque=y", "dev d/x", "file d/.wh.y", "data f text", "link f g", "file m metacopy=")

A word NAME=VALUE is an attribute `user.overlay.NAME`, or NAME itself where it has a namespace; values are
percent-encoded.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote_to_bytes

from unionfs.changeset.tree import Node, Tree
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions

#: Long ago, so that a time which is not set back is noticed.
TIME = 1_000_000_000_000_000_001

View = dict[str, str]
_FULL = ("trusted.", "user.", "security.")


def store(root: Path, *lines: str) -> Path:
    root.mkdir(exist_ok=True)
    for line in lines:
        kind, name, *words = line.split()
        path = root / os.fsdecode(unquote_to_bytes(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "dir":
            path.mkdir(exist_ok=True)
        elif kind == "file":
            path.touch()
        elif kind == "data":
            path.write_text(words.pop(0))
        elif kind == "dev":
            os.mknod(path, stat.S_IFCHR, 0)
        elif kind == "symlink":
            path.symlink_to(words.pop(0))
        else:
            assert kind == "link"
            os.link(path, root / words.pop(0))
        for word in words:
            attribute, value = word.split("=", 1)
            full = attribute if attribute.startswith(_FULL) else f"user.overlay.{attribute}"
            os.setxattr(path, full, unquote_to_bytes(value), follow_symlinks=False)
    for directory, _, _ in os.walk(root):
        os.utime(directory, ns=(TIME, TIME))
    return root


def stored(root: Path) -> View:
    """What is stored: kind, size, own attributes, and the times of directories. Modes of whiteouts mean nothing."""
    found: View = {}
    for directory, names, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, name) for name in files)]:
            st = os.lstat(path)
            marks = sorted(
                f"{name}={os.getxattr(path, name, follow_symlinks=False)!r}"
                for name in os.listxattr(path, follow_symlinks=False)
                if ".overlay." in name or "fuseoverlayfs" in name
            )
            kind = stat.filemode(st.st_mode)[0]
            detail = str(st.st_mtime_ns) if kind == "d" else f"{st.st_size} {os.path.basename(path)}" * (kind == "-")
            found[os.path.relpath(path, root)] = " ".join([kind, detail, *marks])
        names.sort()
    return found


def shown(*layers: Path) -> View:
    """What a union of the layers, topmost first, shows: to the one reader that knows all encodings."""
    union = UnionFilesystem([DirectoryLayer(str(path)) for path in layers], None, None, UnionOptions(read_only=True))
    try:
        return _shown(union)
    finally:
        union.close()


def shown_over(upper: Path, work: Path, *lowers: Path) -> View:
    """The same with an upper."""
    union = UnionFilesystem(
        [DirectoryLayer(str(path)) for path in lowers],
        WritableDirectory(str(upper)),
        WritableDirectory(str(work)),
        UnionOptions(read_only=True, xattr_prefix=b"user."),
    )
    try:
        return _shown(union)
    finally:
        union.close()


def _shown(union: UnionFilesystem) -> View:
    found: View = {}
    with Tree(union) as tree:
        todo: list[tuple[bytes, Node]] = [(b"", tree.root())]
        while todo:
            path, node = todo.pop()
            for name, child in tree.children(node.node):
                below = os.path.join(path, name)
                content = b""
                if stat.S_ISREG(child.attr.mode):
                    opened = union.open(child.node, os.O_RDONLY)
                    content = union.read(opened.fh, 0, 100)
                    union.release(opened.fh)
                found[os.fsdecode(below)] = f"{stat.filemode(child.attr.mode)[0]} {os.fsdecode(content)}"
                if stat.S_ISDIR(child.attr.mode):
                    todo.append((below, child))
    return found


class Dying(WritableDirectory):
    """A tree whose process dies before its `budget`-th change: that one and all after it are not made."""

    def __init__(self, path: Path, budget: int) -> None:
        super().__init__(str(path))
        self._budget = budget

    def _spend(self) -> None:
        self._budget -= 1
        if self._budget < 0:
            raise KeyboardInterrupt

    def create(self, path, mode, flags=os.O_RDWR):  # type: ignore[no-untyped-def]
        self._spend()
        return super().create(path, mode, flags)

    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        self._spend()
        super().mknod(path, mode, rdev)

    def unlink(self, path: bytes) -> None:
        self._spend()
        super().unlink(path)

    def rmdir(self, path: bytes) -> None:
        self._spend()
        super().rmdir(path)

    def rename(self, path, to, to_path, flags=0):  # type: ignore[no-untyped-def]
        self._spend()
        super().rename(path, to, to_path, flags)

    def link_file(self, file, path):  # type: ignore[no-untyped-def]
        self._spend()
        super().link_file(file, path)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        self._spend()
        super().setxattr(path, name, value, flags)

    def removexattr(self, path: bytes, name: bytes) -> None:
        self._spend()
        super().removexattr(path, name)

    def utime(self, path, atime_ns, mtime_ns):  # type: ignore[no-untyped-def]
        if self._budget >= 0:
            super().utime(path, atime_ns, mtime_ns)
