"""The JSON that `--json` prints, as pydantic models. A field is never removed or given another meaning.

Names are strings in which bytes that are no UTF-8 appear as lone surrogates; pydantic refuses those in a `str`, hence
the unchecked `Name`.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from unionfs import api

Name = Annotated[str, SkipValidation]


def _name(path: bytes | None) -> str | None:
    return None if path is None else os.fsdecode(path)


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(Model):
    """One line of `unionfs diff --json` (a list of these)."""

    kind: Literal["A", "C", "D"] = Field(description="added, changed or deleted")
    path: Name = Field(description="absolute path in the merged tree")
    type: str = Field(description="file, dir, symlink, fifo, char, block or socket; for D, of what was removed")
    was: str | None = Field(None, description="the type before, where another type stands there now")
    opaque: bool = Field(False, description="a directory that hides everything the layers have below it")
    mode: str | None = Field(None, description="permission bits, four octal digits; null for D, as all that follows")
    uid: int | None = None
    gid: int | None = None
    size: int | None = Field(None, description="bytes, of regular files")
    mtime_ns: int | None = Field(None, description="nanoseconds since the epoch")

    @classmethod
    def of(cls, change: api.Change) -> Change:
        return cls.model_validate(change.to_json())


class Commit(Model):
    """`unionfs commit --json`."""

    path: Name = Field(description="the file written")
    diff_id: str = Field(description="sha256 of the uncompressed tar")
    digest: str = Field(description="sha256 of the file")
    size: int = Field(description="bytes of the file")
    uncompressed_size: int = Field(description="bytes of the tar")
    media_type: str = Field(description="OCI media type of the layer")
    entries: int = Field(description="members of the tar")
    held_seconds: float | None = Field(description="how long the mount's changes were held; null: they were not")
    unfrozen: list[int] = Field(description="processes that may have gone on writing meanwhile")
    unseen: int = Field(description="files that somebody unknown may have gone on writing to")

    @classmethod
    def of(cls, result: api.CommitResult) -> Commit:
        return cls(
            path=os.fsdecode(result.path),
            diff_id=result.diff_id,
            digest=result.digest,
            size=result.size,
            uncompressed_size=result.uncompressed_size,
            media_type=result.media_type,
            entries=result.entries,
            held_seconds=result.held_seconds,
            unfrozen=list(result.unfrozen),
            unseen=result.unseen,
        )


class Apply(Model):
    """`unionfs apply --json`."""

    diff_id: str = Field(description="sha256 of the uncompressed tar")
    digest: str = Field(description="sha256 of the file")
    size: int = Field(description="bytes of the file")
    entries: int = Field(description="members of the tar")
    skipped: list[Name] = Field(description="what could not be kept and was left out, one line each")

    @classmethod
    def of(cls, result: api.AppliedLayer) -> Apply:
        return cls(
            diff_id=result.diff_id,
            digest=result.digest,
            size=result.size,
            entries=result.entries,
            skipped=list(result.skipped),
        )


class Mount(Model):
    """One mount of `unionfs mounts --json` (a list of these)."""

    mountpoint: Name
    state: Literal["live", "dead", "foreign", "detached"] = Field(
        description="dead: the daemon is gone; foreign: made by another machine's or user's unionfs; "
        "detached: unmounted lazily, still in use"
    )
    pid: int | None = Field(description="of the daemon")
    layers: list[Name] = Field(description="topmost first")
    upper: Name | None
    work: Name | None
    transport: str | None
    read_only: bool
    options: dict[str, Name | None]
    started: float | None = Field(description="seconds since the epoch")
    statistics: dict[str, int] | None = Field(description="counters of a live mount that answers, by name")

    @classmethod
    def of(cls, status: api.MountStatus) -> Mount:
        return cls(
            mountpoint=os.fsdecode(status.mountpoint),
            state=status.state,
            pid=status.pid,
            layers=[os.fsdecode(layer) for layer in status.layers],
            upper=_name(status.upper),
            work=_name(status.work),
            transport=status.transport,
            read_only=status.read_only,
            options=dict(status.options),
            started=status.started,
            statistics=status.statistics,
        )


class Remount(Model):
    """`unionfs remount --json`."""

    mountpoint: Name
    inodes: int = Field(description="in use, and read again")
    gone: int = Field(description="known names that lead to nothing, or to another object, now")
    come: int = Field(description="names known to be missing that are there now")
    dropped: int | None = Field(
        description="names and inodes dropped from the kernel's caches; null: it cannot be told"
    )

    @classmethod
    def of(cls, result: api.RemountResult) -> Remount:
        return cls(
            mountpoint=os.fsdecode(result.mountpoint),
            inodes=result.inodes,
            gone=result.gone,
            come=result.come,
            dropped=result.dropped,
        )


class Finding(Model):
    """One finding of `unionfs check --json` (a list of these)."""

    where: Literal["tree", "work"] = Field(description="in the directory itself, or in its work directory")
    path: Name = Field(description="relative to that; empty for its root")
    rule: str = Field(description="the rule's name")
    message: Name = Field(description="what is wrong, for people")
    repair: Name = Field(description="what --repair does, or none: and why")
    state: Literal["found", "repaired", "left"] = Field(description="found: without --repair")

    @classmethod
    def of(cls, finding: api.Finding) -> Finding:
        return cls(
            where=finding.where,
            path=os.fsdecode(finding.path),
            rule=finding.rule,
            message=finding.message,
            repair=finding.repair,
            state=finding.state,
        )


class Convert(Model):
    """`unionfs convert --json`."""

    encoding: Literal["kernel", "xattr", "aufs", "fuse-overlayfs"]
    xattrs: Literal["trusted", "user"] = Field(description="namespace of the union's own attributes now")
    steps: int = Field(description="changes made; 0: it was so already")

    @classmethod
    def of(cls, result: api.Converted) -> Convert:
        return cls(encoding=result.encoding, xattrs=result.xattrs, steps=result.steps)


class Diagnosis(Model):
    """One thing that `unionfs doctor --json` looked at (a list of these)."""

    name: str = Field(description="what was looked at; mounts and directories left behind come once for each")
    state: Literal["ok", "warning", "problem"] = Field(
        description="warning: done without, or lying around; problem: unionfs does not work, or a mount is broken"
    )
    found: Name
    hint: Name | None = Field(description="the command or the edit that changes it")
    path: Name | None = Field(description="the mountpoint, directory or file it is about")

    @classmethod
    def of(cls, diagnosis: api.Diagnosis) -> Diagnosis:
        return cls(
            name=diagnosis.name,
            state=diagnosis.state,
            found=diagnosis.found,
            hint=diagnosis.hint,
            path=_name(diagnosis.path),
        )


class CommittedImage(Model):
    """`unionfs commit MOUNTPOINT NAME --json`."""

    id: str = Field(description="the image's ID")
    name: str = Field(description="its name, in familiar form")
    diff_id: str | None = Field(description="of the new layer; null: nothing had changed")
    digest: str | None = Field(description="of the new layer as it is stored")
    size: int = Field(description="bytes of the new layer as it is stored")
    held_seconds: float | None = Field(description="how long the mount's changes were held; null: they were not")
    unfrozen: list[int] = Field(description="processes that may have gone on writing meanwhile")
    unseen: int = Field(description="files that somebody unknown may have gone on writing to")

    @classmethod
    def of(cls, result: api.CommittedImage) -> CommittedImage:
        return cls(
            id=result.id,
            name=result.name,
            diff_id=result.diff_id,
            digest=result.digest,
            size=result.size,
            held_seconds=result.held_seconds,
            unfrozen=list(result.unfrozen),
            unseen=result.unseen,
        )


class Fault(Model):
    """One thing that `unionfs image verify --json` found wrong (a list of these)."""

    what: str = Field(description="the blob, image or file")
    message: str = Field(description="what is wrong with it")
    absent: bool = Field(description="it is a layer that was not fetched yet, which is no damage")

    @classmethod
    def of(cls, fault: api.Fault) -> Fault:
        return cls(what=fault.what, message=fault.message, absent=fault.absent)


class Kept(Model):
    """What one mount of an image keeps, of `unionfs image changes --json` (a list of these)."""

    name: Name
    image: str = Field(description="ID of the image that was mounted")
    upper: Name = Field(description="the directory that holds the changes")
    mountpoint: Name | None = Field(description="where it is mounted now")

    @classmethod
    def of(cls, kept: api.KeptChanges) -> Kept:
        return cls(name=kept.name, image=kept.image, upper=os.fsdecode(kept.upper), mountpoint=_name(kept.mountpoint))
