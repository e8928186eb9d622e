"""A `Picture` as a table: a row for each path, a column for each layer, and on the right what people see.

                 upper            settings         base             merged
    etc/         dir              dir              dir              dir
      motd       "Changed."                        ("Welcome.")     "Changed."
      passwd     ✗ c 0:0                           ("root")         –

What stands in parentheses is not seen in this row: something above hides it. Where the window is too narrow for all
layers, those in the middle are left out, and said to be.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from .style import Style, columns, fit, printable

if TYPE_CHECKING:
    from unionfs.api.simulation import Column, Picture, Shown, Stored

_MERGED = "merged"
_NARROW = 9  # columns that a layer takes at least
_WIDE = 26
_PATH = 28
_GAP = "  "


class _Cell(NamedTuple):
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


def table(picture: Picture, encoding: str, style: Style) -> list[str]:
    """No lines where there is nothing in any layer."""
    paths = picture.paths()
    labels = [_label(path, picture) for path in paths]
    first = min(_PATH, max((columns(label) for label in labels), default=0))
    shown, left_out = _chosen(picture.columns, style.width - first - 2)
    names = [column.name for column in shown] + ([_MERGED] if picture.merged is not None else [])
    rows = [[_cell(column, path, picture, encoding) for column in shown] for path in paths]
    if picture.merged is not None:
        rows = [[*row, _merged_cell(picture.merged.get(path))] for row, path in zip(rows, paths, strict=True)]
    widths = _widths(names, rows, style.width - first - 2)
    lines = [_line(" " * first, [_Cell(name, ("bold",)) for name in names], widths, style)]
    lines += [_line(fit(label, first), row, widths, style) for label, row in zip(labels, rows, strict=True)]
    if left_out:
        words = f"not shown, above {shown[-1].name}: {', '.join(left_out)}"
        lines += textwrap.wrap(words, style.width - 1, initial_indent="  ", subsequent_indent="    ")
    return lines if paths else []


def _chosen(all_columns: tuple[Column, ...], room: int) -> tuple[list[Column], list[str]]:
    """As many as there is room for beside what is merged: the upper, the topmost, and the base."""
    count = max(2, room // (_NARROW + len(_GAP)) - 1)
    if len(all_columns) <= count:
        return list(all_columns), []
    shown = [*all_columns[: count - 1], all_columns[-1]]
    return shown, [column.name for column in all_columns[count - 1 : -1]]


def _widths(names: list[str], rows: list[list[_Cell]], room: int) -> list[int]:
    """Each as wide as what is in it; the widest give way until all fit."""
    widths = [
        min(_WIDE, max([_NARROW, columns(name), *(row[at].columns for row in rows)])) for at, name in enumerate(names)
    ]
    while sum(widths) + len(_GAP) * len(widths) > room and max(widths) > _NARROW:
        widths[widths.index(max(widths))] -= 1
    return widths


def _line(label: str, cells: list[_Cell], widths: list[int], style: Style) -> str:
    parts = [style.paint(cell.fit(width), *cell.colours) for cell, width in zip(cells, widths, strict=True)]
    return ("  " + _GAP.join([label, *parts])).rstrip()


def _label(path: str, picture: Picture) -> str:
    """The last name of a path, indented as deep as it is."""
    found = [column.stored[path].kind for column in picture.columns if path in column.stored]
    is_dir = "dir" in found or (path in (picture.merged or {}) and (picture.merged or {})[path].kind == "dir")
    return "  " * path.count("/") + printable(path.rpartition("/")[2]) + ("/" if is_dir else "")


def _cell(column: Column, path: str, picture: Picture, encoding: str) -> _Cell:
    stored = column.stored.get(path)
    if stored is None:
        return _Cell("")
    text = _stored_text(stored, encoding)
    if stored.kind == "whiteout":
        return _Cell(text, ("red",))
    if picture.merged is None:
        return _Cell(text)
    seen = picture.merged.get(path)
    # What the upper has is always seen, even where its data is below, or in the encoding oci it would be only in a tar.
    if seen is not None and (column.role == "upper" or column.name in seen.layers):
        return _Cell(text, ("yellow",) if stored.marks else ())
    return _Cell(text, ("dim",), hidden=True)


def _stored_text(stored: Stored, encoding: str) -> str:
    if stored.kind == "whiteout":
        return "✗ c 0:0" if encoding == "kernel" else f"✗ {printable(stored.name)}"
    words = [_text(stored.kind, stored.text)] if "metacopy" not in stored.marks else ["metacopy"]
    for mark in stored.marks:
        if mark == "opaque":
            words.append("opaque" if encoding == "kernel" else ".wh..wh..opq")
        elif mark.startswith("redirect="):
            words.append("→ " + printable(mark.partition("=")[2]))
    return " ".join(words)


def _text(kind: str, text: str) -> str:
    if kind == "file":
        return f'"{printable(text)}"' if text else "(empty)"
    if kind in ("symlink", "link"):
        return f"{'->' if kind == 'symlink' else '='} {printable(text)}"
    return kind


def _merged_cell(shown: Shown | None) -> _Cell:
    return _Cell("–", ("dim",)) if shown is None else _Cell(_text(shown.kind, shown.text), ("green",))
