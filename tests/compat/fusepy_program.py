"""A loopback behind the fusepy transport that writes down what it is asked, and fails when told to.

`python -m tests.compat.fusepy_program SPEC`, SPEC a JSON object: root, mountpoint, record (the file for what is
asked), and optionally read_only, allow_other, extra as of MountOptions. Prints "ready". At the end it prints the
file system's statistics as JSON: what has been given back and what has not.

Faults, so that a test can cause one from outside:

    getxattr of user.fault.NAME     raises that exception, or OSError without an errno for "NoErrno"
    rename to the name "refused"    ENOSPC
    fsync of any file               first waits until the fifo "gate" in `root`, if there is one, is written to
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from unionfs.errors import UnionFSError
from unionfs.mounts.daemon import Ready, run_in_foreground
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.transport import MountOptions, fusepy
from unionfs.vfs import Filesystem


class Recorder:
    """Every method of the file system, each call one line of JSON first: [name, sizes of bytes, other arguments]."""

    def __init__(self, fs: LoopbackFilesystem, record: str, root: str) -> None:
        self._fs = fs
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._gate = os.path.join(root, "gate")
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(self._fs, name):
            raise AttributeError(name)  # an optional part of a file system

        def method(*args: Any) -> Any:
            shown = [os.fsdecode(a) if isinstance(a, bytes) and name != "write" else a for a in args]
            plain = [len(a) if isinstance(a, bytes) else a if isinstance(a, (str, int)) else str(a) for a in shown]
            os.write(self._record, json.dumps([name, *plain]).encode() + b"\n")
            self._fault(name, args)
            return getattr(self._fs, name)(*args)

        return method

    def _fault(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "getxattr" and args[1].startswith(b"user.fault."):
            fault = args[1].removeprefix(b"user.fault.").decode()
            raise OSError("no errno") if fault == "NoErrno" else getattr(builtins, fault)("as told")
        if name == "rename" and args[3] == b"refused":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if name == "fsync" and os.path.exists(self._gate):
            with open(self._gate) as gate:
                gate.read()


def main(argument: str) -> int:
    spec: dict[str, Any] = json.loads(argument)
    mountpoint = os.fsencode(spec["mountpoint"])
    options = MountOptions(
        read_only=spec.get("read_only", False),
        allow_other=spec.get("allow_other"),
        extra=tuple(spec.get("extra", ())),
    )
    loopback = LoopbackFilesystem(spec["root"])
    fs = cast(Filesystem, Recorder(loopback, spec["record"], spec["root"]))

    def serve(ready: Ready) -> None:
        def said() -> None:
            ready()
            print("ready", flush=True)

        fusepy.serve(fs, mountpoint, options, said)

    try:
        run_in_foreground(serve, mountpoint)
    except UnionFSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(loopback.statistics()), flush=True)
    loopback.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
