"""Patterns that names are compared with, as Go's path.Match has them, which docker's filters go by.

*     any characters but "/"          ?    one of them
[a-z] one of these, [^a-z] of others  \\x   x itself
"""

from __future__ import annotations

import re
from typing import Final

_REST: Final = re.compile(r"[^*?\[\\]+")
_RANGE: Final = re.compile(r"(\\.|[^\]\\-])(?:-(\\.|[^\]\\-]))?", re.DOTALL)


def compiled(pattern: str) -> re.Pattern[str]:
    """Its regular expression, for fullmatch. ValueError for what Go calls ErrBadPattern."""
    out, at = "", 0
    while at < len(pattern):
        if rest := _REST.match(pattern, at):
            out, at = out + re.escape(rest[0]), rest.end()
            continue
        char = pattern[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "\\":
            if at == len(pattern):
                raise ValueError("syntax error in pattern")
            out, at = out + re.escape(pattern[at]), at + 1
        else:
            piece, at = _class(pattern, at)
            out += piece
    return re.compile(out, re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """What stands behind a "[", and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges = []
    while (found := _RANGE.match(pattern, at)) is not None:
        ranges.append([part[-1] for part in (found[1], found[2] or found[1])])
        at = found.end()
    if not ranges or not pattern.startswith("]", at):
        raise ValueError("syntax error in pattern")
    # Go does not mind a range in which nothing is; re does.
    inside = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    nothing = r"[\s\S]" if negated else r"(?!)"
    return (f"[{'^' * negated}{inside}]" if inside else nothing), at + 1
