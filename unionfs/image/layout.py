"""A directory that is an OCI image layout (image-spec image-layout.md), with a directory of our own, `.unionfs`, in it.

    Layout      its index.json, blobs and locks
    Entry       one descriptor of index.json, with the name that its annotation says

index.json is read whole and replaced whole; fields, descriptors and annotations of others stay in it as they are.

Locks (flock(2); order: first `content`, then `index`):

    .unionfs/content               blobs, and that index.json leads to them: shared by whoever reads blobs, and from
                                   publishing new ones until index.json leads to them; exclusive for who removes any
    .unionfs/index                 index.json, notes: exclusive from reading them to replacing them. Who only reads
                                   needs none
    .unionfs/staging/RANDOM/alive  a workspace: exclusive from its making, which is under `content`, to its end, by its
                                   process. Who sweeps tries it, under `content` exclusive, and does not wait

INVARIANT: nobody waits for a network, a pipe or a person while holding `content` or `index`. What takes long to come is
written to a workspace, for which no lock of others is needed; what is to be read for long is opened first
(`blobs.HeldBlobs`). So what was there when `content` was held may be gone when it is held again: whoever counts on a
blob looks again before index.json leads to it.

Tools of others lock nothing. They add blobs first and change index.json last, as we do; a `prune` at that very moment
would remove what they added.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from unionfs.changeset.replacing import replace_file
from unionfs.errors import ImageError, ImageFormatError, ReferenceFormatError
from unionfs.image import locks, reference
from unionfs.image.blobs import Blobs, Workspace
from unionfs.image.models import Descriptor, Index, encode_json, parse_json
from unionfs.image.place import MAX_INDEX, REF_NAME

#: What containerd and docker call an image in full; `REF_NAME` is then its tag alone.
CONTAINERD_NAME: Final = "io.containerd.image.name"
VERSION_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'

_EMPTY: Final = b'{"schemaVersion":2,"manifests":[]}'


def familiar(text: str) -> str:
    """A name as it is stored and shown: familiar, with a tag. What is no reference stays as it is, others' text."""
    try:
        return reference.parse_normalized(text).with_default_tag().familiar()
    except ReferenceFormatError:
        return text


@dataclass(frozen=True, slots=True)
class Entry:
    """One descriptor of index.json. `name` familiar, None where it has none; `raw` as it stands there."""

    descriptor: Descriptor
    name: str | None
    raw: Mapping[str, Any]

    def renamed(self, name: str | None) -> dict[str, Any]:
        """The JSON of the same descriptor under another name, or none."""
        annotations = {key: value for key, value in (self.raw.get("annotations") or {}).items() if key != REF_NAME}
        if name is not None:
            annotations[REF_NAME] = name
        raw = {key: value for key, value in self.raw.items() if key != "annotations"}
        return raw | ({"annotations": annotations} if annotations else {})


def entry_of(raw: Mapping[str, Any], what: str) -> Entry:
    descriptor = Descriptor.of(raw, what)
    name = descriptor.annotations.get(REF_NAME)
    return Entry(descriptor, familiar(name) if name else None, raw)


#: What a crash leaves of `create`: of two files also what they have before their names (changeset.replacing).
_is_begun = re.compile(rb"blobs|index\.json|\.unionfs|\.(?:index\.json|oci-layout)\.[0-9a-f]+").fullmatch


class Layout:
    """The layout in `directory`, which need not exist before `create`. `waiting`: told when a lock is waited for."""

    def __init__(self, directory: bytes, waiting: locks.Waiting | None = None) -> None:
        self.directory, self._waiting = directory, waiting
        self.blobs = Blobs(directory)
        self._own = os.path.join(directory, locks.OWN)
        self._staging = os.path.join(self._own, b"staging")
        self._index = os.path.join(directory, b"index.json")

    # the directory ------------------------------------------------------------------------------------------------
    def exists(self) -> bool:
        """Whether there is one. ImageError where there is something else."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            names = [b""]
        if b"oci-layout" in names:
            self._check_version()
            return True
        if all(map(_is_begun, names)):
            return False
        shown = os.fsdecode(self.directory)
        raise ImageError(f"{shown} is no image store", hint="name an empty or new directory, or an OCI image layout")

    def create(self) -> None:
        """Make what is missing. Idempotent; the file that says that it is a layout comes last."""
        there = self.exists()
        os.makedirs(self.directory, mode=0o700, exist_ok=True)  # images are nobody else's business
        os.makedirs(os.path.join(self.blobs.root, b"sha256"), exist_ok=True)
        os.makedirs(self._staging, mode=0o700, exist_ok=True)
        if there:
            return
        with locks.locked(self.directory, locks.INDEX, exclusive=True):
            if not os.path.exists(self._index):
                replace_file(self._index, _EMPTY)
            replace_file(os.path.join(self.directory, b"oci-layout"), VERSION_FILE)

    def _check_version(self) -> None:
        path = os.path.join(self.directory, b"oci-layout")
        with open(path, "rb") as file:
            check_version(file.read(1 << 16), os.fsdecode(path))

    # index.json ---------------------------------------------------------------------------------------------------
    def entries(self) -> list[Entry]:
        """What stands in index.json now; nothing where there is no store."""
        if not self.exists():
            return []
        return self._parse(self._read())

    def update(self, change: Callable[[list[Entry]], list[dict[str, Any]]]) -> None:
        """Replace the descriptors of index.json by what `change` makes of them, if that is something else."""
        with self.alone():
            document = self._read()
            manifests = change(self._parse(document))
            if manifests != document.get("manifests"):
                replace_file(self._index, encode_json(document | {"manifests": manifests}))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else replaces index.json, or writes a note (image.lazy.notes)."""
        with locks.locked(self.directory, locks.INDEX, exclusive=True, waiting=self._waiting):
            yield

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._index, "rb") as file:
                data = file.read(MAX_INDEX + 1)
        except FileNotFoundError:
            shown = os.fsdecode(self.directory)
            raise ImageFormatError(f"there is no index.json in {shown}", hint="the store is damaged") from None
        document = parse_json(data, os.fsdecode(self._index), MAX_INDEX)
        Index.of(document, os.fsdecode(self._index))
        assert isinstance(document, dict)  # the model has said so
        return document

    def _parse(self, document: dict[str, Any]) -> list[Entry]:
        shown = os.fsdecode(self._index)
        return [entry_of(raw, shown) for raw in document.get("manifests") or []]

    # locks and staging --------------------------------------------------------------------------------------------
    @contextmanager
    def reading(self) -> Iterator[None]:
        """While blobs are read: nobody removes any. Where the store may not be written, nothing can be locked."""
        with locks.reading(self.directory, self._waiting):
            yield

    @contextmanager
    def removing(self, blocking: bool = True) -> Iterator[bool]:
        """While blobs are removed: nobody reads or publishes any. False, without `blocking`, where somebody does."""
        taken = locks.locked(self.directory, locks.CONTENT, exclusive=True, blocking=blocking, waiting=self._waiting)
        try:
            with taken:
                yield True
        except BlockingIOError:
            if blocking:
                raise
            yield False

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A place for new blobs, gone at the end. Nobody waits for who has one."""
        self.create()
        with self.reading():
            space = Workspace(os.path.join(self._staging, secrets.token_hex(8).encode()), self.blobs)
        try:
            yield space
        finally:
            space.close()

    def workspaces(self, *, alive: bool) -> list[bytes]:
        """The directories of those that are open; or of those whose process died. Sure under `removing` only."""
        try:
            paths = [os.path.join(self._staging, name) for name in os.listdir(self._staging)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [path for path in paths if locks.is_alive(path) == alive]


def check_version(data: bytes, what: str) -> None:
    """`oci-layout`: ImageFormatError for a version that is not known."""
    document = parse_json(data, what)
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if version != "1.0.0":
        raise ImageFormatError(f"{what}: the image layout version {str(version)[:40]!r} is not known")
