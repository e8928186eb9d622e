"""fsync(2): the data survives a crash of the machine, and so does the name that leads to it.

A file system that flushes a file flushes the name it was made under too (ext4 and xfs by their journal), and what it
does not, whoever made the name knows to ask for. But a copy-up puts a name in its place that was there all along, as
far as anybody can see. The kernel's overlayfs flushes the data before that rename and leaves the name to the next
fsync (ovl_copy_up_file(); Documentation/filesystems/overlayfs.rst, "Durability and copy up"); an fdatasync of what is
written over the copy then need not flush it (ext4_sync_file() waits for the transaction of the last change of *size*),
and a crash brings the lower file back.

So what was put in its place by a rename of ours, and not flushed since, is remembered by its stored inode number
(`union.unflushed`): files and directories copied up, and those created in the work directory. Flushing a file that
is among them flushes all of it and its directory; flushing anything below a directory among them, that one and its
parent.
Numbers of what is gone by now do no harm: at worst something is flushed that need not be.

Nothing here holds `union.lock` while it waits for a disk.
"""

from __future__ import annotations

import contextlib

from unionfs.layers.layer import LayerFile
from unionfs.overlay.inode import DirInode, FileInode
from unionfs.overlay.union import Union
from unionfs.overlay.workdir import INDEX


def flush_file(union: Union, inode: FileInode, file: LayerFile, datasync: bool) -> None:
    """fsync or fdatasync of an open file of the upper. Without the lock."""
    if not union.unflushed:
        file.fsync(datasync)
        return
    numbers: set[int] = set()
    with contextlib.ExitStack() as directories:
        with union.lock:
            number = file.fstat().st_ino
            parents = [parent for parent, _, stored in inode.names if stored]
            if number in union.unflushed:
                numbers.add(number)
                datasync = False
                for parent in dict.fromkeys(parents):
                    _flush(union, directories, parent)
                if inode.index is not None and inode.index.startswith(INDEX):
                    directories.callback(union.stack.work.fsync_dir(INDEX))
            for parent in parents:
                _flush_way(union, directories, parent, numbers)
        file.fsync(datasync)
    _flushed(union, numbers)


def flush_directory(union: Union, directory: DirInode) -> None:
    """fsync of a directory: the names in it, and its own. Without the lock."""
    numbers: set[int] = set()
    with contextlib.ExitStack() as directories, union.lock:
        if not directory.upper or directory.removed:
            return  # nothing in it was ever changed, or can be found again
        _flush(union, directories, directory)
        if union.unflushed:
            _flush_way(union, directories, directory, numbers)
    _flushed(union, numbers)


def flush_all(union: Union) -> None:
    """syncfs of the upper. Without the lock."""
    with union.lock:
        numbers = set(union.unflushed)
    union.stack.upper.sync()
    _flushed(union, numbers)


def _flush(union: Union, directories: contextlib.ExitStack, directory: DirInode) -> None:
    """Have a directory flushed when `directories` closes: the descriptor is opened now, while it has this path."""
    directories.callback(union.stack.upper.fsync_dir(directory.path))


def _flush_way(union: Union, directories: contextlib.ExitStack, last: DirInode, numbers: set[int]) -> None:
    """Have flushed what leads to the directory `last` and is unflushed; what that is goes into `numbers`."""
    directory = last
    while directory.parent is not None:
        number = union.stack.upper.lstat(directory.path).st_ino
        if number in union.unflushed and number not in numbers:
            numbers.add(number)
            _flush(union, directories, directory)
            _flush(union, directories, directory.parent)
        directory = directory.parent


def _flushed(union: Union, numbers: set[int]) -> None:
    if numbers:
        with union.lock:
            union.unflushed -= numbers
