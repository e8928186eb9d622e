"""`LazyCache`: what is kept of layers that are fetched in parts, in the cache of layers.

    ROOT/lazy/HEX.toc          the TOC with this digest: the JSON of eStargz, the compressed one of zstd:chunked
    ROOT/lazy/HEX.V.index      what it says, as an index of a tar (layers.tar_index)
    ROOT/lazy/HEX.V.chunks     what has come of the data (chunk_file.py); V is that file's version

The second is made of the first where it is missing or damaged, and so is the third, empty. The TOC is compared with its
digest whenever it is read. Nothing is kept by the diff_id that an image claims for such a layer: that is compared
when the layer is fetched whole.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import Final

from unionfs.changeset import tar_format as tar
from unionfs.changeset.compression import Source
from unionfs.changeset.tar_indexer import TarIndexer
from unionfs.changeset.tar_reader import TarEntry
from unionfs.errors import LayerError, TarError
from unionfs.image.cache_directory import CacheDirectory, unlink
from unionfs.image.lazy.chunk_file import VERSION, ChunkFile, ChunkFileDamaged, write
from unionfs.image.lazy.contents import HIDDEN, MAX_TOC, TOC_NAME, Contents, TocPlace, Unsuitable, parse
from unionfs.layers.tar_index import IndexDamaged, TarIndex

_READ: Final = os.O_RDONLY | os.O_CLOEXEC


class LazyCache(CacheDirectory):
    """`allowed(stored)`: bytes that a layer of so many compressed ones may come to (LayerCache.allowed)."""

    def __init__(self, root: bytes | str, allowed: Callable[[int], int]) -> None:
        super().__init__(root)
        self._allowed = allowed

    def add(self, place: TocPlace, toc: bytes, end: int, stored: int, diff_id: str) -> Contents:
        """Take in a TOC, as its digest is of it, of a layer of `stored` bytes whose chunks end at `end`. Unsuitable
        where it is not the one, or cannot be read. Idempotent."""
        contents = self._parsed(place, toc, end, stored)
        with self._new_file() as (file, publish):
            file.write(toc)
            publish(self._file(place, "toc"))
        self._write_index(place, contents, diff_id)
        return contents

    def has(self, place: TocPlace) -> bool:
        """Is the TOC here?"""
        self._check_root()
        return os.path.exists(self._file(place, "toc"))

    def open(self, place: TocPlace, end: int, stored: int, diff_id: str) -> tuple[ChunkFile, Callable[[], TarIndex]]:
        """The chunk file, and a function that opens the index, which is made anew by `rebuild` below if need be.
        LayerError where the TOC is not here."""
        self._check_root()
        key = bytes.fromhex(place.digest.hex)

        def index() -> TarIndex:
            try:
                found = TarIndex(os.open(self._file(place, f"{VERSION}.index"), _READ))
            except (FileNotFoundError, IndexDamaged):
                return self.rebuild(place, end, stored, diff_id)
            if found.header.diff_id.hex() != diff_id.partition(":")[2]:
                found.close()
                return self.rebuild(place, end, stored, diff_id)
            return found

        try:
            return self._chunk_file(place, key), index
        except (FileNotFoundError, ChunkFileDamaged):
            self._write_chunks(place, key, self._contents(place, end, stored))
            return self._chunk_file(place, key), index

    def rebuild(self, place: TocPlace, end: int, stored: int, diff_id: str) -> TarIndex:
        """Make the index anew, and open it."""
        self._write_index(place, self._contents(place, end, stored), diff_id)
        return TarIndex(os.open(self._file(place, f"{VERSION}.index"), _READ))

    def remove(self, place: TocPlace) -> None:
        """Forget all of it; layers that are open go on. Idempotent."""
        for name in self._names("lazy"):
            if name.startswith(place.digest.hex):
                unlink(self._path("lazy", name))

    # ----------------------------------------------------------------------------------------------------------------
    def _file(self, place: TocPlace, what: str) -> bytes:
        return self._path("lazy", f"{place.digest.hex}.{what}")

    def _chunk_file(self, place: TocPlace, key: bytes) -> ChunkFile:
        return ChunkFile(os.open(self._file(place, f"{VERSION}.chunks"), os.O_RDWR | os.O_CLOEXEC), key)

    def _contents(self, place: TocPlace, end: int, stored: int) -> Contents:
        try:
            with open(self._file(place, "toc"), "rb") as file:
                return self._parsed(place, file.read(MAX_TOC + 1), end, stored)
        except (FileNotFoundError, Unsuitable) as error:
            raise LayerError(f"its table of contents is not in the cache {os.fsdecode(self.root)}") from error

    def _parsed(self, place: TocPlace, toc: bytes, end: int, stored: int) -> Contents:
        if hashlib.sha256(toc).hexdigest() != place.digest.hex:
            raise Unsuitable("its TOC is not what the manifest says")
        return parse(toc if place.kind == "gzip" else _plain(toc), end, self._allowed(stored))

    def _write_index(self, place: TocPlace, contents: Contents, diff_id: str) -> None:
        indexer = TarIndexer(hidden=HIDDEN[place.kind])
        try:
            for entry in contents.entries:
                indexer.add(entry)
            if place.kind == "gzip":  # the one member that it does not list: numbers are those of the tar's index
                indexer.add(TarEntry(TOC_NAME, tar.REG, 0o444, 0, 0, 0, 0, b"", 0, 0, 0, 0, 0))
        except TarError as error:
            raise Unsuitable(f"its TOC has a member that no layer can have: {error}") from error
        key = bytes.fromhex(place.digest.hex)
        with self._new_file() as (file, publish):
            indexer.write(file, bytes.fromhex(diff_id.partition(":")[2]), contents.size)
            publish(self._file(place, f"{VERSION}.index"))
        try:
            self._chunk_file(place, key).close()
        except (FileNotFoundError, ChunkFileDamaged):
            self._write_chunks(place, key, contents)

    def _write_chunks(self, place: TocPlace, key: bytes, contents: Contents) -> None:
        """Who has another one open, that another process has made at the same time, goes on with that."""
        with self._new_file() as (file, publish):
            write(file, key, contents)
            publish(self._file(place, f"{VERSION}.chunks"), flush=False)


def _plain(compressed: bytes) -> bytes:
    parts, size = [], 0
    try:
        source = Source(io.BytesIO(compressed))
        if source.compression != "zstd":
            raise Unsuitable("its TOC is not compressed by zstd")
        while data := source.read():
            size += len(data)
            if size > MAX_TOC:
                raise Unsuitable(f"its TOC has more than {MAX_TOC >> 20} MiB")
            parts.append(data)
    except TarError as error:
        raise Unsuitable(f"its TOC cannot be unpacked: {error}") from error
    return b"".join(parts)
