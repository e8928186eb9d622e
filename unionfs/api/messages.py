"""Messages for people, which hold names that anybody may have given to files."""

from __future__ import annotations

from typing import Final

#: C0, DEL and C1: what would begin a line of its own, or speak to a terminal.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def one_line(text: str) -> str:
    """`text` with control characters written as `\\xNN`. Surrogate escapes stay."""
    return text.translate(_CONTROLS)
