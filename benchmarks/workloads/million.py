"""How soon is an image of a million files usable, and what does it take? One layer tar whose index is there.

From the mount command to the first stat in it, as `mount_ready` times it; then the server's resident memory, before
and after a listing of one directory of a thousand files.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import processes
from benchmarks.arena import Arena, discard, expect
from benchmarks.mounting import unmount
from benchmarks.processes import WrongResult
from benchmarks.workloads import Metric, Target, Workload
from benchmarks.workloads.mount_ready import _await_servers


def run(arena: Arena) -> dict[str, float]:
    layer, directories = arena.trees.million()
    stack = arena.stack([layer])
    mountpoint = stack.upper.with_name("mnt")
    launch = arena.peer.ready_launch(stack, mountpoint)
    environment = {**arena.runner.environment, **arena.peer.environment}
    runner = replace(arena.runner, environment=environment)
    try:
        script = '"$@" >&2 && exec stat -c %F "$0"'
        place = mountpoint / "d0000"
        step = runner.run(["sh", "-c", script, str(place), *launch.argv], cwd=launch.cwd, words_expected=True)
        expect("stat in the mount", step.stdout.splitlines()[-1:], [b"directory"])
        runner.run(["ls", "-l", str(place)], words_expected=True)
        memory = processes.resident_bytes(processes.marked_pids(environment))
        expect("directories", len(runner.run(["ls", "-U", str(mountpoint)]).stdout.splitlines()), directories)
    finally:
        unmount(mountpoint, arena.control)
        left = _await_servers(environment)
        discard(stack)
    if left:
        raise WrongResult(f"{left} server processes stayed after the unmount")
    return {"million-ready": step.seconds * 1000, "million-rss": memory}


WORKLOAD = Workload(
    "million",
    "How soon is an image of a million files usable, and in how much memory?",
    (
        Metric(
            "million-ready", "mount to first stat, 1M files in a tar", "ms", (Target(None, 1000, 1000, "ours-tars"),)
        ),
        Metric("million-rss", "server's memory after listing 1,000 of them", "bytes"),
    ),
    run,
    only=frozenset({"ours-tars", "ratarmount"}),
)
