"""`unionfs search`."""

from __future__ import annotations

from typing import Annotated

import typer

from unionfs import api

from . import human, template
from .options import AuthFile, CertDir, Insecure, NoTrunc, RowFormat
from .output import text

HEADINGS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
TABLE = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
#: Characters of a description that are shown.
WIDTH = 45


def search(
    term: Annotated[
        str, typer.Argument(metavar="[REGISTRY/]TERM", help="REGISTRY/ alone lists all it has.", show_default=False)
    ],
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many.")] = 25,
    fmt: RowFormat = "table",
    no_trunc: NoTrunc = False,
    insecure: Insecure = False,
    cert_dir: CertDir = None,
    authfile: AuthFile = None,
) -> None:
    """Find repositories whose names contain TERM: of Docker Hub, or of REGISTRY, if that shows its catalogue."""
    found = api.search(term, limit=limit, options=api.RegistryOptions(insecure, cert_dir, authfile))
    rows = [
        {
            "Name": one.name,
            "Description": one.description if no_trunc else human.ellipsis(one.description, WIDTH),
            "StarCount": str(one.stars),
            "IsOfficial": "[OK]" if one.official else "",
        }
        for one in found
    ]
    for line in template.render(rows, fmt, default=TABLE, headings=HEADINGS):
        text(line)
