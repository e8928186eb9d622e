"""The engine does what the model says, in process and without privileges.

As root, kernel overlayfs is mounted at the end of each example on what the engine left, and must show the same tree.
"""

from __future__ import annotations

from functools import partial

import pytest

from .arenas import EngineArena
from .drivers import Op
from .layers import Stack
from .machine import run
from .regressions import REGRESSIONS, applicable
from .strategies import stacks
from .trial import replay

ENCODINGS = ("kernel", "xattr", "aufs")

keeping = pytest.mark.parametrize("keep", [True, False], ids=["entries kept", "entries forgotten"])


@keeping
def test_the_engine_does_what_the_model_says(keep: bool) -> None:
    run(partial(EngineArena, keep=keep), stacks(ENCODINGS))


@keeping
@pytest.mark.parametrize("script", applicable(REGRESSIONS).values(), ids=applicable(REGRESSIONS))
def test_regression(script: tuple[Stack, list[Op]], keep: bool) -> None:
    replay(*script, partial(EngineArena, keep=keep))
