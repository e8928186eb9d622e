"""The data of one file, with its holes, copied into another: FICLONE or copy_file_range where the layers' files can.

Needs no lock.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from unionfs.layers.layer import LayerFile

#: Bytes in one system call. A kernel without preemption gives the CPU to who waits for it only after one.
PART = 2 << 20
#: A file without holes of up to this size is copied by one read and one write.
SMALL = 128 << 10


def copy_data(source: LayerFile, target: LayerFile, end: int, dense: bool, check: Callable[[], None]) -> int:
    """Copy the first `end` bytes to a target that is empty or a hole, which has that size then; the bytes copied.
    `dense`: the source has no holes. `check` is called after each piece of a large one, and may raise."""
    _bring(source, 0, min(end, SMALL), check)
    if end <= SMALL and dense:
        return _write_all(target, source.pread(end, 0))
    # Looking for holes is a walk through all of the file, in one system call, that keeps a CPU from all others.
    parts = iter([(0, end)]) if dense else _data(source, end)
    copied = _copy_parts(source, target, parts, check)
    target.ftruncate(end)
    return copied


def _write_all(target: LayerFile, data: bytes) -> int:
    """write(2) may stop short of the end of the space, and says why only when called again."""
    done = target.pwrite(data, 0)
    while done < len(data):
        done += target.pwrite(memoryview(data)[done:], done)
    return done


def _data(source: LayerFile, end: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of what is no hole in [0, end)."""
    offset = 0
    while offset < end:
        try:
            offset = source.seek_data(offset)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return  # a hole up to the end
            raise
        if offset < end:
            stop = min(source.seek_hole(offset), end)
            yield offset, stop
            offset = stop


def _copy_parts(
    source: LayerFile, target: LayerFile, parts: Iterator[tuple[int, int]], check: Callable[[], None]
) -> int:
    """Copy the ranges; the bytes copied. `check` is called after each piece of one, and may raise."""
    copied = 0
    for offset, stop in parts:
        while offset < stop:
            _bring(source, offset, min(stop - offset, PART), check)
            count = target.copy_range(source, offset, offset, min(stop - offset, PART))
            if count == 0:
                return copied  # the lower file shrank behind our back
            offset += count
            copied += count
            check()
    return copied


def _bring(source: LayerFile, offset: int, size: int, check: Callable[[], None]) -> None:
    """Wait for data that is still to come (layers.lazy_tar)."""
    fetch = getattr(source, "fetch", None)
    if fetch is not None:
        fetch(size, offset, check)
