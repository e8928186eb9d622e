"""`unionfs doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from .options import AsJson
from .output import as_json, text


def doctor(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="DIRECTORY", help="Where uppers are to be. Default: where ephemeral ones are.", show_default=False
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Tell what this machine has and lacks, and what mounts left behind, each with what to do about it.

    One line each: ok, warning (done without) or problem. The exit status is 1 if there is a problem.
    """
    diagnoses = api.doctor(directory)
    if json:
        from . import schemas

        as_json([schemas.Diagnosis.of(diagnosis) for diagnosis in diagnoses])
    else:
        for diagnosis in diagnoses:
            hint = f" (hint: {diagnosis.hint})" if diagnosis.hint else ""
            text(f"{diagnosis.state:<7}  {diagnosis.name}: {diagnosis.found}{hint}")
    if any(diagnosis.state == "problem" for diagnosis in diagnoses):
        raise typer.Exit(1)
