"""How long to look for the next request before sleeping. No I/O; the loop looks, and tells how that went.

Where client and daemon run on different CPUs, waking a sleeping one costs several times what answering costs (idle
loops of virtual machines wait for the same reason: drivers/cpuidle/governors/haltpoll.c). But looking is for nothing
where the client thinks for longer, and in its way where it needs our own CPU. Which it is shows only in what comes of
it, so it is an experiment repeated:

    SHORT looks    about as long as a wake-up takes: worth it if every fourth time finds a request
    LONG looks     for clients that take their time over a reply (a walk has 50 files to show): worth it only if three
                   of four find one
    none           until so many requests have passed, twice as many after each experiment that failed
"""

from __future__ import annotations

from typing import Final


class Patience:
    """Starts with SHORT looks where `enabled`, else never looks."""

    #: Looks of about 0.4 µs each.
    SHORT: Final = 50
    LONG: Final = 400
    #: Tries per experiment, and how many of them must have found a request.
    TRIALS: Final = 32
    WORTH: Final = 8
    WORTH_LONG: Final = 24
    #: Requests, and experiments with SHORT looks, to let pass after one that failed.
    PAUSE: Final = 64
    LONGEST_PAUSE: Final = 16384
    LONGEST_LONG_PAUSE: Final = 256

    def __init__(self, enabled: bool) -> None:
        self.looks = self.SHORT
        #: Look if 0; else so many requests to go until the next experiment; -1: never look. The loop counts it down.
        self.pause = 0 if enabled else -1
        self._tries = self._found = 0
        self._length = self.PAUSE
        self._long_pause = 0
        self._long_length = 1

    def looked(self, found: bool) -> None:
        """One time of `looks` looks is over; `found`: before it came to its end."""
        self._tries += 1
        self._found += found
        if self._tries < self.TRIALS:
            return
        if self.looks == self.LONG:
            self._after_long()
        else:
            self._after_short()
        self._tries = self._found = 0

    def _after_long(self) -> None:
        if self._found >= self.WORTH_LONG:
            self._long_length = 1
            return
        self.looks = self.SHORT
        self._long_pause = self._long_length
        self._long_length = min(self._long_length * 2, self.LONGEST_LONG_PAUSE)

    def _after_short(self) -> None:
        if self._found < self.WORTH:
            self.pause = self._length
            self._length = min(self._length * 2, self.LONGEST_PAUSE)
            return
        self._length = self.PAUSE
        if self._found >= self.WORTH_LONG:
            return
        if self._long_pause:
            self._long_pause -= 1
        else:
            self.looks = self.LONG
