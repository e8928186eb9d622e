"""Stopping threads of other processes for a moment, unseen by their parents: PTRACE_SEIZE and PTRACE_INTERRUPT.

The tracer is one thread, not a process: every function here works on what *this* thread has seized, and when the thread
ends, in whatever way, the kernel lets all of it go on (exit_ptrace() of kernel/ptrace.c). A seized thread that is
stopped by us is not a stopped one for its parent (wait_consider_task() of kernel/exit.c), and SIGCONT does not wake it.

A stop is made on the way to user mode. Most system calls are begun again by the kernel, as after a signal that has no
handler; a few end with EINTR (epoll_wait, semop, io_getevents …: signal(7), "Interruption of system calls … by stop
signals").
"""

from __future__ import annotations

import os
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_int, c_size_t, call

# <linux/ptrace.h>
_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_EVENT_STOP: Final = 128
# waitpid(2): of any kind of child, and of this thread's tracees only.
_WALL, _WNOTHREAD = 0x40000000, 0x20000000

_ptrace = syscalls.declare("ptrace", c_int, c_int, c_size_t, c_size_t)


def seize(thread: int) -> None:
    """Become the tracer of a thread and ask it to stop. EPERM where that is not permitted (Yama, another user, another
    tracer, a kernel thread), ESRCH where it is gone."""
    call(_ptrace, _SEIZE, thread, 0, 0)
    call(_ptrace, _INTERRUPT, thread, 0, 0)


def next_stop() -> tuple[int, int | None] | None:
    """(thread, signal) of one that has stopped since, (thread, None) of one that has ended; None: nobody has.

    `signal` is one that was just about to be delivered, to be given to `let_go`, or 0.
    """
    try:
        thread, status = os.waitpid(-1, os.WNOHANG | _WALL | _WNOTHREAD)
    except ChildProcessError:
        return None
    if not thread:
        return None
    if not os.WIFSTOPPED(status):
        return thread, None
    return thread, 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)


def let_go(thread: int, signal: int) -> None:
    """A stopped thread goes on, with `signal` if not 0, and is nobody's tracee. ESRCH where it is gone, or runs."""
    call(_ptrace, _DETACH, thread, 0, signal)


def kernel_stack(thread: int) -> bytes:
    """The functions that a thread is in, in the kernel, one a line; empty where that cannot be told."""
    try:
        with open(f"/proc/{thread}/stack", "rb") as file:
            return file.read()
    except OSError:
        return b""
