"""What the store's operations return: small frozen values, to be shown by whoever asked.

Names of images are familiar references ("busybox:latest", "example.com/a/b:1"). Sizes are bytes, times are in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from unionfs.image.digest import Digest
from unionfs.image.models import Descriptor


class Use(NamedTuple):
    """Who uses an image, "the mount on /mnt", and what has to be done first to remove it."""

    who: str
    first: str


#: Which digests (image IDs and diff_ids) are in use.
InUse = Callable[[], Mapping[str, Use]]


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer in the store: the descriptor of its blob, and digest and size (bytes) of the uncompressed tar."""

    descriptor: Descriptor
    diff_id: Digest
    size: int


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """One image, as `docker image ls` lists it.

    `names`: all tags, () for a dangling image. `digests`: of its manifests (or indexes), as they stand in index.json.
    `size`: of all layers uncompressed, of a layer that never was unpacked as it is stored. `content_size`: of its
    blobs. `platforms`: those that are here.
    """

    id: Digest
    names: tuple[str, ...]
    digests: tuple[Digest, ...]
    created: datetime | None
    size: int
    content_size: int
    platforms: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One step, newest first. `id` None is docker's "<missing>": only the top one is an image here."""

    id: Digest | None
    created: datetime | None
    created_by: str
    size: int
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """A name that is gone, or an image or layer."""

    kind: Literal["untagged", "deleted"]
    what: str

    @property
    def text(self) -> str:
        """The line of `docker rmi`."""
        return f"{self.kind.capitalize()}: {self.what}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image of an archive. `name` None: it has none there. `renamed`: the ID of the image that had the name."""

    id: Digest
    name: str | None = None
    renamed: Digest | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The lines of `docker load`."""
        if self.name is None:
            return (f"Loaded image ID: {self.id}",)
        done = f"Loaded image: {self.name}"
        if self.renamed is None:
            return (done,)
        return (
            f"The image {self.name} already exists, renaming the old one with ID {self.renamed} to empty string",
            done,
        )


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed, and the bytes that its files had."""

    removed: tuple[Removed, ...]
    reclaimed: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a store: `what` is the blob, image or file, `message` says what is wrong with it. `absent`: it
    is a layer that was never fetched, which is no damage."""

    what: str
    message: str
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"
