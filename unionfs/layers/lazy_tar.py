"""`LazyTarLayer`: a layer tar of which only the index is here, and the data of a file comes when it is read.

Its `LayerData` is a file that has all data at the places that the index says, once it has come, and a way to have it
come. Where from is not known here. What comes is right (whoever brings it compares it with its digests), or does not
come: EIO. Waiting for it ends with what `check` raises, when the one who waits is no longer wanted.

Names and attributes are those of any `TarLayer`, and never wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from unionfs.layers.layer import LayerFile, Path
from unionfs.layers.tar import TarLayer
from unionfs.layers.tar_file import TarFile
from unionfs.layers.tar_index import TarIndex

#: Called now and then by what waits; raises where it should not wait any longer.
Check = Callable[[], None]


class LayerData(Protocol):
    """`fd`: the file. All methods may be called by any thread."""

    @property
    def fd(self) -> int: ...

    @property
    def bytes_fetched(self) -> int:
        """How much was asked for, compressed as it is."""
        ...

    def has(self, start: int, end: int) -> bool:
        """Has [start, end) come? Does not wait for a network."""
        ...

    def fetch(self, start: int, end: int, ahead: int, check: Check) -> None:
        """See that [start, end) has come. What follows up to `ahead` may be wanted next. EIO where not."""
        ...

    def close(self) -> None:
        """Idempotent. `fd` stays open while something still comes."""
        ...


class LazyTarLayer(TarLayer):
    """Implements `Layer`. `data` is closed with it."""

    #: Opening a file is quick; reading it may wait for a network.
    fetches = True

    def __init__(
        self, data: LayerData, index: TarIndex, name: str, rebuild: Callable[[], TarIndex] | None = None
    ) -> None:
        self.data = data
        fd = os.dup(data.fd)
        try:
            super().__init__(fd, index, name, rebuild)
        except BaseException:
            os.close(fd)
            raise

    @property
    def fetched_bytes(self) -> int:
        return self.data.bytes_fetched

    def open(self, path: Path, flags: int = os.O_RDONLY) -> LayerFile:
        """As of any tar."""
        file = super().open(path, flags)
        if type(file) is not TarFile:
            return file  # of a layer below
        place = file.extent(0)
        size = file.stat_when_opened().st_size
        assert place is not None
        if not size or self.data.has(place[1], place[1] + size):
            return file
        return LazyTarFile(self.data, place[0], place[1], file.stat_when_opened())

    def close(self) -> None:
        self.data.close()
        super().close()


class LazyTarFile(TarFile):
    """A file of which not all has come yet."""

    __slots__ = ("_begin", "_come", "_data")

    def __init__(self, data: LayerData, fd: int, start: int, stat: os.stat_result) -> None:
        super().__init__(fd, start, stat)
        self._data, self._begin, self._come = data, start, False

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """None until all of the file has come: who is given a descriptor reads it without asking again."""
        return super().extent(offset) if self._all_here() else None

    def _all_here(self) -> bool:
        if not self._come and self._copy is None:
            self._come = self._data.has(self._begin, self._begin + self._stat.st_size)
        return self._come or self._copy is not None

    def fetch(self, size: int, offset: int, check: Check) -> None:
        """See that what `pread` gives has come."""
        end = min(offset + size, self._stat.st_size)
        if self._copy is None and not self._come and offset < end:
            self._data.fetch(self._begin + offset, self._begin + end, self._begin + self._stat.st_size, check)

    def pread(self, size: int, offset: int) -> bytes:
        self.fetch(size, offset, _always_wanted)
        return super().pread(size, offset)


def _always_wanted() -> None:
    pass
