"""The lines of a simulator's script: one command a line, words as a shell splits them, `#` to the end of the line.

    layer base                      a new layer; the commands that follow fill it
        write etc/motd "Welcome."   indentation means nothing
    mount                           the layers given so far, the last one on top
    fails mv etc cfg                a command that is to fail

A line that is only a comment is a command without words, which does nothing: it is there to be read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from unionfs.errors import ScriptError


class Command(NamedTuple):
    """`line` counts from 1; None for one that was typed. `text` is as written, without comment and indentation."""

    text: str
    words: tuple[str, ...]
    line: int | None = None
    fails: bool = False


def parse_line(text: str, line: int | None = None) -> Command | None:
    """None for an empty line. ScriptError for quotes that are not closed."""
    if "\0" in text:
        raise ScriptError("a zero byte is in no command", line=line, hint="a script is text")
    try:
        words = shlex.split(text, comments=True)
    except ValueError as e:
        raise ScriptError(str(e).lower(), line=line, hint="close the quotes, or put a \\ before one") from None
    if not words:
        return Command(text.strip(), (), line) if text.strip() else None
    fails = words[0] == "fails"
    if fails and len(words) == 1:
        raise ScriptError("fails: which command?", line=line, hint="fails rmdir etc")
    return Command(_without_comment(text).strip(), tuple(words[fails:]), line, fails)


def parse(lines: Iterable[str]) -> Iterator[Command]:
    for number, text in enumerate(lines, 1):
        command = parse_line(text, number)
        if command is not None:
            yield command


def _without_comment(text: str) -> str:
    """Up to the first # that shlex takes for a comment: one outside of quotes."""
    for at, character in enumerate(text):
        if character == "#":
            try:
                if shlex.split(text[:at]) == shlex.split(text, comments=True):
                    return text[:at]
            except ValueError:
                continue
    return text
