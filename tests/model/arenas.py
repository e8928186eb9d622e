"""The pairings: who is compared with the model, and which views of the same layers are compared at the end."""

from __future__ import annotations

from .drivers import Driver
from .layers import Stack
from .rigs import Bench
from .trial import Check


class KernelArena:
    """Kernel overlayfs: the oracle that the model itself is measured by."""

    def __init__(self, stack: Stack) -> None:
        self.bench = Bench(stack)
        self.kernel = self.bench.kernel()
        self.drivers: dict[str, Driver] = {"kernel": self.kernel}

    def finish(self, check: Check) -> None:
        self.kernel.remount()
        check("kernel", self.kernel)
        self.kernel.close()

    def close(self) -> None:
        self.bench.close()
