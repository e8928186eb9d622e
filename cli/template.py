"""`--format`: what docker's listings do with it. Rows in, lines out.

    table             columns with headings; an empty format is that, too
    table TEMPLATE    the same, with the columns of the template, separated by tabs (or by `\\t`)
    json              one JSON object a row
    TEMPLATE          the template, once a row

Of Go's templates there is what such templates use: `{{.Field}}`, `{{.A.B}}`, `{{json .}}`, `{{json .A.B}}`,
`{{len .A}}`, `{{join .A ","}}`, `{{index .A "key" 0}}`, `{{println .A}}` and the functions lower, upper and title.
Everything else is refused, by name, and never printed as if it were understood.

docker's values have types: a field that says nothing is there all the same, as an empty text, list or map, or <nil>.
`zeros` says which: a document of such fields, with what each of them is when it is absent or null.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

#: text/tabwriter as docker sets it up: cells of at least ten, three spaces between.
_MIN_CELL, _PADDING = 10, 3

Row = Mapping[str, Any]
_Piece = str | Callable[[Any], str]


def render(rows: Iterable[Row], fmt: str, *, default: str, headings: Mapping[str, str]) -> list[str]:
    """The lines of a listing. `default`: the template of `table`. `headings`: by field; its fields are those there
    are. BadParameter for a template that is not understood."""
    if fmt == "json":
        return [go_json(dict(sorted(row.items()))) for row in rows]
    if fmt in ("", "table") or fmt.startswith("table "):
        template = _unescape(fmt[6:].strip()) or default
        cells = [_cells(template, row, headings) for row in (headings, *rows)]
        return columns(cells)
    pieces = parse(_unescape(fmt), headings)
    return [line for row in rows for line in fill(pieces, dict(sorted(row.items()))).split("\n")]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells as aligned columns, as docker's tabwriter does: the last cell of a row is not padded."""
    count = max((len(row) for row in rows), default=0)
    widths = [max([_MIN_CELL, *(len(row[i]) + _PADDING for row in rows if i < len(row) - 1)]) for i in range(count)]
    return ["".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] for row in rows]


def go_json(value: Any) -> str:
    """Compact JSON with the escapes of Go's encoder."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _cells(template: str, row: Row, headings: Mapping[str, str]) -> list[str]:
    return fill(parse(template, headings), row).split("\t")


def _unescape(template: str) -> str:
    return template.replace("\\t", "\t").replace("\\n", "\n")


# Templates -----------------------------------------------------------------------------------------------------------
def parse(template: str, fields: Iterable[str] | None = None, zeros: Row | None = None) -> list[_Piece]:
    """A template taken apart. `fields`: those that a row has; None means that any may be there."""
    known = None if fields is None else set(fields)
    pieces: list[_Piece] = []
    for i, part in enumerate(re.split(r"\{\{-?\s*(.*?)\s*-?\}\}", template, flags=re.DOTALL)):
        pieces.append(_action(part, known, zeros or {}) if i % 2 else part)
    if "{{" in "".join(piece for piece in pieces if isinstance(piece, str)):
        raise _bad("unclosed action")
    return pieces


def fill(pieces: Iterable[_Piece], value: Any) -> str:
    """A parsed template for one value."""
    return "".join(piece if isinstance(piece, str) else piece(value) for piece in pieces)


def _action(text: str, known: set[str] | None, zeros: Row) -> Callable[[Any], str]:
    words = re.findall(r'"(?:[^"\\]|\\.)*"|`[^`]*`|\S+', text)
    match words:
        case [path] if path.startswith("."):
            get = _path(path, known, zeros)
            return lambda value: _shown(get(value))
        case [function, path] if function in _FUNCTIONS and path.startswith("."):
            get, apply = _path(path, known, zeros), _FUNCTIONS[function]
            return lambda value: apply(get(value))
        case ["join", path, quoted] if path.startswith(".") and _is_text(quoted):
            get, separator = _path(path, known, zeros), str(_literal(quoted))
            return lambda value: separator.join(map(_shown, get(value) or ()))
        case ["index", path, *keys] if path.startswith(".") and keys and all(map(_is_literal, keys)):
            get, places = _path(path, known, zeros), list(map(_literal, keys))
            return lambda value: _shown(functools.reduce(_indexed, places, get(value)))
        case []:
            raise _bad("missing value for command")
        case _:
            known_ones = ", ".join(["index", "join", *_FUNCTIONS])
            raise _bad(f"not understood here: {{{{{text}}}}}; there are fields, and {known_ones}")


def _is_text(word: str) -> bool:
    return word[0] in '"`'


def _is_literal(word: str) -> bool:
    return _is_text(word) or word.isdecimal()


def _literal(word: str) -> str | int:
    """A text in quotes or backquotes, or a number."""
    if word[0] == "`":
        return word[1:-1]
    try:
        value: str | int = json.loads(word)
    except ValueError:
        raise _bad(f"not understood here: {word}") from None
    return value


def _indexed(value: Any, key: str | int) -> Any:
    """Go's index: of a map of texts what is not there is an empty one."""
    if isinstance(value, _Zero):
        value = value.value
    if isinstance(value, Mapping) and isinstance(key, str):
        return value.get(key, "" if all(isinstance(one, str) for one in value.values()) else None)
    if isinstance(value, list | tuple) and isinstance(key, int):
        if key < len(value):
            return value[key]
        raise _bad(f"error calling index: index out of range: {key}")
    raise _bad(f"error calling index: cannot index this with {json.dumps(key)}")


_FUNCTIONS: dict[str, Callable[[Any], str]] = {
    "json": lambda value: go_json(value.json() if isinstance(value, _Zero) else value),
    "len": lambda value: str(len(value or ())),
    "lower": lambda value: _shown(value).lower(),
    "upper": lambda value: _shown(value).upper(),
    "title": lambda value: _shown(value).title(),
    "println": lambda value: _shown(value) + "\n",
}


@dataclass(frozen=True)
class _Zero:
    """What stands for a field that says nothing. In JSON lists, maps and pointers of that kind are null."""

    value: Any

    def __bool__(self) -> bool:
        return False

    def json(self) -> Any:
        return self.value or None if isinstance(self.value, list | dict) else self.value


def _path(text: str, known: set[str] | None, zeros: Row) -> Callable[[Any], Any]:
    names = [name for name in text.split(".") if name]
    if known is not None and names and names[0] not in known:
        raise _bad(f"there is no field {names[0]}; there are {', '.join(sorted(known))}")
    zero = _zero(zeros, names)

    def get(value: Any) -> Any:
        for name in names:
            if not isinstance(value, Mapping) or name not in value:
                if zero is None:
                    raise _bad(f"there is no {text} in it")
                return zero
            value = value[name]
        return zero if value is None and zero is not None else value

    return get


def _zero(zeros: Any, names: Iterable[str]) -> _Zero | None:
    for name in names:
        if not isinstance(zeros, Mapping) or name not in zeros:
            return None
        zeros = zeros[name]
    return _Zero(zeros)


def _shown(value: Any) -> str:
    """As fmt's %v: Go's words for the values of JSON."""
    match value:
        case None:
            return "<no value>"
        case _Zero():
            return "<nil>" if value.value is None else _shown(value.value)
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "map[" + " ".join(f"{key}:{_shown(value[key])}" for key in sorted(value)) + "]"
        case list() | tuple():
            return "[" + " ".join(map(_shown, value)) + "]"
        case _:
            return str(value)


def _bad(message: str) -> typer.BadParameter:
    return typer.BadParameter(f"template parsing error: {message}")
