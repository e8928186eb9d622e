"""A table with a column for each layer, as wide as the window: its cells, how wide they are, which layers have room."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from .style import Style, columns, fit

_T = TypeVar("_T")

#: Columns of the terminal that a path takes at most.
PATH = 28
_NARROW = 9  # what a layer takes at least
_WIDE = 26
_GAP = "  "


class Cell(NamedTuple):
    """`hidden`: it stands in parentheses, since it is not seen in this row."""

    text: str
    colours: tuple[str, ...] = ()
    hidden: bool = False

    def fit(self, width: int) -> str:
        if not self.hidden:
            return fit(self.text, width)
        return fit(f"({fit(self.text, width - 2).rstrip()})", width)

    @property
    def columns(self) -> int:
        return columns(self.text) + 2 * self.hidden


def chosen(layers: Sequence[_T], room: int) -> tuple[list[_T], list[_T]]:
    """(those that are shown, those that are not): as many as there is room for beside what is merged: the upper, the
    topmost, and the base."""
    count = max(2, room // (_NARROW + len(_GAP)) - 1)
    if len(layers) <= count:
        return list(layers), []
    return [*layers[: count - 1], layers[-1]], list(layers[count - 1 : -1])


def widths(names: Sequence[str], rows: Sequence[Sequence[Cell]], room: int) -> list[int]:
    """Each as wide as what is in it; the widest give way until all fit."""
    found = [
        min(_WIDE, max([_NARROW, columns(name), *(row[at].columns for row in rows)])) for at, name in enumerate(names)
    ]
    while sum(found) + len(_GAP) * len(found) > room and max(found) > _NARROW:
        found[found.index(max(found))] -= 1
    return found


def line(label: str, cells: Sequence[Cell], room: Sequence[int], style: Style) -> str:
    parts = [style.paint(cell.fit(width), *cell.colours) for cell, width in zip(cells, room, strict=True)]
    return ("  " + _GAP.join([label, *parts])).rstrip()


def not_shown(above: str, names: Sequence[str], style: Style) -> list[str]:
    """What layers the window has no room for."""
    words = f"not shown, above {above}: {', '.join(names)}"
    return textwrap.wrap(words, style.width - 1, initial_indent="  ", subsequent_indent="    ")
