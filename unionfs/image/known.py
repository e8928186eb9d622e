"""What was found out of a store's images when they were last looked up, to be known at once the next time.

    STORE/.unionfs/known.json   {"index": sha256 of index.json, "images": {NAME: {"id", "config", "layers", "blobs"}}}

To look an image up takes index.json, a manifest and a configuration, all compared with their digests, and the models
they are read by: a tenth of a second, which a container need not wait for each time. What was found holds as long as
index.json has the same bytes: all else has the name of its digest. Nothing is remembered of a failure.

Hold `locks.reading` from `recall` until the image is used where others see it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from unionfs.image.locks import OWN

_FILE: Final = b"known.json"
#: Images remembered; a file of more is begun anew.
_MOST: Final = 100


class KnownImage(NamedTuple):
    """`id`, and `config`: the object of that name in its configuration; `layers` diff_ids, base first, and `blobs` the
    digests of what they are stored as."""

    id: str
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    blobs: tuple[str, ...]


def recall(directory: bytes, name: str) -> KnownImage | None:
    """What was remembered by this name in the store `directory`, if it still holds."""
    try:
        return KnownImage(**_images(directory, _digest(directory))[name])
    except (KeyError, TypeError, OSError):
        return None


def remember(directory: bytes, name: str, image: KnownImage) -> None:
    """For `recall`, as of index.json as it is now. What cannot be written is not remembered."""
    with contextlib.suppress(OSError):
        digest = _digest(directory)
        images = _images(directory, digest)
        if len(images) >= _MOST:
            images = {}
        data = json.dumps({"index": digest, "images": images | {name: image._asdict()}}).encode()
        path = os.path.join(directory, OWN, _FILE)
        new = path + b".%d" % os.getpid()
        # Not flushed: half a file, after a power failure, is no JSON, and forgotten.
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        os.replace(new, path)


def _images(directory: bytes, digest: str) -> dict[str, Any]:
    try:
        with open(os.path.join(directory, OWN, _FILE), "rb") as file:
            told = json.load(file)
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(told, dict) or told.get("index") != digest or not isinstance(told.get("images"), dict):
        return {}
    return dict(told["images"])


def _digest(directory: bytes) -> str:
    with open(os.path.join(directory, b"index.json"), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
