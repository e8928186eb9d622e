"""Parts of a layer's blob, by range requests (RFC 9110, 14), for layers that need not be fetched whole.

    RegistryParts     implements image.lazy.fetcher.Parts
    fetch_contents    the TOC of such a layer, into the cache

All parts of one repository that this process asks for share one `Client`. After a failure the next part begins with a
new one: credentials are looked for again, and a registry that had gone is met again.
"""

from __future__ import annotations

import io
import threading
from typing import Final

from unionfs.changeset.compression import Source
from unionfs.changeset.tar_reader import TarReader
from unionfs.errors import RegistryError, TarError
from unionfs.image import reference as references
from unionfs.image.lazy.contents import (
    FOOTER_SIZE,
    MAX_TOC,
    TOC_NAME,
    Contents,
    TocPlace,
    Unsuitable,
    toc_offset,
)
from unionfs.image.lazy.lazy_cache import LazyCache
from unionfs.image.lazy.notes import Origin
from unionfs.image.models import Descriptor
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.repository import Repository

#: Bytes at the end of an eStargz blob that are asked for first: a TOC of some hundred files is in them.
_TAIL: Final = 32 << 10

_lock = threading.Lock()
_clients: dict[tuple[object, ...], tuple[Client, int]] = {}


class RegistryParts:
    """A context manager; may be used by any thread. `client`: in place of one as `origin` says; it stays the
    caller's."""

    def __init__(self, layer: Descriptor, origin: Origin, client: Client | None = None) -> None:
        self._layer, self._origin, self._given = layer, origin, client
        self._reference = references.parse_normalized(origin.name)
        self._key = (self._reference.domain, self._reference.path, *origin[1:])
        self._client: Client | None = None
        self._closed = False

    def __enter__(self) -> RegistryParts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, offset: int, size: int, again: bool = False) -> bytes:
        """See fetcher.Parts. RegistryError, or Unsuitable where the registry gives no parts."""
        client = self._given or self._shared()
        try:
            repository = Repository(client, self._reference, "pull")
            with repository.download(self._layer, offset, offset + size) as stream:
                data = stream.read_all()
        except RegistryError:
            self._drop(client)
            raise
        if len(data) != size:
            raise RegistryError(f"blob {self._layer.digest}: it is shorter than its manifest says")
        return data

    def _shared(self) -> Client:
        with _lock:
            if self._closed:
                raise RegistryError(f"blob {self._layer.digest}: not fetched, as the mount ends")
            if self._client is not None and _clients.get(self._key, (None, 0))[0] is self._client:
                return self._client
            client, users = _clients.get(self._key, (None, 0))
            if client is None:
                origin = self._origin
                options = RegistryOptions(origin.insecure, origin.cert_dir, origin.authfile)
                client = Client(self._reference.domain, options, self._reference.path)
            _clients[self._key] = client, users + 1
            self._client = client
            return client

    def _drop(self, client: Client) -> None:
        """It has failed: who comes next begins anew. What others have under way with it ends by itself."""
        with _lock:
            if _clients.get(self._key, (None, 0))[0] is client:
                del _clients[self._key]

    def close(self) -> None:
        """Idempotent. Ends what is under way, if nobody else has anything."""
        with _lock:
            was, self._closed = self._closed, True
            client, users = _clients.get(self._key, (None, 0))
            if was or self._client is None:
                return
            if client is self._client and users > 1:
                _clients[self._key] = client, users - 1
                return
            if client is self._client:
                del _clients[self._key]
        self._client.cancelled.set()
        self._client.close()


def fetch_contents(
    parts: RegistryParts, layer: Descriptor, place: TocPlace, cache: LazyCache, diff_id: str
) -> tuple[Contents, int]:
    """Bring a layer's TOC into the cache: what it says, and where the layer's chunks end. Unsuitable where that is not
    the one that the manifest says, or cannot be used."""
    if place.kind == "zstd":
        end = place.offset - 8  # the header of its skippable frame (RFC 8878, 3.1.2)
        toc = parts.read(place.offset, place.length)
    else:
        tail = min(layer.size, _TAIL)
        data = parts.read(layer.size - tail, tail)
        end = toc_offset(data[-FOOTER_SIZE:], layer.size)
        if layer.size - end > MAX_TOC:
            raise Unsuitable(f"its TOC has more than {MAX_TOC >> 20} MiB")
        begin = layer.size - tail
        whole = data[end - begin :] if end >= begin else parts.read(end, begin - end) + data
        toc = _toc_member(whole[:-FOOTER_SIZE])
    return cache.add(place, toc, end, layer.size, diff_id), end


def _toc_member(data: bytes) -> bytes:
    """The JSON in the gzip member that an eStargz blob ends with: a tar of that file alone."""
    try:
        if Source(io.BytesIO(data)).compression != "gzip":
            raise Unsuitable("its TOC is not compressed by gzip")
        reader = TarReader(io.BytesIO(data), digests=False, marked=False)
        entry = next(iter(reader), None)
        if entry is None or entry.name != TOC_NAME or entry.size > MAX_TOC:
            raise Unsuitable("there is no TOC where its footer says")
        return b"".join(bytes(piece) for piece in reader.data())
    except TarError as error:
        raise Unsuitable(f"its TOC cannot be unpacked: {error}") from error
