"""What does the first change to a large lower file cost? One byte is appended to 1 GiB, so all of it is copied up."""

from __future__ import annotations

from benchmarks.arena import Arena, expect, piece
from benchmarks.processes import Step
from benchmarks.trees import incompressible_piece
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.big()
    with arena.mount([tree.path]) as mount:
        file = mount.path / "big"
        step = mount.runner.run(["sh", "-c", 'printf x >> "$0"', str(file)])
        middle, end = tree.bytes >> 21, tree.bytes >> 20
        expect("the MiB in the middle", piece(mount, file, middle) == incompressible_piece(middle), True)
        expect("the appended byte", piece(mount, file, end), b"x")
        expect("size in the upper", (mount.stack.upper / "big").stat().st_size, tree.bytes + 1)
    return {"append-lower": step}


WORKLOAD = Workload(
    "append_lower",
    "How long does a copy-up of a large file take?",
    (Metric("append-lower", "append 1 byte to a 1 GiB lower file", targets=(Target("kernel", 1.1, 1.1),)),),
    run,
)
