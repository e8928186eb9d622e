"""The changes of an upper as differences, with the reasons: `of_changes`; and a difference as a change: `as_change`.

What changed is known (`unionfs.changeset.diff`), in time that goes with the changes and not with the tree; here those
paths alone are compared once more, for what about them changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from unionfs.changeset.change import Change, Kind, shown, sort_key
from unionfs.changeset.difference import EVERY, Reason, Reasons
from unionfs.compare.globs import Scope
from unionfs.compare.view import Item, View, join
from unionfs.compare.walk import Difference, Label, OnFailure, Side, differences, raise_failure
from unionfs.vfs import DT_DIR


class _ChosenSide(Side):
    """Only the names that changed: `names` by directory. Of what is `gone`, all that is in it."""

    def __init__(self, view: View, label: Label | None, names: dict[bytes, set[bytes]], gone: set[bytes]) -> None:
        super().__init__(view, label)
        self._names, self._gone = names, gone

    def children(self, ref: Any) -> list[Item]:
        if self._gone and any(path in self._gone for path in _upwards(self.at)):
            return super().children(ref)
        directory = self.at
        found = [self.find(join(directory, name)) for name in sorted(self._names.get(directory, ()))]
        self.at = directory
        return [item for item in found if item is not None]


def _upwards(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]


def of_changes(
    changes: Sequence[Change],
    one: Side,
    other: Side,
    *,
    wanted: Reasons = EVERY,
    scope: Scope | None = None,
    parents: bool = False,
    inside: bool = False,
    on_failure: OnFailure = raise_failure,
) -> Iterator[Difference]:
    """The changes of `other` to `one`, in order; the rest as of `differences`. They are compared exactly, as they were
    when they were found. A change that no reason is left of is none."""
    listed = shown(changes)
    names: dict[bytes, set[bytes]] = {}
    for change in listed:
        parent, _, name = change.path.rpartition(b"/")
        names.setdefault(parent, set()).add(name)
    gone = {change.path for change in listed if change.kind is Kind.DELETED or (change.was == DT_DIR != change.type)}
    sides = [_ChosenSide(side.view, side.label, names, gone) for side in (one, other)]
    found = {
        difference.path: difference
        for difference in differences(
            *sides, exact=True, scope=scope, parents=True, inside=inside, on_failure=on_failure
        )
    }
    meant = scope or Scope()
    for path in [change.path for change in listed if change.kind is Kind.CHANGED and change.type != DT_DIR]:
        if path not in found and meant.has(path):
            # Its own attributes are as they were, so it is the names that it shares them with.
            before, after = (side.state(path) for side in sides)
            found[path] = Difference(path, Kind.CHANGED, (Reason.HARDLINK,), before, after)
    yield from _wanted([found[path] for path in sorted(found, key=sort_key)], wanted, parents)


def as_change(difference: Difference) -> Change:
    """As docker lists it."""
    attr = None if difference.after is None else difference.after.attr
    return Change(difference.path, difference.kind, attr, difference.was)


def _wanted(found: Iterable[Difference], wanted: Reasons, parents: bool) -> Iterator[Difference]:
    """With the reasons that are wanted; a directory that none is left of only above others."""
    above: list[Difference] = []
    for difference in found:
        path = difference.path
        while above and above[-1].path and not path.startswith(above[-1].path + b"/"):
            above.pop()
        # The root is never a change of an upper: its times are those of the directory's own making.
        kept = difference.only(wanted) if path else replace(difference, reasons=())
        if kept.kind is not Kind.CHANGED or kept.reasons:
            if parents:
                yield from above
                above.clear()
            yield kept
        elif kept.type == DT_DIR:
            above.append(kept)
