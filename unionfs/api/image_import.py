"""`import_image`: an image of one layer, made of a tar."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO

from unionfs.image import commit
from unionfs.image.place import AnyPath
from unionfs.image.results import StoredLayer
from unionfs.image.store import Progress, Store


def import_image(
    store: Store,
    source: AnyPath | BinaryIO,
    name: str | None = None,
    *,
    changes: Iterable[str] = (),
    message: str | None = None,
    platform: str | None = None,
    epoch: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Make an image of one layer, the tar (compressed or not) of a root file system, and return its ID.

    `name` None: it is dangling. `changes` as in `commit -c`; `epoch` (seconds) is the time it says it was made at, else
    now. ChangeError, TarError or ImageError, and then nothing has happened.
    """
    created = commit.now(epoch)
    shown = "-" if hasattr(source, "read") else os.fsdecode(source)
    # docker's words (daemon/containerd image_import.go).
    comment = message if message is not None else f"Imported from {shown}"

    def config(layer: StoredLayer | None) -> bytes:
        diff_id = "sha256:" + "0" * 64 if layer is None else layer.diff_id
        step = commit.Step(diff_id, "", comment)
        return commit.child(None, [step], created=created, changes=changes, platform=platform)

    config(None)  # what is wrong with the changes is said before gigabytes are read
    return store.import_(source, name, config=config, progress=progress).id
