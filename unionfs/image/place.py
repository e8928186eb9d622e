"""Where a store of images is. By itself, since some only need to know that."""

from __future__ import annotations

import os
from collections.abc import Mapping

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def store_directory(path: AnyPath | None = None, environ: Mapping[str, str] = os.environ) -> bytes:
    """`path` (--store), else $UNIONFS_STORE, else `unionfs/images` in the user's data directory ($XDG_DATA_HOME,
    ~/.local/share; of macOS its own)."""
    chosen = path or environ.get("UNIONFS_STORE")
    if not chosen:
        import platformdirs

        chosen = os.path.join(platformdirs.user_data_dir("unionfs"), "images")
    return os.path.abspath(os.fsencode(chosen))
