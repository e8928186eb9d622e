"""`stat` of one unseen file after the other while a large file is copied up; percentiles as JSON on standard output.

    python -m benchmarks.clients.stat_latency BIG NAMES MOUNT

starts an append of one byte to BIG, which copies it up, and until that ends asks for the files of the directory NAMES
(a layer, read beforehand) at MOUNT, one each millisecond. A stat that takes longer than that also counts for those that
could not be sent meanwhile: a stat of 5 ms gives the samples 5, 4, 3, 2 and 1. So an engine that stands still for a
second shows a second, and not one bad sample among few. Python's own share is some microseconds a stat.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

_PERIOD_NS = 1_000_000


def main(big: str, names: str, mountpoint: str) -> int:
    paths = [
        os.path.join(mountpoint, os.path.relpath(os.path.join(directory, file), names))
        for directory, _, files in os.walk(names)
        for file in files
    ]
    random.Random(0).shuffle(paths)
    os.stat(mountpoint)
    copy_up = subprocess.Popen(["sh", "-c", 'printf x >> "$0"', big])
    latencies: list[int] = []
    due = time.monotonic_ns()
    while paths and (not latencies or copy_up.poll() is None):
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        started = time.monotonic_ns()
        os.stat(paths.pop())
        ended = time.monotonic_ns()
        latencies.extend(range(ended - started, 0, -_PERIOD_NS))
        due = max(ended, started + _PERIOD_NS)
    status = copy_up.wait()
    if status != 0 or not latencies:
        print(f"the copy-up ended with {status} after {len(latencies)} stats", file=sys.stderr)
        return 1
    latencies.sort()
    json.dump({"p50_ms": _at(latencies, 0.5), "p99_ms": _at(latencies, 0.99), "samples": len(latencies)}, sys.stdout)
    return 0


def _at(ordered: list[int], share: float) -> float:
    """The value, in ms, that `share` of the samples do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
