"""Colour and width of what people look at. Text comes out the same without colour: it only helps to find one's way."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple

import typer

from unionfs.api.text import columns, fit

__all__ = ["Style", "When", "columns", "fit", "printable", "style"]

_RESET = "\x1b[0m"
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class When(StrEnum):
    """AUTO is on a terminal, unless NO_COLOR says otherwise (no-color.org)."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


ColourOption = Annotated[When, typer.Option("--color", help="Colour on a terminal; text is the same without.")]


class Style(NamedTuple):
    """`width` in columns."""

    colour: bool
    width: int

    def paint(self, text: str, *names: str) -> str:
        """Blanks at the end are left as they are."""
        end = len(text.rstrip())
        if not (self.colour and names and end):
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text[:end]}{_RESET}{text[end:]}"


def style(when: When, environ: Mapping[str, str]) -> Style:
    """Of stdout; without a terminal 80 columns wide, unless COLUMNS says otherwise."""
    colour = when is When.ALWAYS or (when is When.AUTO and sys.stdout.isatty() and not environ.get("NO_COLOR"))
    return Style(colour, max(40, shutil.get_terminal_size((80, 24)).columns))


def printable(text: str) -> str:
    """A file name as it may stand in a table: no control characters, no lone surrogates."""
    shown = os.fsencode(text).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "·" for character in shown)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need, two blanks between; the last one as it is."""
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join([*map(_filled, row[:-1], widths), row[-1]]) for row in rows]


def _filled(cell: str, width: int) -> str:
    return cell + " " * (width - columns(cell))
