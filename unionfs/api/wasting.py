"""`waste`: the bytes in a stack that nobody sees, with the layers they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from unionfs.api import HOLD_SECONDS
from unionfs.api.hold import Held, held
from unionfs.api.layers import LayerSpec
from unionfs.api.sources import looking
from unionfs.api.stacks import LayerInfo, layer_infos, stack_of
from unionfs.explain.duplicates import Duplicate
from unionfs.explain.duplicates import duplicates as _duplicates
from unionfs.explain.waste import LayerWaste, Score, Waste, WastedPath
from unionfs.explain.waste import waste as _waste

__all__ = ["Duplicate", "LayerWaste", "Score", "StackWaste", "Waste", "WastedPath", "waste"]


@dataclass(frozen=True, slots=True)
class StackWaste:
    """`layers` as in `waste.layers`. `duplicates` None: not looked for."""

    layers: tuple[LayerInfo, ...]
    waste: Waste
    duplicates: tuple[Duplicate, ...] | None


def waste(
    target: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
    duplicates: bool = False,
    pause: bool = True,
    pause_limit: float = HOLD_SECONDS,
    on_hold: Callable[[Held], None] | None = None,
) -> StackWaste:
    """Of an image or a live mount, `target`, or of layers. `duplicates`: look for equal content, which reads the files.

    Changes of a mount wait meanwhile, as for `diff`. LayerError and MountError where there is no such stack."""
    spec, mountpoint = stack_of(target, layers, upper, work, store)
    holding = nullcontext() if mountpoint is None or spec.upper is None else held(mountpoint, pause, limit=pause_limit)
    with holding as hold:
        if hold is not None and on_hold is not None:
            on_hold(hold)
        with looking(spec) as fs:
            return StackWaste(layer_infos(spec), _waste(fs), _duplicates(fs) if duplicates else None)
