"""What concerns the process: its user namespace, file locks, its descriptors and how many it may have, its memory."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from collections.abc import Collection
from typing import Final

from unionfs.linux import syscalls
from unionfs.linux.syscalls import c_int, c_size_t, c_ulong

#: More than a server of many layers usually has open: 64 KiB of pointers.
RESERVED_DESCRIPTORS: Final = 8192

_malloc_trim: Final = syscalls.declare("malloc_trim", c_size_t)


def in_user_namespace() -> bool:
    """Is this process in another user namespace than the initial one (user_namespaces(7)), as far as its mapping of ids
    tells? False where there is no /proc to ask."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def flock_exclusive(fd: int, blocking: bool = False) -> None:
    """flock(2), LOCK_EX, on the open file description of `fd` (not O_PATH). BlockingIOError (EWOULDBLOCK) where
    somebody else holds it and `blocking` is false. The lock goes with the last descriptor of that description."""
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))


def flock_shared(fd: int, blocking: bool = False) -> None:
    """`flock_exclusive` with LOCK_SH: others may hold it so too."""
    fcntl.flock(fd, fcntl.LOCK_SH | (0 if blocking else fcntl.LOCK_NB))


def flock_release(fd: int) -> None:
    """Give a lock up before its descriptor is closed."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def nofile_limit() -> int:
    """How many descriptors this process may have: the soft RLIMIT_NOFILE, which is never infinite (fs/file_table.c,
    sysctl_nr_open)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_nofile_limit() -> int:
    """Raise the soft RLIMIT_NOFILE to the hard one; returns the limit now in force. Never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard


def reserve_descriptors() -> None:
    """Have the kernel make room for many open files now. To be called before there is a second thread.

    The table of descriptors is doubled whenever it is full, and where several threads share it the one that opens a
    file too many waits for an RCU grace period, some 10 ms (expand_fdtable() of fs/file.c). It never shrinks.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, min(soft, RESERVED_DESCRIPTORS) - 1))
    except OSError:
        pass  # no memory, or that many are open: it is for speed only
    finally:
        os.close(null)


def cut_off(keep: Collection[int]) -> None:
    """Have every open descriptor but `keep` lead to /dev/null, in a process that was forked: a pipe, a terminal or a
    lock of its parent, of which somebody waits for the end.

    Not closed: a Python object that still holds the number might close it once more, when it has become the number of
    something else. One beyond RLIMIT_NOFILE, which was lowered since, can only be closed (dup2(2): EBADF).
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - {null, *keep}:
        try:
            os.fstat(fd)
        except OSError:
            continue  # the listing's own
        try:
            os.dup2(null, fd, inheritable=fd < 3)
        except OSError:
            os.close(fd)
    os.close(null)


def is_dying(thread: int) -> bool:
    """Has a thread been sent a signal that it will die of as soon as it can? True where it is gone already; False for
    0, a thread that cannot be seen from here.

    Whatever the signal is, every thread of the process is given SIGKILL at once (complete_signal() of kernel/signal.c);
    only a core dump comes first.
    """
    if not thread:
        return False
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            pending = [int(line.split()[1], 16) for line in status if line.startswith((b"SigPnd:", b"ShdPnd:"))]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return any(signals >> (signal.SIGKILL - 1) & 1 for signals in pending)


#: What does nothing, or stops, where no handler is set (signal(7)).
_HARMLESS: Final = sum(
    1 << (number - 1)
    for number in (
        signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT,
        signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    )
)  # fmt: skip


_MASKS: Final = (b"SigPnd:", b"ShdPnd:", b"SigBlk:", b"SigIgn:", b"SigCgt:")


def is_interrupted(thread: int) -> bool:
    """Is a thread to handle a signal, or to die of one? As `is_dying`; false where it was merely asked to stop."""
    if not thread:
        return False
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            masks = {line[:6]: int(line.split()[1], 16) for line in status if line.startswith(_MASKS)}
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = (masks[b"SigPnd"] | masks[b"ShdPnd"]) & ~masks[b"SigBlk"] & ~masks[b"SigIgn"]
    return bool(pending & (masks[b"SigCgt"] | ~_HARMLESS))


def return_free_memory() -> None:
    """malloc_trim(3): what libc holds free goes back to the system. A libc without it (musl) holds little."""
    _malloc_trim(0)


PR_SET_CHILD_SUBREAPER: Final = 36

_prctl: Final = syscalls.declare("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def set_child_subreaper(on: bool = True) -> None:
    """prctl(2): children of children that lose their parent become this process's, or no more."""
    syscalls.call(_prctl, PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
