"""Running a function as another user, in a child process, with the exception it raised brought back.

`run_as_nobody` is for the unit tests of the system calls: what root may do says little about what others may.
"""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable

NOBODY = 65534
_PR_SET_DUMPABLE = 4


def run_as_nobody(function: Callable[[], None]) -> None:
    """Call `function` in a fork that is uid and gid 65534 with no capability. AssertionError if it raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # Changing ids makes /proc/self root's; a process that was started as this user would own its own.
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            function()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        report = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, report or f"the child ended with status {status}"
