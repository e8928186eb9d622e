"""An event of a trace as one line: what was asked, what was answered, where the object is, and what was done for it.

    open      /etc/b write = file in upper, passthrough: /etc copied up from layer 2; 4 KiB copied up from layer 2; …

Shared by `unionfs trace` and `unionfs replay`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .style import Style, printable

if TYPE_CHECKING:
    from unionfs.api.tracing import Event, Step

_OP = 10
#: Arguments in octal.
_OCTAL = frozenset(("mode",))
#: Arguments that say nothing to people.
_SILENT = frozenset(("umask", "flags", "rdev", "fh_in", "fh_out", "datasync", "arg", "in_size", "out_size"))


def line(event: Event, style: Style) -> str:
    """Untrusted names are made printable."""
    answer = style.paint(event.error, "red") if event.error else _answer(event)
    words = [style.paint(f"{event.op:<{_OP}}", "bold"), _path(event.path)]
    if event.to_path is not None:
        words += ["->", _path(event.to_path)]
    words += _arguments(event)
    done = "; ".join(_steps(event))
    return f"{' '.join(words)} = {answer}" + (f": {style.paint(done, 'dim')}" if done else "")


def name(layer: int) -> str:
    return "upper" if layer == 0 else f"layer {layer}"


def _path(path: bytes | None) -> str:
    return "(no name)" if path is None else printable("/" + os.fsdecode(path))


def _arguments(event: Event) -> Iterator[str]:
    if event.attribute is not None:
        yield printable(os.fsdecode(event.attribute))
    if event.op in ("open", "create"):
        mode = event.fields.get("flags", 0) & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        yield {os.O_RDONLY: "read", os.O_WRONLY: "write"}.get(mode, "read+write")
        if event.fields.get("flags", 0) & os.O_TRUNC:
            yield "truncate"
    if event.op == "symlink":
        yield f"to {printable(os.fsdecode(event.data))}"
    for key, value in event.fields.items():
        if key in _SILENT or (key == "size" and event.op in ("getxattr", "listxattr", "readdir", "readdirplus")):
            continue
        shown = f"{value & 0o7777:04o}" if key in _OCTAL and event.op != "fallocate" else str(value)
        yield f"{key.removesuffix('_ns')}={'now' if key.endswith('_ns') and value == -1 else shown}"


def _answer(event: Event) -> str:
    words = []
    place = event.found
    if place is not None:
        kinds = {4: "directory", 8: "file", 10: "symlink"}
        kind = kinds.get(place.kind, "special file")
        where = " + ".join(name(layer) for layer in place.layers)
        words.append(f"{kind} in {where}" + (f", data in {name(place.data)}" if place.data is not None else ""))
    if event.way is not None:
        words.append(event.way)
    if event.amount is not None:
        words.append(f"{event.amount} {'names' if event.op.startswith('readdir') else 'bytes'}")
    if event.op == "readlink" and event.data:
        words.append(printable(os.fsdecode(event.data)))
    return ", ".join(words) or "ok"


def _steps(event: Event) -> Iterator[str]:
    for step in event.steps:
        yield step_text(step, event.path if event.to_path is None else event.to_path)


def step_text(step: Step, path: bytes | None) -> str:
    """`path`: what the event is about, which need not be said again."""
    # What is built in the work directory is nowhere people look.
    staged = step.path.startswith((b"work/#", b"index/"))
    where = "" if step.path == path or staged else _path(step.path) + " "
    known = _TEXTS.get(step.kind)
    return step.kind if known is None else known(step, where)


def _looked(step: Step, where: str) -> str:
    if step.what == "opaque":
        return f"{name(step.layer)}: opaque, nothing below is seen"
    return f"{name(step.layer)}: {step.what}"


def _copied(step: Step, where: str) -> str:
    source = name(step.layer)
    if step.what == "dir":
        return f"copy-up of directory {_path(step.path)} from {source}"
    if step.what == "metacopy":
        return f"copy-up without data from {source}"
    if step.what == "data":
        return f"copy-up of the data, {_size(step.size)}, from {source}"
    return (
        f"copy-up {_size(step.size)} from {source}" if step.what == "file" else f"copy-up ({step.what}) from {source}"
    )


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1024  # type: ignore[assignment]  # from here on it is shown with a fraction
    raise AssertionError


def _other(step: Step) -> str:
    return printable(os.fsdecode(step.other or b""))


_TEXTS: dict[str, Callable[[Step, str], str]] = {
    "looked": _looked,
    "memory": lambda step, where: "known from before",
    "merged": lambda step, where: f"merged with {name(step.layer)}",
    "listed": lambda step, where: f"directory {_path(step.path)} read in {step.size} layer{'s' * (step.size != 1)}",
    "copied-up": _copied,
    "placed": lambda step, where: f"{where}renamed into place" + (", over a whiteout" if step.what else ""),
    "whiteout": lambda step, where: f"{where}whiteout in upper",
    "opaque": lambda step, where: f"{where}opaque in upper",
    "impure": lambda step, where: f"{_path(step.path)} marked impure",
    "redirect": lambda step, where: f"{where}redirect to {_other(step)}",
    "index": lambda step, where: "entered in the index of hard links",
    "linked": lambda step, where: f"{where}link made in upper",
    "removed": lambda step, where: f"{where}removed from upper",
    "kept": lambda step, where: "kept without a name, as it is in use",
    "renamed": lambda step, where: "renamed in upper",
    "exchanged": lambda step, where: "exchanged in upper",
}
