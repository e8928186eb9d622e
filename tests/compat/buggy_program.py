"""`python -m tests.compat.buggy_program ROOT MNT`: a loopback with bugs, for test_devfuse_bug.py.

Each raises what no file system may raise: lookup of "bug", mkdir of anything, fsync (which a worker answers), and every
forget (to which there is no reply).
"""

from __future__ import annotations

import logging
import os
import sys

from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.transport import MountOptions, devfuse
from unionfs.vfs import Caller, Entry, FileHandle, NodeId


class Buggy(LoopbackFilesystem):
    def lookup(self, parent: NodeId, name: bytes) -> Entry:
        if name == b"bug":
            raise KeyError("a bug in lookup")
        return super().lookup(parent, name)

    def mkdir(self, parent: NodeId, name: bytes, mode: int, caller: Caller) -> Entry:
        raise AssertionError("a bug in mkdir")

    def fsync(self, fh: FileHandle, datasync: bool) -> None:
        raise ZeroDivisionError("a bug in fsync")

    def forget(self, node: NodeId, count: int) -> None:
        raise TypeError("a bug in forget")


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    os.umask(0)
    devfuse.serve(Buggy(sys.argv[1]), sys.argv[2], MountOptions(), lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
