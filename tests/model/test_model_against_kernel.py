from .arenas import KernelArena
from .machine import machine
from .layers import without_stray_whiteouts
from .strategies import stacks
TestKernel = machine(KernelArena, stacks(("kernel", "kernel", "xattr")).map(without_stray_whiteouts)).TestCase
