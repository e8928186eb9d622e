from functools import partial
from .arenas import EngineArena
from .machine import run
from .strategies import stacks
import pytest
@pytest.mark.parametrize("keep", [True, False])
def test_engine(keep):
    run(partial(EngineArena, keep=keep), stacks(("kernel", "xattr", "aufs")))
