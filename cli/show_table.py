"""A `LayerTree` as a table: a row for each path, what is seen, and a column for each layer.

                 seen     upper          program   base
    etc/         dir      dir            dir       dir
      motd       33B      33B ← program  (24B)     (9B)
      passwd     –        ✗                        (11B)

What stands in parentheses is hidden by what stands before it; `✗` is a whiteout, `←` where it was copied up from.
"""

from __future__ import annotations

from collections.abc import Sequence

from unionfs import api
from unionfs.api.text import columns, cut, fit, shown, size

from .layer_columns import PATH, Cell, chosen, line, not_shown, widths
from .style import Style

_MANY = 8


def table(tree: api.LayerTree, limit: int | None, style: Style) -> list[str]:
    lines = api.fold_rows(tree.rows, limit)
    labels = [_label(one, style) for one in lines]
    first = min(max(PATH, style.width // 3), max(columns(label) for label in labels))
    used = _used(tree.layers, lines)
    layers, left_out = chosen(used, style.width - first - 2)
    names = ["seen", *(shown(layer.name) for layer in layers)]
    headings = {layer.number: layer for layer in tree.layers}
    rows = [[_seen(one.row), *(_cell(one.row, layer, headings) for layer in layers)] for one in lines]
    room = widths(names, rows, style.width - first - 2)
    out = [line(" " * first, [Cell(name, ("bold",)) for name in names], room, style)]
    out += [line(fit(label, first), row, room, style) for label, row in zip(labels, rows, strict=True)]
    if left_out:
        out += not_shown(shown(layers[-1].name), [shown(layer.name) for layer in left_out], style)
    if len(used) < len(tree.layers):
        out.append(f"  not shown, with nothing of their own in these rows: {len(tree.layers) - len(used)} layers")
    return out


def _used(layers: Sequence[api.LayerHeading], lines: Sequence[api.FoldedRow]) -> Sequence[api.LayerHeading]:
    """Of many layers those that have more in these rows than directories on the way."""
    own = {part.part.place.layer for one in lines if one.row.state != "merged" for part in one.row.items}
    return [layer for layer in layers if layer.number in own] if own and len(layers) > _MANY else layers


def _label(one: api.FoldedRow, style: Style) -> str:
    """The last name of a path, indented as deep as it is, and how much of what is in it is not shown."""
    row = one.row
    name = shown(row.name) if row.depth else "/" + shown(row.path)
    slash = "/" if row.is_dir and row.which.kind in ("dir", None) and not name.endswith("/") else ""
    more = f" … {one.folded:,} more" if one.folded else " …" if row.cut else ""
    room = max(8, max(PATH, style.width // 3) - 2 * row.depth - columns(more))
    return "  " * row.depth + cut(name + slash, room) + more


def _seen(row: api.TreeRow) -> Cell:
    if row.failure:
        return Cell(shown(row.failure), ("red",))
    return Cell("–", ("dim",)) if row.shown is None else Cell(_kind(row.shown), ("green",))


def _cell(row: api.TreeRow, layer: api.LayerHeading, headings: dict[int, api.LayerHeading]) -> Cell:
    item = next((item for item in row.items if item.part.place.layer == layer.number), None)
    if item is None:
        return Cell("")
    if item.part.role == "whiteout":
        return Cell("✗", ("red",))
    words = [_kind(item)]
    if item.part.opaque:
        words.insert(0, "opaque")
    if item.part.metacopy:
        words.insert(0, "metacopy")
    if item.part.redirect is not None:
        words.append(f"→ {shown(item.part.redirect)}")
    if item.part.role in ("hidden", "linked"):
        return Cell(" ".join(words), ("dim",), hidden=True)
    if layer.number == 0 and row.origin is not None:
        place = f":/{shown(row.origin.path)}" if row.origin.path != row.path else ""
        words.append(f"← {shown(headings[row.origin.layer].name)}{place}")
    return Cell(" ".join(words), ("yellow",) if len(words) > 1 else ())


def _kind(item: api.StoredPart) -> str:
    if item.part.kind == "file":
        return size(item.size)
    return f"-> {shown(item.target or b'')}" if item.part.kind == "symlink" else item.part.kind
