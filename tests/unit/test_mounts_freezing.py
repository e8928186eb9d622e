"""Processes that stand still, and who could write to a file system: /proc and ptrace, without a mount."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unionfs.linux import process, ptrace
from unionfs.linux.writers import Writer, writers
from unionfs.mounts.freezing import Frozen

THREADS = 5
PATIENCE = 20.0
#: Counts in as many files as it has threads, and starts others all the time.
PROGRAM = f"""
import os, sys, threading
def count(path):
    fd, n = os.open(path, os.O_WRONLY | os.O_CREAT), 0
    while True:
        n += 1
        os.pwrite(fd, b"%d" % n, 0)
        threading.Thread(target=int).start()
for i in range({THREADS}):
    threading.Thread(target=count, args=(f"{{sys.argv[1]}}/{{i}}",)).start()
"""


def never(thread: int) -> bool:
    return False


def nobody() -> frozenset[int]:
    return frozenset()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def elsewhere(function: Callable[[int], None], pid: int) -> None:
    """Call it in a process that is not the parent of `pid`, and is gone afterwards: a tracer buries its tracees, who
    would be missed, and waitpid(2) reports their stops to all threads of a tracer's process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function(pid)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def go_on(directory: Path) -> None:
    before = counts(directory)
    until(lambda: all(now > then for now, then in zip(counts(directory), before, strict=True)))


def counts(directory: Path) -> list[int]:
    return [int((directory / str(i)).read_text() or "0") for i in range(THREADS)]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)]) as made:
        until(lambda: len(os.listdir(tmp_path)) == THREADS and all(counts(tmp_path)))
        yield made
        made.kill()


def test_all_threads_stand_still_and_go_on(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    for _ in range(5):
        frozen = Frozen()
        assert frozen.freeze([busy.pid], nobody, never, time.monotonic() + PATIENCE) == set()
        before = counts(tmp_path)
        states = {
            path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{busy.pid}/task").glob("*/stat")
        }
        assert states == {"t"} and counts(tmp_path) == before
        frozen.thaw()
        go_on(tmp_path)


def test_threads_go_on_when_the_one_that_froze_them_ends(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    def freeze() -> None:
        frozen.freeze([busy.pid], nobody, never, time.monotonic() + PATIENCE)

    frozen = Frozen()
    tracer = threading.Thread(target=freeze)
    tracer.start()
    tracer.join()
    go_on(tmp_path)


def test_signal_that_comes_first_is_delivered(tmp_path: Path) -> None:
    """A thread that was about to get one stops for that, and gets it when it goes on."""

    def freeze(pid: int) -> None:
        frozen = Frozen()
        os.kill(pid, signal.SIGTERM)
        frozen.freeze([pid], nobody, never, time.monotonic() + PATIENCE)
        frozen.thaw()

    for _ in range(20):
        with subprocess.Popen(["sleep", "100"]) as child:
            elsewhere(freeze, child.pid)
            assert child.wait(PATIENCE) == -signal.SIGTERM


def test_process_that_is_gone_or_dead_is_no_failure() -> None:
    child = subprocess.Popen(["true"])
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    frozen = Frozen()
    assert frozen.freeze([child.pid], nobody, never, time.monotonic() + PATIENCE) == set()
    child.wait()
    assert frozen.freeze([child.pid], nobody, never, time.monotonic() + PATIENCE) == set()


def test_own_process_cannot_be_frozen() -> None:
    assert Frozen().freeze([os.getpid()], nobody, never, time.monotonic() + PATIENCE) == {os.getpid()}


# who could write ------------------------------------------------------------------------------------------------------
def this(directory: Path) -> Writer:
    """What is found of this process, in the file system of `directory`, which others may use."""
    st_dev = os.stat(directory).st_dev
    found = [one for one in writers((os.major(st_dev), os.minor(st_dev))) if one.pid == os.getpid()]
    return found[0] if found else Writer(os.getpid(), frozenset(), frozenset())


def test_descriptors_that_may_write_are_found(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("read", "write", "append", "closed")]
    for path in paths:
        path.touch()
    with open(paths[0]), open(paths[1], "r+"), open(paths[2], "a"):
        open(paths[3], "w").close()
        found = this(tmp_path).open
    assert [path.stat().st_ino in found for path in paths] == [False, True, True, False]


@pytest.mark.parametrize(
    ("mode", "flags", "protection", "found"),
    [
        ("r+b", mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, True),
        ("r+b", mmap.MAP_SHARED, mmap.PROT_READ, True),  # mprotect(2) may make it writable
        ("rb", mmap.MAP_SHARED, mmap.PROT_READ, False),
        ("r+b", mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, False),
    ],
)
def test_mappings_that_may_write_are_found(tmp_path: Path, mode: str, flags: int, protection: int, found: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(4096))
    with open(path, mode) as file, mmap.mmap(file.fileno(), 4096, flags, protection):
        assert (path.stat().st_ino in this(tmp_path).mapped) == found


def test_processes_that_are_left_out_are_not_looked_at(tmp_path: Path) -> None:
    st_dev = os.stat(tmp_path).st_dev
    with open(tmp_path / "f", "w"):
        device = os.major(st_dev), os.minor(st_dev)
        assert os.getpid() not in [one.pid for one in writers(device, frozenset((os.getpid(),)))]


# signals --------------------------------------------------------------------------------------------------------------
def test_thread_is_interrupted_by_what_it_handles_or_dies_of() -> None:
    assert not process.is_interrupted(0) and not process.is_interrupted(threading.get_native_id())
    with subprocess.Popen(["sleep", "100"]) as child:
        frozen = Frozen()
        frozen.freeze([child.pid], nobody, never, time.monotonic() + PATIENCE)
        # Pending, as it is stopped: first what does nothing to a program without a handler, then what ends it.
        child.send_signal(signal.SIGWINCH)
        child.send_signal(signal.SIGSTOP)
        assert not process.is_interrupted(child.pid)
        child.send_signal(signal.SIGTERM)
        assert process.is_interrupted(child.pid)
        child.send_signal(signal.SIGCONT)
        frozen.thaw()
        assert child.wait(PATIENCE) == -signal.SIGTERM
    assert process.is_interrupted(child.pid), "it is gone"


def test_stack_of_a_thread_that_is_not_there_is_not_known() -> None:
    assert ptrace.kernel_stack(2**22 + 1) == b""


def test_thread_that_gets_no_cpu_is_waited_for() -> None:
    """It has not stopped after a while, and is in no system call either."""

    def rare() -> None:
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    cpu = min(os.sched_getaffinity(0))
    loop = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with contextlib.ExitStack() as stack:
        processes = []
        for prepare in (rare, lambda: os.sched_setaffinity(0, {cpu})):
            process = stack.enter_context(subprocess.Popen(loop, preexec_fn=prepare, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == b"\n"
            processes.append(process.pid)
        frozen = Frozen()
        assert frozen.freeze(processes[:1], nobody, lambda thread: True, time.monotonic() + PATIENCE) == set()
        assert Path(f"/proc/{processes[0]}/stat").read_text().rpartition(")")[2].split()[0] == "t"
        frozen.thaw()


def test_thread_that_waits_for_its_vfork_child_need_not_stop(tmp_path: Path) -> None:
    """It sleeps until the child, which stands still too, calls execve: nothing could ever stop it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # posix_spawn(3) is vfork(2) and, in the child, what is asked for: here an open(2) that waits for a reader.
    action = f"(os.POSIX_SPAWN_OPEN, 5, {str(fifo)!r}, os.O_WRONLY, 0)"
    code = f"import os; os.posix_spawn('/bin/true', ['true'], os.environ, file_actions=[{action}])"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        until(lambda: bool(children.read_text()))
        child = int(children.read_text())

        def freeze(pid: int) -> None:
            frozen = Frozen()
            deadline = time.monotonic() + PATIENCE
            assert frozen.freeze([pid, child], nobody, lambda thread: thread == pid, deadline) == set()
            frozen.thaw()

        elsewhere(freeze, parent.pid)  # whose end sets the parent free too
        os.close(os.open(fifo, os.O_RDONLY))
        assert parent.wait(PATIENCE) == 0
