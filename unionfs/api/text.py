"""Names and sizes for people, for whoever shows what this interface returns (unionfs.explain.text); times as they say
them (unionfs.image.moments)."""

from __future__ import annotations

from unionfs.explain.text import columns, cut, fit, shown, size
from unionfs.image.moments import moment

__all__ = ["columns", "cut", "fit", "moment", "shown", "size"]
