"""`unionfs mounts`."""

from __future__ import annotations

import os

from unionfs import api

from .options import AsJson
from .output import as_json, text


def mounts(json: AsJson = False) -> None:
    """List the mounts: mountpoint, state, layers topmost first, upper."""
    found = api.mounts()
    if json:
        from . import schemas

        as_json([schemas.Mount.of(status) for status in found])
        return
    for status in found:
        layers = ":".join(os.fsdecode(layer).replace(":", "\\:") for layer in status.layers) or "-"
        upper = "-" if status.upper is None else os.fsdecode(status.upper)
        text(f"{os.fsdecode(status.mountpoint)}\t{status.state}\t{layers}\t{upper}")
