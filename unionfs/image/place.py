"""Where a store of images is, and what they are called. By itself: some only need to know that, in a hurry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Final

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: The annotation of a descriptor in index.json that names the image (image-spec annotations.md).
REF_NAME: Final = "org.opencontainers.image.ref.name"
#: Bytes of an index.json. An index of a hundred thousand images.
MAX_INDEX: Final = 64 << 20


def store_directory(path: AnyPath | None = None, environ: Mapping[str, str] = os.environ) -> bytes:
    """`path` (--store), else $UNIONFS_STORE, else `unionfs/images` in the user's data directory ($XDG_DATA_HOME,
    ~/.local/share; of macOS its own)."""
    chosen = path or environ.get("UNIONFS_STORE")
    if not chosen:
        import platformdirs

        chosen = os.path.join(platformdirs.user_data_dir("unionfs"), "images")
    return os.path.abspath(os.fsencode(chosen))


def stored_names(directory: bytes) -> Iterator[str]:
    """The names in the store's index.json, unchecked. None of a store that is missing or damaged."""
    try:
        with open(os.path.join(directory, b"index.json"), "rb") as file:
            manifests = json.loads(file.read(MAX_INDEX))["manifests"]
        named = [(one.get("annotations") or {}).get(REF_NAME) for one in manifests]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return
    yield from (name for name in named if isinstance(name, str))
