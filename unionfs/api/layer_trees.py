"""`layer_tree`: all paths of a stack with what each layer has there; `draw_layers`: the picture of it.

A stack is a live mount, layers and perhaps an upper, an image, or what a script of the simulator or a lesson has left
in memory. The first three are opened read-only, as for `which`; of a mount it is one moment, as for `diff`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from unionfs.api import HOLD_SECONDS
from unionfs.api.changes import OnHold, holding
from unionfs.api.layers import LayerSpec, StackSpec, plan
from unionfs.api.mounting import mounted_stack
from unionfs.api.sources import looking, mount_of, naming, relative, roots_of
from unionfs.changeset.replacing import replacing
from unionfs.errors import LayerError, ScriptError
from unionfs.explain import drawing, page
from unionfs.explain.folding import FoldedRow, fold_rows
from unionfs.explain.layer_tree import LayerHeading, LayerTree, StoredPart, TreeRow
from unionfs.explain.layer_tree import layer_tree as _layer_tree
from unionfs.explain.location import Locator, Roots
from unionfs.explain.world import World
from unionfs.image.store import Store
from unionfs.overlay import UnionFilesystem

__all__ = ["FoldedRow", "LayerHeading", "LayerTree", "StoredPart", "TreeRow", "draw_layers", "fold_rows", "layer_tree"]

#: How a stack begins that is a lesson's.
LESSON: Final = "lesson:"

#: The union, the path in it, where its layers are, what they are called, and the stack.
_Opened = tuple[UnionFilesystem, bytes, Roots, tuple[LayerHeading, ...], str]


def layer_tree(
    stack: LayerSpec | None = None,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
    path: LayerSpec = "",
    depth: int | None = None,
    pause: bool = True,
    pause_limit: float = HOLD_SECONDS,
    on_hold: OnHold | None = None,
) -> LayerTree:
    """Everything at and below `path`, at most `depth` directories deep, of a stack.

    `stack`: a path in a live mount, an image, a script's file or `lesson:NAME`; or `layers`, topmost first, with
    perhaps an upper. `store`: where images are looked for by name. LayerError, MountError, ScriptError for what is none
    of these. `pause`: hold the mount's changes meanwhile, as for `diff`.
    """
    layers = tuple(layers)
    if stack is None and not layers:
        raise LayerError("neither a stack nor layers given", hint="give STACK, or -l LAYER")
    if stack is not None and (layers or upper is not None or work is not None):
        raise LayerError("a stack and layers given at once", hint="give one or the other")
    if stack is not None and _is_script(stack):
        opening = _played(stack)
    elif stack is not None and not os.path.exists(stack):
        opening = _stacked(os.fsdecode(stack), (stack,), None, None, store)
    elif stack is not None:
        opening = _mounted(stack, pause, pause_limit, on_hold)
    else:
        title = " on ".join(os.fsdecode(one) for one in (*((upper,) if upper is not None else ()), *layers))
        opening = _stacked(title, layers, upper, work, store)
    with opening as (fs, inner, roots, headings, title):
        wanted = relative(os.path.join(inner, os.fsencode(path).lstrip(b"/")))
        with naming(path or stack or "", fs, wanted):
            rows = _layer_tree(fs, wanted, depth, Locator(fs, roots).find)
    return LayerTree(title, headings, tuple(rows))


def draw_layers(
    tree: LayerTree,
    format: Literal["svg", "html"],
    *,
    limit: int | None = None,
    output: LayerSpec | None = None,
) -> str:
    """The picture as a text: SVG, or one HTML page that needs nothing else. `limit`: how many rows at most.

    `output`: a file to write it to too, which appears complete or not at all.
    """
    text = drawing.draw(tree, limit) if format == "svg" else page.draw(tree, limit)
    if output is not None:
        with replacing(os.path.abspath(os.fsencode(output))) as file:
            left = memoryview(text.encode())
            while left:
                left = left[file.write(left) :]
    return text


# what a stack is ------------------------------------------------------------------------------------------------------
def _is_script(stack: LayerSpec) -> bool:
    name = os.fsdecode(stack)
    return (name.startswith(LESSON) and not os.path.exists(name)) or os.path.isfile(name)


@contextmanager
def _stacked(
    title: str,
    layers: tuple[LayerSpec, ...],
    upper: LayerSpec | None,
    work: LayerSpec | None,
    store: LayerSpec | None,
) -> Iterator[_Opened]:
    spec = plan(layers, upper, work, read_only=True, store=store)
    with looking(spec) as fs:
        yield fs, b"", roots_of(spec), _headings(spec), title


@contextmanager
def _mounted(stack: LayerSpec, pause: bool, limit: float, on_hold: OnHold | None) -> Iterator[_Opened]:
    mountpoint, inner = mount_of(os.fsencode(stack))
    spec = mounted_stack(mountpoint)
    with holding(mountpoint if spec.upper is not None else None, pause, limit, on_hold), looking(spec) as fs:
        yield fs, inner, roots_of(spec), _headings(spec), os.fsdecode(mountpoint)


@contextmanager
def _played(stack: LayerSpec) -> Iterator[_Opened]:
    world = _lesson(os.fsdecode(stack)) if not os.path.isfile(stack) else _script(stack)
    if world.fs is None or world.upper is None:
        raise ScriptError(f"{os.fsdecode(stack)} mounts nothing", hint="a line `mount` puts an upper over the layers")
    try:
        names = enumerate(world.lowers, 1)
        headings = (LayerHeading(0, "upper"), *(LayerHeading(number, name) for number, name in names))
        yield world.fs, b"", Roots((None,) * len(headings)), headings, os.fsdecode(stack)
    finally:
        world.fs.close()


def _script(file: LayerSpec) -> World:
    from unionfs.explain.script import parse
    from unionfs.explain.simulator import Simulator

    with open(file, encoding="utf-8", errors="surrogateescape") as opened:
        text = opened.read()
    if "\0" in text:
        raise LayerError(f"{os.fsdecode(file)} is no script of the simulator", hint="a layer tar is given with -l")
    running = Simulator()
    for one in parse(io.StringIO(text)):
        running.run(one)
    return running.world


def _lesson(stack: str) -> World:
    """As it is when all of its questions about this file system are answered."""
    from unionfs.explain.lesson import Teaching, lesson

    teaching = Teaching(lesson(stack.removeprefix(LESSON)))
    teaching.scene()
    for question in teaching.lesson.questions:
        if question.as_ is None:
            teaching.ask(question)
            teaching.reveal(question)
    return teaching.simulator.world


# what layers are called -----------------------------------------------------------------------------------------------
def _headings(spec: StackSpec) -> tuple[LayerHeading, ...]:
    names = _short_names(spec.lowers)
    told = _told_by_images(spec)
    found = [] if spec.upper is None else [LayerHeading(0, "upper", spec.upper)]
    for number, path in enumerate(spec.lowers, 1):
        name, about = told.get(number, (names[number - 1], ""))
        found.append(LayerHeading(number, name, path, about))
    return tuple(found)


def _short_names(paths: tuple[bytes, ...]) -> list[str]:
    """Of each path as many of its last components as tell it from the others."""
    parts = [os.fsdecode(path).rstrip("/").split("/") for path in paths]
    found = []
    for one in parts:
        others = [other for other in parts if other != one]
        count = 1
        while count < len(one) and any(other[-count:] == one[-count:] for other in others):
            count += 1
        found.append("/".join(one[-count:]) or "/")
    return found


def _told_by_images(spec: StackSpec) -> dict[int, tuple[str, str]]:
    """By number: the layer's digest, and the step of the image's history that made it."""
    found: dict[int, tuple[str, str]] = {}
    for part in spec.images:
        image = Store(part.store).resolve(part.id)
        steps = [step.created_by or step.comment for step in image.config.history if not step.empty_layer]
        steps = [""] * (part.length - len(steps)) + steps
        for at, (layer, step) in enumerate(zip(reversed(image.layers), reversed(steps), strict=True)):
            found[part.at + at + 1] = (layer.digest.short, step)
    return found
