from .arenas import KernelArena
from .machine import run
from .layers import without_stray_whiteouts
from .strategies import stacks
def test_kernel():
    run(KernelArena, stacks(("kernel", "kernel", "xattr")).map(without_stray_whiteouts))
