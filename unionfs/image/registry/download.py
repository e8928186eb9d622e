"""`Download`: the bytes of a blob as a stream, taken up again where its connection was cut (RFC 9110, 14.2: ranges).

It ends after the bytes that the descriptor promises, no sooner and no later; whether these are the right ones is for
the reader to see, who hashes them anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import httpx2

from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.models import Descriptor
from unionfs.image.registry.client import Client
from unionfs.image.registry.failures import Doing
from unionfs.image.registry.transfer import Cancelled

#: Bytes after which a cut counts as the first one again.
_PROGRESS: Final = 1 << 20
#: Bytes that are handed on as they come; fewer are put together first, since whatever is done with the bytes of several
#: blobs side by side is a fight for the interpreter lock. (By TLS 16 KiB come at a time.)
_LARGE: Final = 1 << 17
_content_range = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)").fullmatch


class NoParts(RegistryError):
    """A registry that does not heed Range, as it may (RFC 9110, 14.2)."""


class Download:
    """A context manager. Not for several threads. RegistryError where the registry has it not, or gives up.

    `start`, `stop`: a part of it, which a registry gives or does not: RegistryError."""

    def __init__(
        self,
        client: Client,
        what: Doing,
        path: str,
        scope: str,
        blob: Descriptor,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        self._client, self._what, self._path, self._scope = client, what, path, scope
        self._whole = stop is None
        self._size = blob.size
        self._stop = self._size if stop is None else stop
        self._open = ExitStack()
        self._pieces: Iterator[bytes] | None = None
        self._at = start  # where the next byte to be given is
        self._skip = 0  # bytes that come once more
        self._begun = 0  # where the connection began
        self._failed = 0
        self._rest = b""

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, and not few; b"" at the end."""
        parts, left = [], min(size, self._stop - self._at)
        while left:
            piece, self._rest = self._rest or self._next(), b""
            if len(piece) > left:
                piece, self._rest = piece[:left], piece[left:]
            parts.append(piece)
            self._at += len(piece)
            left = 0 if len(piece) >= _LARGE else left - len(piece)
        if self._at == self._stop:
            self._finish()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_all(self) -> bytes:
        """All that is left of it."""
        return b"".join(iter(lambda: self.read(self._stop), b""))

    def _next(self) -> bytes:
        """Some bytes, from here on."""
        while True:
            if self._client.cancelled.is_set():
                raise Cancelled(f"{self._what.thing}: cancelled")
            try:
                if self._pieces is None:
                    self._pieces = self._connect()
                received = next(self._pieces, b"")
            except httpx2.TransportError as error:
                self._cut(error)
                continue
            if not received:
                self._cut(httpx2.RemoteProtocolError("it ended early"))
            elif len(received) <= self._skip:
                self._skip -= len(received)
            else:
                skipped, self._skip = self._skip, 0
                return received[skipped:]

    def _connect(self) -> Iterator[bytes]:
        self._begun = self._at
        last = "" if self._whole else str(self._stop - 1)
        headers = {"Range": f"bytes={self._at}-{last}"} if self._at or not self._whole else {}
        response = self._open.enter_context(
            self._client.stream(
                self._what, "GET", self._path, scopes=(self._scope,), headers=headers, expect=(200, 206, 416)
            )
        )
        if response.status_code == 416:
            raise ImageFormatError(f"{self._what.thing} has no byte {self._at}, and should have {self._size} bytes")
        self._skip = self._at
        if response.status_code == 200 and not self._whole:
            raise NoParts(f"{self._what.thing}: {self._client.registry} gives no parts of it")
        if response.status_code == 206:
            told = _content_range(response.headers.get("content-range", ""))
            if told is None or int(told[1]) != self._at:
                wrong = f"{self._what.thing}: another range than {self._at}- was sent"
                raise ImageFormatError(wrong) if self._whole else NoParts(wrong)
            self._skip = 0
        return response.iter_raw()

    def _cut(self, error: httpx2.TransportError) -> None:
        """Wait, and connect again; or raise."""
        self._open.close()
        self._pieces = None
        self._failed = 1 if self._at - self._begun >= _PROGRESS else self._failed + 1
        if not self._client.options.retry.wait(self._failed, None, self._client.cancelled):
            raise self._client.unreachable(self._what, error) from error

    def _finish(self) -> None:
        """All has come. More would be another blob."""
        if self._pieces is None:
            return
        try:
            more = bool(self._rest or next(self._pieces, b""))
        except httpx2.TransportError:
            more = False  # the rest of the answer, of which nothing is needed
        self._pieces = None
        self._open.close()
        if more:
            raise ImageFormatError(f"{self._what.thing} has more than {self._stop} bytes")
