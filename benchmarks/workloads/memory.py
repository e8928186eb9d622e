"""What does a known inode cost? Resident memory of the server after a walk of 100,000 files, less that before it.

Divided by the inodes that the server still knows, where it tells, else by all that were looked up.

The kernel's own memory (its inodes and dentries, the same for every engine) is not in it, and the kernel's overlayfs
has no server to measure.
"""

from __future__ import annotations

from benchmarks.arena import WALK, Arena, expect_walk, live_inodes, server_memory
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, float]:
    tree = arena.trees.many()
    with arena.mount([tree.path]) as mount:
        before = server_memory(mount)
        step = mount.runner.run(["find", str(mount.path), *WALK])
        after = server_memory(mount)
        live = live_inodes(mount)
        expect_walk(step.stdout, tree.files, tree.directories, tree.bytes)
    return {"rss-per-inode": (after - before) / (live or tree.files + tree.directories)}


WORKLOAD = Workload(
    "memory",
    "How much memory does a known inode cost?",
    (Metric("rss-per-inode", "RSS per known inode, 100k files", "bytes", (Target(None, 600, 600),)),),
    run,
    user=True,
    only=frozenset(
        {
            "fuse-overlayfs",
            "fuse-overlayfs-user",
            "unionfs-fuse",
            "ours-devfuse",
            "ours-cached",
            "ours-user",
            "ours-fusepy",
            "ours-tars",
        }
    ),
)
