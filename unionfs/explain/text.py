"""Names and sizes as they may stand in a picture or a table, whoever made them.

shown      a name without anything that could speak to a terminal, reorder a line or be invisible
columns    how wide it is; fit makes it so wide
size       bytes for people
"""

from __future__ import annotations

import os
import unicodedata
from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def shown(name: bytes | str) -> str:
    """Bytes that are no UTF-8 and control characters as `\\xNN`, other characters that are not seen, or turn the
    direction of text, as `\\uNNNN`. A str may hold surrogate escapes."""
    text = os.fsdecode(name)
    if text.isprintable() and text.isascii():
        return text
    return "".join(character if character.isprintable() else _escaped(ord(character)) for character in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's for a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def columns(text: str) -> int:
    """How many columns of a terminal, or character widths of a fixed font, a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def fit(text: str, width: int) -> str:
    """Exactly so many columns: filled up with blanks, or cut off with a `…`."""
    text = cut(text, width)
    return text + " " * (width - columns(text))


def cut(text: str, width: int) -> str:
    """At most so many columns; what is cut off is a `…`."""
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[:-1]
    return text + "…"


def size(count: float, digits: int = 3) -> str:
    """`4.26MB`: decimal units, and as many digits as given, without zeros at the end (go-units
    HumanSizeWithPrecision)."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.{digits}g}{_UNITS[unit]}"
