"""The JSON of `unionfs show --json`; see schemas.py."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from unionfs import api

from . import which_schemas
from .schemas import Model, Name


class ShownLayer(Model):
    number: int = Field(description="0: the upper; 1…: the layers, topmost first")
    name: Name
    path: Name | None = Field(description="null for layers in memory")
    about: Name = Field(description="the step of an image's history that made it; may be empty")


class ShownPart(which_schemas.Part):
    """What one layer has, and how it is stored."""

    mode: str = Field(description="four octal digits")
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: Name | None = Field(description="of a symbolic link")


class ShownRow(Model):
    """One path."""

    path: Name
    depth: int
    state: Literal["deleted", "changed", "moved", "overridden", "added", "merged", "single", "broken"]
    kind: str | None = Field(description="null: there is no such name")
    parts: list[ShownPart] = Field(description="from the top")
    redirects: list[which_schemas.Part]
    origin: which_schemas.Place | None = Field(description="what the upper's copy was made of")
    data: which_schemas.Stored | None
    below: int = Field(description="rows that follow and belong to what is in it")
    cut: bool = Field(description="there is more in it than was looked at")
    failure: str = Field(description="why it is broken, else empty")

    @classmethod
    def of(cls, row: api.TreeRow) -> ShownRow:
        found = row.which
        return cls(
            path=os.fsdecode(row.path),
            depth=row.depth,
            state=row.state,
            kind=found.kind,
            parts=[_part(item) for item in row.items],
            redirects=[which_schemas.Part.of(part) for part in found.redirects],
            origin=None if row.origin is None else which_schemas.Place.of(row.origin),
            data=None if row.data is None else which_schemas.Stored.of(row.data),
            below=row.below,
            cut=row.cut,
            failure=row.failure,
        )


class LayerTree(Model):
    """`unionfs show --json`."""

    title: Name
    layers: list[ShownLayer] = Field(description="the upper, if there is one, and the layers, topmost first")
    rows: list[ShownRow] = Field(description="each directory before what is in it")

    @classmethod
    def of(cls, tree: api.LayerTree) -> LayerTree:
        return cls(
            title=tree.title,
            layers=[
                ShownLayer(
                    number=layer.number,
                    name=layer.name,
                    path=None if layer.path is None else os.fsdecode(layer.path),
                    about=layer.about,
                )
                for layer in tree.layers
            ],
            rows=[ShownRow.of(row) for row in tree.rows],
        )


def _part(item: api.StoredPart) -> ShownPart:
    return ShownPart(
        **which_schemas.Part.of(item.part).__dict__,
        mode=f"{item.mode:04o}",
        uid=item.uid,
        gid=item.gid,
        size=item.size,
        mtime_ns=item.mtime_ns,
        target=None if item.target is None else os.fsdecode(item.target),
    )
