"""How fast does data come out? dd reads a lower file of 1 GiB, twice.

The first read is on a fresh mount; the second finds in the page cache what the engine left there.
"""

from __future__ import annotations

from benchmarks.arena import Arena, copied, expect, piece
from benchmarks.processes import Step
from benchmarks.trees import incompressible_piece
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.big()
    with arena.mount([tree.path]) as mount:
        file = mount.path / "big"
        steps = [mount.runner.run(["dd", f"if={file}", "of=/dev/null", "bs=1M"], words_expected=True) for _ in range(2)]
        for step in steps:
            copied(step.stderr, tree.bytes)
        last = tree.bytes // (1 << 20) - 1
        expect("the last MiB", piece(mount, file, last) == incompressible_piece(last), True)
    return {"read-first": steps[0], "read-again": steps[1]}


_BESIDE = (Target("kernel", 1.1, 1.1), Target("fuse-overlayfs-user", 1.0, 1.0, ours="ours-user"))

WORKLOAD = Workload(
    "read_large",
    "How fast is a large file read, and read again?",
    (
        Metric("read-first", "read 1 GiB", targets=_BESIDE),
        Metric("read-again", "read it again", targets=_BESIDE[:1]),
    ),
    run,
    user=True,
    packed=True,
)
