"""Sizes and times as docker shows them to people (go-units)."""

from __future__ import annotations

import re
from datetime import datetime

from unionfs.api.text import size

__all__ = ["ellipsis", "parse_size", "since", "size"]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) *((?:[kmgtpe]i?)?b?)", re.IGNORECASE)


def since(then: datetime | None, now: datetime) -> str:
    """`5 minutes ago`; "N/A" where nobody knows (go-units HumanDuration)."""
    return "N/A" if then is None else _duration((now - then).total_seconds()) + " ago"


def _duration(seconds: float) -> str:
    whole, minutes, hours = int(seconds), int(seconds / 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, unit, each in ((48, "hours", 1), (336, "days", 24), (1440, "weeks", 168), (17520, "months", 720)):
        if hours < limit:
            return f"{hours // each} {unit}"
    return f"{int(seconds / 3600) // 8760} years"


def ellipsis(text: str, width: int) -> str:
    """No longer than `width`; what is cut off is a `…`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def parse_size(text: str) -> int:
    """Bytes: `20MB`, `1.5 GiB`, `300` (go-humanize ParseBytes). ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no size: {text!r}")
    unit = found[2].lower().removesuffix("b")
    base = 1024 if unit.endswith("i") else 1000
    return int(float(found[1]) * base ** "_kmgtpe".index(unit.removesuffix("i") or "_"))
