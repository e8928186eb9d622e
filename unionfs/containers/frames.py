"""What goes between a container's monitor and those who watch it: frames on a stream socket.

    kind (1 byte)  length (4 bytes, network order)  that many bytes

    to the monitor                              from it
    HELLO    JSON {"want": …}, first            STARTED  JSON {"pid": N}: runs
    STDIN    bytes; none: their end             STDOUT, STDERR  bytes
    SIGNAL   a number, in ASCII                 DONE     that was done
    WINDOW   "ROWS COLUMNS", in ASCII           FAILED   JSON of an error, as control.error_to_json
                                                EXIT     JSON {"status": N, …}; the last

`want`: "attach" (input goes in, output comes out) or "wait" (only how it ends).

Before there is a monitor, who is to become one (api.container_worker) is told RUN (JSON: what), says CREATED (its ID)
or FAILED, and is told START.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from unionfs.errors import ProtocolError

if TYPE_CHECKING:
    import socket

HELLO, STDIN, SIGNAL, WINDOW = b"h", b"i", b"s", b"w"
STARTED, STDOUT, STDERR, DONE, FAILED, EXIT = b"r", b"o", b"e", b"d", b"f", b"x"

RUN, CREATED, START = b"n", b"c", b"g"

_HEADER: Final = struct.Struct("!cI")
#: (kind, bytes), one after the other.
Stream = Iterator[tuple[bytes, bytes]]
#: No frame is longer.
LIMIT: Final = 1 << 20


def frame(kind: bytes, data: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(data)) + data


def receive(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """The next frame, and no byte more; None where none comes. ProtocolError for one that is too long."""
    header = _exactly(connection, _HEADER.size)
    if header is None:
        return None
    kind, length = _HEADER.unpack(header)
    if length > LIMIT:
        raise ProtocolError(f"a frame of {length} bytes")
    content = _exactly(connection, length)
    return None if content is None else (kind, content)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return None
        data += more
    return data


class Frames:
    """Frames taken out of a stream, as it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Stream:
        """(kind, bytes) of all that are complete. ProtocolError for one that is too long."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > LIMIT:
                raise ProtocolError(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, content
