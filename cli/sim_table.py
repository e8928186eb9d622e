"""A `Picture` as a table: a row for each path, a column for each layer, and on the right what people see.

                 upper            settings         base             merged
    etc/         dir              dir              dir              dir
      motd       "Changed."                        ("Welcome.")     "Changed."
      passwd     ✗ c 0:0                           ("root")         –

What stands in parentheses is not seen in this row: something above hides it. Where the window is too narrow for all
layers, those in the middle are left out, and said to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layer_columns import PATH, Cell, chosen, line, not_shown, widths
from .style import Style, columns, fit, printable

if TYPE_CHECKING:
    from unionfs.api.simulation import Column, Picture, Shown, Stored

_MERGED = "merged"


def table(picture: Picture, encoding: str, style: Style) -> list[str]:
    """No lines where there is nothing in any layer."""
    paths = picture.paths()
    labels = [_label(path, picture) for path in paths]
    first = min(PATH, max((columns(label) for label in labels), default=0))
    shown, left_out = chosen(picture.columns, style.width - first - 2)
    names = [column.name for column in shown] + ([_MERGED] if picture.merged is not None else [])
    rows = [[_cell(column, path, picture, encoding) for column in shown] for path in paths]
    if picture.merged is not None:
        rows = [[*row, _merged_cell(picture.merged.get(path))] for row, path in zip(rows, paths, strict=True)]
    room = widths(names, rows, style.width - first - 2)
    lines = [line(" " * first, [Cell(name, ("bold",)) for name in names], room, style)]
    lines += [line(fit(label, first), row, room, style) for label, row in zip(labels, rows, strict=True)]
    if left_out:
        lines += not_shown(shown[-1].name, [column.name for column in left_out], style)
    return lines if paths else []


def _label(path: str, picture: Picture) -> str:
    """The last name of a path, indented as deep as it is."""
    found = [column.stored[path].kind for column in picture.columns if path in column.stored]
    is_dir = "dir" in found or (path in (picture.merged or {}) and (picture.merged or {})[path].kind == "dir")
    return "  " * path.count("/") + printable(path.rpartition("/")[2]) + ("/" if is_dir else "")


def _cell(column: Column, path: str, picture: Picture, encoding: str) -> Cell:
    stored = column.stored.get(path)
    if stored is None:
        return Cell("")
    text = _stored_text(stored, encoding)
    if stored.kind == "whiteout":
        return Cell(text, ("red",))
    if picture.merged is None:
        return Cell(text)
    seen = picture.merged.get(path)
    # What the upper has is always seen, even where its data is below, or in the encoding oci it would be only in a tar.
    if seen is not None and (column.role == "upper" or column.name in seen.layers):
        return Cell(text, ("yellow",) if stored.marks else ())
    return Cell(text, ("dim",), hidden=True)


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


def _merged_cell(shown: Shown | None) -> Cell:
    return Cell("–", ("dim",)) if shown is None else Cell(_text(shown.kind, shown.text), ("green",))
