"""How long does it take to know that two trees are the same? 20,000 small files and a copy of them, beside `diff -rq`.

diff looks at types and contents alone; ours at owners, modes, times, xattrs and hard links too. Nothing is mounted.
Both read every byte: the copy shares none.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

from benchmarks.arena import Arena, expect
from benchmarks.peers import DIFF, command_line
from benchmarks.processes import Step
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, Step]:
    tree, copy = arena.trees.small(), arena.scratch / "copy"
    subprocess.run(["cp", "-a", "--reflink=never", tree.path, copy], check=True)
    arena.backing.cool()
    try:
        if arena.peer.name == DIFF.name:
            step = arena.runner.run(["diff", "-rq", str(tree.path), str(copy)])
        else:
            runner = replace(arena.runner, environment={**arena.runner.environment, **arena.peer.environment})
            step = runner.run([*(command_line() or ()), "diff", "--strict", str(tree.path), str(copy)])
    finally:
        shutil.rmtree(copy)
    expect("what differs", step.stdout, b"")
    return {"compare": step}


WORKLOAD = Workload(
    "compare",
    "How long does comparing two trees take?",
    (Metric("compare", "compare 20k files with a copy", targets=(Target(DIFF.name, 4.0, 4.0),)),),
    run,
    only=frozenset({DIFF.name, "ours-devfuse"}),
)
