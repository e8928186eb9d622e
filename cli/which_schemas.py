"""The JSON of `unionfs which --json`; see schemas.py."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from unionfs import api

from .schemas import Model, Name


class Place(Model):
    """Somewhere in a layer."""

    layer: int = Field(description="0: the upper; 1…: the layers, topmost first")
    path: Name = Field(description="relative to the layer's root")
    in_work: bool = Field(description="in the work directory, not in the upper itself")

    @classmethod
    def of(cls, place: api.Place) -> Place:
        return cls(layer=place.layer, path=os.fsdecode(place.path), in_work=place.in_work)


class Hider(Model):
    rule: Literal["whiteout", "opaque", "file", "directory", "redirect", "link"]
    place: Place

    @classmethod
    def of(cls, hider: api.Hider) -> Hider:
        return cls(rule=hider.rule, place=Place.of(hider.place))


class Part(Model):
    """What one layer has."""

    place: Place
    role: Literal["wins", "merged", "data", "linked", "hidden", "whiteout"]
    kind: str = Field(description="dir, file, symlink, fifo, char, block, socket or whiteout")
    hidden_by: Hider | None
    opaque: bool
    metacopy: bool
    redirect: Name | None
    links: int = Field(description="names that the layer has for it")
    link_below: Name | None = Field(description="of a tar's hard link: what only a layer below can have")

    @classmethod
    def of(cls, part: api.Part) -> Part:
        return cls(
            place=Place.of(part.place),
            role=part.role,
            kind=part.kind,
            hidden_by=None if part.hidden_by is None else Hider.of(part.hidden_by),
            opaque=part.opaque,
            metacopy=part.metacopy,
            redirect=None if part.redirect is None else os.fsdecode(part.redirect),
            links=part.links,
            link_below=None if part.link_below is None else os.fsdecode(part.link_below),
        )


class Stored(Model):
    """Where bytes are."""

    file: Name
    size: int
    offset: int | None = Field(description="in a tar, uncompressed; null: the whole file")
    sparse: bool = Field(description="only the first of several pieces")

    @classmethod
    def of(cls, stored: api.Stored) -> Stored:
        return cls(file=os.fsdecode(stored.file), size=stored.size, offset=stored.offset, sparse=stored.sparse)


class Which(Model):
    """`unionfs which --json`; with --all a list of these."""

    path: Name
    kind: str | None = Field(description="null: there is no such name")
    layers: list[Name | None] = Field(description="the upper, or null, and the layers, topmost first")
    parts: list[Part] = Field(description="from the top")
    redirects: list[Part] = Field(description="of the directories on the way that go on elsewhere")
    data: Stored | None

    @classmethod
    def of(cls, source: api.Source) -> Which:
        return cls(
            path=os.fsdecode(source.which.path),
            kind=source.which.kind,
            layers=[None if layer is None else os.fsdecode(layer) for layer in source.layers],
            parts=[Part.of(part) for part in source.which.parts],
            redirects=[Part.of(part) for part in source.which.redirects],
            data=None if source.data is None else Stored.of(source.data),
        )
