"""The JSON of `unionfs waste --json`; see schemas.py."""

from __future__ import annotations

import os

from pydantic import Field

from unionfs import api

from .schemas import Model, Name


class LayerInfo(Model):
    """A layer of a stack."""

    number: int = Field(description="0: the upper; 1…: the layers, topmost first")
    path: Name
    created_by: str = Field(description="what the history of the image says; empty where it says nothing")
    diff_id: str = Field(description="of the layer of an image, else empty")

    @classmethod
    def of(cls, info: api.LayerInfo) -> LayerInfo:
        return cls(number=info.number, path=os.fsdecode(info.path), created_by=info.created_by, diff_id=info.diff_id)


class LayerWaste(Model):
    layer: LayerInfo
    stored: int = Field(description="bytes of its files")
    wasted: int = Field(description="bytes of those that nobody sees")


class WastedPath(Model):
    path: Name = Field(description="absolute")
    wasted: int
    files: int = Field(description="how often a file is hidden there; of a removed directory all that was in it")
    layers: list[int]
    removed: bool = Field(description="nothing is there any more; else something was put in its place")

    @classmethod
    def of(cls, path: api.WastedPath) -> WastedPath:
        return cls(
            path="/" + os.fsdecode(path.path),
            wasted=path.wasted,
            files=path.files,
            layers=list(path.layers),
            removed=path.removed,
        )


class Dive(Model):
    """What dive says."""

    efficiency: float
    wasted_bytes: int
    user_wasted_percent: float = Field(description="a fraction")


class Copy(Model):
    layer: int
    path: Name


class Duplicate(Model):
    size: int
    copies: list[Copy]

    @classmethod
    def of(cls, duplicate: api.Duplicate) -> Duplicate:
        copies = [Copy(layer=place.layer, path="/" + os.fsdecode(place.path)) for place in duplicate.places]
        return cls(size=duplicate.size, copies=copies)


class Waste(Model):
    """`unionfs waste --json`."""

    stored: int = Field(description="bytes of the files of all layers")
    wasted: int
    layers: list[LayerWaste] = Field(description="from the top")
    paths: list[WastedPath] = Field(description="--top of them, most bytes first")
    dive: Dive
    duplicates: list[Duplicate] | None = Field(description="null without --duplicates")

    @classmethod
    def of(cls, found: api.StackWaste, top: int) -> Waste:
        waste, duplicates = found.waste, found.duplicates
        return cls(
            stored=waste.stored,
            wasted=waste.wasted,
            layers=[
                LayerWaste(layer=LayerInfo.of(info), stored=layer.stored, wasted=layer.wasted)
                for layer, info in zip(waste.layers, found.layers, strict=True)
            ],
            paths=[WastedPath.of(path) for path in waste.paths[: top or None]],
            dive=Dive(
                efficiency=waste.score.efficiency,
                wasted_bytes=waste.score.wasted,
                user_wasted_percent=waste.score.user_wasted,
            ),
            duplicates=None if duplicates is None else [Duplicate.of(one) for one in duplicates[: top or None]],
        )
