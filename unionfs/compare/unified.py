"""Two texts as a unified diff, that patch(1) applies: bytes in, lines out.

It is quadratic to find the fewest lines, and who writes the files chooses how bad it gets. So what begins and ends both
alike is set aside first; of the rest, where it is large, all lines go and all come, which is true too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

_Opcode: TypeAlias = tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]

#: Pairs of lines that are looked at for the fewest.
_MOST_PAIRS: Final = 4_000_000
_CONTEXT: Final = 3
_NO_NEWLINE: Final = b"\\ No newline at end of file\n"
_PLAIN_NAME: Final = re.compile(rb'[^\x00-\x1f"\\\x7f-\xff]*')
_ESCAPES: Final = dict(zip(b'\a\b\t\n\v\f\r"\\', b'abtnvfr"\\', strict=True))


def is_text(data: bytes) -> bool:
    """As diff(1) and git judge: no NUL is in it."""
    return b"\0" not in data


def unified(path: bytes, before: bytes | None, after: bytes | None) -> Iterator[bytes]:
    """The lines of a patch for one file, each with its newline. None: the file is not there. Nothing where no line
    differs."""
    old, new = _lines(before or b""), _lines(after or b"")
    if old == new:
        return
    yield b"--- " + (b"/dev/null" if before is None else _header(b"a/" + path)) + b"\n"
    yield b"+++ " + (b"/dev/null" if after is None else _header(b"b/" + path)) + b"\n"
    for group in _Matcher(old, new).get_grouped_opcodes(_CONTEXT):
        yield from _hunk(old, new, group)


class _Matcher(difflib.SequenceMatcher[bytes]):
    """difflib's, with what both texts begin and end with set aside."""

    def __init__(self, old: list[bytes], new: list[bytes]) -> None:
        self._old, self._new = old, new
        super().__init__(None, (), ())

    def get_opcodes(self) -> list[_Opcode]:
        old, new = self._old, self._new
        start, most = 0, min(len(old), len(new))
        while start < most and old[start] == new[start]:
            start += 1
        end = 0
        while end < most - start and old[-1 - end] == new[-1 - end]:
            end += 1
        inner_old, inner_new = old[start : len(old) - end], new[start : len(new) - end]
        codes: list[_Opcode] = [("equal", 0, start, 0, start)] if start else []
        if len(inner_old) * len(inner_new) > _MOST_PAIRS:
            codes.append(("replace", start, len(old) - end, start, len(new) - end))
        else:
            inner = difflib.SequenceMatcher(None, inner_old, inner_new).get_opcodes()
            codes += [(tag, a + start, b + start, c + start, d + start) for tag, a, b, c, d in inner]
        if end:
            codes.append(("equal", len(old) - end, len(old), len(new) - end, len(new)))
        return codes


def _hunk(
    old: Sequence[bytes], new: Sequence[bytes], group: Sequence[tuple[str, int, int, int, int]]
) -> Iterator[bytes]:
    first, last = group[0], group[-1]
    yield b"@@ -%s +%s @@\n" % (_range(first[1], last[2]), _range(first[3], last[4]))
    for tag, a, b, c, d in group:
        if tag == "equal":
            for line in old[a:b]:
                yield from _line(b" ", line)
            continue
        for line in old[a:b]:
            yield from _line(b"-", line)
        for line in new[c:d]:
            yield from _line(b"+", line)


def _range(start: int, stop: int) -> bytes:
    """POSIX diff, Unified Format: the line before an empty range, and no count of one."""
    length = stop - start
    if length == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + 1 if length else start, length)


def _line(sign: bytes, line: bytes) -> Iterator[bytes]:
    if line.endswith(b"\n"):
        yield sign + line
    else:
        yield sign + line + b"\n"
        yield _NO_NEWLINE


def _lines(data: bytes) -> list[bytes]:
    """With their newlines, and nothing else that would end a line."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _header(name: bytes) -> bytes:
    """A name as patch(1) reads it: quoted as in C where it has to be, and ended by a tab where it has blanks."""
    if not _PLAIN_NAME.fullmatch(name):
        quoted = b"".join(map(_escaped, name))
        return b'"' + quoted + b'"'
    return name + b"\t" if b" " in name else name


def _escaped(byte: int) -> bytes:
    if byte in _ESCAPES:
        return b"\\" + bytes((_ESCAPES[byte],))
    return bytes((byte,)) if 32 <= byte < 127 else b"\\%03o" % byte
