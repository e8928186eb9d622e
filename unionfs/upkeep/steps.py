"""Changes of a tree, each of them one system call that readers and a crash see done or not done.

What puts one object in another's place builds it under the name `STAGED` first, which is hidden from every kind of
reader: `.wh..wh.*` is AUFS's own, and what stands there is a whiteout for the kernel. A crash can leave it; the next
`convert`, and `check --repair`, remove it.

The times of the directory whose entry a step changes are set back after it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Path, WritableLayer
from unionfs.overlay.workdir import remove_tree
from unionfs.upkeep.stored import join

STAGED = whiteout.META + b"unionfs.staged"
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.ENOENT)


class Unlink(NamedTuple):
    path: Path


class Rmdir(NamedTuple):
    """ENOTEMPTY where there is something in it."""

    path: Path


class Sweep(NamedTuple):
    """Remove a tree that was never visible. Many calls; whatever is left is swept the next time."""

    path: Path


class SetXattr(NamedTuple):
    path: Path
    name: bytes
    value: bytes


class RemoveXattr(NamedTuple):
    path: Path
    name: bytes


class MakeEmpty(NamedTuple):
    """An empty file; nothing where there is something of the name."""

    path: Path


class MakeDevice(NamedTuple):
    """The kernel's whiteout at a name that is free."""

    path: Path


class PutDevice(NamedTuple):
    """The kernel's whiteout in the place of another whiteout."""

    path: Path


class PutMarked(NamedTuple):
    """An empty file with the attribute `name`, at a free name or in the place of another whiteout."""

    path: Path
    name: bytes


Step = Unlink | Rmdir | Sweep | SetXattr | RemoveXattr | MakeEmpty | MakeDevice | PutDevice | PutMarked


def take(tree: WritableLayer, steps: Iterable[Step]) -> None:
    """Do them in order. Any failure stops it, with all before done and nothing after."""
    for step in steps:
        if isinstance(step, SetXattr):
            tree.setxattr(step.path, step.name, step.value)
        elif isinstance(step, RemoveXattr):
            tree.removexattr(step.path, step.name)
        else:
            parent = step.path.rpartition(b"/")[0]
            times = tree.lstat(parent)
            try:
                _change_entry(tree, parent, step)
            finally:
                tree.utime(parent, times.st_atime_ns, times.st_mtime_ns)


def _change_entry(tree: WritableLayer, parent: Path, step: Step) -> None:
    if isinstance(step, Unlink):
        tree.unlink(step.path)
    elif isinstance(step, Rmdir):
        tree.rmdir(step.path)
    elif isinstance(step, Sweep):
        remove_tree(tree, step.path)
    elif isinstance(step, MakeEmpty):
        try:
            tree.create(step.path, 0o600).close()
        except FileExistsError:
            pass
    elif isinstance(step, MakeDevice):
        tree.mknod(step.path, stat.S_IFCHR, 0)
    else:
        staged = join(parent, STAGED)
        try:
            if isinstance(step, PutMarked):
                _stage_marked(tree, parent, staged, step.name)
            else:
                tree.mknod(staged, stat.S_IFCHR, 0)
            tree.rename(staged, tree, step.path)
        except BaseException:
            try:
                tree.unlink(staged)
            except FileNotFoundError:
                pass
            raise


def _stage_marked(tree: WritableLayer, parent: Path, staged: Path, name: bytes) -> None:
    """With its attribute from the moment it has a name, where there is O_TMPFILE."""
    try:
        file = tree.tmpfile(parent, 0o600)
    except OSError as e:
        if e.errno not in _NO_TMPFILE:
            raise
        tree.create(staged, 0o600).close()
        tree.setxattr(staged, name, b"")
        return
    try:
        file.setxattr(name, b"")
        tree.link_file(file, staged)
    finally:
        file.close()


def probe_devices(tree: WritableLayer) -> bool:
    """Whether whiteout devices can be made here."""
    times = tree.lstat(b"")
    try:
        tree.mknod(STAGED, stat.S_IFCHR, 0)
    except FileExistsError:
        return True
    except OSError:
        return False
    tree.unlink(STAGED)
    tree.utime(b"", times.st_atime_ns, times.st_mtime_ns)
    return True


def probe_xattr(tree: WritableLayer, name: bytes) -> str | None:
    """Why the attribute cannot be set on the root, or None. It is removed again."""
    try:
        tree.setxattr(b"", name, b"")
    except OSError as e:
        return e.strerror or os.strerror(e.errno or errno.EIO)
    tree.removexattr(b"", name)
    return None
