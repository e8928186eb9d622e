"""A layer on its way into the store: kept as it came, and in the same pass hashed, decompressed and indexed.

The blob is the bytes that came, so that nothing is compressed or decompressed for it, and a tar that was not compressed
can be read in place. Only what OCI has no media type for (bzip2, xz) is kept uncompressed instead, unless a manifest
names these very bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final

from unionfs.changeset.compression import HEAD, Source, recognise
from unionfs.errors import ImageFormatError, LayerError, TarError
from unionfs.image import mediatypes
from unionfs.image.blobs import BlobWriter, Workspace
from unionfs.image.digest import Digest
from unionfs.image.layer_cache import LayerCache
from unionfs.image.models import Descriptor
from unionfs.image.results import StoredLayer

#: By what `recognise` says of the first bytes.
_KEPT: Final = {"": "none", "gzip": "gzip", "zstd": "zstd"}

#: Called with the bytes of each piece that was read.
Count = Callable[[int], None]


def descriptor_of(media_type: str, digest: Digest, size: int) -> Descriptor:
    """A new descriptor."""
    return Descriptor.model_validate({"mediaType": media_type, "digest": digest, "size": size})


def take_layer(
    stream: BinaryIO,
    space: Workspace,
    cache: LayerCache,
    what: str,
    *,
    diff_id: Digest | None = None,
    digest: Digest | None = None,
    count: Count | None = None,
    path: bytes | None = None,
) -> StoredLayer:
    """Add the layer tar in `stream` to the workspace, and make it ready in the cache. `path`: a file of the workspace
    that holds these bytes, and no others, already.

    `diff_id`, `digest`: what its bytes must be, uncompressed and as they are. ImageFormatError, naming `what`, for what
    is no layer, is damaged, or unpacks beyond reason. The blob must be `note`d to the cache where it is published.
    """
    # TarReader hashes what it reads by sha256.
    algorithm = digest.algorithm if digest and digest.algorithm != "sha256" else None
    with space.writer(algorithm, path) as writer:
        tee = _Tee(stream, writer, count)
        try:
            added = cache.add_held(tee, diff_id)  # type: ignore[arg-type]  # read() is all that it uses
        except TarError as error:
            raise ImageFormatError(f"{what}: {error}", hint=error.hint) from error
        except LayerError as error:  # "layer is not …"
            raise ImageFormatError(f"{what} {str(error).removeprefix('layer ')}", hint=error.hint) from error
        found = writer.finish() or Digest(str(added.digest))
        if digest not in (None, found):
            cache.remove(added.diff_id)
            raise ImageFormatError(f"{what} is damaged: its digest is {found}, not {digest}")
        plain = Digest(added.diff_id)
        compression = tee.compression
        if digest is None and compression not in _KEPT:
            return StoredLayer(_decompressed(writer.path, space), plain, added.size)
        (space.adopt if path is None else space.adopt_also)(writer.path, found)
    media_type = mediatypes.oci_layer(_KEPT.get(compression, "none"))
    return StoredLayer(descriptor_of(media_type, found, added.stored_size), plain, added.size)


def _decompressed(path: bytes, space: Workspace) -> Descriptor:
    """The file `path`, which has been read without fault, as a plain blob."""
    with open(path, "rb", buffering=0) as file, space.writer() as writer:
        source = Source(file)
        while data := source.read():
            writer.write(data)
        digest = space.finished(writer)
        return descriptor_of(mediatypes.OCI_LAYER, digest, writer.size)


class _Tee:
    """A stream whose bytes go to a file as they are read."""

    def __init__(self, stream: BinaryIO, writer: BlobWriter, count: Count | None) -> None:
        self._stream, self._writer, self._count = stream, writer, count
        self._head = b""

    @property
    def compression(self) -> str:
        return recognise(self._head)

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if data:
            if len(self._head) < HEAD:
                self._head += data[:HEAD]
            self._writer.write(data)
            if self._count:
                self._count(len(data))
        return data
