"""What the commands write: text and JSON on stdout, errors and hints on stderr, progress bars on a terminal.

File names that are not UTF-8 are written as the bytes they are in text, and as lone surrogates U+DC80…U+DCFF in JSON
(what Python's `os.fsencode` turns back).
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from unionfs import api
from unionfs.api.messages import one_line

if TYPE_CHECKING:
    from pydantic import BaseModel

HINTS = {
    errno.ENOTCONN: "its daemon is gone; remove the dead mount with: unionfs umount MOUNTPOINT",
    errno.EACCES: "check the permissions, or run as the owner or root",
    errno.EPERM: "this needs more privilege; try as root",
    errno.ENOSPC: "make room on that file system and try again",
    errno.EDQUOT: "the disk quota is used up; make room and try again",
    errno.EROFS: "that file system is mounted read-only; choose another place",
}

#: Called now and then with the bytes done so far.
ProgressCallback = Callable[[int], None]


class Trouble(Exception):
    """`cause`, in a command to which status 1 means something else."""

    def __init__(self, cause: Exception, status: int) -> None:
        super().__init__(str(cause))
        self.cause, self.status = cause, status


def os_error_message(e: OSError) -> str:
    what = e.strerror or str(e)
    names = [os.fsdecode(name) for name in (e.filename, e.filename2) if isinstance(name, str | bytes)]
    return f"{' -> '.join(names)}: {what}" if names else what


class ContainerStatus(int):
    """The exit status of a container's process, to be that of this command, whatever it is."""


class Interrupted(int):
    """The exit status of a command that Ctrl-C has ended."""


#: As shells show it (128 + SIGINT); typer makes the same of Ctrl-C.
INTERRUPTED: Final = Interrupted(130)


def text(line: str) -> None:
    """One line on stdout. To a terminal control characters in names go as `\\xNN`, else as they are."""
    if sys.stdout.isatty():
        line = one_line(line)
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")


def flush() -> None:
    """Raise now what writing to stdout fails with."""
    sys.stdout.flush()
    sys.stdout.buffer.flush()


def as_json(value: BaseModel | list[Any]) -> None:
    """A model, or a list of them, as indented JSON on stdout. ASCII only, so that any file name can be in it."""
    data = [item.model_dump() for item in value] if isinstance(value, list) else value.model_dump()
    found = json.dumps(data, indent=2, ensure_ascii=True)
    if sys.stdout.isatty():  # DEL is ASCII too
        for line in found.splitlines():
            text(line)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(found.encode("ascii") + b"\n")


def as_json_line(value: BaseModel) -> None:
    """A model as one line of JSON on stdout, at once: somebody may be waiting for it."""
    text(json.dumps(value.model_dump(), ensure_ascii=True))
    flush()


def note(line: str) -> None:
    """One line for people, on stderr."""
    _stderr(line)


def note_on_terminal(line: str) -> None:
    """The same, if somebody is there to read it."""
    if sys.stderr.isatty():
        _stderr(line)


def once_on_terminal(line: str) -> Callable[[], None]:
    """A function that does so when it is called the first time."""
    lines = [line]

    def say() -> None:
        while lines:
            note_on_terminal(lines.pop())

    return say


def warn_of_hold(hold: api.Held) -> None:
    """What is read of a mount may not be one moment: say why."""
    for what, hint in hold.warnings():
        warning(what, hint)


def warning(what: str, hint: str | None = None) -> None:
    """`warning: what`, for what was done all the same, and `hint: what to do`."""
    _stderr(f"warning: {what}")
    if hint:
        _stderr(f"hint: {hint}")


def error(what: str, hint: str | None = None) -> None:
    """`error: what`, and `hint: what to do` where there is something to do."""
    _stderr(f"error: {what}")
    if hint:
        _stderr(f"hint: {hint}")


def failure(e: Exception) -> None:
    """An exception that goes no further, as `error`."""
    if isinstance(e, OSError):
        error(os_error_message(e), HINTS.get(e.errno or 0))
    else:
        error(str(e), getattr(e, "hint", None))


def _stderr(line: str) -> None:
    # backslashreplace is stderr's own way with what it cannot encode; names are shown as bytes instead.
    sys.stderr.flush()
    sys.stderr.buffer.write(os.fsencode(one_line(line)) + b"\n")
    sys.stderr.buffer.flush()


@contextmanager
def progress(label: str, total: int | None = None, *, wanted: bool = True) -> Iterator[ProgressCallback | None]:
    """A progress bar on stderr for the block, if stderr is a terminal; else None, and nothing is shown.

    `total` in bytes, None if not known: then the bar shows life and the bytes so far.
    """
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    # Here, since it costs every command a tenth of its start.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
