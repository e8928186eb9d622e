"""unionfs.linux.process and unionfs.linux.syscalls."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unionfs.linux import process, syscalls


def test_lock_is_exclusive_until_released(tmp_path: Path) -> None:
    one = os.open(tmp_path, os.O_RDONLY)
    two = os.open(tmp_path, os.O_RDONLY)
    try:
        process.flock_exclusive(one)
        with pytest.raises(BlockingIOError):
            process.flock_exclusive(two)
        process.flock_release(one)
        process.flock_exclusive(two)
    finally:
        os.close(one)
        os.close(two)


def test_lock_goes_with_its_descriptor(tmp_path: Path) -> None:
    one = os.open(tmp_path, os.O_RDONLY)
    process.flock_exclusive(one)
    os.close(one)
    two = os.open(tmp_path, os.O_RDONLY)
    process.flock_exclusive(two)
    os.close(two)


def test_thread_that_lives_is_not_dying_and_one_that_is_gone_is() -> None:
    """One with SIGKILL pending is in tests/compat/test_devfuse_interrupt.py: it takes a system call that cannot end."""
    assert not process.is_dying(threading.get_native_id())
    assert not process.is_dying(0)
    child = subprocess.Popen(["true"])
    child.wait()
    assert process.is_dying(child.pid)


def test_nofile_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        assert process.raise_nofile_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert process.raise_nofile_limit() == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_room_for_descriptors_is_made_in_the_kernel_and_none_stays_open() -> None:
    script = """
import os
from unionfs.linux import process
before = len(os.listdir("/proc/self/fd"))
process.reserve_descriptors()
assert len(os.listdir("/proc/self/fd")) == before
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("FDSize:")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert int(done.stdout) >= min(soft, process.RESERVED_DESCRIPTORS)


def test_missing_function_is_enosys() -> None:
    with pytest.raises(OSError) as caught:
        syscalls.call(syscalls.declare("surely_not_in_libc", syscalls.c_int), 1)
    assert caught.value.errno == errno.ENOSYS


def test_unknown_syscall_is_enosys() -> None:
    with pytest.raises(OSError) as caught:
        syscalls.call(syscalls.declare_syscall(100_000, syscalls.c_int), 1)
    assert caught.value.errno == errno.ENOSYS


def test_call_is_repeated_after_a_signal() -> None:
    answers = [errno.EINTR, errno.EINTR, 0]

    def interrupted() -> int:
        code = answers.pop(0)
        ctypes.set_errno(code)
        return -1 if code else 7

    assert syscalls.call(interrupted) == 7
    assert answers == []


def test_error_is_the_matching_subclass() -> None:
    assert isinstance(syscalls.error(errno.ENOENT, b"x"), FileNotFoundError)
    assert syscalls.error(errno.ENOENT, b"x").filename == b"x"
    assert syscalls.error(errno.EEXIST).filename is None


_CUT_OFF = """
import os, resource
from unionfs.linux.process import cut_off
kept, other = os.pipe()
beyond = os.dup2(other, 200)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
before = set(os.listdir("/proc/self/fd"))
cut_off({1, kept})
shown = {int(name): os.readlink(f"/proc/self/fd/{name}") for name in before if os.path.lexists(f"/proc/self/fd/{name}")}
print(shown[0], shown[2], shown[kept].startswith("pipe:"), shown[other], beyond in shown, os.get_inheritable(2))
"""


def test_cut_off_leaves_what_is_to_be_kept_and_closes_what_lies_beyond_the_limit() -> None:
    run = subprocess.run([sys.executable, "-c", _CUT_OFF], capture_output=True, text=True, check=True)
    assert run.stdout == "/dev/null /dev/null True /dev/null False True\n"
