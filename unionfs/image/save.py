"""Giving out images: docker's archive in the form that docker has written since 25 (an OCI layout with `manifest.json`
in it, which older ones, podman and skopeo read as well), an OCI archive, or an OCI layout directory.

    manifest.json   [{"Config", "RepoTags", "Layers", "LayerSources"}], paths in blobs/      docker's archive only
    index.json      descriptors, with the tag and (docker's archive) the whole name as annotations
    oci-layout, blobs/sha256/…

Blobs go out as they are stored. Nothing depends on time, order of loading or machine: members are sorted, their times
0, their owner root. Of an index all platforms go that are here.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

from unionfs.changeset import tar_format as tar
from unionfs.changeset.replacing import fsync_path, replacing
from unionfs.errors import ImageError, ReferenceFormatError
from unionfs.image import mediatypes, platforms, reference
from unionfs.image.blobs import CHUNK, LOAD_AGAIN, Blobs, HeldBlobs
from unionfs.image.catalog import Catalog, repository
from unionfs.image.digest import Digest
from unionfs.image.image import Found, Image
from unionfs.image.layout import CONTAINERD_NAME, VERSION_FILE
from unionfs.image.models import Descriptor, encode_json
from unionfs.image.place import REF_NAME

Format = Literal["docker-archive", "oci-archive", "oci-dir"]
Progress = Callable[[int], None]
FORMATS: Final = ("docker-archive", "oci-archive", "oci-dir")

#: What a member holds: its bytes, or a blob of the store.
Content = bytes | Descriptor


@dataclass(frozen=True, slots=True)
class Selected:
    """One image, or index, to go out under these names (familiar). `main`: the image that `manifest.json` tells of."""

    descriptor: Descriptor
    names: Sequence[str]
    images: Sequence[Image]
    main: Image
    found: Found


def select(catalog: Catalog, names: Iterable[str], platform: str | None) -> list[Selected]:
    """What `names` mean to `docker save`: a name with a tag, a repository with all of its tags, or an ID, of which the
    name does not go out. Each image once, with all names it was given by, in order."""
    wanted = None if platform is None else platforms.parse(platform)
    chosen: dict[Digest, tuple[Descriptor, list[str], Found, Image]] = {}
    for name in names:
        for descriptor, label in _meant(catalog, name):
            image = catalog.image_of(descriptor, wanted)
            if image is None:
                image = catalog.resolve(name, platform)  # says what is there
            found = catalog.found(descriptor)
            descriptor = descriptor if wanted is None else image.descriptor
            _, labels, _, _ = chosen.setdefault(descriptor.digest, (descriptor, [], found, image))
            if label is not None and label not in labels:
                labels.append(label)
    return [
        Selected(descriptor, labels, [image] if wanted is not None else found.images, image, found)
        for descriptor, labels, found, image in chosen.values()
    ]


def _meant(catalog: Catalog, name: str) -> list[tuple[Descriptor, str | None]]:
    try:
        parsed = reference.parse_normalized(name)
    except ReferenceFormatError:
        parsed = None
    if parsed is not None and parsed.name_only:
        tags = [entry for entry in catalog.entries if entry.name and repository(entry.name) == parsed.familiar_name]
        if tags:
            return [(entry.descriptor, entry.name) for entry in sorted(tags, key=lambda entry: entry.name or "")]
    entry, image = catalog.find(name)
    exact = catalog.named(name)
    label = entry.name if exact is not None and "@" not in name else None
    return [(entry.descriptor if image is None else image.descriptor, label)]


def contents(selected: Sequence[Selected], format: Format, blobs: Blobs) -> dict[str, Content]:
    """The files of the layout, by name."""
    files: dict[str, Content] = {"oci-layout": VERSION_FILE}
    index: list[dict[str, Any]] = []
    for one in selected:
        index += [_entry(one.descriptor, name, format) for name in one.names] or [_entry(one.descriptor, None, format)]
        files |= _blobs(one, blobs)
    files["index.json"] = encode_json({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": index})
    if format == "docker-archive":
        files["manifest.json"] = encode_json([_archive_entry(one) for one in selected])
    return files


def digests(files: Mapping[str, Content]) -> list[Digest]:
    """The blobs that `write_archive` reads, in its order."""
    return [content.digest for _, content in sorted(files.items()) if not isinstance(content, bytes)]


def _entry(descriptor: Descriptor, name: str | None, format: Format) -> dict[str, Any]:
    return descriptor.bare() | ({"annotations": _annotations(name, format)} if name is not None else {})


def _annotations(name: str, format: Format) -> dict[str, str]:
    """docker's archive has the tag, as containerd writes it; others the whole name, as podman writes and reads it."""
    try:
        full = reference.parse_normalized(name)
    except ReferenceFormatError:
        return {REF_NAME: name}
    if format != "docker-archive":
        return {REF_NAME: str(full)}
    return {CONTAINERD_NAME: str(full), REF_NAME: full.tag or "latest"}


def _archive_entry(one: Selected) -> dict[str, Any]:
    layers = one.main.layers
    sources = {
        str(diff_id): {"mediaType": layer.media_type, "size": layer.size, "digest": str(layer.digest)}
        for layer, diff_id in zip(layers, one.main.diff_ids, strict=True)
    }
    return {
        "Config": blob_name(one.main.id),
        "RepoTags": list(one.names) or None,
        "Layers": [blob_name(layer.digest) for layer in layers],
        "LayerSources": sources,
    }


def _blobs(one: Selected, blobs: Blobs) -> dict[str, Content]:
    descriptors: dict[Digest, Content] = {}
    if one.descriptor.digest == one.main.descriptor.digest:
        descriptors[one.main.descriptor.digest] = one.main.manifest_bytes
        descriptors[one.main.id] = one.main.config_bytes
    else:
        descriptors |= one.found.documents
        # What belongs to platforms, signatures and so on that are not here is left out, as docker does.
        descriptors |= {digest: blob for digest, blob in one.found.blobs.items() if blobs.size(digest) is not None}
    for image in one.images:
        descriptors |= {layer.digest: layer for layer in image.layers}
    return {blob_name(digest): content for digest, content in descriptors.items()}


def blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


# writing --------------------------------------------------------------------------------------------------------------
def write_archive(
    files: Mapping[str, Content], blobs: HeldBlobs, out: BinaryIO, progress: Progress | None = None
) -> None:
    """The files as one tar, in order of their names, into a stream that stays open. ImageError for a blob that is
    missing or not of its size."""
    counter = _Counter(out, progress)
    directories: set[str] = set()
    for name in sorted(files):
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in directories:
                directories.add(directory)
                counter.write(tar.member(tar.Fields(directory.encode(), tar.DIR, 0o755)))
        content = files[name]
        size = len(content) if isinstance(content, bytes) else content.size
        with nullcontext() if isinstance(content, bytes) else _blob(blobs, content) as source:
            counter.write(tar.member(tar.Fields(name.encode(), tar.REG, 0o644, size=size)))
            if isinstance(content, bytes):
                counter.write(content)
            else:
                assert source is not None
                counter.copy(source, size)
        counter.write(bytes(tar.padding(size)))
    counter.write(tar.TRAILER)
    out.flush()


@contextmanager
def archive_target(target: bytes | BinaryIO) -> Iterator[BinaryIO]:
    """A file that appears when the block ends well, or an open stream as it is."""
    if not isinstance(target, bytes):
        yield target
        return
    try:
        with replacing(target) as out:
            yield out
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        raise ImageError(f"{os.fsdecode(target)} cannot be written: {error.strerror}") from error


def write_directory(files: Mapping[str, Content], blobs: HeldBlobs, directory: bytes) -> None:
    """The files below a new directory, which appears whole, or not at all. ImageError where there is something."""
    parent, name = os.path.split(os.path.abspath(directory))
    temporary = os.path.join(parent, b".%b.%b" % (name[:200], secrets.token_hex(6).encode()))
    shown = os.fsdecode(directory)
    try:
        os.mkdir(temporary)
    except OSError as error:
        raise ImageError(f"{shown} cannot be written: {error.strerror}") from error
    try:
        for path, content in files.items():
            target = os.path.join(temporary, path.encode())
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "xb", buffering=0) as out:
                writer = _Counter(out, None)
                if isinstance(content, bytes):
                    writer.write(content)
                else:
                    with _blob(blobs, content) as source:
                        writer.copy(source, content.size)
                os.fsync(out.fileno())
        for made, _, _ in os.walk(temporary):
            fsync_path(made)
        os.rename(temporary, directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise ImageError(f"{shown} exists and is not empty", hint="name a new directory") from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(parent)


@contextmanager
def _blob(blobs: HeldBlobs, descriptor: Descriptor) -> Iterator[BinaryIO]:
    with blobs.open(descriptor.digest) as source:
        size = os.fstat(source.fileno()).st_size
        if size != descriptor.size:
            raise ImageError(
                f"the blob {descriptor.digest} has {size} bytes, not {descriptor.size}: it is damaged", hint=LOAD_AGAIN
            )
        yield source


class _Counter:
    """Writes to a stream, and tells how much."""

    def __init__(self, out: BinaryIO, progress: Progress | None) -> None:
        self._out, self._progress = out, progress
        self._done = 0

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]
        self._told(len(data))

    def copy(self, source: BinaryIO, size: int) -> None:
        while size:
            data = source.read(min(size, CHUNK))
            if not data:
                raise ImageError("a blob became shorter while it was read")
            self.write(data)
            size -= len(data)

    def _told(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done)
