r"""Patterns of paths, and `Scope`: which paths of two trees are compared.

    *.pyc           a name, wherever it is
    /etc/*.conf     a path from the root: `*` and `?` stay within a name, `[…]` is one character of several
    /usr/**/doc     `**` is any number of directories

A directory that matches stands for all that is in it. `\` takes the meaning from the next character. (The rules of
gitignore(5) and rsync(1), without their negations.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from unionfs.errors import OptionError


class Verdict(Enum):
    IN = 1
    ABOVE = 2  # not meant itself; what is in it may be
    OUT = 3  # nor may that


class Glob:
    """One pattern. OptionError for what is none."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self._anchored = "/" in pattern.rstrip("/")
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if not parts:
            raise OptionError(f"{pattern!r} is no pattern of a path", hint="as '*.pyc', '/etc/*' or '/usr/**/doc'")
        if ".." in parts:
            raise OptionError(f"{pattern}: paths go from the root of the tree, and never up")
        try:
            self._parts = [None if part == "**" else re.compile(_name(part), re.DOTALL) for part in parts]
        except re.error as error:
            raise OptionError(f"{pattern}: {error}", hint="write \\[ where a bracket is meant") from error

    def match(self, names: list[str]) -> Verdict:
        """Of a path, that is not the root, as its names: does it match, or may something below it?"""
        if not self._anchored:
            only = self._parts[0]
            return Verdict.IN if only is None or only.fullmatch(names[-1]) else Verdict.ABOVE
        states = {0}
        for name in names:
            states = self._step(states, name)
            if len(self._parts) in states:
                return Verdict.IN
        return Verdict.ABOVE if states else Verdict.OUT

    def _step(self, states: set[int], name: str) -> set[int]:
        """How many parts may be used up after one more name."""
        after: set[int] = set()
        for state in sorted(states):
            while state < len(self._parts):
                part = self._parts[state]
                if part is not None:
                    if part.fullmatch(name):
                        after.add(state + 1)
                    break
                after.add(state)  # `**` takes the name, and stays
                state += 1  # or takes none
            else:
                after.add(state)
        return after


def _name(part: str) -> str:
    """A pattern of one name as a regular expression."""
    out, at = "", 0
    while at < len(part):
        char, at = part[at], at + 1
        if char == "*":
            out += ".*"
        elif char == "?":
            out += "."
        elif char == "[" and (end := part.find("]", at + 1 + part.startswith(("!", "^"), at))) > 0:
            inside = part[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[^{inside[1:]}]" if inside[:1] in "!^" else f"[{inside}]"
            at = end + 1
        else:
            if char == "\\" and at < len(part):
                char, at = part[at], at + 1
            out += re.escape(char)
    return out


class Scope:
    """Which paths are meant: those of `only`, or all; but for those of `without`."""

    def __init__(self, only: Iterable[str] = (), without: Iterable[str] = ()) -> None:
        self._only = [Glob(pattern) for pattern in only]
        self._without = [Glob(pattern) for pattern in without]

    @property
    def everything(self) -> bool:
        return not (self._only or self._without)

    def of(self, path: bytes, above: Verdict) -> Verdict:
        """`above`: what was said of the directory it is in; nothing that is OUT need be asked for."""
        if self.everything:
            return Verdict.IN
        if not path:
            return Verdict.ABOVE if self._only else Verdict.IN
        names = path.decode("utf-8", "surrogateescape").split("/")
        if any(glob.match(names) is Verdict.IN for glob in self._without):
            return Verdict.OUT
        if above is Verdict.IN:
            return Verdict.IN
        found = {glob.match(names) for glob in self._only}
        return next(verdict for verdict in Verdict if verdict in found)

    def has(self, path: bytes) -> bool:
        """Whether a path is meant, whatever is above it."""
        verdict = self.of(b"", Verdict.IN)
        at = b""
        for name in path.split(b"/"):
            at = at + b"/" + name if at else name
            verdict = self.of(at, verdict)
            if verdict is Verdict.OUT:
                return False
        return verdict is Verdict.IN
