"""The command as a process of its own: what is done before, and after, its command line."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from unionfs.api.streams import fill_standard_streams


def program() -> NoReturn:
    """`main` for a process that is this command alone.

    What runs a container is imported by another process while this one imports what reads a command line. What is left
    in the end goes with the process, unexamined, since to look for what could be freed takes longer than many a verb.
    """
    fill_standard_streams()
    if verb(sys.argv[1:]) == "run":
        from unionfs.api import container_worker

        with contextlib.suppress(OSError):  # it is for speed only
            container_worker.begin()
    from .main import main
    from .output import Interrupted

    status = main()
    try:
        sys.stdout.flush()
    except OSError:  # `main` has told of it; Python's own flush is not to tell again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(status, Interrupted):
        # A shell that runs a script goes on with it unless it sees that its child has died of SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    gc.freeze()
    sys.exit(status)


def verb(arguments: Sequence[str]) -> str | None:
    """The first word that is neither an option nor an option's."""
    rest = iter(arguments)
    for word in rest:
        if word == "--store":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None
