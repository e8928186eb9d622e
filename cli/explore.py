"""`unionfs explore`: the checks before a terminal is taken over; the rest is explore_app.py, which needs textual."""

from __future__ import annotations

import sys

import typer

from unionfs import api

from .options import Layers, Upper, Work, check_stack, store_directory
from .waste import MaybeTarget


def explore(
    context: typer.Context,
    target: MaybeTarget = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
) -> None:
    """Walk through an image, a mount or layers on the terminal: what each layer changed, files, what is wasted.

    Keys are shown at the bottom; ? explains them.
    """
    check_stack(target, layers, upper, work)
    try:
        from .explore_app import ExploreApp
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "textual":
            raise
        raise api.UnionFSError("explore needs the Python package textual", hint="pip install 'unionfs[explore]'") from e
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise api.UnionFSError("explore needs a terminal", hint="unionfs show and unionfs waste print what it shows")
    with api.explorer(target, layers=layers or (), upper=upper, work=work, store=store_directory(context)) as explorer:
        ExploreApp(explorer).run()
