"""The union engine: how layers become one tree, and how changes become marks in the upper.

`UnionFilesystem` is addressed by inode (`unionfs.vfs`), so that any transport, the path API or a simulator can stand
on it. It knows no FUSE opcode, no tar, no JSON and no terminal. README.md beside this file has the decisions, the lock
order, and the table of cases in which we differ from the kernel.
"""

from unionfs.overlay.filesystem import UnionFilesystem
from unionfs.overlay.stack import UnionOptions

__all__ = ["UnionFilesystem", "UnionOptions"]
