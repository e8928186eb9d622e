"""What is tried again, and when: distribution's "too many requests", servers that are busy, connections that are cut.

Delays double from `first` seconds; a Retry-After (RFC 9110, 10.2.3: seconds, or a date) counts instead where it is
longer, up to `longest`: who is to wait longer is told so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

#: Request Timeout, Too Early, Too Many Requests, and servers that are not at their best.
STATUSES: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` in all. `pause` waits seconds, or until an event is set; `clock` is the time of day."""

    attempts: int = 5
    first: float = 0.25
    longest: float = 60
    pause: Callable[[threading.Event, float], object] = threading.Event.wait
    clock: Callable[[], float] = time.time

    def wait(self, failed: int, retry_after: str | None, cancelled: threading.Event) -> bool:
        """After the attempt number `failed` (from 1): wait, and say whether to try again."""
        if failed >= self.attempts:
            return False
        delay = self.first * 2.0 ** (failed - 1)
        told = None if retry_after is None else seconds(retry_after, self.clock())
        if told is not None:
            if told > self.longest:
                return False
            delay = max(delay, told)
        self.pause(cancelled, delay)
        return not cancelled.is_set()


def seconds(retry_after: str, now: float) -> float | None:
    """Of a Retry-After; None for nonsense."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
