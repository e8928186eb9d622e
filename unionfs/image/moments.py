"""Points in time, as docker's options and filters have them (moby api/types/time GetTimestamp).

10m, 1h30m                            so long ago
2026-11-26T12:00:00Z, 2026-11-26      that moment; without a zone it is local time
1764158400, 1764158400.5              seconds since the epoch
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

#: Go's time.ParseDuration, without a sign.
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?)(h|ms|m|s|us|µs|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def moment(text: str, now: float) -> int:
    """Nanoseconds since the epoch. `now`: seconds since then. ValueError for what says no time."""
    if text and not _DURATION.sub("", text):
        return int((now - sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))) * 1e9)
    fraction = re.search(r"\.(\d+)", text)
    nanoseconds = 0 if fraction is None else int(fraction[1][:9].ljust(9, "0"))
    whole = re.sub(r"\.\d+", "", text)
    if re.fullmatch(r"\d{5,}", whole):
        return int(whole) * 10**9 + nanoseconds
    when = datetime.fromisoformat(whole)
    return int(when.astimezone(UTC).timestamp()) * 10**9 + nanoseconds
