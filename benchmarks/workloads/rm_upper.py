"""How long does it take to remove what was just made? rm -rf of 5,000 files that were unpacked through the mount."""

from __future__ import annotations

import os

from benchmarks.arena import Arena, count, expect
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    lower = arena.trees.big()
    archive, tree = arena.trees.archive()
    with arena.mount([lower.path]) as mount:
        target = mount.path / "new"
        mount.runner.run(["mkdir", str(target)])
        mount.runner.run(["tar", "-xf", str(archive), "-C", str(target)])
        expect("files to remove", count(mount, target, "-type", "f"), tree.files)
        step = mount.runner.run(["rm", "-rf", str(target)])
        expect("left in the mount", count(mount, mount.path, "-maxdepth", "1", "-name", "new"), 0)
        # A whiteout over nothing is unneeded and harmless; files are neither.
        left = sum(len(files) for top, _, files in os.walk(mount.stack.upper / "new"))
        expect("files left in the upper", left, 0)
    return {"rm-upper": step}


WORKLOAD = Workload(
    "rm_upper",
    "How long does removing new files take?",
    (Metric("rm-upper", "rm -rf 5k files in the upper", targets=(Target("fuse-overlayfs", 1.1, 0.6),)),),
    run,
    user=True,
)
