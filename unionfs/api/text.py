"""Names and sizes for people, for whoever shows what this interface returns (unionfs.explain.text)."""

from __future__ import annotations

from unionfs.explain.text import columns, cut, fit, shown, size

__all__ = ["columns", "cut", "fit", "shown", "size"]
