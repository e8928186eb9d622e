"""A process of its own that breaks a FUSE connection when a test takes too long.

A test that hangs in a system call on a dead-locked mount cannot be ended from within: the signal is not delivered, and
a page fault on a mapped file even holds the interpreter's lock. Killing the server and aborting its connection turns
the system call into an error. (Standalone: run as a script, imports nothing of the project.)

Standard input: a line "PID CONNECTION SECONDS" arms, an empty line disarms, end of file ends. CONNECTION is the
number below /sys/fs/fuse/connections.
"""

from __future__ import annotations

import os
import select
import signal
import time


def abort(pid: int, connection: int) -> None:
    """Kill the server and abort its connection. Either may be gone already."""
    try:
        os.kill(pid, signal.SIGUSR1)  # it writes its stacks into its log (unionfs/testing/serve.py)
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        with open(f"/sys/fs/fuse/connections/{connection}/abort", "w") as f:
            f.write("1")
    except OSError:
        pass  # gone with its server, or fusectl is not mounted: killing the server was all there was to do


def main() -> None:
    armed: tuple[int, int, float] | None = None
    buffer = b""
    while True:
        ready = select.select([0], [], [], armed[2] if armed else None)[0]
        if not ready:
            assert armed is not None
            abort(armed[0], armed[1])
            armed = None
            continue
        data = os.read(0, 4096)
        if not data:
            return
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            fields = line.split()
            armed = (int(fields[0]), int(fields[1]), float(fields[2])) if fields else None


if __name__ == "__main__":
    main()
