"""`unionfs blame`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from unionfs import api

from . import human
from .options import AsJson, Layers, Pause, PauseLimit, Upper, Work, store_directory
from .output import as_json, text, warn_of_hold
from .style import aligned
from .waste import told
from .which import layer_name

#: Of what stands beside each line.
TOLD_WIDTH = 30


def blame(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="In a live mount; with -l, in the tree of them.", show_default=False),
    ],
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    lines: Annotated[bool, typer.Option("--lines", help="Of a text file: the layer that each line came with.")] = False,
    directory: Annotated[
        bool, typer.Option("-d", "--directory", help="What was done to a directory itself, not to what is in it.")
    ] = False,
    pause: Pause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
) -> None:
    """Say which layers touched a file, and how: added, changed and in what, deleted, stored the same again.

    Of a directory: the files in it and below, each with the layer that touched it last.
    """
    if (upper or work) and not layers:
        raise typer.BadParameter("give the layers with -l too, or a PATH in a live mount alone")
    if lines and directory:
        raise typer.BadParameter("a directory has no lines: leave --lines or --directory out")
    stack: dict[str, Any] = {
        "layers": layers or (), "upper": upper, "work": work, "store": store_directory(context)
    }  # fmt: skip
    if lines:
        found_lines = api.blame_lines(path, **stack)
        if json:
            from . import blame_schemas as schemas

            as_json(schemas.BlamedLines.of(found_lines))
        else:
            _print_lines(found_lines)
        return
    found = api.blame(path, **stack)
    if found.blame.kind == "dir" and not directory:
        tree = api.blame_tree(path, **stack, pause=pause, pause_limit=pause_limit, on_hold=warn_of_hold)
        if json:
            from . import blame_schemas as schemas

            as_json(schemas.BlamedTree.of(tree))
        else:
            _print_tree(tree)
    elif json:
        from . import blame_schemas as schemas

        as_json(schemas.Blame.of(found))
    else:
        _print(found)


def _print(found: api.BlamedPath) -> None:
    shown, infos = found.blame, {info.number: info for info in found.layers}
    last = shown.touches[0]
    now = f"{shown.kind}, last touched by" if shown.kind is not None else "not there, deleted by"
    text(f"/{os.fsdecode(shown.path)}: {now} {layer_name(last.layer)}")
    text("")
    rows = [(layer_name(touch.layer), touch.action, _what(touch), told(infos[touch.layer])) for touch in shown.touches]
    for line in aligned(rows):
        text(f"  {line}")


def _what(touch: api.Touch) -> str:
    words: list[str] = list(touch.what)
    if touch.action == "added":
        words.append(touch.kind or "")
    elif "type" in touch.what:
        words[0] = f"type: {touch.kind}"
    if touch.opaque:
        words.append("opaque")
    place = touch.place
    if touch.action == "deleted" and place is not None:
        words.append(f"by /{os.fsdecode(place.path)}")
    elif place is not None and place.layer > touch.layer and touch.action == "added":
        words.append(f"from /{os.fsdecode(place.path)} in {layer_name(place.layer)}")
    return ", ".join(words)


def _print_lines(found: api.BlamedLines) -> None:
    told_of = _columns(found.layers)
    width = len(str(len(found.lines)))
    for number, line in enumerate(found.lines, 1):
        text(f"{told_of[line.layer]}  {number:>{width}}) {os.fsdecode(line.text)}")


def _print_tree(found: api.BlamedTree) -> None:
    told_of = _columns(found.layers)
    rows = [
        (told_of[one.layer], _time(one.mtime_ns), human.size(one.size), f"/{os.fsdecode(one.path)}")
        for one in found.files
    ]
    for line in aligned(rows) if rows else ():
        text(line)


def _time(mtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # no year that a calendar has
        return f"@{mtime_ns // 1_000_000_000}"


def _columns(infos: tuple[api.LayerInfo, ...]) -> dict[int, str]:
    """What stands before each line, by layer."""
    rows = [(layer_name(info.number), f"({human.ellipsis(told(info), TOLD_WIDTH)})", "") for info in infos]
    return {info.number: line.removesuffix("  ") for info, line in zip(infos, aligned(rows), strict=True)}
