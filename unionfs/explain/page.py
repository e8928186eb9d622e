"""`draw`: a `LayerTree` as one HTML page, which needs no other file and asks for none.

The page holds its data as JSON, a style and a script (unionfs/explain/pages). All that people have named is in the data
alone: escaped as `text.shown` does it, and again so that no name ends the element. The policy in the page's head allows
this very style and script, by their hashes, and nothing else: no request, no other script.

The data, short where there is much of it:

    title, path, left_out     left_out: rows that are not in the page
    layers                    {number, name, path, about}, the upper first
    words                     states, kinds, roles, rules: what numbers stand for
    metas, files              (mode, uid, gid) and paths on the host, for the same purpose
    rows                      [depth, name, state, kind, parts, below, notable, more]
    parts                     [layer, role, kind, size, meta, mtime, hider, extra]; hider 0 or [rule, layer, path]
    more                      origin [layer, path], ways [layer, layer, path, is it a copy], redirects [layer, path,
                              to], data [file, offset or -1, bytes, is it sparse], cut, failure
    extra                     path where it is another, target, opaque, metacopy, redirect, links, link_below, in_work

Kind 0 is none: what is deleted, or broken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib import resources
from typing import Any, Final

from unionfs.explain.colours import DARK, LIGHT, Scheme, hue
from unionfs.explain.folding import fold_rows, is_notable, parents
from unionfs.explain.layer_tree import LayerHeading, LayerTree, StoredPart, TreeRow
from unionfs.explain.location import Stored
from unionfs.explain.text import shown
from unionfs.explain.which import Hider, Which

_STATES: Final = ("deleted", "changed", "moved", "overridden", "added", "merged", "single", "broken")
_KINDS: Final = ("", "dir", "file", "symlink", "fifo", "char", "block", "socket", "whiteout")
_ROLES: Final = ("wins", "merged", "data", "linked", "hidden", "whiteout")
_RULES: Final = ("whiteout", "opaque", "file", "directory", "redirect", "link")
#: In the order in which they are read: together they are one function.
_SCRIPTS: Final = ("tree.js", "rows.js", "history.js", "page.js")
_NO_WAY_OUT: Final = "base-uri 'none'; form-action 'none'"
_SLOT: Final = re.compile(r"\{\{(\w+)\}\}")


def draw(tree: LayerTree, limit: int | None = None) -> str:
    """The page, with at most `limit` rows in it (None: all); what is left out is said."""
    rows = _kept(tree.rows, limit)
    pages = resources.files("unionfs.explain") / "pages"
    style = _colours(tree.layers) + (pages / "page.css").read_text("utf-8")
    parts = "".join((pages / name).read_text("utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    slots = {
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; {_NO_WAY_OUT}",
        "title": escape(shown(tree.title) + (f" /{shown(tree.path)}" if tree.path else "")),
        "style": style,
        "script": script,
        "data": _json(_Data(tree, rows).data()),
    }
    return _SLOT.sub(lambda slot: slots[slot[1]], (pages / "page.html").read_text("utf-8"))


def _kept(rows: Sequence[TreeRow], limit: int | None) -> list[TreeRow]:
    """Those that are in the page, with how many of these are in each."""
    if limit is None or len(rows) <= limit:
        return list(rows)
    kept = [line.row for line in fold_rows(rows, limit, crowds=True)]
    below = [0] * len(kept)
    for number in reversed(range(len(kept))):
        at = number + 1
        while at < len(kept) and kept[at].depth > kept[number].depth:
            below[number] += 1 + below[at]
            at += 1 + below[at]
    return [replace(row, below=count, cut=row.cut or count < row.below) for row, count in zip(kept, below, strict=True)]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: object) -> str:
    """As it may stand in a script element, whatever the strings are (HTML, "Restrictions for contents of script
    elements")."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Data:
    def __init__(self, tree: LayerTree, rows: Sequence[TreeRow]) -> None:
        self._tree, self._rows = tree, rows
        self._layers = {layer.number: layer for layer in tree.layers}
        self._metas: dict[tuple[int, int, int], int] = {}
        self._files: dict[str, int] = {}

    def data(self) -> dict[str, Any]:
        above = parents(self._rows)
        rows = [
            self._row(row, is_notable(row, None if up is None else self._rows[up]))
            for row, up in zip(self._rows, above, strict=True)
        ]
        return {
            "title": shown(self._tree.title),
            "path": shown(self._tree.path),
            "left_out": len(self._tree.rows) - len(rows),
            "layers": [_layer(layer) for layer in self._tree.layers],
            "words": {"states": _STATES, "kinds": _KINDS, "roles": _ROLES, "rules": _RULES},
            "metas": list(self._metas),
            "files": list(self._files),
            "rows": rows,
        }

    def _row(self, row: TreeRow, notable: bool) -> list[Any]:
        kind = 0 if row.which.kind is None else _KINDS.index(row.which.kind)
        parts = [self._part(row, item) for item in row.items]
        found = [row.depth, shown(row.name), _STATES.index(row.state), kind, parts, row.below, int(notable)]
        more = self._more(row)
        return [*found, more] if more else found

    def _part(self, row: TreeRow, item: StoredPart) -> list[Any]:
        part = item.part
        meta = self._metas.setdefault((item.mode, item.uid, item.gid), len(self._metas))
        hider = _hider(part.hidden_by) if part.hidden_by is not None else 0
        extra: dict[str, Any] = {
            "path": shown(part.place.path) if part.place.path != row.path else None,
            "target": None if item.target is None else shown(item.target),
            "opaque": part.opaque,
            "metacopy": part.metacopy,
            "redirect": None if part.redirect is None else shown(part.redirect),
            "links": part.links if part.links > 1 and part.kind != "dir" else 0,
            "link_below": None if part.link_below is None else shown(part.link_below),
            "in_work": part.place.in_work,
        }
        kept = {key: value for key, value in extra.items() if value or value == ""}
        seconds = item.mtime_ns // 1_000_000_000
        role, kind = _ROLES.index(part.role), _KINDS.index(part.kind)
        found = [part.place.layer, role, kind, item.size, meta, seconds, hider]
        return [*found, kept] if kept else found

    def _more(self, row: TreeRow) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if row.origin is not None:
            more["origin"] = [row.origin.layer, shown(row.origin.path)]
        if row.ways:
            more["ways"] = [[new.layer, old.layer, shown(old.path), int(copied)] for new, old, copied in row.ways]
        if row.which.redirects:
            more["redirects"] = _redirects(row.which)
        if row.data is not None:
            more["data"] = self._stored(row.data)
        if row.cut:
            more["cut"] = 1
        if row.failure:
            more["failure"] = shown(row.failure)
        return more

    def _stored(self, data: Stored) -> list[Any]:
        file = shown(os.fsdecode(data.file))
        if data.offset is None:  # a file for each
            return [file, -1, data.size, 0]
        return [self._files.setdefault(file, len(self._files)), data.offset, data.size, int(data.sparse)]


def _layer(layer: LayerHeading) -> dict[str, Any]:
    path = "" if layer.path is None else shown(layer.path)
    return {"number": layer.number, "name": shown(layer.name), "path": path, "about": shown(layer.about)}


def _hider(hider: Hider) -> list[Any]:
    return [_RULES.index(hider.rule), hider.place.layer, shown(hider.place.path)]


def _redirects(found: Which) -> list[list[Any]]:
    return [
        [part.place.layer, shown(part.place.path), shown(part.redirect)]
        for part in found.redirects
        if part.redirect is not None
    ]


# colours --------------------------------------------------------------------------------------------------------------
def _colours(layers: Sequence[LayerHeading]) -> str:
    dark = f"@media (prefers-color-scheme:dark){{{_scheme(layers, DARK, True)}}}"
    return f"{_scheme(layers, LIGHT, False)}\n{dark}\n"


def _scheme(layers: Sequence[LayerHeading], scheme: Scheme, dark: bool) -> str:
    names = {
        "ground": scheme.ground,
        "ink": scheme.ink,
        "dim": scheme.dim,
        "line": scheme.line,
        "edge": scheme.edge,
        "stripe": scheme.stripe,
        "chosen": scheme.chosen,
        "found": scheme.found,
        "gone": scheme.gone,
        "gone-fill": scheme.gone_fill,
        "copied": scheme.copied,
        "moved": scheme.moved,
        "accent": scheme.accent,
    }
    rules = [":root{" + ";".join(f"--{name}:{value}" for name, value in names.items()) + "}"]
    for layer in layers:
        fill, border, text = hue(layer.number, dark)
        rules.append(f".l{layer.number}{{--fill:{fill};--border:{border};--text:{text}}}")
    return "".join(rules)
