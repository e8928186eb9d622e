"""`stat` of one unseen file after the other while a large file is copied up; percentiles as JSON on standard output.

    python -m benchmarks.clients.stat_latency BIG NAMES MOUNT

starts an append of one byte to BIG, which copies it up, and until that ends asks for the files of the directory NAMES
(a layer, read beforehand) at MOUNT, one each millisecond. A stat that could not be sent because the one before was
still waiting counts from when it was due: an engine that stands still for a second shows a second, not one bad sample
among few. Python's own share is some microseconds a stat.
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
    previous = due = time.monotonic_ns()
    ended: int | None = None
    while paths:
        if ended is None and copy_up.poll() is not None:
            ended = time.monotonic_ns()
        if ended is not None and due > ended and latencies:
            break
        if previous > due:
            started = due
        else:
            # Asked in time. Count from now, not from `due`: a late timer is the client's own.
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            started = due = time.monotonic_ns()
        os.stat(paths.pop())
        previous = time.monotonic_ns()
        latencies.append(previous - started)
        due += _PERIOD_NS
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
