"""How long does it take to see everything? `find` with a stat of each of 20,000 files, twice.

The first walk is on a fresh mount: all directories are merged and all attributes made. The second asks again, and
what an engine lets the kernel remember shows.
"""

from __future__ import annotations

from benchmarks.arena import WALK, Arena, expect_walk
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.small()
    with arena.mount([tree.path]) as mount:
        steps = [mount.runner.run(["find", str(mount.path), *WALK]) for _ in range(2)]
    for step in steps:
        expect_walk(step.stdout, tree.files, tree.directories, tree.bytes)
    return {"walk-first": steps[0], "walk-second": steps[1]}


WORKLOAD = Workload(
    "walk",
    "How long does a walk with stat take, and a second one?",
    (
        Metric("walk-first", "first walk + stat, 20k files", targets=(Target("fuse-overlayfs", 0.8, 0.7),)),
        Metric("walk-second", "second walk + stat", targets=(Target("fuse-overlayfs", 1.1, 1.0),)),
    ),
    run,
    user=True,
    packed=True,
)
