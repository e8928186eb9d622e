"""`Store`: the images of one user or machine, in a directory that is an OCI image layout.

    ROOT/oci-layout  index.json  blobs/sha256/…      the layout: skopeo, umoci and podman read it in place
    ROOT/cache/                                      ours: locks, staging, layers unpacked and indexed

A name stands in index.json as the annotation org.opencontainers.image.ref.name of a descriptor, in familiar form, so
that `skopeo copy oci:ROOT:busybox:latest …` finds what `ls` shows. A descriptor without it is a dangling image.

What changes the store stages its files first and publishes them together (blobs.Staging): a failure or a kill
leaves index.json as it was, or as it is to be, and nothing else that the next command would not sweep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

from unionfs.image.blobs import Staging
from unionfs.image.image import Image
from unionfs.image.results import Fault, HistoryRow, ImageSummary, InUse, Loaded, Pruned, Removed

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
#: Called now and then with the bytes taken in, or given out, so far.
Progress = Callable[[int], None]


def store_directory(path: AnyPath | None = None, environ: Mapping[str, str] = os.environ) -> bytes:
    """Where the store is: `path` (--store), else $UNIONFS_STORE, else the user's data directory (XDG)."""
    raise NotImplementedError


class Store:
    """An image store. Safe to use from several processes and threads at once; holds no file open between calls.

    The directory is made by the first operation that writes; reading an absent store is reading an empty one.
    ImageError where it is something else.
    """

    def __init__(self, directory: AnyPath | None = None, *, in_use: InUse = dict) -> None:
        raise NotImplementedError

    # what is there ------------------------------------------------------------------------------------------------
    def images(self, *, all: bool = True, filters: Iterable[str] = (), names: Iterable[str] = ()) -> list[ImageSummary]:
        """All images, newest first. `all` False: tagged ones only. `filters`: "dangling=true", "label=KEY[=VALUE]",
        "before=IMAGE", "since=IMAGE", "reference=PATTERN". `names`: as in `docker image ls REPOSITORY[:TAG]`."""
        raise NotImplementedError

    def resolve(self, name: str, platform: str | None = None) -> Image:
        """The image called `name`: a reference, an ID or unique beginning of one, or a digest.

        `platform` ("os/arch[/variant]") chooses from an index; None is this machine's, or the only one there is.
        ImageNotFound, or ImageError where a short ID is ambiguous.
        """
        raise NotImplementedError

    def inspect(self, name: str, platform: str | None = None) -> dict[str, Any]:
        """As `docker image inspect` shows it."""
        raise NotImplementedError

    def history(self, name: str, platform: str | None = None) -> list[HistoryRow]:
        raise NotImplementedError

    # names --------------------------------------------------------------------------------------------------------
    def tag(self, name: str, new: str) -> Removed | None:
        """Give the image the further name `new`, taking it from another image, which stays. Idempotent."""
        raise NotImplementedError

    def untag(self, name: str, names: Sequence[str] = ()) -> list[Removed]:
        """Take `names` (none: all) from the image, which stays, as podman does it."""
        raise NotImplementedError

    def remove(self, name: str, *, force: bool = False) -> list[Removed]:
        """As `docker rmi`: takes the name, and the image with its last one. ImageInUse where a mount uses it, or
        where it has several names and is named by ID, without `force`."""
        raise NotImplementedError

    # in and out ---------------------------------------------------------------------------------------------------
    def load(
        self, source: AnyPath | BinaryIO, *, platform: str | None = None, progress: Progress | None = None
    ) -> list[Loaded]:
        """Take in the images of a docker archive, an OCI archive or an OCI layout directory, told by its content, and
        compressed or not. ImageFormatError names what is wrong with it; the store is then as it was."""
        raise NotImplementedError

    def save(
        self,
        names: Iterable[str],
        target: AnyPath | BinaryIO,
        *,
        format: Literal["docker-archive", "oci-archive", "oci-dir"] = "docker-archive",
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Write images to a file (atomically), a stream, or a new directory. A name without a tag is all tags of the
        repository. The same images give the same bytes."""
        raise NotImplementedError

    def import_(
        self,
        source: AnyPath | BinaryIO,
        name: str | None = None,
        *,
        config: Callable[[Any], bytes] | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer, the tar of a root file system."""
        raise NotImplementedError

    def export(self, name: str, target: AnyPath | BinaryIO, *, platform: str | None = None) -> None:
        """Write the root file system of an image as one tar."""
        raise NotImplementedError

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """Make new images: add layers and images to the `Staging`, then `publish` it once; without, nothing happened.

        with store.staging() as staging:
            layer = staging.add_layer_file(path_from(staging.new_file()), written)     # or add_layer(stream)
            image = staging.add_image(config_bytes, [*base.descriptors, layer.descriptor])
            staging.publish({"name:tag": image})
        """
        raise NotImplementedError
        yield

    # upkeep -------------------------------------------------------------------------------------------------------
    def prune(self, *, all: bool = False, filters: Iterable[str] = ()) -> Pruned:
        """Remove dangling images (`all`: all that no mount uses), and files that nothing refers to."""
        raise NotImplementedError

    def verify(self, name: str | None = None) -> list[Fault]:
        """Recompute every digest, diff_id, size and count of the store, or of one image; list all that is wrong."""
        raise NotImplementedError
