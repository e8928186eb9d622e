"""What do many layers cost? The same 20,000 files as in `walk`, spread over 64 layers, walked twice."""

from __future__ import annotations

from benchmarks.arena import WALK, Arena, expect_walk
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    layers, tree = arena.trees.layered()
    with arena.mount(layers) as mount:
        steps = [mount.runner.run(["find", str(mount.path), *WALK]) for _ in range(2)]
    for step in steps:
        expect_walk(step.stdout, tree.files, tree.directories, tree.bytes)
    return {"layers-first": steps[0], "layers-second": steps[1]}


WORKLOAD = Workload(
    "walk_layers",
    "How long does a walk over 64 layers take, and a second one?",
    (
        Metric(
            "layers-first",
            "first walk, 64 layers",
            targets=(Target("kernel", 0.5, 0.6), Target("kernel", 0.3, 0.3, ours="ours-tars")),
        ),
        Metric("layers-second", "second walk, 64 layers", targets=(Target("fuse-overlayfs", 1.1, 1.0),)),
    ),
    run,
    user=True,
    packed=True,
)
