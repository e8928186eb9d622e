"""One live mount: made, proved to be the engine that was asked for, and removed whatever happens.

A mount counts as made when /proc/self/mountinfo shows, at the mountpoint, a type that is the peer's, and a `stat` of
the mountpoint by a child process answers. It is removed by umount(8), lazily if busy; the FUSE connection is then
aborted if its server has not gone by itself. Only this mount's connection is ever aborted: its number is the minor of
the st_dev in mountinfo.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import processes
from benchmarks.peers import Launch, Peer, Stack
from benchmarks.processes import Runner, StepError

#: How long a server may take to serve, and to go after its mount has gone. Seconds.
READY_LIMIT, EXIT_LIMIT = 60.0, 20.0


class MountFailed(Exception):
    """The engine did not mount; the message is its own."""


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo (proc_pid_mountinfo(5)): where, what, and the two halves of st_dev."""

    mountpoint: str
    fstype: str
    major: int
    minor: int


def mount_entries() -> list[MountEntry]:
    """All mounts of this mount namespace, oldest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [_parse(line) for line in file]


def _parse(line: str) -> MountEntry:
    before, after = line.rstrip("\n").split(" - ", 1)
    fields = before.split(" ")
    major, minor = fields[2].split(":")
    # Space, tab, newline and backslash are written as \ooo.
    mountpoint = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4])
    return MountEntry(mountpoint, after.split(" ")[0], int(major), int(minor))


def entry_at(mountpoint: Path) -> MountEntry | None:
    """The topmost mount exactly at `mountpoint`, or None."""
    found = [entry for entry in mount_entries() if entry.mountpoint == str(mountpoint)]
    return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Mount:
    """A live mount. `runner` starts clients on it; a client over its limit aborts this connection."""

    path: Path
    stack: Stack
    runner: Runner
    server: subprocess.Popen[bytes] | None
    entry: MountEntry

    def pids(self) -> list[int]:
        """The processes that serve it; [] for a mount of the kernel's."""
        return [] if self.server is None else [self.server.pid]


@contextlib.contextmanager
def mounted(peer: Peer, stack: Stack, mountpoint: Path, runner: Runner, control: Path) -> Iterator[Mount]:
    """Mount `stack` with `peer` on the empty directory `mountpoint`; unmounted and reaped at the end.

    `control` is where fusectl is mounted. Raises `MountFailed` when the engine refuses or turns out another.
    """
    runner = replace(runner, user=peer.user, environment={**runner.environment, **peer.environment})
    launch = peer.launch(stack, mountpoint)
    log = os.memfd_create("server")
    server: subprocess.Popen[bytes] | None = None
    try:
        try:
            if launch.stays:
                server = processes.start(
                    launch.argv, runner.environment, user=peer.user, stdout=log, stderr=log, cwd=launch.cwd
                )
                entry = _await_mount(peer, mountpoint, server, log)
            else:
                entry = mount_by_command(peer, launch, mountpoint, runner)
            pids = [server.pid] if server else []
            client = replace(runner, servers=pids, on_timeout=lambda: abort(entry, control, pids))
            client.run(["stat", str(mountpoint)])
        except StepError as error:
            raise MountFailed(str(error)) from None
        yield Mount(mountpoint, stack, client, server, entry)
    finally:
        unmount(mountpoint, control, [server] if server else [])
        os.close(log)


def mount_by_command(peer: Peer, launch: Launch, mountpoint: Path, runner: Runner) -> MountEntry:
    """Run a command that returns once mounted. Raises `MountFailed` where it left no mount of the peer's type."""
    try:
        runner.run(launch.argv, cwd=launch.cwd, words_expected=True)
    except StepError as error:
        raise MountFailed(str(error)) from None
    entry = entry_at(mountpoint)
    if entry is None or entry.fstype not in peer.fstypes:
        raise MountFailed(f"{launch.argv[0]} returned, and {entry.fstype if entry else 'nothing'} is mounted")
    return entry


def _await_mount(peer: Peer, mountpoint: Path, server: subprocess.Popen[bytes], log: int) -> MountEntry:
    """Watch mountinfo until the server has mounted or died."""
    deadline = time.monotonic() + READY_LIMIT
    while True:
        entry = entry_at(mountpoint)
        if entry is not None:
            if entry.fstype not in peer.fstypes:
                raise MountFailed(f"mounted as {entry.fstype}, which is not {peer.name}")
            return entry
        if processes.ended_within(server, 0.005):
            raise MountFailed(f"exit {server.returncode}: {processes.gist(processes.read_all(log))}")
        if time.monotonic() > deadline:
            raise MountFailed(f"no mount after {READY_LIMIT:g} s")


def abort(entry: MountEntry, control: Path, pids: Sequence[int]) -> None:
    """Make every request on a FUSE mount fail at once: abort its connection, then kill its servers. No-op elsewhere."""
    if entry.fstype.startswith("fuse"):
        with contextlib.suppress(OSError):
            (control / str(entry.minor) / "abort").write_text("1", encoding="ascii")
    processes.kill_pids(pids)


def unmount(mountpoint: Path, control: Path, servers: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """Remove every mount at `mountpoint` and end its servers. Idempotent."""
    was_mounted = _clear(mountpoint, control, servers)
    for server in servers:
        # One that has not mounted yet (the run was interrupted) would do so after we looked: it is not waited for.
        if not was_mounted or not processes.ended_within(server, EXIT_LIMIT):
            processes.kill_group(server)
    _clear(mountpoint, control, servers)


def _clear(mountpoint: Path, control: Path, servers: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Unmount until nothing is mounted at `mountpoint`. Whether anything was."""
    for attempt in range(8):  # stacked mounts are a bug of an engine's, endless ones would be a bug of ours
        entry = entry_at(mountpoint)
        if entry is None:
            return attempt > 0
        if not _umount(str(mountpoint)):
            # Something still holds it: make that fail, then let go.
            abort(entry, control, [server.pid for server in servers if server.returncode is None])
            _umount("-l", str(mountpoint))
    return True


def _umount(*arguments: str) -> bool:
    """One umount(8), bounded: a dead server's mount may not answer."""
    try:
        done = subprocess.run(["umount", *arguments], capture_output=True, check=False, timeout=EXIT_LIMIT)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
