"""The command as a process of its own: what is done before, and after, its command line."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def program() -> NoReturn:
    """`main` for a process that is this command alone.

    What runs a container is imported by another process while this one imports what reads a command line. What is left
    in the end goes with the process, unexamined, since to look for what could be freed takes longer than many a verb.
    """
    open_streams()
    if verb(sys.argv[1:]) == "run":
        from unionfs.api import container_worker

        container_worker.begin()
    from .main import main

    status = main()
    gc.freeze()
    sys.exit(status)


def open_streams() -> None:
    """Have standard streams that are closed be the null device, as Go's runtime does: else the next files opened have
    their numbers, and are read and written in their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115  # for good


def verb(arguments: Sequence[str]) -> str | None:
    """The first word that is neither an option nor an option's."""
    rest = iter(arguments)
    for word in rest:
        if word == "--store":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None
