"""A layer on its way into the store: kept as it came, hashed compressed and uncompressed in one pass.

The blob is the bytes that came, so that nothing is compressed or decompressed for it, and a tar that was not compressed
can be read in place. Only what OCI has no media type for (bzip2, xz) is kept uncompressed instead, unless a manifest
names these very bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final

from unionfs.changeset.compression import Source
from unionfs.changeset.tar_reader import TarReader
from unionfs.errors import ImageFormatError, TarError
from unionfs.image import mediatypes
from unionfs.image.blobs import BlobWriter, Workspace
from unionfs.image.digest import Digest
from unionfs.image.members import MAX_RATIO, RATIO_FROM
from unionfs.image.models import Descriptor
from unionfs.image.results import StoredLayer

#: By what TarReader says of the bytes.
_KEPT: Final = {"": "none", "gzip": "gzip", "zstd": "zstd"}

#: Called with the bytes of each piece that was read.
Count = Callable[[int], None]


def descriptor_of(media_type: str, digest: Digest, size: int) -> Descriptor:
    """A new descriptor."""
    return Descriptor.model_validate({"mediaType": media_type, "digest": digest, "size": size})


def take_layer(
    stream: BinaryIO,
    space: Workspace,
    what: str,
    *,
    diff_id: Digest | None = None,
    digest: Digest | None = None,
    count: Count | None = None,
) -> StoredLayer:
    """Add the layer tar in `stream` to the workspace.

    `diff_id`, `digest`: what its bytes must be, uncompressed and as they are. ImageFormatError, naming `what`, for what
    is no layer, is damaged, or unpacks beyond reason.
    """
    with space.writer(digest.algorithm if digest else "sha256") as writer:
        try:
            reader = TarReader(_Tee(stream, writer, count))  # type: ignore[arg-type]  # read() is all that it uses
            for _ in reader:
                if reader.offset > RATIO_FROM and reader.offset > MAX_RATIO * reader.size:
                    raise TarError(f"it unpacks to more than {MAX_RATIO} times its size")
        except TarError as error:
            raise ImageFormatError(f"{what}: {error}", hint=error.hint) from error
        found = writer.finish()
        if digest not in (None, found):
            raise ImageFormatError(f"{what} is damaged: its digest is {found}, not {digest}")
        plain = Digest(reader.diff_id)
        if diff_id not in (None, plain):
            raise ImageFormatError(f"{what} is damaged: its diff_id is {plain}, not {diff_id}")
        if digest is None and reader.compression not in _KEPT:
            return StoredLayer(_decompressed(writer.path, space), plain, reader.offset)
        space.adopt(writer.path, found)
    media_type = mediatypes.oci_layer(_KEPT.get(reader.compression, "none"))
    return StoredLayer(descriptor_of(media_type, found, reader.size), plain, reader.offset)


def _decompressed(path: bytes, space: Workspace) -> Descriptor:
    """The file `path`, which has been read without fault, as a plain blob."""
    with open(path, "rb", buffering=0) as file, space.writer() as writer:
        source = Source(file)
        while data := source.read():
            writer.write(data)
        digest = writer.finish()
        space.adopt(writer.path, digest)
        return descriptor_of(mediatypes.OCI_LAYER, digest, writer.size)


class _Tee:
    """A stream whose bytes go to a file as they are read."""

    def __init__(self, stream: BinaryIO, writer: BlobWriter, count: Count | None) -> None:
        self._stream, self._writer, self._count = stream, writer, count

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if data:
            self._writer.write(data)
            if self._count:
                self._count(len(data))
        return data
