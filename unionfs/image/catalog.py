"""`Catalog`: what index.json says at one moment, with the images behind it, read when asked for and compared with
their digests.

    entries     descriptors and names               index.json
    group       all entries of one image ID         what `ls` shows as one
    resolve     a name, ID or digest -> one Image

An image's ID is its config's digest. A multi-platform index has the ID of the image that suits this machine, or else
of its first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unionfs.errors import ImageError, ImageFormatError, ImageNotFound, ReferenceFormatError
from unionfs.image import platforms, reference
from unionfs.image.digest import SHORT, Digest
from unionfs.image.image import Found, Image, walk
from unionfs.image.layout import Entry, Layout
from unionfs.image.models import Descriptor

_is_hex = re.compile(r"[0-9a-f]{1,64}").fullmatch


@dataclass(frozen=True, slots=True)
class Group:
    """The entries of one image: its tags, and the manifests or indexes they mean."""

    id: Digest
    image: Image
    entries: Sequence[Entry]

    @property
    def names(self) -> tuple[str, ...]:
        """In order, each once."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries if entry.name is not None))

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(dict.fromkeys(entry.descriptor.digest for entry in self.entries))


#: What an ID names: an entry, and the one image where it is one of an index.
_Named = tuple[Entry, Image | None]


class Catalog:
    """A view of `layout`, whose `entries` were read before. Hold `Layout.reading` while it is used."""

    def __init__(self, layout: Layout, entries: Sequence[Entry]) -> None:
        self.layout, self.entries = layout, entries
        self._found: dict[Digest, Found] = {}
        self._host = platforms.host()

    def found(self, descriptor: Descriptor) -> Found:
        """What is below a descriptor. ImageError where it is damaged."""
        if descriptor.digest not in self._found:
            self._found[descriptor.digest] = walk(descriptor, self._read)
        return self._found[descriptor.digest]

    def _read(self, descriptor: Descriptor, limit: int) -> bytes | None:
        if self.layout.blobs.size(descriptor.digest) is None:
            return None
        return self.layout.blobs.read(descriptor.digest, limit, descriptor.size)

    def image_of(self, descriptor: Descriptor, platform: platforms.Wanted | None = None) -> Image | None:
        """The image for `platform`; with None for this machine, or the first. None where there is none."""
        images = self.found(descriptor).images
        pairs = [(image.platform, image) for image in images]
        if platform is not None:
            return platforms.choose(platform, pairs)
        return platforms.choose(self._host, pairs) or (images[0] if images else None)

    def id_of(self, descriptor: Descriptor) -> Digest:
        """Its image's ID; of what is no image, or is damaged, its own digest."""
        try:
            image = self.image_of(descriptor)
        except ImageError:
            image = None
        return descriptor.digest if image is None else image.id

    def groups(self) -> list[Group]:
        """Every image, in the order of index.json. What is no image, and what is damaged, is left out."""
        by_id: dict[Digest, tuple[Image, list[Entry]]] = {}
        for entry in self.entries:
            try:
                image = self.image_of(entry.descriptor)
            except ImageError:
                continue
            if image is not None:
                by_id.setdefault(image.id, (image, []))[1].append(entry)
        return [Group(id, image, entries) for id, (image, entries) in by_id.items()]

    def damaged(self) -> list[Entry]:
        """Those that cannot be read."""
        return [entry for entry in self.entries if not self._is_whole(entry.descriptor)]

    def _is_whole(self, descriptor: Descriptor) -> bool:
        try:
            self.found(descriptor)
        except ImageError:
            return False
        return True

    def diff_ids(self) -> set[Digest]:
        """Of all layers of all images, those of other platforms included."""
        found: set[Digest] = set()
        for entry in self.entries:
            try:
                images = self.found(entry.descriptor).images
            except ImageError:
                continue
            found.update(digest for image in images for digest in image.diff_ids)
        return found

    # names --------------------------------------------------------------------------------------------------------
    def resolve(self, name: str, platform: str | None = None) -> Image:
        """See `Store.resolve`."""
        entry, image = self.find(name)
        if image is None or platform is not None:
            wanted = None if platform is None else platforms.parse(platform)
            image = self.image_of(entry.descriptor, wanted)
            if image is None:
                raise self._no_platform(name, entry, wanted)
        same = (other.name for other in self.entries if other.descriptor.digest == entry.descriptor.digest)
        return image.named(tuple(dict.fromkeys(name for name in same if name is not None)))

    def _no_platform(self, name: str, entry: Entry, wanted: platforms.Wanted | None) -> ImageNotFound:
        there = ", ".join(str(image.platform) for image in self.found(entry.descriptor).images)
        if wanted is None or not there:
            return ImageNotFound(f"{name} is no image of a root file system")
        return ImageNotFound(
            f"image with reference {name} was found but does not provide the specified platform ({wanted})",
            hint=f"there is {there}",
        )

    def find(self, name: str) -> _Named:
        """The entry that `name` means: a whole digest or ID, then a name, then the beginning of an ID, as docker looks;
        and the one image, where an ID names one of an index. ImageNotFound, or ImageError for an ambiguous ID."""
        entry = self.named(name)
        if entry is not None:
            return entry, None
        found = self._by_digest(name) or self._by_beginning(name)
        if found is None:
            raise no_such(name)
        return found

    def named(self, name: str) -> Entry | None:
        """The entry with exactly this name, tag `latest` where it says none, or the digest it says.

        What is a whole digest of something here is no name, whatever another tool has called so: who asks for a digest
        is not given anything else."""
        if self._by_digest(name) is not None:
            return None
        try:
            wanted = reference.parse_normalized(name)
        except ReferenceFormatError:
            # A name that another tool has given, which is no reference.
            return _last(entry for entry in self.entries if entry.name == name)
        if wanted.digest is not None:
            return _last(
                entry
                for entry in self.entries
                if wanted.digest in (entry.descriptor.digest, self.id_of(entry.descriptor))
                and (entry.name is None or repository(entry.name) == wanted.familiar_name)
            )
        familiar = wanted.with_default_tag().familiar()
        return _last(entry for entry in self.entries if entry.name in (familiar, name))

    def _ids(self, entry: Entry) -> dict[Digest, Image | None]:
        """What an entry goes by: its digest, and ID and digest of each image."""
        ids: dict[Digest, Image | None] = {}
        try:
            for image in self.found(entry.descriptor).images:
                ids |= {image.id: image, image.descriptor.digest: image}
        except ImageError:
            pass
        return ids | {entry.descriptor.digest: None}

    def _by_digest(self, text: str) -> _Named | None:
        try:
            digest = Digest(f"sha256:{text}" if re.fullmatch(r"[0-9a-f]{64}", text) else text)
        except ImageFormatError:
            return None
        there = [(entry, self._ids(entry)) for entry in self.entries]
        return self._best((entry, ids[digest]) for entry, ids in there if digest in ids)

    def _by_beginning(self, text: str) -> _Named | None:
        beginning = text.removeprefix("sha256:")
        if not _is_hex(beginning):
            return None
        matches: dict[Digest, list[_Named]] = {}
        for entry in self.entries:
            for id, image in self._ids(entry).items():
                if id.hex.startswith(beginning):
                    # A manifest's digest and its image's ID are one image.
                    key = image.id if image is not None else self.id_of(entry.descriptor)
                    matches.setdefault(key, []).append((entry, image))
        if len(matches) > 1:
            listed = ", ".join(sorted(digest.hex[: max(SHORT, len(beginning) + 4)] for digest in matches))
            raise ImageError(f"ambiguous digest string: {text}", hint=f"it begins {len(matches)} IDs: {listed}")
        return self._best(pair for pairs in matches.values() for pair in pairs)

    def _best(self, named: Iterable[_Named]) -> _Named | None:
        """Of several entries with one ID the last, but no index of several images where there is the image itself."""
        pairs = list(named)
        whole = [pair for pair in pairs if not self.is_part(*pair)]
        return (whole or pairs)[-1] if pairs else None

    def is_part(self, entry: Entry, image: Image | None) -> bool:
        """Whether this, that `find` has found, is an image of an index that goes by the ID of another one."""
        return image is not None and image.id != self.id_of(entry.descriptor)


def no_such(name: str) -> ImageNotFound:
    """In docker's words, which tell the tag that was meant."""
    try:
        shown = reference.parse_normalized(name).with_default_tag().familiar()
    except ReferenceFormatError:
        shown = name
    return ImageNotFound(f"No such image: {shown}", hint="unionfs image ls lists those there are")


def _last(entries: Iterable[Entry]) -> Entry | None:
    """The newest of several with one name: what another tool has added stands further down."""
    found = None
    for entry in entries:
        found = entry
    return found


def repository(name: str) -> str:
    """The repository of a stored name."""
    try:
        return reference.parse_normalized(name).familiar_name
    except ReferenceFormatError:
        return name
