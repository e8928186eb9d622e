"""How soon is a mount usable? From the start of the mount command to the answer of a first stat inside it.

The command is the one a user types (ours: unionfs-mount), which goes to the background by itself; its server is found
afterwards by the mark all processes of a run carry, and must be gone after the unmount. One step times both programs:
a shell runs the command, then stat(1).
"""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks import processes
from benchmarks.arena import Arena, discard, expect
from benchmarks.mounting import abort, entry_at, unmount
from benchmarks.processes import WrongResult
from benchmarks.workloads import Metric, Target, Workload

_GONE_LIMIT = 10.0


def run(arena: Arena) -> dict[str, float]:
    tree = arena.trees.five_k()
    stack = arena.stack([tree.path])
    mountpoint = stack.upper.with_name("mnt")
    launch = arena.peer.ready_launch(stack, mountpoint)
    environment = {**arena.runner.environment, **arena.peer.environment}

    def stop() -> None:
        entry = entry_at(mountpoint)
        if entry is not None:
            abort(entry, arena.control, processes.marked_pids(environment))

    runner = replace(arena.runner, user=arena.peer.user, environment=environment, on_timeout=stop)
    try:
        script = '"$@" && exec stat -c %F "$0"'
        step = runner.run(
            ["sh", "-c", script, str(mountpoint / "unpacked"), *launch.argv], cwd=launch.cwd, words_expected=True
        )
        expect("stat in the mount", step.stdout.splitlines()[-1:], [b"directory"])
        entry = entry_at(mountpoint)
        expect("type of the mount", entry is not None and entry.fstype in arena.peer.fstypes, True)
    finally:
        unmount(mountpoint, arena.control)
        left = _await_servers(environment)
        discard(stack)
    if left:
        raise WrongResult(f"{left} server processes stayed after the unmount")
    return {"mount-ready": step.seconds * 1000}


def _await_servers(environment: dict[str, str]) -> int:
    """Wait for this run's servers to go; kill those that do not. How many had to be killed."""
    deadline = time.monotonic() + _GONE_LIMIT
    while pids := processes.marked_pids(environment):
        if time.monotonic() > deadline:
            processes.kill_pids(pids)
            return len(pids)
        time.sleep(0.02)
    return 0


WORKLOAD = Workload(
    "mount_ready",
    "How soon is a mount usable?",
    (Metric("mount-ready", "mount command to first stat", "ms", (Target(None, 150, 150),)),),
    run,
    user=True,
    packed=True,
)
