"""The JSON of `unionfs sim` and `unionfs learn`, as pydantic models; cli/schemas.py has the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .schemas import Model, Name

if TYPE_CHECKING:
    from unionfs.api import simulation


class StoredObject(Model):
    """What a layer has stored under a path."""

    path: Name
    kind: str = Field(description="dir, file, symlink, fifo, char, block, socket, whiteout, or link (of a layer tar)")
    text: Name = Field(description="of a file its lines, joined and cut short; of a link its target")
    marks: list[Name] = Field(description="opaque, metacopy, redirect=WHERE")
    name: Name = Field(description="on the disk, where that is another than in the path")
    mode: int
    owner: str = Field(description="UID:GID")
    size: int


class SimulatedLayer(Model):
    name: Name
    role: Literal["upper", "layer"]
    stored: list[StoredObject]


class MergedObject(Model):
    path: Name
    kind: str
    text: Name
    layers: list[Name] = Field(description="where it comes from, topmost first; several for a merged directory")


class SimulatedChange(Model):
    layer: Name
    sign: Literal["+", "-", "~"] = Field(description="came, went, is another now")
    path: Name
    text: Name


class SimulatedStep(Model):
    """One command of `unionfs sim --json` (a list of these)."""

    line: int | None
    command: Name
    output: list[Name]
    failure: Name | None = Field(description="how it failed, where it was to")
    changes: list[SimulatedChange]
    layers: list[SimulatedLayer] = Field(description="the upper first, then topmost first")
    merged: list[MergedObject] | None = Field(description="what people see; null while nothing is mounted")

    @classmethod
    def of(cls, step: simulation.Step) -> SimulatedStep:
        return cls(
            line=step.command.line,
            command=step.command.text,
            output=list(step.output),
            failure=step.failure,
            changes=[SimulatedChange(**change._asdict()) for change in step.changes],
            layers=layers_of(step.picture),
            merged=merged_of(step.picture),
        )


def layers_of(picture: simulation.Picture) -> list[SimulatedLayer]:
    return [
        SimulatedLayer(
            name=column.name,
            role=column.role,
            stored=[_stored(path, column.stored[path]) for path in picture.paths() if path in column.stored],
        )
        for column in picture.columns
    ]


def merged_of(picture: simulation.Picture) -> list[MergedObject] | None:
    merged = picture.merged
    if merged is None:
        return None
    return [_merged(path, merged[path]) for path in picture.paths() if path in merged]


def _merged(path: str, shown: simulation.Shown) -> MergedObject:
    return MergedObject(path=path, kind=shown.kind, text=shown.text, layers=list(shown.layers))


def _stored(path: str, stored: simulation.Stored) -> StoredObject:
    return StoredObject(
        path=path,
        kind=stored.kind,
        text=stored.text,
        marks=list(stored.marks),
        name=stored.name,
        mode=stored.mode,
        owner=stored.owner,
        size=stored.size,
    )


class Lesson(Model):
    """One lesson of `unionfs learn --json` (a list of these)."""

    number: int
    name: str
    title: str
    questions: int = Field(description="how many there are")

    @classmethod
    def of(cls, lesson: simulation.Lesson) -> Lesson:
        return cls(number=lesson.number, name=lesson.name, title=lesson.title, questions=len(lesson.questions))
