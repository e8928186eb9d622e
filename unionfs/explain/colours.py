"""The colours of pictures, for light and dark surroundings: one hue for each layer, none of them that of a deletion.

What a colour says is said by a shape or a word too. INVARIANT: text has a contrast of at least 4.5 to what it stands
on, borders that mean something 3 (WCAG 2.2, 1.4.3 and 1.4.11). tests/unit/test_explain_drawing.py computes it.
"""

from __future__ import annotations

import colorsys
from typing import Final, NamedTuple


class Scheme(NamedTuple):
    """`dim`: text of less weight. `line`: rules that mean nothing; `edge`: those of what can be used. `stripe`,
    `chosen`, `found`: grounds of what is pointed at, chosen, searched for. `gone`: what is deleted, on `gone_fill`.
    `copied`: arrows of copy-ups; `moved`: of redirects. `accent`: what can be followed, and what is switched on."""

    ground: str
    ink: str
    dim: str
    line: str
    edge: str
    stripe: str
    chosen: str
    found: str
    gone: str
    gone_fill: str
    copied: str
    moved: str
    accent: str


LIGHT: Final = Scheme(
    ground="#ffffff",
    ink="#1c2128",
    dim="#59636e",
    line="#d9dfe5",
    edge="#7b8794",
    stripe="#f5f7f9",
    chosen="#e3effd",
    found="#ffe58a",
    gone="#b3261e",
    gone_fill="#fdeceb",
    copied="#a8500a",
    moved="#6b3fc4",
    accent="#0a5cc2",
)
DARK: Final = Scheme(
    ground="#10151b",
    ink="#e7edf3",
    dim="#9da9b5",
    line="#2c3641",
    edge="#74818e",
    stripe="#181f27",
    chosen="#1d3049",
    found="#6b5200",
    gone="#ff9d94",
    gone_fill="#411a18",
    copied="#f0a35e",
    moved="#bda4f7",
    accent="#7db5ff",
)


class Hue(NamedTuple):
    """Of one layer: `text` stands on `fill`, `border` on either ground."""

    fill: str
    border: str
    text: str


_UPPER: Final = 32
#: Of the topmost layers; further ones go on by `_STEP` from `_FIRST` to `_LAST`, past the reds and the upper's.
_TOPMOST: Final = (212, 158, 276, 188, 312, 98)
_FIRST, _LAST, _STEP = 70, 320, 67


def hue(number: int, dark: bool) -> Hue:
    """Of the layer with this number, 0 being the upper."""
    if number == 0:
        angle = _UPPER
    elif number <= len(_TOPMOST):
        angle = _TOPMOST[number - 1]
    else:
        angle = _FIRST + number * _STEP % (_LAST - _FIRST)
    if dark:
        return Hue(_hex(angle, 0.36, 0.19), _hex(angle, 0.50, 0.60), _hex(angle, 0.70, 0.88))
    return Hue(_hex(angle, 0.72, 0.93), _hex(angle, 0.60, 0.36), _hex(angle, 0.75, 0.17))


def _hex(angle: float, saturation: float, lightness: float) -> str:
    channels = colorsys.hls_to_rgb(angle / 360, lightness, saturation)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
