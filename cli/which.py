"""`unionfs which`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated

import typer

from unionfs import api

from .options import AsJson, Layers, Upper, Work, store_directory
from .output import as_json, text
from .style import aligned, columns

_SHOWN = ("wins", "merged", "data")


def which(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="In a live mount; with -l, in the tree of them.", show_default=False),
    ],
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    every: Annotated[
        bool, typer.Option("--all", help="PATH is a directory: list all that is in it, with the layers it comes from.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Say which layer a path comes from, what it hides in the layers below, and where its bytes are.

    Also of what is deleted or hidden: by what, and what lies below.
    """
    if (upper or work) and not layers:
        raise typer.BadParameter("give the layers with -l too, or a PATH in a live mount alone")
    stack = {"layers": layers or (), "upper": upper, "work": work, "store": store_directory(context)}
    if every:
        sources = api.which_all(path, **stack)  # type: ignore[arg-type]  # as above
        if json:
            from . import which_schemas as schemas

            as_json([schemas.Which.of(source) for source in sources])
        else:
            _print_all(sources)
        return
    source = api.which(path, **stack)  # type: ignore[arg-type]  # as above
    if json:
        from . import which_schemas as schemas

        as_json(schemas.Which.of(source))
    else:
        _print(source)


# one path -------------------------------------------------------------------------------------------------------------
def _print(source: api.Source) -> None:
    found = source.which
    text(f"/{os.fsdecode(found.path)}: {_headline(found)}")
    for part in found.redirects:
        if part not in found.parts:
            assert part.redirect is not None
            text(f"redirect: {_place(part.place)} goes on below as {os.fsdecode(part.redirect)}")
    text("")
    rows = [(_layer(part.place), part.role, part.kind, f"/{os.fsdecode(part.place.path)}") for part in found.parts]
    indent = " " * (4 + max(columns(row[0]) for row in rows))
    for line, part in zip(aligned(rows), found.parts, strict=True):
        text(f"  {line}")
        for remark in _remarks(part):
            text(indent + remark)
    text("")
    places = [part.place for part in (*found.parts, *found.redirects)]
    places += [part.hidden_by.place for part in found.parts if part.hidden_by is not None]
    _print_layers(source, {place.layer for place in places})
    if source.data is not None:
        text(f"bytes: {_bytes(source.data)}")


def _print_layers(source: api.Source, numbers: Iterable[int]) -> None:
    """Which directory or tar each of them is."""
    for line in aligned(
        [(layer_name(number), os.fsdecode(source.layers[number] or b"")) for number in sorted(numbers)]
    ):
        text(line)


def _headline(found: api.Which) -> str:
    if found.kind is None:
        hider = found.hider
        return "not there, and below nothing that is hidden" if hider is None else f"not there, hidden by {_why(hider)}"
    names = [layer_name(number) for number in found.layers]
    roles = {part.role for part in found.parts}
    if found.kind == "dir":
        return f"dir of {_listed(names)}" + (", merged" if len(names) > 1 else "")
    if "data" in roles:
        return f"{found.kind} of {names[0]}, a metacopy: its data is in {names[-1]}"
    if "linked" in roles:
        return f"{found.kind} of {names[0]}, where another name of it was copied up"
    return f"{found.kind} of {names[0]}"


def _why(hider: api.Hider) -> str:
    what = {
        "whiteout": "the whiteout ",
        "opaque": "the opaque directory ",
        "file": "",
        "directory": "the directory ",
        "redirect": "the redirect of ",
        "link": "its copy ",
    }[hider.rule]
    return what + _place(hider.place)


def _remarks(part: api.Part) -> Iterable[str]:
    """What else there is to say, a line each."""
    if part.hidden_by is not None:
        yield f"hidden by {_why(part.hidden_by)}"
    if part.opaque:
        yield "opaque: what lies below is not seen"
    if part.metacopy:
        yield "metacopy: its data is further down"
    if part.redirect is not None:
        yield f"redirect: {os.fsdecode(part.redirect)}"
    if part.links > 1 and part.kind != "dir":
        yield f"hard link: {part.links} names in this layer"
    if part.link_below is not None:
        yield f"hard link to /{os.fsdecode(part.link_below)} of a layer below"


def _bytes(data: api.Stored) -> str:
    file = os.fsdecode(data.file)
    if data.offset is None:
        return file
    first = ", the first piece of a sparse file" if data.sparse else ""
    return f"{data.size} at offset {data.offset} of {file}{first}"


# a directory ----------------------------------------------------------------------------------------------------------
def _print_all(sources: list[api.Source]) -> None:
    """What is hidden stands in parentheses."""
    rows, used = [], set()
    for source in sources:
        parts = [part for part in source.which.parts if part.role != "whiteout"]
        used |= {part.place.layer for part in parts}
        shown = [_short(part.place) if part.role in _SHOWN else f"({_short(part.place)})" for part in parts]
        name = os.fsdecode(source.which.path.rpartition(b"/")[2])
        rows.append((source.which.kind or "", " ".join(dict.fromkeys(shown)), name))
    for line in aligned(rows):
        text(line)
    if sources:
        text("")
        _print_layers(sources[0], used)


def _short(place: api.Place) -> str:
    return str(place.layer) if place.layer else "upper"


# words ----------------------------------------------------------------------------------------------------------------
def layer_name(number: int) -> str:
    return "upper" if number == 0 else f"layer {number}"


def _layer(place: api.Place) -> str:
    return "work" if place.in_work else layer_name(place.layer)


def _place(place: api.Place) -> str:
    return f"/{os.fsdecode(place.path)} in {_layer(place)}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
