"""`fill_standard_streams`: for a process whose starter has closed some of them."""

from __future__ import annotations

import os
import sys


def fill_standard_streams() -> None:
    """See that descriptors 0, 1 and 2 are there. To be called first of all.

    Else whatever is opened next gets these numbers (open(2): the lowest), is taken for a stream, and is lost where a
    daemon cuts its streams off. Input that was closed is empty, output cannot be written (EBADF) as before, errors go
    nowhere.
    """
    streams = (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    for fd, (name, mode, flags) in enumerate(streams):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115
