"""`unionfs show`."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from unionfs import api

from .options import AsJson, Layers, Pause, PauseLimit, Upper, Work, store_directory
from .output import as_json, flush, text, warn_of_hold
from .style import When, style

#: Rows, unless told otherwise: what one looks at, and what a browser still searches at once.
_ROWS, _PAGE_ROWS = 100, 50_000

StackArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="STACK",
        help="A live mount, an image, a script of sim, or lesson:NAME; instead of -l and -u.",
        show_default=False,
    ),
]
Svg = Annotated[bool, typer.Option("--svg", help="Draw a picture.")]
Html = Annotated[
    bool, typer.Option("--html", help="Make a page with search, a tree to open, and the history of each path.")
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.", show_default=False),
]
Below = Annotated[str, typer.Option("--path", metavar="DIR", help="Only this, and what is in it.")]
Depth = Annotated[int | None, typer.Option("--depth", metavar="N", min=0, help="No deeper than so many directories.")]
MaxRows = Annotated[
    int | None,
    typer.Option(
        "--max-rows",
        metavar="N",
        min=0,
        help=f"What is changed comes first, of the rest is said how much it is. 0: all. Default: {_ROWS}, "
        f"of a page {_PAGE_ROWS}.",
        show_default=False,
    ),
]
Colour = Annotated[When, typer.Option("--color", help="Colour of the table.")]


def show(
    context: typer.Context,
    stack: StackArgument = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    svg: Svg = False,
    html: Html = False,
    output: Output = None,
    path: Below = "/",
    depth: Depth = None,
    max_rows: MaxRows = None,
    pause: Pause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
    color: Colour = When.AUTO,
) -> None:
    """Draw the layers: what each has, what is hidden by what, and what is seen.

    As a table; with --svg as a picture; with --html as one page that needs nothing else.
    """
    form = _form(svg, html, json, output)
    if form == "json" and max_rows is not None:
        raise typer.BadParameter("--max-rows is about what is drawn; JSON has all rows")
    _check_stack(stack, layers, upper, work)
    tree = api.layer_tree(
        stack,
        layers=layers or (),
        upper=upper,
        work=work,
        store=store_directory(context),
        path=path,
        depth=depth,
        pause=pause,
        pause_limit=pause_limit,
        on_hold=warn_of_hold,
    )
    limit = max_rows if max_rows is not None else _PAGE_ROWS if form == "html" else _ROWS
    if form == "json":
        from . import show_schemas

        as_json(show_schemas.LayerTree.of(tree))
    elif form == "table":
        from .show_table import table

        for line in table(tree, limit or None, style(color, os.environ)):
            text(line)
    else:
        drawn = api.draw_layers(tree, form, limit=limit or None, output=output)
        if output is None:
            flush()
            sys.stdout.buffer.write(drawn.encode())


def _form(svg: bool, html: bool, json: bool, output: str | None) -> Literal["svg", "html", "json", "table"]:
    if svg + html + json > 1:
        raise typer.BadParameter("give one of --svg, --html and --json")
    if not (svg or html) and output is not None:
        suffix = os.path.splitext(output)[1]
        if json or suffix not in (".svg", ".html"):
            raise typer.BadParameter("-o is about a picture: give --svg or --html too")
        return "svg" if suffix == ".svg" else "html"
    if not (svg or html):
        return "json" if json else "table"
    if output is None and sys.stdout.isatty():
        raise typer.BadParameter("a picture is not for a terminal: give -o FILE, or redirect standard output")
    return "svg" if svg else "html"


def _check_stack(stack: str | None, layers: list[str] | None, upper: str | None, work: str | None) -> None:
    if stack is not None and (layers or upper or work):
        raise typer.BadParameter("give a STACK or -l and -u, not both")
    if stack is None and not layers:
        raise typer.BadParameter("give a STACK, or the layers with -l")
