"""How fast does data go in? dd writes 1 GiB in pieces of 1 MiB and syncs the file, so that nothing is left cached."""

from __future__ import annotations

from benchmarks.arena import Arena, copied, expect, piece
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree, size = arena.trees.five_k(), arena.trees.scale.big
    with arena.mount([tree.path]) as mount:
        file = mount.path / "new"
        argv = ["dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={size >> 20}", "conv=fsync"]
        step = mount.runner.run(argv, words_expected=True)
        copied(step.stderr, size)
        expect("the last MiB", piece(mount, file, (size >> 20) - 1), bytes(1 << 20))
        expect("size in the upper", (mount.stack.upper / "new").stat().st_size, size)
    return {"write-large": step}


WORKLOAD = Workload(
    "write_large",
    "How fast is a large file written?",
    (
        Metric(
            "write-large",
            "write 1 GiB",
            targets=(Target("kernel", 1.15, 1.15), Target("fuse-overlayfs-user", 1.0, 1.0, ours="ours-user")),
        ),
    ),
    run,
    user=True,
)
