"""How long does it take to read 20,000 small files, and to search them again?

tar writes into a pipe that `wc` counts: into /dev/null, GNU tar reads nothing at all. The byte count is known
beforehand. grep then goes over the same files on the same mount, so that all it opens has been seen before.
"""

from __future__ import annotations

from benchmarks.arena import Arena, expect
from benchmarks.processes import Step
from benchmarks.trees import NEEDLE
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree = arena.trees.small()
    with arena.mount([tree.path]) as mount:
        packed = mount.runner.run(["sh", "-c", 'tar -cf - -C "$0" . | wc -c', str(mount.path)])
        expect("bytes from tar", int(packed.stdout), tree.tar_bytes)
        searched = mount.runner.run(["grep", "-rlF", NEEDLE, str(mount.path)])
        expect("files grep found", len(searched.stdout.splitlines()), tree.needles)
    return {"tar-small": packed, "grep-again": searched}


WORKLOAD = Workload(
    "read_small",
    "How long does it take to read all small files, and to grep them afterwards?",
    (
        Metric("tar-small", "read 20k small files (tar)", targets=(Target("fuse-overlayfs", 1.0, 0.4),)),
        Metric("grep-again", "grep -r over them again", targets=(Target("fuse-overlayfs", 1.0, 0.4),)),
    ),
    run,
    user=True,
    packed=True,
)
