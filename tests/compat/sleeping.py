"""Waiting until another process sleeps in a system call, where a signal finds it: one that comes just before is known
to Python only when the call is over."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: By machine and call: its number, and an argument (from 1 on) as it is when that call waits for what the test does
#: (proc_pid_syscall(5)). poll(2): for ever. read(2): of standard input.
_CALLS = {
    ("x86_64", "poll"): ("7", 3, "0xffffffff"),
    ("x86_64", "read"): ("0", 1, "0x0"),
    ("aarch64", "poll"): ("73", 3, "0x0"),  # there it is ppoll
    ("aarch64", "read"): ("63", 1, "0x0"),
}


def until_it_sleeps(pid: int, call: str) -> None:
    """`call`: "poll" or "read"."""
    number, position, value = _CALLS[os.uname().machine, call]
    deadline = time.monotonic() + 30
    while True:
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        if words[0] == number and words[position] == value:
            return
        assert time.monotonic() < deadline, words
