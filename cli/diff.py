"""`unionfs diff`."""

from __future__ import annotations

import typer

from unionfs import api

from .options import (
    AsJson,
    Layers,
    MaybeMountpoint,
    Pause,
    PauseLimit,
    Upper,
    Work,
    check_target,
    store_directory,
)
from .output import as_json, text, warn_of_hold


def diff(
    context: typer.Context,
    mountpoint: MaybeMountpoint = None,
    layers: Layers = None,
    upper: Upper = None,
    work: Work = None,
    pause: Pause = True,
    pause_limit: PauseLimit = api.HOLD_SECONDS,
    json: AsJson = False,
) -> None:
    """List what the upper changes: A added, C changed, D deleted, as `docker diff` does."""
    check_target(mountpoint, layers, upper, work)
    changes = api.diff(
        mountpoint,
        layers=layers or (),
        upper=upper,
        work=work,
        store=store_directory(context),
        pause=pause,
        pause_limit=pause_limit,
        on_hold=warn_of_hold,
    )
    if json:
        from . import schemas

        as_json([schemas.Change.of(change) for change in changes])
        return
    for change in changes:
        text(change.text())
