"""Facts about the machine a run happened on: without them a figure means nothing."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.peers import REPOSITORY

_CLIENTS = ("find", "tar", "dd", "grep", "rm", "chown")


def facts() -> dict[str, object]:
    """Kernel, processors, memory, versions, commit and load, all JSON values. `spawn_seconds`: starting `true`."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "cpus_allowed": sorted(os.sched_getaffinity(0)),
        "hypervisor": _first("/proc/cpuinfo", "flags", contains=" hypervisor"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "commit": commit(),
        "clients": {client: _first_line(client, "--version") for client in _CLIENTS},
        "spawn_seconds": spawn_seconds(),
        "load_before": os.getloadavg()[0],
    }


def commit() -> str | None:
    """This tree's commit, with `-dirty` when files differ from it; None outside a git work tree."""
    return _first_line("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12")


def spawn_seconds() -> float:
    """The median time from the start of the smallest client to its end: a part of every figure in seconds."""
    samples = []
    for _ in range(15):
        started = time.perf_counter()
        subprocess.run(["true"], check=True)
        samples.append(time.perf_counter() - started)
    return statistics.median(samples)


def _first(path: str, key: str, contains: str | None = None) -> str | bool | None:
    """The value of the first line `key : value` of a /proc file; with `contains`, whether the value has it."""
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(key):
            value = line.partition(":")[2]
            return contains in value if contains is not None else value.strip()
    return None


def _first_line(*argv: str) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=30)
    except FileNotFoundError:
        return None
    lines = (done.stdout if done.returncode == 0 else "").splitlines()
    return lines[0] if lines else None
