"""The log of a container: its output, line by line, with times and streams.

The format is that of the Kubernetes CRI (podman's `k8s-file`), which keeps bytes as they are:

    2026-11-26T12:00:00.123456789Z stdout F hello\n
    TIME                           STREAM TAG LINE

Tag P: the line goes on in the next entry of that stream; F: it ends here. An entry is written by one write(2), so that
a crash leaves whole ones, but for the last after a power failure; a reader leaves out what is no entry.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

#: The most bytes of one entry: longer lines are parts (docker's and CRI-O's limit).
LINE_LIMIT: Final = 16384
_STREAMS: Final = {b"stdout": 1, b"stderr": 2}
_BLOCK: Final = 1 << 16


class Entry(NamedTuple):
    """`time` as it stands in the log. `stream` 1 or 2. `data` with its newline, unless it is a part."""

    time: bytes
    stream: int
    data: bytes


class LogWriter:
    """Appends to the log file `path`."""

    def __init__(self, path: bytes, clock: Callable[[], int] = time.time_ns) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._clock = clock
        self._rest = {1: b"", 2: b""}

    def write(self, stream: int, data: bytes) -> None:
        """Output of a stream (1, 2). Its last line, if it has not ended, is kept back until it ends or is too long."""
        data = self._rest[stream] + data
        lines = data.split(b"\n")
        self._rest[stream] = lines.pop()
        begin = timestamp(self._clock()) + (b" stdout " if stream == 1 else b" stderr ")
        entries = [entry for line in lines for entry in _entries(begin, line)]
        while len(self._rest[stream]) >= LINE_LIMIT:
            part, self._rest[stream] = self._rest[stream][:LINE_LIMIT], self._rest[stream][LINE_LIMIT:]
            entries.append(begin + b"P " + part + b"\n")
        if entries:
            _write_all(self._fd, b"".join(entries))

    def close(self) -> None:
        """Lines that never ended are written as parts: with no newline, as they came."""
        for stream, rest in self._rest.items():
            if rest:
                name = b"stdout" if stream == 1 else b"stderr"
                _write_all(self._fd, b"%b %b P %b\n" % (timestamp(self._clock()), name, rest))
        os.close(self._fd)


def _entries(begin: bytes, line: bytes) -> Iterator[bytes]:
    while len(line) > LINE_LIMIT:
        yield begin + b"P " + line[:LINE_LIMIT] + b"\n"
        line = line[LINE_LIMIT:]
    yield begin + b"F " + line + b"\n"


def _write_all(fd: int, data: bytes) -> None:
    """ENOSPC and the like lose what is written, not the container."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        pass


def timestamp(nanoseconds: int) -> bytes:
    """RFC 3339, in UTC, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


class LogReader:
    """Reads the log file `path`, as far as it goes now; `entries` again goes on from there, even if the file has been
    removed meanwhile. One that somebody has cut is read from its beginning."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._fd = -1
        self._offset = 0

    def seek_tail(self, lines: int) -> None:
        """Go to where the last `lines` lines begin."""
        self._offset = _tail(self._fd, lines) if self._opened() else 0

    def entries(self) -> Iterator[Entry]:
        """Those that are whole."""
        if not self._opened():
            return
        if os.fstat(self._fd).st_size < self._offset:
            self._offset = 0
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # not yet
                self._offset += len(line)
                entry = parse(line)
                if entry is not None:
                    yield entry

    def _opened(self) -> bool:
        if self._fd < 0:
            with contextlib.suppress(FileNotFoundError):
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd >= 0

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def parse(line: bytes) -> Entry | None:
    """One line of the file; None for what is no entry."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _STREAMS or parts[2] not in (b"F", b"P") or not parts[0].endswith(b"Z"):
        return None
    data = parts[3] if parts[2] == b"F" else parts[3].removesuffix(b"\n")
    return Entry(parts[0], _STREAMS[parts[1]], data)


def _tail(fd: int, lines: int) -> int:
    """Where the last `lines` lines begin: entries that end one, and the parts before. From the end on backwards, each
    entry is looked at once."""
    end = at = os.lseek(fd, 0, os.SEEK_END)
    if lines <= 0:
        return end
    seen, found, position, cut_off = 0, 0, end, b""  # position: the end of the piece that comes next
    while at > 0:
        begin = max(0, at - _BLOCK)
        pieces = (os.pread(fd, at - begin, begin) + cut_off).split(b"\n")
        at = begin
        if at > 0:
            cut_off = pieces.pop(0)
        for piece in reversed(pieces):
            seen += 1
            entry = parse(piece + b"\n")
            # The last entry of the file, behind which nothing comes, or half an entry, ends a line whatever it is.
            if entry is not None and (seen <= 2 or entry.data.endswith(b"\n")):
                found += 1
                if found > lines:
                    return position + 1
            position -= len(piece) + 1
    return 0
