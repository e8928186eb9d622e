"""`unionfs check`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from unionfs import api

from .options import AsJson, Layers, Work, store_directory
from .output import as_json, text


def check(
    context: typer.Context,
    directory: Annotated[
        str,
        typer.Argument(metavar="(UPPER | LAYER)", help="A directory; a layer may also be a tar.", show_default=False),
    ],
    layers: Layers = None,
    work: Work = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended without loss, and say what is left.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Find what is wrong with an upper or a layer: stray work files, marks that mean nothing, .wh. debris.

    With the layers below it (-l), also whiteouts, redirects and metacopies of nothing. The exit status is 1 if
    something is wrong, and left so.
    """
    result = api.check(directory, layers=layers or (), work=work, repair=repair, store=store_directory(context))
    if json:
        from . import schemas

        as_json([schemas.Finding.of(finding) for finding in result.findings])
    else:
        for finding in result.findings:
            place = "/" if finding.where == "tree" else "work: "
            done = {"found": "repair", "repaired": "repaired", "left": "left"}[finding.state]
            text(f"{place}{os.fsdecode(finding.path)}\t{finding.rule}\t{finding.message}\t{done}: {finding.repair}")
    return 0 if result.clean else 1
