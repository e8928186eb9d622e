"""The store's notes of layers that an image there has and that were not fetched: where each comes from.

    STORE/.unionfs/lazy/ALGORITHM-HEX     JSON, named by the digest of the blob that is missing

A note is written before an image that needs it can be seen, and removed after the blob has come, or when nothing needs
that any more: under the lock `content` (image.layout), held from the one to the other. Where there is the blob, a note
says nothing. A layer is given to whoever opens it by the path that its blob has or will have, so that nobody else needs
to know of notes.

INVARIANT: a note says of a blob what one manifest said, and stays as long as any image needs it. Another manifest may
say that the same blob has another table of contents, and who serves it may show that one: so a note is replaced only by
one with the same digest of that table; the second image gets the blob whole, which then is what its digest says.

Notes are the store's, as index.json is: without them the image has to be pulled again. One that somebody else could
have written is not looked at, for it says which hosts are spoken to.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from unionfs.changeset.replacing import replace_file
from unionfs.errors import ImageError, ImageFormatError
from unionfs.image.digest import Digest
from unionfs.image.layout import Layout
from unionfs.image.lazy.contents import TocPlace, toc_place
from unionfs.image.models import Descriptor, parse_json

_DIRECTORY: Final = b".unionfs/lazy"
_MAX: Final = 1 << 20


class Origin(NamedTuple):
    """A repository, and how its registry was reached: as for RegistryOptions. `name` is of the image, in full."""

    name: str
    insecure: bool = False
    cert_dir: str | None = None
    authfile: str | None = None


class Note(NamedTuple):
    """`layer` as its manifest has it. `end`: where its chunks end in the blob. `place`: see contents.toc_place."""

    layer: Descriptor
    diff_id: Digest
    place: TocPlace
    end: int
    origin: Origin


def write_note(layout: Layout, note: Note) -> bool:
    """Durably. False, and nothing is written, where there is a note that contradicts it."""
    path, digest = _path(layout.directory, note.layer.digest), note.layer.digest
    with layout.alone():
        there = _read(path, digest)
        if there is not None and there.place.digest != note.place.digest:
            return False
        _write(layout, path, note)
    return True


def _write(layout: Layout, path: bytes, note: Note) -> None:
    directory = os.path.join(layout.directory, _DIRECTORY)
    os.makedirs(directory, 0o700, exist_ok=True)
    document = {
        "layer": {**note.layer.bare(), "annotations": dict(note.layer.annotations)},
        "diffId": note.diff_id,
        "end": note.end,
        "name": note.origin.name,
        "insecure": note.origin.insecure,
        "certDir": note.origin.cert_dir,
        "authfile": note.origin.authfile,
    }
    replace_file(path, json.dumps(document).encode(), 0o600)


def note_of(layout: Layout, digest: Digest) -> Note | None:
    """The note of a layer that was not fetched. None where there is none, or its blob has come."""
    return None if layout.blobs.size(digest) is not None else _read(_path(layout.directory, digest), digest)


def note_at(path: bytes) -> Note | None:
    """The note of the layer whose blob is to be at `path`, which is in no other place than that of a store."""
    directory, hexadecimal = os.path.split(path)
    blobs, algorithm = os.path.split(directory)
    root, name = os.path.split(blobs)
    if name != b"blobs" or os.path.lexists(path):
        return None
    try:
        digest = Digest(f"{algorithm.decode()}:{hexadecimal.decode()}")
    except (ImageFormatError, UnicodeDecodeError):
        return None
    return _read(_path(root, digest), digest)


def forget_note(layout: Layout, digest: Digest) -> Note | None:
    """The note that there was. Idempotent."""
    path = _path(layout.directory, digest)
    there = _read(path, digest)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return there


def noted(layout: Layout) -> Iterator[Digest]:
    """The layers that there are notes of."""
    try:
        names = os.listdir(os.path.join(layout.directory, _DIRECTORY))
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(ImageFormatError, UnicodeDecodeError):
            yield Digest(name.decode().replace("-", ":", 1))


def not_fetched(digest: Digest, note: Note) -> ImageError:
    """What to say of a blob that is needed and has not come."""
    return ImageError(f"the layer {digest} was not fetched yet", hint=f"unionfs image pull {note.origin.name}")


def _path(root: bytes, digest: Digest) -> bytes:
    return os.path.join(root, _DIRECTORY, f"{digest.algorithm}-{digest.hex}".encode())


def _read(path: bytes, digest: Digest) -> Note | None:
    try:
        with open(path, "rb") as file:
            st = os.fstat(file.fileno())
            if st.st_uid not in (0, os.geteuid()) or st.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            document = parse_json(file.read(_MAX + 1), os.fsdecode(path), _MAX)
            return _note(document, digest)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ImageFormatError):
        return None


def _note(document: Any, digest: Digest) -> Note | None:
    if not isinstance(document, dict):
        return None
    layer = Descriptor.of(document.get("layer"), "a note")
    place, end, name = toc_place(layer), document.get("end"), document.get("name")
    if layer.digest != digest or place is None or type(end) is not int or not isinstance(name, str):
        return None
    origin = Origin(
        name, document.get("insecure") is True, _text(document.get("certDir")), _text(document.get("authfile"))
    )
    return Note(layer, Digest(str(document.get("diffId"))), place, end, origin)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
