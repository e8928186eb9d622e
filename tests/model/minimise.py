"""A shorter script that still shows a disagreement: leave out operations and nodes while it stays.

Hypothesis' own shrinker works on the choices behind an example; the script is nearer to what people want short, and
replaying it costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .drivers import Op
from .layers import Layer, Node, Stack
from .trial import Arena, Disagreement, replay

Script = tuple[Stack, list[Op]]


def minimised(found: Disagreement, make: Callable[[Stack], Arena], tries: int = 2000) -> Disagreement:
    """The disagreement of the shortest script found in at most `tries` replays."""
    best = found
    progress = True
    while progress and tries:
        progress = False
        for stack, ops in _shorter(best.stack, best.ops):
            if not tries:
                break
            tries -= 1
            shown = _shows(stack, ops, make)
            if shown is not None:
                best, progress = shown, True
                break
    return best


def _shows(stack: Stack, ops: list[Op], make: Callable[[Stack], Arena]) -> Disagreement | None:
    try:
        replay(stack, ops, make)
    except Disagreement as shown:
        return shown
    return None


def _shorter(stack: Stack, ops: list[Op]) -> Iterator[Script]:
    size = len(ops) // 2
    while size:  # halves first, single operations last
        for at in range(len(ops) - size, -1, -size):
            yield stack, ops[:at] + ops[at + size :]
        size //= 2
    for at in range(len(stack.lowers)):
        if len(stack.lowers) > 1:
            encodings = stack.encodings[:at] + stack.encodings[at + 1 :]
            yield replace(stack, lowers=stack.lowers[:at] + stack.lowers[at + 1 :], encodings=encodings), ops
        for nodes in _smaller(stack.lowers[at]):
            yield replace(stack, lowers=(*stack.lowers[:at], nodes, *stack.lowers[at + 1 :])), ops
    for nodes in _smaller(stack.upper):
        yield replace(stack, upper=nodes), ops
    if any(encoding != "kernel" for encoding in stack.encodings):
        yield replace(stack, encodings=()), ops


def _smaller(nodes: Layer) -> Iterator[Layer]:
    if len(nodes) > 1:
        yield ()
    for node in nodes:
        yield tuple(n for n in nodes if not _needs(n, node.path))
    for at, node in enumerate(nodes):
        plain = Node(node.kind, node.path, mode=0o644 if node.kind == "file" else 0o755, target=node.target)
        if plain != node:
            yield (*nodes[:at], plain, *nodes[at + 1 :])


def _needs(node: Node, path: str) -> bool:
    """Is it the node at `path`, inside it, or a link to one that is?"""
    named = (node.path, node.target) if node.kind == "link" else (node.path,)
    return any(f"{name}/".startswith(f"{path}/") for name in named)
