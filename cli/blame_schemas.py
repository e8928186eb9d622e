"""The JSON of `unionfs blame --json`; see schemas.py."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from unionfs import api

from .schemas import Model, Name
from .waste_schemas import LayerInfo
from .which_schemas import Place


class Touch(Model):
    """What one layer did."""

    layer: int = Field(description="0: the upper; 1…: the layers, topmost first")
    action: Literal["added", "changed", "deleted", "same"]
    what: list[Literal["type", "content", "link", "device", "mode", "owner", "xattr", "time"]]
    kind: str | None = Field(description="what it is since then; null where it is deleted")
    opaque: bool
    place: Place | None = Field(description="where the layer has it, or the mark that deletes it")

    @classmethod
    def of(cls, touch: api.Touch) -> Touch:
        return cls(
            layer=touch.layer,
            action=touch.action,
            what=list(touch.what),
            kind=touch.kind,
            opaque=touch.opaque,
            place=None if touch.place is None else Place.of(touch.place),
        )


class Blame(Model):
    """`unionfs blame --json`."""

    path: Name
    kind: str | None = Field(description="null: there is no such name now")
    touches: list[Touch] = Field(description="from the top")
    layers: list[LayerInfo]

    @classmethod
    def of(cls, found: api.BlamedPath) -> Blame:
        return cls(
            path=os.fsdecode(found.blame.path),
            kind=found.blame.kind,
            touches=[Touch.of(touch) for touch in found.blame.touches],
            layers=[LayerInfo.of(info) for info in found.layers],
        )


class Line(Model):
    layer: int
    text: Name


class BlamedLines(Model):
    """`unionfs blame --lines --json`."""

    path: Name
    lines: list[Line]
    layers: list[LayerInfo]

    @classmethod
    def of(cls, found: api.BlamedLines) -> BlamedLines:
        return cls(
            path=os.fsdecode(found.path),
            lines=[Line(layer=line.layer, text=os.fsdecode(line.text)) for line in found.lines],
            layers=[LayerInfo.of(info) for info in found.layers],
        )


class BlamedFile(Model):
    path: Name
    kind: str
    layer: int
    size: int
    mtime_ns: int


class BlamedTree(Model):
    """`unionfs blame --json` of a directory."""

    path: Name
    files: list[BlamedFile]
    layers: list[LayerInfo]

    @classmethod
    def of(cls, found: api.BlamedTree) -> BlamedTree:
        files = [
            BlamedFile(path=os.fsdecode(one.path), kind=one.kind, layer=one.layer, size=one.size, mtime_ns=one.mtime_ns)
            for one in found.files
        ]
        return cls(path=os.fsdecode(found.path), files=files, layers=[LayerInfo.of(info) for info in found.layers])
