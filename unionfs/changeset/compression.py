"""Compression of layer tars: bytes in, bytes out, and what a compressed stream looks like from its first bytes.

gzip and zstd are written (the two that OCI names); gzip, zstd, bzip2 and xz are read. Output depends on the input
bytes alone: no time, no file name, no machine. gzip is written as independent 1 MiB deflate blocks, each primed with
the last 32 KiB before it (as pigz does), so that all processors can work on one stream; how many do changes nothing.

zstd needs `compression.zstd` of Python 3.14 or the package backports.zstd; gzip is read by the package isal where that
is installed, which takes half of zlib's time. Both are imported when first used.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import os
import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, Final, Literal, Protocol

from unionfs.errors import ChangesetError, OptionError, TarError

Compression = Literal["none", "gzip", "zstd"]

MEDIA_TYPES: Final[dict[Compression, str]] = {
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
_SUFFIXES: Final[dict[bytes, Compression]] = {b".gz": "gzip", b".tgz": "gzip", b".zst": "zstd", b".tzst": "zstd"}
_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3
_WINDOW = 1 << 15
#: A gzip header without time or name, from an unknown system (RFC 1952), as Go writes it.
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_CHUNK = 1 << 20
HEAD: Final = 6
#: Enough for xz -9 (65 MiB) many times over; a hostile header may ask for 4 GiB.
_XZ_MEMORY = 1 << 29


def by_suffix(path: bytes) -> Compression:
    """What the name of a layer file asks for: `.tar`, `.tar.gz`, `.tgz`, `.tar.zst`, `.tzst`; others are plain."""
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), "none")


class Compressor(Protocol):
    """Feed blocks of any size (gzip: at most 1 MiB each gives parallel work), then `finish` once."""

    def feed(self, data: memoryview) -> bytes: ...
    def finish(self) -> bytes: ...
    def close(self) -> None:
        """Stop at once, finished or not. Idempotent."""
        ...


def compressor(compression: Compression) -> Compressor | None:
    """None for "none". OptionError for an unknown word, ChangesetError where zstd is not installed."""
    if compression == "none":
        return None
    if compression == "gzip":
        return _Gzip()
    if compression == "zstd":
        return _Zstd()
    raise OptionError(f"unknown compression {compression!r}", hint="choose none, gzip or zstd")


class _Gzip:
    def __init__(self) -> None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gzip")
        self._pending: deque[Future[bytes]] = deque()
        self._limit = threads + 1
        self._window = b""
        self._crc = self._size = 0
        self._head = _GZIP_HEADER

    def feed(self, data: memoryview) -> bytes:
        block = bytes(data)
        self._pending.append(self._pool.submit(_deflate, block, self._window))
        self._window = (self._window + block)[-_WINDOW:] if len(block) < _WINDOW else block[-_WINDOW:]
        self._crc = zlib.crc32(block, self._crc)
        self._size += len(block)
        return self._take(self._limit)

    def finish(self) -> bytes:
        # An empty final block (BFINAL, fixed codes, end of block), then RFC 1952's CRC32 and ISIZE.
        tail = self._take(0) + b"\x03\x00" + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
        self.close()
        return tail

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, leave: int) -> bytes:
        parts, self._head = [self._head], b""
        while len(self._pending) > leave:
            parts.append(self._pending.popleft().result())
        return b"".join(parts)


def _deflate(block: bytes, window: bytes) -> bytes:
    if window:
        deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, window)
    else:
        deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -15, 9)
    return deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)


class _Zstd:
    def __init__(self) -> None:
        self._frame = _zstd().ZstdCompressor(level=_ZSTD_LEVEL)

    def feed(self, data: memoryview) -> bytes:
        return bytes(self._frame.compress(data))

    def finish(self) -> bytes:
        return bytes(self._frame.flush())

    def close(self) -> None:
        pass


def _zstd() -> Any:
    """The zstd module (PEP 784), by either of its names."""
    try:
        return _first("compression.zstd", "backports.zstd")
    except ModuleNotFoundError:
        raise ChangesetError(
            "zstd is not available in this Python", hint="pip install backports.zstd, or use gzip"
        ) from None


def _first(*names: str) -> Any:
    """The first of these modules that is installed. ModuleNotFoundError for none."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


# reading --------------------------------------------------------------------------------------------------------
class _Decoder(Protocol):
    """What zlib, bz2, lzma and zstd decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflate:
    """zlib's decompressor with the interface of the others (input it could not take yet is kept)."""

    def __init__(self, module: Any) -> None:
        self._inflate = module.decompressobj(31)

    @property
    def eof(self) -> bool:
        return bool(self._inflate.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inflate.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length))


class Source:
    """A possibly compressed stream, read as what it decompresses to.

    The compression is told from the first bytes. Members or frames may follow each other; zero bytes after the last one
    are padding. `position`: bytes taken from the stream. Memory is bounded whatever the ratio. Faults of the
    compressed data, its early end included, are a TarError with the offset in the uncompressed stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._input = b""
        self._decoder: _Decoder | None = None
        self._faults: tuple[type[Exception], ...] = ()
        self.position = 0
        self.offset = 0
        while len(self._input) < HEAD and (more := self._fetch()):
            self._input += more
        self.compression = recognise(self._input)

    def read(self) -> bytes:
        """Up to 1 MiB; b"" at the end."""
        if not self.compression:
            data, self._input = self._input or self._fetch(), b""
        else:
            data = self._decompress()
        self.offset += len(data)
        return data

    def _decompress(self) -> bytes:
        while True:
            if self._decoder is None:
                self._input = self._input.lstrip(b"\0") if self.offset else self._input
                if not self._input:
                    self._input = self._fetch()
                    if not self._input:
                        return b""
                    continue
                self._decoder, self._faults = _new_decoder(self.compression)
            taken, self._input = self._input, b""
            try:
                data = self._decoder.decompress(taken, _CHUNK)
            except self._faults as error:
                raise TarError(f"corrupt {self.compression} data: {error}", offset=self.offset) from error
            if self._decoder.eof:
                self._input, self._decoder = self._decoder.unused_data, None
            if data:
                return data
            if self._decoder is not None:
                self._input = self._fetch()
                if not self._input:
                    raise TarError(f"the {self.compression} data ends early", offset=self.offset)

    def _fetch(self) -> bytes:
        data = self._stream.read(_CHUNK)
        self.position += len(data)
        return data


def recognise(head: bytes) -> str:
    """The compression of a stream that begins so, "" for none. Its first `HEAD` bytes tell."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2), as zstd:chunked's does.
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(b"BZh"):
        return "bzip2"
    return "xz" if head.startswith(b"\xfd7zXZ\0") else ""


def _new_decoder(compression: str) -> tuple[_Decoder, tuple[type[Exception], ...]]:
    """A decompressor for one member or frame, and what it raises on corrupt input."""
    if compression == "gzip":
        module = _first("isal.isal_zlib", "zlib")
        return _Inflate(module), (module.error,)
    if compression == "bzip2":
        return bz2.BZ2Decompressor(), (OSError, ValueError)
    if compression == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), (lzma.LZMAError,)
    zstd = _zstd()
    return zstd.ZstdDecompressor(), (zstd.ZstdError,)
