"""The questions, one module each. A module defines `WORKLOAD`; `ALL` lists them in the order they are asked.

A workload's `run(arena)` does one repetition with one engine and returns a figure per metric: the step that was timed,
or a number in the metric's unit. It has checked what it
did by then, or has raised `WrongResult`. Clients are find, tar, dd, grep, rm and chown: C programs that everybody has
and whose own time is small beside what they ask for; none but them is inside a measured time, except where a module
says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.arena import Arena
from benchmarks.processes import Step


@dataclass(frozen=True, slots=True)
class Target:
    """What `ours-devfuse` aims at: at most `pinned` (or `free`) times `peer`'s median; a plain figure if no peer."""

    peer: str | None
    pinned: float
    free: float
    ours: str = "ours-devfuse"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a workload. `unit` is "s", "ms" or "bytes"; smaller is better in all of them."""

    name: str
    title: str
    unit: str = "s"
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """One question. `user`: makes sense for an ordinary user (changes nothing that root owns). `only`: the peers
    that can answer, where these are not all. `packed`: only reads, so that engines for tars can take part."""

    name: str
    question: str
    metrics: tuple[Metric, ...]
    run: Callable[[Arena], Mapping[str, Step | float]]
    user: bool = False
    only: frozenset[str] | None = None
    packed: bool = False


_MODULES = (
    "walk",
    "read_small",
    "read_large",
    "write_large",
    "write_4k",
    "append_lower",
    "untar",
    "rm_upper",
    "rm_lower",
    "chown_lower",
    "walk_layers",
    "mount_ready",
    "stat_latency",
    "memory",
    "million",
    "commit",
    "image_commit",
    "image_load",
    "compare",
)


def load_all() -> dict[str, Workload]:
    """Every workload by name, in order."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in _MODULES]
    return {module.WORKLOAD.name: module.WORKLOAD for module in modules}
