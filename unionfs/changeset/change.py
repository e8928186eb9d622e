"""`Change`: one path at which the union differs from its lowers, as `docker diff` names it, with what a writer needs.

Kinds (moby pkg/archive/changes.go): `A` added, `C` changed, `D` deleted. A parent of a change is itself `C`; a
removed directory is one `D` with nothing below it; a file where a directory was (or the reverse) is `C`. A fourth
kind, `=`, exists for the writer alone: unchanged, but below a directory that the layer declares opaque, so that it
must be written anew. `diff` never shows it.

Paths are relative to the root of the union, without a leading slash; b"" is the root.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from unionfs.vfs import DT_UNKNOWN, TYPES, Attr, NodeId, d_type

__all__ = ["TYPES", "Change", "Kind"]


class Kind(StrEnum):
    """What happened to a path. `SAME` is for the writer (see the module)."""

    ADDED = "A"
    CHANGED = "C"
    DELETED = "D"
    SAME = "="


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    `attr`: the merged object's attributes, None for D. `was`: the DT_* type that stood there before, DT_UNKNOWN where
    nothing did. `opaque`: the directory hides what lowers have in it and the layer must say so (`.wh..wh..opq`).
    `covered`: a D that an opaque directory above it says already. `link_to`: another name of the same inode that the
    layer leaves as it is in the lowers, so that this one can be written as a hard link to it. `node`: the union's
    handle, valid while the `Survey` that made it is open.
    """

    path: bytes
    kind: Kind
    attr: Attr | None = None
    was: int = DT_UNKNOWN
    opaque: bool = False
    covered: bool = False
    link_to: bytes | None = None
    node: NodeId = field(default=0, compare=False, repr=False)

    @property
    def type(self) -> int:
        """The DT_* of the merged object; of what was removed for a D."""
        return self.was if self.attr is None else d_type(self.attr.mode)

    @property
    def replaced(self) -> bool:
        """Another type stands there now, or an opaque directory: nothing of the old object is left."""
        return self.kind is Kind.CHANGED and (self.opaque or self.was != self.type)

    def text(self) -> str:
        """The line of `docker diff`: kind, one space, absolute path."""
        return f"{self.kind} /{os.fsdecode(self.path)}"

    def to_json(self) -> dict[str, object]:
        """For `json.dumps`. Bytes of a path that are no UTF-8 appear as lone surrogates U+DC80…U+DCFF (os.fsdecode)."""
        data: dict[str, object] = {"kind": str(self.kind), "path": "/" + os.fsdecode(self.path)}
        data["type"] = TYPES.get(self.type, "unknown")
        if self.kind is Kind.CHANGED and self.was != self.type:
            data["was"] = TYPES.get(self.was, "unknown")
        if self.opaque:
            data["opaque"] = True
        if self.attr is not None:
            attr = self.attr
            data |= {"mode": f"{attr.mode & 0o7777:04o}", "uid": attr.uid, "gid": attr.gid, "mtime_ns": attr.mtime_ns}
            if data["type"] == "file":
                data["size"] = attr.size
        return data


def sort_key(path: bytes) -> list[bytes]:
    """Order by path components, so that a directory is followed at once by what is below it (`a`, `a/b`, `a-b`)."""
    return path.split(b"/") if path else []


def shown(changes: Iterable[Change]) -> list[Change]:
    """What `diff` lists: no `=`, and never the root itself (as docker and podman)."""
    return [change for change in changes if change.kind is not Kind.SAME and change.path]
