"""Content-addressed files, and `Staging`: how new ones come in, all together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from unionfs.changeset.tar_writer import WrittenLayer
from unionfs.image.models import Descriptor
from unionfs.image.results import StoredLayer


class Staging:
    """Files on their way into a store. Made by `Store.staging`."""

    def new_file(self) -> bytes:
        """A path that does not exist yet, where a file may be written that `add_layer_file` then takes."""
        raise NotImplementedError

    def add_layer(self, stream: BinaryIO) -> StoredLayer:
        """A layer tar, compressed or not, kept as it is; decompressed, hashed and indexed in one pass."""
        raise NotImplementedError

    def add_layer_file(self, path: bytes, written: WrittenLayer) -> StoredLayer:
        """A layer that `write_layer` has just written to a `new_file`; it is not read again."""
        raise NotImplementedError

    def add_image(
        self,
        config: bytes,
        layers: Sequence[Descriptor],
        *,
        docker: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """An image with this config (whose digest is its ID) of layers that are in the store or were added here.

        Returns the descriptor of its manifest: OCI's, or docker's schema 2. ImageFormatError where the config's
        diff_ids or history do not fit the layers.
        """
        raise NotImplementedError

    def publish(self, names: Mapping[str, Descriptor], *, untagged: Sequence[Descriptor] = ()) -> dict[str, str]:
        """Make everything that was added visible at once. `names` go to these images; the result tells, by name, the
        ID of the image that had it. What loses its last name stays as a dangling image."""
        raise NotImplementedError
