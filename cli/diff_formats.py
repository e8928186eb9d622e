"""The forms in which `unionfs diff` shows differences: with reasons, as docker or podman, tables, patches, sums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from unionfs import api

from . import human, template
from .diff import View
from .output import as_json, text
from .style import printable

if TYPE_CHECKING:
    from . import diff_schemas as schemas

HEADINGS = {
    "Kind": "KIND",
    "Type": "TYPE",
    "Path": "PATH",
    "Reasons": "REASONS",
    "Was": "WAS",
    "Size": "SIZE",
    "Before": "BEFORE",
    "After": "AFTER",
}
TABLE = "{{.Kind}}\t{{.Type}}\t{{.Size}}\t{{.Reasons}}\t{{.Path}}"
STAT_HEADINGS = {
    "Added": "ADDED",
    "Changed": "CHANGED",
    "Deleted": "DELETED",
    "BytesAdded": "BYTES+",
    "BytesDeleted": "BYTES-",
    "Path": "DIRECTORY",
}
STAT = "{{.Added}}\t{{.Changed}}\t{{.Deleted}}\t{{.BytesAdded}}\t{{.BytesDeleted}}\t{{.Path}}"


def check(view: View) -> None:
    """BadParameter for a template that is not understood, before anything is read."""
    if view.fmt not in (None, "docker", "podman", "json"):
        template.render([], view.fmt or "", default=TABLE, headings=HEADINGS)


def show(comparison: api.Comparison, view: View) -> bool:
    """Print it; whether anything differs."""
    if view.depth is not None:
        return _sums(comparison, view)
    if view.json:
        from . import diff_schemas as schemas

        found = [schemas.Difference.of_two(difference) for difference in comparison]
        as_json(found)
        return bool(found)
    if view.fmt == "podman":
        return _podman(comparison)
    if view.fmt is not None and view.fmt != "docker":
        rows = [_row(difference) for difference in comparison]
        for line in template.render(rows, view.fmt, default=TABLE, headings=HEADINGS):
            text(line)
        return bool(rows)
    different = False
    for difference in comparison:
        if view.fmt == "docker" and not difference.path:
            different = different or bool(difference.reasons)
            continue
        different = True
        if view.content_limit is not None and _content(comparison, difference, view, view.content_limit):
            continue
        text(_line(difference, view))
        if view.verbose:
            for line in _values(difference):
                text(f"    {line}")
    return different


def _line(difference: api.Difference, view: View) -> str:
    line = f"{difference.kind} /{os.fsdecode(difference.path)}"
    if difference.reasons and view.reasons and view.fmt is None:
        line += f" ({', '.join(difference.reasons)})"
    return line


def _podman(comparison: api.Comparison) -> bool:
    """podman diff --format json; the root itself is in none of them."""
    found: dict[str, list[str]] = {"changed": [], "added": [], "deleted": []}
    different = False
    for difference in comparison:
        different = different or bool(difference.reasons) or difference.kind != "C"
        if difference.path:
            word = {"C": "changed", "A": "added", "D": "deleted"}[difference.kind]
            found[word].append("/" + os.fsdecode(difference.path))
    text(template.go_json({word: sorted(paths) for word, paths in found.items() if paths}))
    return different


def _row(difference: api.Difference) -> dict[str, Any]:
    from . import diff_schemas as schemas

    model = schemas.Difference.of_two(difference)
    after = model.after or model.before
    assert after is not None
    return {
        "Kind": model.kind,
        "Type": model.type,
        "Was": model.was or "",
        "Path": model.path,
        "Reasons": ",".join(model.reasons),
        "Size": "" if after.size is None else human.size(after.size),
        "Before": None if model.before is None else model.before.model_dump(),
        "After": None if model.after is None else model.after.model_dump(),
    }


# sums -----------------------------------------------------------------------------------------------------------------
def _sums(comparison: api.Comparison, view: View) -> bool:
    assert view.depth is not None
    tallies = api.tally(comparison, view.depth)
    whole = tallies[b""]
    if view.json:
        from . import diff_schemas as schemas

        models = [schemas.Tally.of(path, tally) for path, tally in tallies.items()]
        as_json(models[0] if view.whole else models)
    elif view.whole:
        text(_summary(whole))
    else:
        rows = [
            {
                "Added": str(tally.added),
                "Changed": str(tally.changed),
                "Deleted": str(tally.deleted),
                "BytesAdded": human.size(tally.bytes_added),
                "BytesDeleted": human.size(tally.bytes_deleted),
                "Path": printable("/" + os.fsdecode(path)),
            }
            for path, tally in tallies.items()
        ]
        for line in template.render(rows, "table", default=STAT, headings=STAT_HEADINGS):
            text(line)
    return bool(whole.added or whole.changed or whole.deleted)


def _summary(whole: api.Tally) -> str:
    parts = [f"{whole.added} added, {whole.changed} changed, {whole.deleted} deleted"]
    parts.append(f"{human.size(whole.bytes_added)} more, {human.size(whole.bytes_deleted)} less")
    if whole.reasons:
        parts.append(", ".join(f"{reason} {whole.reasons[reason]}" for reason in api.Reason if reason in whole.reasons))
    return "; ".join(parts)


# contents and values --------------------------------------------------------------------------------------------------
def _content(comparison: api.Comparison, difference: api.Difference, view: View, limit: int) -> bool:
    """The patch of one file; whether that has said all."""
    found = comparison.text(difference, limit)
    if found is None:
        return False
    if found.note is not None:
        text(f"{_line(difference, view)}: {found.note}")
        return True
    for line in found.lines:
        text(os.fsdecode(line.removesuffix(b"\n")))
    # An empty file that came or went is a patch of no lines, but for its header.
    others = [reason for reason in difference.reasons if reason not in ("content", "size", "mtime")]
    return bool(found.lines) and not others


def _values(difference: api.Difference) -> Iterator[str]:
    """What was and what is, a line for each reason."""
    from . import diff_schemas as schemas

    before, after = schemas.Object.of(difference.before), schemas.Object.of(difference.after)
    if before is None or after is None:
        return
    for reason in difference.reasons:
        if reason == "xattr":
            for name in sorted({*(before.xattrs or {}), *(after.xattrs or {})}):
                was, now = (side.xattrs or {} for side in (before, after))
                yield f"xattr {name}: {was.get(name, 'none')} -> {now.get(name, 'none')}"
        elif reason not in ("content", "hardlink"):
            yield f"{reason}: {_value(reason, before)} -> {_value(reason, after)}"


def _value(reason: str, side: schemas.Object) -> str:
    match reason:
        case "type":
            return side.type
        case "mode":
            return str(side.mode)
        case "owner":
            return f"{side.uid}:{side.gid}"
        case "size":
            return str(side.size)
        case "link":
            return str(side.target)
        case "device":
            return str(side.device)
        case _:
            return _time(side.mtime_ns)


def _time(nanoseconds: int | None) -> str:
    """In UTC, with all nine digits."""
    if nanoseconds is None:
        return "not known"
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d}"
    except (OverflowError, ValueError):  # beyond the year 9999
        return f"{seconds}.{rest:09d}"
