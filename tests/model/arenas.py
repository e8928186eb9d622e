"""The pairings: who is compared with the model, and which views of the same layers are compared at the end.

    KernelArena   kernel overlayfs; at the end our engine on the same layers        measures the model, and the oracle
    EngineArena   our engine in process; at the end kernel overlayfs on them        needs no root but for the kernel
    MountArena    our mount and the kernel's side by side; at the end each on the other's upper
"""

from __future__ import annotations

from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem
from unionfs.vfs import Filesystem

from .drivers import Driver, EngineDriver
from .layers import PRIVILEGED, Stack, without_stray_whiteouts
from .rigs import Bench
from .trial import Check


def engine(bench: Bench, keep: bool = True) -> EngineDriver:
    def make() -> Filesystem:
        lowers = [DirectoryLayer(path) for path in bench.lowers]
        return UnionFilesystem(lowers, WritableDirectory(bench.upper), WritableDirectory(bench.work))

    return EngineDriver(make, keep)


class KernelArena:
    """Kernel overlayfs."""

    def __init__(self, stack: Stack) -> None:
        self.bench = Bench(stack)
        self.kernel = self.bench.kernel()
        self.drivers: dict[str, Driver] = {"kernel": self.kernel}

    def finish(self, check: Check) -> None:
        self.kernel.remount()
        check("kernel, mounted again,", self.kernel)
        self.kernel.close()
        _check_engine(self.bench, check)

    def close(self) -> None:
        self.bench.close()


class EngineArena:
    """Our engine; the stack's first letters decide whether the driver holds on to entries (see EngineDriver)."""

    def __init__(self, stack: Stack, keep: bool = True) -> None:
        self.bench = Bench(stack)
        self.engine = engine(self.bench, keep)
        self.drivers: dict[str, Driver] = {"engine": self.engine}
        # What the kernel cannot read, or lists wrongly (KNOWN_DIFFERENCES), it is not asked about.
        self.comparable = "aufs" not in stack.encodings and without_stray_whiteouts(stack) == stack

    def finish(self, check: Check) -> None:
        self.engine.remount()
        check("engine, mounted again,", self.engine)
        self.engine.close()
        if PRIVILEGED and self.comparable:
            kernel = self.bench.kernel()
            check("kernel overlayfs on the engine's upper", kernel)
            kernel.close()

    def close(self) -> None:
        self.engine.fs.close()
        self.bench.close()


def _check_engine(bench: Bench, check: Check) -> None:
    ours = engine(bench)
    try:
        check("the engine on the kernel's upper", ours)
        ours.close()
    finally:
        ours.fs.close()
