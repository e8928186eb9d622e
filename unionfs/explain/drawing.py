"""`draw`: a `LayerTree` as an SVG picture, which adapts to light and dark surroundings by itself.

One looks from the left: first what people see, then the layers, the upper and the topmost first. A row is a path; what
stands in front hides what is behind it, in the same row. Whiteouts are struck through, an opaque directory has a wall
on its far side, what is hidden is dim and dashed. An arrow leads from the lower's file to the upper's copy, and from a
directory's new name to where its redirect leads.

All text is escaped here, by `_text` alone. INVARIANT: nothing is drawn outside of the picture, and no text is longer
than its box: widths are those of a fixed font, at most `_EM` a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from unionfs.explain.colours import DARK, LIGHT, Scheme, hue
from unionfs.explain.folding import FoldedRow, fold_rows
from unionfs.explain.layer_tree import LayerHeading, LayerTree, StoredPart, TreeRow
from unionfs.explain.text import columns, cut, shown, size

_FONT: Final = 'ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'
_EM: Final = 7.5  # of 12px in the widest of these
_ROW, _CELL = 28, 22
_MARGIN, _GAP, _PAD = 20, 22, 8
_INDENT: Final = 16
_TITLE, _HEAD = 34, 46
#: Of a layer among many: its column, the square in it, and the height of its name, which is written upwards.
_DENSE, _SQUARE, _DENSE_HEAD = 22, 14, 112
_LABEL: Final = (12, 44)  # characters, at least and at most
_TEXT: Final = (7, 20)
#: With more layers than this, those that have nothing but directories on the way are left out; with still more than
#: this the cells are squares without words.
_MANY: Final = 10
_MARKS: Final = ("wins", "merged", "hidden", "whiteout", "opaque", "copied", "moved")
_SEEN: Final = "what is seen"
_WORDS: Final = {
    "wins": "seen",
    "merged": "merged",
    "hidden": "hidden",
    "whiteout": "whiteout",
    "opaque": "opaque",
    "copied": "copied up",
    "moved": "goes on elsewhere",
}


def draw(tree: LayerTree, limit: int | None = None) -> str:
    """The picture, with at most `limit` rows (None: all); what is left out is said."""
    return _Drawing(tree, fold_rows(tree.rows, limit)).svg()


class _Box(NamedTuple):
    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.y + _CELL / 2

    @property
    def right(self) -> float:
        return self.x + self.width


class _Drawing:
    def __init__(self, tree: LayerTree, lines: Sequence[FoldedRow]) -> None:
        self._tree, self._lines, self._layers = tree, lines, list(tree.layers)
        if len(tree.layers) > _MANY:
            used = {
                item.part.place.layer for line in lines if line.row.state != "merged" for item in line.row.items
            } or {0, 1}
            self._layers = [layer for layer in tree.layers if layer.number in used]
        self._left_out = len(tree.layers) - len(self._layers)
        self._dense = len(self._layers) > _MANY
        self._out: list[str] = []
        self._behind: list[str] = []
        self._marks: set[str] = set()
        self._boxes: dict[tuple[bytes, int], _Box] = {}
        self._measure()

    # where things are ---------------------------------------------------------------------------------------------
    def _measure(self) -> None:
        widest = max(columns(_label(line)) + line.row.depth * _INDENT / _EM for line in self._lines)
        deepest = max(line.row.depth for line in self._lines) * _INDENT / _EM
        self._label_width = _EM * min(max(widest, _LABEL[0]), _LABEL[1] + deepest / 2) + 2
        rows = [line.row for line in self._lines]
        self._seen_width = _width([row.failure or _kind_text(row.shown) for row in rows] + [_SEEN])
        self._widths = {layer.number: self._width_of(layer, rows) for layer in self._layers}
        x = _MARGIN + self._label_width + _GAP
        self._seen_x, self._x = x, dict[int, float]()
        x += self._seen_width + 2 * _GAP
        for layer in self._layers:
            self._x[layer.number] = x
            x += self._widths[layer.number] + (_DENSE - _SQUARE if self._dense else _GAP)
        slant = _DENSE_HEAD * 0.6 if self._dense else 0
        self._right = self._edge = max(x - _GAP + slant, _MARGIN + _EM * 44)
        self._top = _MARGIN + _TITLE + (_DENSE_HEAD if self._dense else _HEAD)
        self._bottom = self._top + _ROW * len(self._lines)

    def _width_of(self, layer: LayerHeading, rows: Sequence[TreeRow]) -> float:
        if self._dense:
            return _SQUARE
        items = [item for row in rows for item in row.items if item.part.place.layer == layer.number]
        return _width([*map(_item_text, items), shown(layer.name), _number(layer)])

    # the whole ----------------------------------------------------------------------------------------------------
    def svg(self) -> str:
        for number, line in enumerate(self._lines):
            self._draw_line(line, self._top + _ROW * number)
        self._draw_redirects()
        legend = self._legend()
        width, height = round(self._edge + _MARGIN), round(self._bottom + _legend_height(bool(self._left_out)))
        what = f"The layers of {shown(self._tree.title)}: what each has, and what is seen"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{escape(what)}">\n<title>{escape(what)}</title>\n'
            f"<style>{_css(self._layers)}</style>\n<defs>{_arrowhead('c')}{_arrowhead('m')}</defs>\n"
            f'<rect class="ground" width="{width}" height="{height}"/>\n'
        )
        return "".join([head, *self._header(), *self._behind, *self._out, *legend, "</svg>\n"])

    def _header(self) -> list[str]:
        room = int((self._right - _MARGIN) / _EM / 1.2)
        path = f"  /{shown(self._tree.path)}" if self._tree.path else ""
        out = [_text(_MARGIN, _MARGIN + 12, cut(shown(self._tree.title) + path, room), "title")]
        out.append(_text(self._seen_x, self._top - (14 if self._dense else 31), _SEEN, "head"))
        for layer in self._layers:
            about = "".join(f"\n{shown(text)}" for text in (layer.path or b"", layer.about) if text)
            out.append(f'<g class="l{layer.number}"><title>{escape(shown(layer.name))}{escape(about)}</title>')
            out.append((self._slanted if self._dense else self._upright)(layer) + "</g>\n")
        out.append(f'<path class="rule" d="M{_MARGIN} {self._top - 4}H{self._right:g}"/>\n')
        return out

    def _upright(self, layer: LayerHeading) -> str:
        x, y, width = self._x[layer.number], self._top - _HEAD, self._widths[layer.number]
        return (
            f'<rect class="bar" x="{x:g}" y="{y - 2:g}" width="{width:g}" height="3" rx="1.5"/>'
            + _text(x, y + 15, cut(shown(layer.name), int(width / _EM)), "head")
            + _text(x, y + 31, _number(layer), "dim")
        )

    def _slanted(self, layer: LayerHeading) -> str:
        x, y = self._x[layer.number], self._top - 12
        words = cut(f"{layer.number or ''} {shown(layer.name)}".strip(), int(_DENSE_HEAD / _EM))
        return (
            f'<rect class="bar" x="{x:g}" y="{y:g}" width="{_SQUARE}" height="3" rx="1.5"/>'
            f'<g transform="translate({x + 9:g} {y - 5:g}) rotate(-58)">{_text(0, 0, words, "dim")}</g>'
        )

    # rows ---------------------------------------------------------------------------------------------------------
    def _draw_line(self, line: FoldedRow, y: float) -> None:
        row = line.row
        x, base = _MARGIN + row.depth * _INDENT, y + _ROW / 2 + 4
        self._behind.append(f'<path class="rule" d="M{_MARGIN} {y + _ROW:g}H{self._right:g}"/>\n')
        name, more = _name(row), _more(line)
        room = max(4, int((self._label_width - row.depth * _INDENT) / _EM) - columns(more))
        kind = "gone" if row.state == "deleted" else "name" if row.is_dir else "ink"
        name = cut(name, room)
        self._out.append(f"<g><title>{escape('/' + shown(row.path))}</title>{_text(x, base, name, kind)}")
        if more:
            self._out.append(_text(x + _EM * columns(name), base, more, "dim"))
        self._out.append("</g>\n")
        if row.failure:
            self._out.append(_text(self._seen_x, base, cut(row.failure, int(self._seen_width / _EM)), "failure") + "\n")
        if row.shown is not None:
            self._draw_seen(row, row.shown, _Box(self._seen_x, y + (_ROW - _CELL) / 2, self._seen_width))
        for layer in self._layers:
            items = [item for item in row.items if item.part.place.layer == layer.number]
            box = _Box(self._x[layer.number], y + (_ROW - _CELL) / 2, self._widths[layer.number])
            if items:
                self._draw_cell(row, items, box)
                self._boxes[row.path, layer.number] = box
        self._draw_copy_up(row, y)

    def _draw_seen(self, row: TreeRow, item: StoredPart, box: _Box) -> None:
        """In the colours of all layers that it is of."""
        numbers = row.which.layers
        self._out.append(_cell(f"wins l{numbers[0]}", box, _kind_text(item)))
        for at, number in enumerate(numbers[1:5]):
            x = box.right - 11 * (at + 1) - 2
            self._out.append(
                f'<g class="wins l{number}"><rect x="{x:g}" y="{box.y + 6:g}" width="8" height="10" rx="2.5"/></g>'
            )

    def _draw_cell(self, row: TreeRow, items: Sequence[StoredPart], box: _Box) -> None:
        item = items[0]
        if self._dense:
            box = _Box(box.x, box.y, _SQUARE)
        role = {"data": "merged", "linked": "hidden"}.get(item.part.role, item.part.role)
        self._marks.add(role)
        text = "" if self._dense else _item_text(item)
        told = "\n".join(_told(one) for one in items)
        self._out.append(f"<g><title>{escape(told)}</title>")
        self._out.append(_cell(f"{role} l{item.part.place.layer}", box, text))
        if role == "whiteout":
            self._out.append(_line("strike", box.x + 4, box.middle, box.right - 4))
        if item.part.opaque:
            self._marks.add("opaque")
            self._out.append(
                f'<rect class="wall" x="{box.right - 4:g}" y="{box.y - 2:g}" width="5" height="{_CELL + 4}" rx="2"/>'
            )
        self._out.append("</g>\n")

    # arrows -------------------------------------------------------------------------------------------------------
    def _draw_copy_up(self, row: TreeRow, y: float) -> None:
        """From the lower's cell to the upper's, behind what is between them."""
        origin = row.origin
        if origin is None or origin.layer not in self._x or origin.path != row.path:
            return
        self._marks.add("copied")
        end = self._x[0] + self._widths[0] + 2
        middle = y + _ROW / 2
        self._behind.append(
            f'<path class="copied" marker-end="url(#c)" d="M{self._x[origin.layer]:g} {middle:g}H{end:g}"/>\n'
        )

    def _draw_redirects(self) -> None:
        """From a directory's new name to the old one, and from what was renamed to where it was copied up from."""
        for line in self._lines:
            row = line.row
            if row.state != "moved":
                continue
            for start, end, is_copy in row.ways:
                here, there = self._boxes.get((row.path, start.layer)), self._boxes.get((end.path, end.layer))
                if here is None or there is None or end.path == row.path:
                    continue
                self._marks.add("copied" if is_copy else "moved")
                mark, (x1, y1), (x2, y2) = "m", (here.right, here.middle), (there.x - 2, there.middle)
                if is_copy:
                    mark, (x1, y1), (x2, y2) = "c", (there.x, there.middle), (here.right + 2, here.middle)
                bend = (x1 + x2) / 2
                self._out.append(
                    f'<path class="{"copied" if is_copy else "moved"}" marker-end="url(#{mark})"'
                    f' d="M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}"/>\n'
                )

    # legend -------------------------------------------------------------------------------------------------------
    def _legend(self) -> list[str]:
        out, x, y = [], float(_MARGIN), self._bottom + 18
        number = self._layers[0].number if self._layers else 0
        for mark in _MARKS:
            if mark not in self._marks:
                continue
            out.append(_sample(mark, number, _Box(x, y, 26)))
            out.append(_text(x + 33, y + _CELL / 2 + 4, _WORDS[mark], "dim"))
            x += 33 + _EM * len(_WORDS[mark]) + 18
        self._edge = max(self._right, x - 18)
        if self._left_out:
            words = f"not drawn, with nothing of their own in these rows: {self._left_out} layers"
            out.append(_text(_MARGIN, y + _CELL + 18, words, "dim"))
        return out


def _sample(mark: str, number: int, box: _Box) -> str:
    if mark in ("copied", "moved"):
        return (
            f'<path class="{mark}" marker-end="url(#{mark[0]})" d="M{box.right - 2:g} {box.middle:g}H{box.x:g}"/>'
            if mark == "copied"
            else f'<path class="{mark}" marker-end="url(#{mark[0]})" d="M{box.x:g} {box.middle:g}H{box.right - 2:g}"/>'
        )
    out = _cell(f"{'wins' if mark == 'opaque' else mark} l{number}", box, "")
    if mark == "whiteout":
        out += _line("strike", box.x + 4, box.middle, box.right - 4)
    if mark == "opaque":
        out += f'<rect class="wall" x="{box.right - 4:g}" y="{box.y - 2:g}" width="5" height="{_CELL + 4}" rx="2"/>'
    return out


def _legend_height(more: bool) -> float:
    return 18 + _CELL + (24 if more else 0) + _MARGIN


# words ----------------------------------------------------------------------------------------------------------------
def _label(line: FoldedRow) -> str:
    return _name(line.row) + _more(line)


def _name(row: TreeRow) -> str:
    name = shown(row.name) if row.depth else "/" + shown(row.path)
    return name + ("/" if row.is_dir and row.which.kind in ("dir", None) and not name.endswith("/") else "")


def _more(line: FoldedRow) -> str:
    """What stands behind the name of a directory of which not all is shown."""
    if not line.folded:
        return " …" if line.row.cut else ""
    return f" … {line.folded:,} more" + (f", {line.notable:,} changed" if line.notable else "")


def _number(layer: LayerHeading) -> str:
    return f"layer {layer.number}" if layer.number else "changes"


def _kind_text(item: StoredPart | None) -> str:
    if item is None:
        return ""
    if item.part.kind == "file":
        return size(item.size)
    if item.part.kind == "symlink":
        return "→ " + shown(item.target or b"")
    return item.part.kind


def _item_text(item: StoredPart) -> str:
    """In a cell, as far as there is room."""
    part = item.part
    if part.role == "whiteout":
        return "deleted"
    if part.kind == "dir":
        return "opaque dir" if part.opaque else f"dir → {shown(part.redirect)}" if part.redirect is not None else "dir"
    return f"metacopy {size(item.size)}" if part.metacopy else _kind_text(item)


def _told(item: StoredPart) -> str:
    """In full, for who points at a cell."""
    part = item.part
    words = [f"/{shown(part.place.path)}", part.role, part.kind]
    if part.hidden_by is not None:
        words.append(f"hidden by {part.hidden_by.rule} /{shown(part.hidden_by.place.path)}")
    return ", ".join(words)


# markup ---------------------------------------------------------------------------------------------------------------
def _width(texts: Sequence[str]) -> float:
    """Of a column of cells."""
    widest = max((columns(text) for text in texts), default=0)
    return _EM * min(max(widest, _TEXT[0]), _TEXT[1]) + 2 * _PAD


def _characters(width: float) -> int:
    return int((width - 2 * _PAD) / _EM + 0.01)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" xml:space="preserve">{escape(text)}</text>'


def _arrowhead(kind: str) -> str:
    return (
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="{kind}" d="M0 0 8 4 0 8z"/></marker>'
    )


def _line(kind: str, x: float, y: float, end: float) -> str:
    return f'<path class="{kind}" d="M{x:g} {y:g}H{end:g}"/>'


def _cell(kind: str, box: _Box, text: str) -> str:
    inner = _text(box.x + _PAD, box.middle + 4, cut(text, _characters(box.width)), "cell") if text else ""
    place = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{_CELL}"'
    return f'<g class="{kind}"><rect {place} rx="4"/>{inner}</g>'


def _css(layers: Sequence[LayerHeading]) -> str:
    dark = f"@media (prefers-color-scheme:dark){{{_colours(layers, DARK, True)}}}"
    return (
        f"text{{font:12px {_FONT};unicode-bidi:isolate}}.title{{font-size:14px;font-weight:600}}"
        ".head,.name{font-weight:600}.gone{text-decoration:line-through}path{fill:none}.strike{stroke-width:2}.copied,.moved{stroke-width:1.6}"
        ".moved{stroke-dasharray:5 3}.hidden rect{stroke-dasharray:3 3}"
        f"{_colours(layers, LIGHT, False)}{dark}"
    )


def _colours(layers: Sequence[LayerHeading], scheme: Scheme, dark: bool) -> str:
    """Spelled out, since not everything that shows an SVG knows var()."""
    general = (
        f".ground{{fill:{scheme.ground}}}text{{fill:{scheme.ink}}}.dim,.hidden .cell{{fill:{scheme.dim}}}"
        f".gone,.failure{{fill:{scheme.gone}}}.rule{{stroke:{scheme.line}}}.strike{{stroke:{scheme.gone}}}"
        f".wall{{fill:{scheme.ink}}}.copied{{stroke:{scheme.copied}}}.moved{{stroke:{scheme.moved}}}"
        f".c{{fill:{scheme.copied}}}.m{{fill:{scheme.moved}}}"
    )
    rules = [general]
    for layer in layers:
        colour, name = hue(layer.number, dark), f".l{layer.number}"
        rules.append(
            f"{name} .bar{{fill:{colour.border}}}.wins{name} rect{{fill:{colour.fill};stroke:{colour.border}}}"
            f".wins{name} .cell{{fill:{colour.text}}}.merged{name} rect{{fill:{scheme.ground};stroke:{colour.border}}}"
        )
    rules.append(
        f".hidden rect{{fill:{scheme.ground};stroke:{scheme.dim}}}"
        f".whiteout rect{{fill:{scheme.gone_fill};stroke:{scheme.gone}}}.whiteout .cell{{fill:{scheme.gone}}}"
    )
    return "".join(rules)
