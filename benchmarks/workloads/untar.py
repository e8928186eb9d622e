"""How long does it take to make files? tar unpacks 5,000 into a new directory of the upper."""

from __future__ import annotations

from benchmarks.arena import Arena, content, count, expect
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    lower = arena.trees.big()
    archive, tree = arena.trees.archive()
    with arena.mount([lower.path]) as mount:
        target = mount.path / "new"
        mount.runner.run(["mkdir", str(target)])
        step = mount.runner.run(["tar", "-xf", str(archive), "-C", str(target)])
        expect("files unpacked", count(mount, target, "-type", "f"), tree.files)
        sample = sorted((tree.path / "unpacked").rglob("*.txt"))[tree.files // 2]
        expect("a sample's content", content(mount, target / sample.relative_to(tree.path / "unpacked")),
               sample.read_bytes())  # fmt: skip
    return {"untar": step}


WORKLOAD = Workload(
    "untar",
    "How long does unpacking an archive take?",
    (Metric("untar", "untar 5k files", targets=(Target("fuse-overlayfs", 1.2, 0.5),)),),
    run,
    user=True,
)
