"""`blame`, `blame_lines`, `blame_tree`: which layer did what to a path, to its lines, and to all in a directory last.

The layers of a live mount are opened once more beside it. Its changes wait while a whole tree is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from unionfs.api import HOLD_SECONDS
from unionfs.api.hold import Held, held
from unionfs.api.layers import LayerSpec
from unionfs.api.sources import naming, opened
from unionfs.api.stacks import LayerInfo, layer_infos, mountpoint_of
from unionfs.explain import blame as explained
from unionfs.explain.blame import Blame, Blamed, Line, Touch

__all__ = [
    "Blame",
    "Blamed",
    "BlamedLines",
    "BlamedPath",
    "BlamedTree",
    "Line",
    "Touch",
    "blame",
    "blame_lines",
    "blame_tree",
]


@dataclass(frozen=True, slots=True)
class BlamedPath:
    """`layers` from the top, the upper (0) first if there is one."""

    blame: Blame
    layers: tuple[LayerInfo, ...]


@dataclass(frozen=True, slots=True)
class BlamedLines:
    path: bytes
    lines: tuple[Line, ...]
    layers: tuple[LayerInfo, ...]


@dataclass(frozen=True, slots=True)
class BlamedTree:
    path: bytes
    files: tuple[Blamed, ...]
    layers: tuple[LayerInfo, ...]


def blame(
    path: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> BlamedPath:
    """What each layer did to one path, which is given as for `which`. LayerError where no layer has anything there."""
    with opened(path, layers, upper, work, store) as (fs, spec, inner), naming(path, fs, inner):
        return BlamedPath(explained.blame(fs, inner), layer_infos(spec))


def blame_lines(
    path: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> BlamedLines:
    """The lines of a text file with the layer that each came with. LayerError also where it is no text."""
    with opened(path, layers, upper, work, store) as (fs, spec, inner), naming(path, fs, inner):
        return BlamedLines(inner, explained.blame_lines(fs, inner), layer_infos(spec))


def blame_tree(
    path: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
    pause: bool = True,
    pause_limit: float = HOLD_SECONDS,
    on_hold: Callable[[Held], None] | None = None,
) -> BlamedTree:
    """All files at and below a directory, each with the layer that touched it last."""
    layers = tuple(layers)
    mountpoint = None if layers or upper is not None else mountpoint_of(path)
    holding = nullcontext() if mountpoint is None else held(mountpoint, pause, limit=pause_limit)
    with holding as hold:
        if hold is not None and on_hold is not None:
            on_hold(hold)
        with opened(path, layers, upper, work, store) as (fs, spec, inner), naming(path, fs, inner):
            return BlamedTree(inner, tuple(explained.blame_tree(fs, inner)), layer_infos(spec))
