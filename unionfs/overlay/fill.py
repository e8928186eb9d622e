"""The data of a metacopy that has several names in the upper: put into it, since all of them are to stay one file.

As ovl_copy_up_meta_inode_data() of fs/overlayfs/copy_up.c: the data is written and flushed, then the mark goes, which
is the point of no return. What dies before leaves a metacopy, whose data still is below; as in the kernel, its time of
modification may have changed then, and its file capabilities be gone.

Data is written without `union.lock`; what people see of the file meanwhile is what it was (`Links.times`). A file with
capabilities, which writing takes away, is written with the lock held until they are set again.
"""

from __future__ import annotations

import contextlib
import os

from unionfs.layers.layer import LayerFile
from unionfs.overlay import metacopy
from unionfs.overlay.copy_data import copy_data
from unionfs.overlay.inode import FileInode
from unionfs.overlay.stack import METACOPY
from unionfs.overlay.step import Step
from unionfs.overlay.union import Union
from unionfs.vfs import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, NOW

_CAPABILITY = b"security.capability"


def fill(union: Union, inode: FileInode, size: int | None, kept: list[LayerFile] | None) -> None:
    """Copy the first `size` bytes (None: all). `kept` gets the file, open for reading and writing. With
    `union.copying(inode)`, or with the lock held all the time."""
    with contextlib.ExitStack() as files:
        with union.lock:
            filling = _Filling(union, inode, size, files)
            if filling.capability is not None:
                filling.copy()
        if filling.capability is None:
            filling.copy()
        with union.lock:
            filling.finish()
            if kept is not None:
                kept.append(filling.take_target())


class _Filling:
    """Lock held, but for `copy`, which may run without."""

    def __init__(self, union: Union, inode: FileInode, size: int | None, files: contextlib.ExitStack) -> None:
        """What is opened is closed by `files`."""
        self._union, self._inode, self._links = union, inode, inode.linked()
        assert inode.data is not None
        self._below, self._copied = (inode.data.layer, inode.data.path), 0
        layer, below = union.data_place(inode)
        tree, path = union.upper_place(inode)
        self._source = layer.open(below)
        files.callback(self._source.close)
        self._target: LayerFile | None = tree.open(path, os.O_RDWR)
        files.callback(self._close_target)
        self._reader = tree.open(path)  # now, while it may still fail
        files.callback(self._reader.close)
        st = self._reader.fstat()
        self._size = st.st_size
        self._end = st.st_size if size is None else min(size, st.st_size)
        self.capability = tree.getxattr(path, _CAPABILITY)
        self._links.times, inode.attr = (st.st_atime_ns, st.st_mtime_ns), None

    @property
    def _open(self) -> LayerFile:
        assert self._target is not None
        return self._target

    def copy(self) -> None:
        """Write the data and have it on disk. What fails leaves the hole that was."""
        target = self._open
        try:
            self._copy(target)
        except BaseException:
            with self._union.lock, contextlib.suppress(OSError):
                target.ftruncate(self._size)
                target.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, self._size)
            with self._union.lock:
                self._restore(target)
            raise

    def _copy(self, target: LayerFile) -> None:
        union, inode = self._union, self._inode
        if self._end:
            st = self._source.fstat()
            dense = st.st_blocks * 512 >= st.st_size
            copied = copy_data(self._source, target, self._end, dense, lambda: union.check_wanted(inode))
            self._copied = copied
            with union.lock:
                union.counters["copy_up_bytes"] += copied
            if not union.options.volatile:
                target.fsync(False)
        if self.capability is not None:
            target.setxattr(_CAPABILITY, self.capability)

    def _restore(self, target: LayerFile) -> None:
        """Taken back: a metacopy as it was."""
        times, self._links.times = self._links.times, None
        self._inode.attr = None
        with contextlib.suppress(OSError):
            if self.capability is not None:
                target.setxattr(_CAPABILITY, self.capability)
            if times is not None:
                target.utime(*times)

    def finish(self) -> None:
        """The file is no metacopy any more."""
        union, inode, target = self._union, self._inode, self._open
        try:
            if self._end < self._size:
                target.ftruncate(self._end)
                target.utime(None, NOW)
            elif self._links.times is not None:
                target.utime(*self._links.times)
            tree, path = union.upper_place(inode)
            tree.removexattr(path, union.stack.private(METACOPY))
        except BaseException:
            self._restore(target)
            raise
        # POINT OF NO RETURN.
        metacopy.completed(inode)
        metacopy.regroup(inode)
        inode.attr = None
        for handle in inode.handles or ():
            handle.replace(self._reader)
        union.counters["copy_ups"] += 1
        if union.stack.trace is not None:
            union.stack.trace(Step("copied-up", *self._below, "data", self._copied))

    def take_target(self) -> LayerFile:
        """The file, open for reading and writing: from now on the caller's."""
        target, self._target = self._open, None
        return target

    def _close_target(self) -> None:
        if self._target is not None:
            self._target.close()
