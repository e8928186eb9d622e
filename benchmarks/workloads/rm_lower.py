"""How long does it take to hide what a lower layer has? rm -rf of 5,000 files, each of which becomes a whiteout."""

from __future__ import annotations

from benchmarks.arena import Arena, count, expect
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.five_k()
    with arena.mount([tree.path]) as mount:
        step = mount.runner.run(["rm", "-rf", str(mount.path / "unpacked")])
        expect("left in the mount", count(mount, mount.path, "-maxdepth", "1", "-name", "unpacked"), 0)
    return {"rm-lower": step}


WORKLOAD = Workload(
    "rm_lower",
    "How long does removing a lower layer's files take?",
    (Metric("rm-lower", "rm -rf 5k files in the lower", targets=(Target("fuse-overlayfs", 0.8, 0.5),)),),
    run,
)
