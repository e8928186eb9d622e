"""Which rows a picture of limited size shows, and what it says of the others.

What is deleted, changed, moved, overridden or broken comes first, with the directories on the way; then what the upper
adds; then the rest, from the top of the tree down. Of names in a directory that only one layer has, few are shown, or
none: of many the directory says `… n more`. What is in a deleted directory is deleted with it, and comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from unionfs.explain.layer_tree import NOTABLE, TreeRow

#: So many names that only one layer has are no crowd.
_FEW: Final = 6


@dataclass(frozen=True, slots=True)
class FoldedRow:
    """A row that is shown. `folded`: how many that belong to what is in it are not, leaving out those that a directory
    shown below it tells of; `notable`: how many of these are deleted, changed, moved or overridden."""

    row: TreeRow
    folded: int = 0
    notable: int = 0


def fold_rows(rows: Sequence[TreeRow], limit: int | None = None, *, crowds: bool = False) -> list[FoldedRow]:
    """`limit`: how many rows to show at most; None: all. `crowds`: as many as that, for who can search in them."""
    if limit is None or len(rows) <= limit:
        return [FoldedRow(row) for row in rows]
    return _Folding(rows, max(1, limit), crowds).lines()


def is_notable(row: TreeRow, parent: TreeRow | None) -> bool:
    """Is this what people look for? What is in a deleted directory is not: the directory is."""
    if parent is not None and parent.state == row.state and row.state in ("deleted", "added"):
        return False
    return row.state in NOTABLE or any(part.opaque or part.role == "linked" for part in row.which.parts)


def parents(rows: Sequence[TreeRow]) -> list[int | None]:
    """The number of each row's directory."""
    found: list[int | None] = []
    way: list[int] = []
    for number, row in enumerate(rows):
        del way[row.depth :]
        found.append(way[-1] if way else None)
        way.append(number)
    return found


class _Folding:
    def __init__(self, rows: Sequence[TreeRow], limit: int, crowds: bool) -> None:
        self._rows, self._left = rows, limit
        self._parents = parents(rows)
        self._kept: set[int] = set()
        self._notable = [is_notable(row, self._parent(number)) for number, row in enumerate(rows)]
        self._keep(0)
        self._keep_all(number for number, notable in enumerate(self._notable) if notable)
        self._keep_all(number for number, row in enumerate(rows) if row.state == "added" and self._is_first(number))
        self._keep_few()
        if crowds:
            self._keep_all(iter(range(len(rows))))

    def _parent(self, number: int) -> TreeRow | None:
        above = self._parents[number]
        return None if above is None else self._rows[above]

    def _is_first(self, number: int) -> bool:
        """The upper's directory is shown, not all that is in it."""
        parent = self._parent(number)
        return parent is None or parent.state != "added"

    def _keep(self, number: int) -> bool:
        """A row, and the directories that it is in; False where there is no room for all of them."""
        way, at = [], int(number)
        while at not in self._kept:
            way.append(at)
            above = self._parents[at]
            if above is None:
                break
            at = above
        if len(way) > self._left:
            return False
        self._left -= len(way)
        self._kept.update(way)
        return True

    def _keep_all(self, numbers: Iterator[int]) -> None:
        """As many as there is room for, those nearest to the root first."""
        for number in sorted(numbers, key=lambda number: (self._rows[number].depth, number)):
            self._keep(number)

    def _keep_few(self) -> None:
        """What else is in the directories that are shown, those nearest to the root first: few names, or none. Of the
        root as many as there is room for."""
        level = [0]
        while level:
            below: list[int] = []
            for directory in level:
                others = [child for child in self._children(directory) if child not in self._kept]
                if directory == 0 or len(others) <= min(_FEW, self._left):
                    for child in others:
                        self._keep(child)
                if self._rows[directory].state not in ("deleted", "single"):
                    below += [child for child in self._children(directory) if child in self._kept]
            level = below

    def _children(self, directory: int) -> Iterator[int]:
        at, end = directory + 1, directory + 1 + self._rows[directory].below
        while at < end:
            yield at
            at += 1 + self._rows[at].below

    def lines(self) -> list[FoldedRow]:
        return [self._line(number) for number in sorted(self._kept)]

    def _line(self, number: int) -> FoldedRow:
        folded = notable = 0
        for child in self._children(number):
            if child not in self._kept:  # and so is nothing in it
                end = child + 1 + self._rows[child].below
                folded += end - child
                notable += sum(self._notable[child:end])
        return FoldedRow(self._rows[number], folded, notable)
