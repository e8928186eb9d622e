"""The engine does what the model says, in process and without privileges, however the upper is stored.

As root, kernel overlayfs is mounted at the end of each example on what the engine left, and must show the same tree.
"""

from __future__ import annotations

import errno
import os
from functools import partial

import pytest

from tests.requirements import requires

from .arenas import EngineArena
from .drivers import Op
from .layers import Node, Stack
from .machine import run
from .regressions import METACOPIES, PLAIN, REGRESSIONS, USER_MARKS, applicable
from .strategies import stacks, without_upper, without_xattrs
from .trial import replay

any_stack = stacks(("kernel", "xattr", "aufs"))
keeping = pytest.mark.parametrize("keep", [True, False], ids=["entries-kept", "entries-forgotten"])
on_ramfs = partial(EngineArena, store="ramfs")


@keeping
def test_the_engine_does_what_the_model_says(keep: bool) -> None:
    run(partial(EngineArena, keep=keep), any_stack)


@keeping
@pytest.mark.parametrize("script", applicable(REGRESSIONS).values(), ids=applicable(REGRESSIONS))
def test_regression(script: tuple[Stack, list[Op]], keep: bool) -> None:
    replay(*script, partial(EngineArena, keep=keep))


def test_over_layers_that_are_tars() -> None:
    run(partial(EngineArena, packed=True), stacks(("aufs",)))


def test_a_rename_that_is_refused_copies_nothing_up() -> None:
    arena = EngineArena(Stack(lowers=((Node("file", "a"), Node("dir", "b")),)))
    try:
        for target, flags, code in (("a", 1, errno.EEXIST), ("b", 0, errno.EISDIR), ("c", 2, errno.ENOENT)):
            with pytest.raises(OSError) as refused:
                arena.engine.rename("a", target, flags)
            assert refused.value.errno == code
        assert os.listdir(arena.bench.upper) == []
    finally:
        arena.close()


def test_with_marks_in_user_xattrs() -> None:
    run(partial(EngineArena, store="user"), any_stack.map(without_upper))


@requires("root")
@pytest.mark.parametrize("script", USER_MARKS.values(), ids=USER_MARKS)
def test_regression_with_marks_in_user_xattrs(script: tuple[Stack, list[Op]]) -> None:
    replay(*script, partial(EngineArena, store="user"))


@requires("root")
def test_with_metacopies() -> None:
    run(partial(EngineArena, metacopy=True), any_stack)


@requires("root")
@pytest.mark.parametrize("script", METACOPIES.values(), ids=METACOPIES)
def test_regression_with_metacopies(script: tuple[Stack, list[Op]]) -> None:
    replay(*script, partial(EngineArena, metacopy=True))


def test_on_an_upper_with_aufs_whiteouts() -> None:
    run(partial(EngineArena, store="aufs"), any_stack.map(without_upper))


@requires("root")
def test_on_a_file_system_without_xattrs_and_handles() -> None:
    run(on_ramfs, any_stack.map(without_xattrs), without=("setxattr", "getxattr", "removexattr", "hsetxattr"))


@requires("root")
@pytest.mark.parametrize("script", PLAIN.values(), ids=PLAIN)
def test_regression_without_xattrs(script: tuple[Stack, list[Op]]) -> None:
    replay(*script, on_ramfs)
