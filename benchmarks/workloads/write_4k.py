"""What does a small write cost? dd writes 200 MB in pieces of 4 KiB and syncs the file."""

from __future__ import annotations

from benchmarks.arena import Arena, copied, expect
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree, size = arena.trees.five_k(), arena.trees.scale.small_writes
    with arena.mount([tree.path]) as mount:
        argv = ["dd", "if=/dev/zero", f"of={mount.path / 'new'}", "bs=4k", f"count={size >> 12}", "conv=fsync"]
        step = mount.runner.run(argv, words_expected=True)
        copied(step.stderr, size)
        expect("size in the upper", (mount.stack.upper / "new").stat().st_size, size)
    return {"write-4k": step}


WORKLOAD = Workload(
    "write_4k",
    "How fast are small writes?",
    (Metric("write-4k", "200 MB in 4 KiB writes", targets=(Target("kernel", 1.15, 1.15),)),),
    run,
    user=True,
)
