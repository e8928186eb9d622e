"""`Step`: one thing that the engine does to a layer, or finds in one, as it is told to somebody who wants to know.

The functions that change layers report each step to `Stack.trace`, if it is not None: it is None unless somebody
listens, and nothing else is asked then. The functions that every walk, open, read and write go through report nothing.

Must not know: requests, transports, how a step is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from unionfs.layers.layer import Path

#: looked: `what` the layer has under the name: no, whiteout, opaque (whatever is below), or a type.
#: memory: the name was in use, so that no layer was asked. merged: a directory goes on in this layer.
#: listed: a directory was read, in `size` layers. copied-up: from a layer; `what` is file, metacopy, data (of a
#: metacopy) or a type, `size` bytes. placed: what was built in the work directory got its name. whiteout, opaque,
#: impure, redirect (to `other`), index, linked: the mark, entry or name that was made. removed, kept (without a name,
#: in the work directory), renamed (from `other`), exchanged (with `other`).
Kind = Literal[
    "looked", "memory", "merged", "listed", "copied-up", "placed", "whiteout", "opaque", "impure", "redirect", "index",
    "linked", "removed", "kept", "renamed", "exchanged",
]  # fmt: skip


class Step(NamedTuple):
    """`layer`: 0 is the upper, where most is done. `path`: there, or in the work directory (`work/…`, `index/…`)."""

    kind: Kind
    layer: int = 0
    path: Path = b""
    what: str = ""
    size: int = 0
    other: Path | None = None


Report = Callable[[Step], None]
