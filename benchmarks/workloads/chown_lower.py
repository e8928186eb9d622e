"""What does a change of attributes cost? chown -R over 5,000 lower files, each of which is copied up."""

from __future__ import annotations

from benchmarks.arena import Arena, count, expect
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.five_k()
    with arena.mount([tree.path]) as mount:
        top = mount.path / "unpacked"
        step = mount.runner.run(["chown", "-R", "1234:1235", str(top)])
        expect("files with the new owner", count(mount, top, "-type", "f", "-uid", "1234", "-gid", "1235"), tree.files)
        expect("entries with the old owner", count(mount, top, "!", "-uid", "1234"), 0)
    return {"chown-lower": step}


WORKLOAD = Workload(
    "chown_lower",
    "How long does chown -R over a lower layer take?",
    (Metric("chown-lower", "chown -R 5k lower files", targets=(Target("fuse-overlayfs", 1.0, 0.5),)),),
    run,
)
