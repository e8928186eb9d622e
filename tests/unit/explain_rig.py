"""Stacks that nobody thought of, changed through the union or not, for what explains them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest
from hypothesis import strategies as st

from tests.model import layers as model
from tests.model import strategies
from unionfs.api.paths import Tree
from unionfs.explain.which import Place
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import Caller

ENCODINGS = ("kernel", "xattr", "aufs")
Change = Callable[[Tree], None]

needs_root = pytest.mark.needs_root
ROOT = Caller(0, 0, 1, 0)


@contextmanager
def read_only(lowers: list[str], upper: str, work: str) -> Iterator[UnionFilesystem]:
    fs = UnionFilesystem(
        [DirectoryLayer(path) for path in lowers],
        WritableDirectory(upper),
        WritableDirectory(work),
        UnionOptions(read_only=True, metacopy=True),
    )
    try:
        yield fs
        fs.check_invariants()
    finally:
        fs.close()


def every_path(*roots: str) -> set[bytes]:
    """What any layer has stored, and what its AUFS whiteouts name."""
    found: set[bytes] = set()
    for root in map(os.fsencode, roots):
        for directory, directories, files in os.walk(root):
            for name in [*directories, *files]:
                path = os.path.relpath(os.path.join(directory, name.removeprefix(b".wh.")), root)
                found.add(path)
    return found


def layer_of(fs: UnionFilesystem, place: Place) -> DirectoryLayer | WritableDirectory:
    stack = fs._union.stack
    layer = stack.work if place.in_work else stack.layer(place.layer)
    assert isinstance(layer, DirectoryLayer | WritableDirectory)
    return layer


@st.composite
def changes(draw: st.DrawFn) -> Change:
    path, other = draw(strategies.paths), draw(strategies.paths)
    kind = draw(st.sampled_from(["rename", "rename", "link", "chmod", "unlink", "rmtree", "mkdir", "write"]))

    def change(merged: Tree) -> None:
        with suppress(OSError):
            if kind in ("rename", "link"):
                getattr(merged, kind)(path, other)
            elif kind == "chmod":
                merged.chmod(path, 0o640)
            elif kind == "write":
                merged.write_bytes(path, b"written")
            else:
                getattr(merged, kind)(path)

    return change


class Changed(NamedTuple):
    """Where the layers are, and the names that people see in the end."""

    lowers: list[str]
    upper: str
    work: str
    names: set[bytes]


@contextmanager
def changed(stack: model.Stack, made: Sequence[Change]) -> Iterator[Changed]:
    """The stack, stored, after these changes were made through the union, with metacopies."""
    with tempfile.TemporaryDirectory() as directory:
        lowers, upper, work = model.build(stack, directory)
        fs = UnionFilesystem(
            [DirectoryLayer(path) for path in lowers],
            WritableDirectory(upper),
            WritableDirectory(work),
            UnionOptions(metacopy=True),
        )
        with Tree(fs, ROOT) as merged:
            for change in made:
                change(merged)
            names = {
                os.path.join(at, name).lstrip(b"/") for at, dirs, files in merged.walk(b"/") for name in (*dirs, *files)
            }
        fs.close()
        yield Changed(lowers, upper, work, names)
