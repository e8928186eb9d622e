"""Does a large copy-up hold up everybody else? `stat` of other files while 1 GiB is copied up.

The client is `clients/stat_latency.py`: it starts the copy-up, then asks for one file after the other, each for the
first time, so that every stat is a request to the engine and none is answered by the kernel's cache. See there for
how a stall counts.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.arena import Arena, expect
from benchmarks.peers import our_environment
from benchmarks.workloads import Metric, Target, Workload


def run(arena: Arena) -> dict[str, float]:
    big, small = arena.trees.big(), arena.trees.small()
    with arena.mount([big.path, small.path]) as mount:
        client = [sys.executable, "-m", "benchmarks.clients.stat_latency"]
        runner = replace(mount.runner, environment={**mount.runner.environment, **our_environment()})
        step = runner.run([*client, str(mount.path / "big"), str(small.path), str(mount.path)])
        found = json.loads(step.stdout)
        expect("size in the upper", (mount.stack.upper / "big").stat().st_size, big.bytes + 1)
    return {"stat-p50": found["p50_ms"], "stat-p99": found["p99_ms"]}


WORKLOAD = Workload(
    "stat_latency",
    "How long does a stat take while a large file is copied up?",
    (
        Metric("stat-p50", "stat during a 1 GiB copy-up, median", "ms"),
        Metric("stat-p99", "stat during a 1 GiB copy-up, p99", "ms", (Target(None, 10, 10),)),
    ),
    run,
)
