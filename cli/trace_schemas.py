"""The JSON of `unionfs trace --json`, an object a line; see schemas.py."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unionfs.api.tracing import Event

from .schemas import Model, Name


class Step(Model):
    """Something found in a layer, or done to one."""

    kind: str = Field(description="looked, memory, merged, listed, copied-up, placed, whiteout, opaque, …")
    layer: int = Field(description="0: the upper; 1…: the layers, topmost first")
    path: Name = Field(description="relative to the layer's root")
    what: str = Field(description="looked: no, whiteout, opaque or a type; copied-up: a type, metacopy or data")
    size: int = Field(description="copied-up: bytes; listed: layers")
    other: Name | None = Field(description="of a redirect or link: where to; renamed, exchanged: from")


class Found(Model):
    """Where the object is after the request."""

    layer: int
    path: Name
    kind: str
    layers: list[int] = Field(description="of a directory all that it is merged of")
    data: int | None = Field(description="of a metacopy: the layer that has its data")


class TraceEvent(Model):
    """One request."""

    time: float = Field(description="seconds since the epoch")
    op: str = Field(description="FUSE's opcode in lower case; through fusepy libfuse's operation")
    path: Name | None
    to_path: Name | None
    attribute: Name | None
    fields: dict[str, int] = Field(description="the other arguments")
    error: str | None = Field(description="the name of an errno")
    found: Found | None
    way: str | None = Field(description="of an opened file: passthrough, cached or direct")
    amount: int | None = Field(description="bytes, or names, that were moved")
    steps: list[Step]
    microseconds: int
    pid: int
    uid: int
    gid: int
    dropped: int = Field(description="events before this one that are missing: they came too fast")

    @classmethod
    def of(cls, event: Event, dropped: int = 0) -> TraceEvent:
        told: dict[str, Any] = event.to_json()
        return cls(**{key: told[key] for key in cls.model_fields if key != "dropped"}, dropped=dropped)
