"""All rules over one tree, and the repairs.

`check` changes nothing unless `repair` is set. Then each finding is mended as soon as it is found, so that what follows
from it is judged on what is there by then; each step is atomic, and done again by the next run after a crash. Only
what loses nothing is mended; the rest is named with the reason.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from unionfs.layers.layer import Layer, Path, WritableLayer
from unionfs.upkeep.below import Below
from unionfs.upkeep.index import judge_work
from unionfs.upkeep.rules import Fault, View, first_namespace, judge
from unionfs.upkeep.steps import take
from unionfs.upkeep.stored import is_aufs, read_folder, walk

State = Literal["found", "repaired", "left"]


class Finding(NamedTuple):
    """One thing that is wrong. `where`: the tree or its work directory, which `path` is relative to (b"" the root).
    `rule`: its name for programs. `repair`: what `repair` does about it, or "none: " and why nothing. `state`: found
    (nothing was tried), repaired or left."""

    where: Literal["tree", "work"]
    path: Path
    rule: str
    message: str
    repair: str
    state: State


class Checked(NamedTuple):
    """`upper`: judged as an upper. `work`: its work directory was judged."""

    findings: tuple[Finding, ...]
    upper: bool
    work: bool

    @property
    def clean(self) -> bool:
        """Nothing is wrong now."""
        return all(finding.state == "repaired" for finding in self.findings)


def check(
    tree: Layer,
    *,
    upper: bool = False,
    work: Layer | None = None,
    lowers: Sequence[Layer] = (),
    repair: tuple[WritableLayer, WritableLayer | None] | None = None,
) -> Checked:
    """Judge `tree` as an upper or as a layer, `work` (which no mount may use), and what the `lowers`, topmost first,
    say of them. `repair`: the same two, to be mended. The lowers are closed."""
    found: list[Finding] = []
    mender, desk = repair if repair is not None else (None, None)
    below = Below(lowers) if lowers else None
    try:
        if work is not None:
            found += _settle("work", judge_work(work), desk, repair is not None)
        aufs = is_aufs(tree, upper=upper)
        found += _settle("tree", _judge_tree(tree, aufs, below, mender is not None), mender, repair is not None)
    finally:
        if below is not None:
            below.close()
    return Checked(tuple(found), upper, work is not None)


def _judge_tree(tree: Layer, aufs: bool, below: Below | None, mends: bool) -> Iterator[Fault]:
    view = View(aufs)
    for folder in walk(tree, aufs=aufs):
        if not view.namespace:
            view = View(aufs, first_namespace(folder))
        faults = 0
        for fault in judge(folder, view):
            faults += 1
            yield fault
        if below is not None:
            yield from below.judge(read_folder(tree, folder.path) if faults and mends else folder, view)


def _settle(
    where: Literal["tree", "work"], faults: Iterable[Fault], mender: WritableLayer | None, wanted: bool
) -> Iterator[Finding]:
    for fault in faults:
        state: State = "found" if not wanted else "left"
        if mender is not None and fault.steps:
            try:
                take(mender, fault.steps)
                state = "repaired"
            except OSError as e:
                if e.errno != errno.ENOTEMPTY:
                    raise
        yield Finding(where, fault.path, fault.rule, fault.message, fault.repair, state)
