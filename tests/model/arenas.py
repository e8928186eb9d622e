"""The pairings: who is compared with the model, and which views of the same layers are compared at the end.

KernelArena   kernel overlayfs; at the end our engine on the same layers        measures the model, and the oracle
EngineArena   our engine in process; at the end kernel overlayfs on them        needs no root but for the kernel
MountArena    our mount and the kernel's side by side; at the end each on the other's upper
"""

from __future__ import annotations

from .drivers import Driver
from .engine_driver import EngineDriver
from .layers import PRIVILEGED, Stack, without_stray_whiteouts
from .rigs import STORES, Bench, Store
from .trial import Check


class KernelArena:
    """Kernel overlayfs."""

    forgets = STORES["native"]

    def __init__(self, stack: Stack) -> None:
        self.bench = Bench(stack)
        self.kernel = self.bench.kernel()
        self.drivers: dict[str, Driver] = {"kernel": self.kernel}

    def finish(self, check: Check) -> None:
        self.kernel.remount()
        check("kernel, mounted again,", self.kernel)
        self.kernel.close()
        ours = EngineDriver(self.bench.filesystem)
        try:
            check("the engine on the kernel's upper", ours)
            ours.close()
        finally:
            ours.fs.close()

    def close(self) -> None:
        self.bench.close()


class EngineArena:
    """Our engine. `keep`: whether the driver holds on to entries (see EngineDriver). `store`: see rigs.STORES.
    `packed`: see rigs.Bench."""

    def __init__(
        self, stack: Stack, keep: bool = True, store: Store = "native", metacopy: bool = False, packed: bool = False
    ) -> None:
        self.bench = Bench(stack, store, metacopy, packed)
        self.forgets = STORES[store]
        try:
            self.engine = EngineDriver(self.bench.filesystem, keep, self.bench.push)
        except BaseException:
            self.bench.close()
            raise
        self.drivers: dict[str, Driver] = {"engine": self.engine}
        # What the kernel cannot read, or lists wrongly (KNOWN_DIFFERENCES), it is not asked about.
        legible = "aufs" not in stack.encodings and without_stray_whiteouts(stack) == stack
        self.comparable = PRIVILEGED and store == "native" and legible

    def finish(self, check: Check) -> None:
        self.engine.remount()
        check("engine, mounted again,", self.engine)
        self.engine.close()
        if self.comparable:
            kernel = self.bench.kernel()
            check("kernel overlayfs on the engine's upper", kernel)
            kernel.close()

    def close(self) -> None:
        self.engine.fs.close()
        self.bench.close()


class MountArena:
    """Our mount and the kernel's on equal layers. At the end each is mounted on what the other left."""

    forgets = STORES["native"]

    def __init__(
        self, stack: Stack, transport: str = "devfuse", passthrough: bool = True, metacopy: bool = False
    ) -> None:
        self.transport, self.passthrough = transport, passthrough
        self.benches = [Bench(stack, metacopy=metacopy)]
        try:
            self.ours = self.benches[0].ours(transport, passthrough)
            self.benches.append(Bench(stack, metacopy=metacopy))
            self.kernel = self.benches[1].kernel()
        except BaseException:
            self.close()
            raise
        self.drivers: dict[str, Driver] = {"ours": self.ours, "kernel": self.kernel}

    def finish(self, check: Check) -> None:
        for driver, name in ((self.ours, "ours"), (self.kernel, "kernel")):
            driver.remount()
            check(f"{name}, mounted again,", driver)
            driver.close()
        kernel = self.benches[0].kernel()
        check("kernel overlayfs on our upper", kernel)
        kernel.close()
        ours = self.benches[1].ours(self.transport, self.passthrough)
        check("our mount on the kernel's upper", ours)
        ours.close()

    def close(self) -> None:
        for bench in self.benches:
            bench.close()
