"""Stacks to be looked at: what a target of such a command is, and what is known of its layers.

Layers are numbered as in `which`: 0 the upper, 1… the lowers, topmost first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from unionfs.api.layers import LayerSpec, StackSpec, plan
from unionfs.api.mounting import mounted_stack
from unionfs.errors import ImageError, MountError
from unionfs.mounts.registry import find


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer of a stack. `path`: the upper, directory or tar. Of an image's layer `created_by`, what the image's
    history says of it, and `diff_id`; "" where that says nothing, or it is of no image."""

    number: int
    path: bytes
    created_by: str = ""
    diff_id: str = ""


def stack_of(
    target: LayerSpec | None,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> tuple[StackSpec, LayerSpec | None]:
    """What `target` is, and its mountpoint, if it is one: a live mount, or an image (as for `plan`, so that what exists
    as a path is that path). Without it, the layers that are given."""
    if target is None:
        return plan(layers, upper, work, read_only=True, store=store), None
    path = os.path.abspath(os.fsencode(target))
    if os.path.isdir(path):
        if find(path) is None:
            raise MountError(
                f"{os.fsdecode(target)} is not a unionfs mount", hint="unionfs mounts lists them; name layers with -l"
            )
        return mounted_stack(path), path
    return plan((target,), read_only=True, store=store), None


def layer_infos(spec: StackSpec) -> tuple[LayerInfo, ...]:
    """The layers of a stack from the top, the upper first if there is one."""
    infos = [] if spec.upper is None else [LayerInfo(0, spec.upper)]
    infos += [LayerInfo(number, path) for number, path in enumerate(spec.lowers, 1)]
    first = 0 if spec.upper is None else 1
    for part in spec.images:
        for at, (diff_id, created_by) in enumerate(_told(part.store, part.id), first + part.at):
            if at < first + part.at + part.length:
                infos[at] = LayerInfo(infos[at].number, infos[at].path, created_by, diff_id)
    return tuple(infos)


def _told(store: bytes, image: str) -> list[tuple[str, str]]:
    """What an image says of its layers, topmost first. Nothing where it is gone by now."""
    from unionfs.image.store import Store

    try:
        found = Store(store).resolve(image)
    except (ImageError, OSError):
        return []
    return [(str(diff_id), created_by) for diff_id, created_by in zip(found.diff_ids, found.steps, strict=True)][::-1]


def mountpoint_of(path: LayerSpec) -> bytes | None:
    """Of the live mount with an upper that a path lies in."""
    mounted = find(os.path.abspath(os.fsencode(path)), inside=True)
    known = mounted is not None and mounted.record is not None and mounted.record.upper is not None
    return mounted.mountpoint if known and mounted is not None else None
