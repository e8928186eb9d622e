"""The JSON of differences with their reasons, and of a snapshot; cli/schemas.py has the rules."""

from __future__ import annotations

import base64
import os
from typing import Literal, cast

from pydantic import Field

from unionfs import api

from .schemas import Change, Model, Name


class Object(Model):
    """One side of a difference. null: it has none of that, or it is not known."""

    type: str
    mode: str | None = Field(description="permission bits, four octal digits")
    uid: int | None
    gid: int | None
    size: int | None = Field(description="bytes, of regular files")
    mtime_ns: int | None = Field(description="nanoseconds since the epoch")
    target: Name | None = Field(description="of symbolic links")
    device: str | None = Field(description="MAJOR:MINOR, of devices")
    xattrs: dict[Name, str] | None = Field(description="by name, in base64: those that differ, where any do")

    @classmethod
    def of(cls, state: api.State | None) -> Object | None:
        if state is None:
            return None
        attr, known, kind = state.attr, state.known, state.kind
        owned, timed = api.Reason.OWNER in known, api.Reason.MTIME in known
        return cls(
            type=kind,
            mode=f"{attr.mode & 0o7777:04o}" if api.Reason.MODE in known else None,
            uid=attr.uid if owned else None,
            gid=attr.gid if owned else None,
            size=attr.size if kind == "file" and api.Reason.SIZE in known else None,
            mtime_ns=attr.mtime_ns if timed else None,
            target=None if state.target is None else os.fsdecode(state.target),
            device=f"{os.major(attr.rdev)}:{os.minor(attr.rdev)}" if kind in ("char", "block") else None,
            xattrs=None
            if state.xattrs is None
            else {os.fsdecode(name): base64.b64encode(value).decode() for name, value in state.xattrs.items()},
        )


class Difference(Change):
    """One object of `unionfs diff A B --json`, or with `--reasons` (a list of these)."""

    reasons: list[str] = Field(description="in what they differ, of C; none for a directory above others")
    before: Object | None = Field(description="null for A")
    after: Object | None = Field(description="null for D")

    @classmethod
    def of_two(cls, difference: api.Difference) -> Difference:
        before, after = Object.of(difference.before), Object.of(difference.after)
        there = after or before
        assert there is not None
        return cls(
            kind=cast(Literal["A", "C", "D"], difference.kind.value),
            path="/" + os.fsdecode(difference.path),
            type=there.type,
            was=before.type if before is not None and after is not None and before.type != after.type else None,
            opaque=False,
            mode=None if after is None else after.mode,
            uid=None if after is None else after.uid,
            gid=None if after is None else after.gid,
            size=None if after is None else after.size,
            mtime_ns=None if after is None else after.mtime_ns,
            reasons=[reason.value for reason in difference.reasons],
            before=before,
            after=after,
        )


class Tally(Model):
    """How much differs in a directory and below: `unionfs diff --stat --json` (a list of these), `--summary --json`."""

    path: Name = Field(description="the directory; / is all")
    added: int
    changed: int
    deleted: int
    bytes_added: int = Field(description="of regular files that came, or whose content is another")
    bytes_deleted: int = Field(description="of regular files that went, or whose content was another")
    reasons: dict[str, int] = Field(description="how many changed objects have each")

    @classmethod
    def of(cls, path: bytes, tally: api.Tally) -> Tally:
        return cls(
            path="/" + os.fsdecode(path),
            added=tally.added,
            changed=tally.changed,
            deleted=tally.deleted,
            bytes_added=tally.bytes_added,
            bytes_deleted=tally.bytes_deleted,
            reasons={reason.value: tally.reasons[reason] for reason in api.Reason if reason in tally.reasons},
        )


class Podman(Model):
    """`--format podman`: what `podman diff --format json` prints. Lists that are empty are left out."""

    changed: list[Name]
    added: list[Name]
    deleted: list[Name]


class Snapshot(Model):
    """`unionfs snapshot -o FILE --json`."""

    path: Name = Field(description="the file written")
    objects: int = Field(description="lines of it")

    @classmethod
    def of(cls, snapshot: api.Snapshot) -> Snapshot:
        assert snapshot.path is not None
        return cls(path=os.fsdecode(snapshot.path), objects=snapshot.objects)
