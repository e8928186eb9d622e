"""Blobs to a registry: seen to be there, mounted from another repository, or sent in pieces (distribution-spec,
"Pushing a blob in chunks"), from where the registry has got to where a piece was cut.

    HEAD blobs/DIGEST                                200: there already
    POST blobs/uploads/?mount=DIGEST&from=OTHER      201: it is there now; 202: an upload begins at Location
    PATCH Location  Content-Range: FROM-TO           202: Location and Range of what has come
    GET   Location                                   204: the same; 404: begin anew
    PUT   Location?digest=DIGEST                     201, after the last piece, which it carries
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import urlencode

import httpx2

from unionfs.errors import RegistryError
from unionfs.image.digest import Digest
from unionfs.image.registry.client import Answer
from unionfs.image.registry.failures import Doing
from unionfs.image.registry.repository import Repository
from unionfs.image.registry.retry import STATUSES
from unionfs.image.registry.transfer import Cancelled

#: Bytes of one request. Some registries keep pieces, and no small ones.
PIECE: Final = 32 << 20
_READ: Final = 1 << 20
_DAMAGED: Final = "damaged on its way, or in the store: unionfs image verify"
_range = re.compile(r"(?:bytes=)?0-(\d+)").fullmatch

#: Gets the bytes sent so far.
Count = Callable[[int], None]


class Place(NamedTuple):
    """Where an upload goes on, and how much is there."""

    location: str
    offset: int


class _Broken(Exception):
    """A piece that did not arrive; another attempt may help. `cause`: what to say if none does. `wrong`: it arrived,
    and was not what it should be."""

    def __init__(self, cause: RegistryError, retry_after: str | None = None, *, wrong: bool = False) -> None:
        super().__init__(str(cause))
        self.cause, self.retry_after, self.wrong = cause, retry_after, wrong


class Upload:
    """One blob on its way into `repository`, out of `file` (seekable), which has `size` bytes. Idempotent.

    `others`: repositories of the registry that are said to have it."""

    def __init__(self, repository: Repository, digest: Digest, size: int, *, others: tuple[str, ...] = ()) -> None:
        self._repository, self._client = repository, repository.client
        self._digest, self._size, self._others, self._piece = digest, size, others, PIECE
        self._what: Doing = repository.doing(f"blob {digest}")
        self._scopes: tuple[str, ...] = (repository.scope,)

    def mount(self) -> tuple[str, Place | None]:
        """Begin: (the repository it was mounted from, None), or ("", where to send it)."""
        if self._others:
            other = self._others[0]
            query = urlencode({"mount": self._digest, "from": other})
            with suppress(RegistryError):  # one may not read there, or there is no such repository: it is sent, then
                answer = self._begin(f"?{query}", f"repository:{other}:pull")
                return (other, None) if answer.status == 201 else ("", self._begun(answer))
        return "", self._begun(self._begin())

    def _begin(self, query: str = "", *scopes: str) -> Answer:
        return self._client.request(
            self._what,
            "POST",
            self._repository.url("blobs/uploads/") + query,
            scopes=(*self._scopes, *scopes),
            body=b"",
            expect=(201, 202),
        )

    def _begun(self, answer: Answer) -> Place:
        told = answer.headers.get("oci-chunk-min-length", "")
        if told.isascii() and told.isdigit():
            self._piece = max(self._piece, min(int(told[:12]), self._size))
        return Place(self._location(answer.headers, answer.url), 0)

    def send(self, file: BinaryIO, place: Place | None, count: Count) -> None:
        """All of it, from `place` on (None: from the beginning of a new upload)."""
        failed = wrong = 0
        while True:
            if self._client.cancelled.is_set():
                raise Cancelled(f"{self._what.thing}: cancelled")
            try:
                if place is None:
                    self._others = ()
                    place = self.mount()[1]
                    assert place is not None
                done = self._send_piece(file, place, count)
            except _Broken as broken:
                failed, wrong = failed + 1, wrong + broken.wrong
                if wrong > 1:
                    raise RegistryError(str(broken.cause), hint=_DAMAGED) from broken
                retry = self._client.options.retry
                if not retry.wait(failed, broken.retry_after, self._client.cancelled):
                    raise broken.cause from broken
                if self._repository.has_blob(self._digest):
                    return  # the answer was lost, the piece was not
                place = None if broken.wrong or place is None else self._standing(place)
                continue
            if done is None:
                return
            if done.offset > place.offset:
                failed = 0
            place = done

    def _send_piece(self, file: BinaryIO, place: Place, count: Count) -> Place | None:
        """The next piece. None: it was the last."""
        start, end = place.offset, min(place.offset + self._piece, self._size)
        last = end == self._size
        location = place.location
        if last:
            location += ("&" if "?" in location else "?") + urlencode({"digest": self._digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        if not (last and start == 0):
            headers["Content-Range"] = f"{start}-{end - 1}"
        # 401: the token is too old now. What is asked for next, whether the blob is there, is asked with a new one.
        expect = (200, 201, 202, 204, 400, 401, 404, 416, *STATUSES)
        try:
            with self._client.stream(
                self._what,
                "PUT" if last else "PATCH",
                location,
                scopes=self._scopes,
                headers=headers,
                body=self._bytes(file, start, end, count),
                expect=expect,
            ) as response:
                if response.status_code < 300:
                    return None if last else self._place(response.headers, response.url, end)
                cause = self._client.refusal(self._what, response)
        except httpx2.TransportError as error:
            raise _Broken(self._client.unreachable(self._what, error)) from error
        raise _Broken(cause, response.headers.get("retry-after"), wrong=response.status_code == 400)

    def _bytes(self, file: BinaryIO, start: int, end: int, count: Count) -> Iterator[bytes]:
        file.seek(start)
        while start < end:
            if self._client.cancelled.is_set():
                raise Cancelled(f"{self._what.thing}: cancelled")
            data = file.read(min(_READ, end - start))
            if not data:
                raise RegistryError(f"{self._what.thing} is cut short in the store", hint="unionfs image verify")
            start += len(data)
            yield data
            count(start)

    def _standing(self, place: Place) -> Place | None:
        """Where the registry says the upload has got to; None: it has lost it."""
        expect = (200, 202, 204, 400, 404, 405, 416)
        answer = self._client.request(self._what, "GET", place.location, scopes=self._scopes, expect=expect)
        return self._place(answer.headers, answer.url, None, place.location) if answer.status < 300 else None

    def _place(self, headers: httpx2.Headers, here: httpx2.URL, offset: int | None, location: str = "") -> Place | None:
        told = _range(headers.get("range", "").strip())
        if told is not None:
            # "0-0" stands for nothing, too; from the beginning again is never wrong then.
            offset = int(told[1]) + 1 if told[1] != "0" else (offset or 0)
        if offset is None or offset >= self._size:
            return None
        return Place(self._location(headers, here) if headers.get("location") else location, offset)

    def _location(self, headers: httpx2.Headers, here: httpx2.URL) -> str:
        location = headers.get("location", "")
        if not location:
            raise RegistryError(f"{self._what.thing}: {self._client.registry} does not say where to send it")
        return str(self._client.led(here, location))
