"""A copy of an upper, made at once where the file system can share data (FICLONE: xfs, btrfs), so that changes of a
mount are held for the copy alone, and the layer is written from it while they go on.

    wanted = pays(spec)         before changes are held, since it takes its time
    with held(mountpoint) as hold, snapshot(spec, hold, wanted) as seen:
        write(seen)             `hold` has ended, if `seen` is a copy

The copy lies in the work directory, beside the index of hard links, of which it has a copy too. It is worth it where
there is much data in few files: each costs some system calls, its data none. A crash leaves it; the next one that is
made there removes it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from unionfs.api.hold import Held
from unionfs.api.layers import StackSpec, remove_temporary
from unionfs.linux.data import ficlone, syncfs
from unionfs.mounts.registry import start_time

#: In a work directory: of the process with that number, which began then.
PREFIX: Final = b"snapshot-"
#: Bytes for which a copy is made, in all and for each file.
WORTH: Final = 64 << 20
WORTH_EACH: Final = 64 << 10
#: What is copied: that of the kernel's overlayfs (and ours) that knows of hard links.
_INDEX: Final = b"index"


def pays(spec: StackSpec) -> bool:
    """Is a copy of the upper of a live mount possible, and soon made?

    Then what is to be copied is on disk: data that is not is written before it is shared, and nobody is to wait for
    that.
    """
    if spec.upper is None or spec.work is None:
        return False
    try:
        if not _is_worth(spec.upper) or not _shares(spec.upper, spec.work):
            return False
        fd = os.open(spec.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False  # whoever reads it will say why
    try:
        syncfs(fd)
    finally:
        os.close(fd)
    return True


@contextmanager
def snapshot(spec: StackSpec, hold: Held, wanted: bool) -> Iterator[StackSpec]:
    """`spec` with a copy of its upper, and `hold` at its end; or as it is, where none is wanted, there is nothing to be
    held, or the copy cannot be made."""
    upper, work = spec.upper, spec.work
    if not wanted or upper is None or work is None or not hold.holds:
        yield spec
        return
    _sweep(work)
    place = os.path.join(work, PREFIX + b"%d-%d" % (os.getpid(), start_time(os.getpid()) or 0))
    os.mkdir(place, 0o700)
    try:
        copied = _copy(upper, work, place)
        if copied:
            hold.end()
        yield spec._replace(upper=os.path.join(place, b"upper"), work=place) if copied else spec
    finally:
        remove_temporary(place)


def _is_worth(upper: bytes) -> bool:
    size = count = 0
    pending = [upper]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                count += 1
                if stat.S_ISREG(info.st_mode):
                    size += 512 * info.st_blocks
                elif stat.S_ISDIR(info.st_mode):
                    pending.append(entry.path)
    return size >= WORTH and size >= count * WORTH_EACH


def _shares(upper: bytes, work: bytes) -> bool:
    """Can a file of this file system share data with another?"""
    if os.stat(upper).st_dev != os.stat(work).st_dev:
        return False
    with tempfile.TemporaryFile(dir=work) as source, tempfile.TemporaryFile(dir=work) as target:
        source.write(bytes(4096))
        source.flush()
        try:
            ficlone(target.fileno(), source.fileno())
        except OSError:
            return False
    return True


def _copy(upper: bytes, work: bytes, place: bytes) -> bool:
    """Both at once, so that names of one file stay so. cp keeps everything that a layer, and the index, is made of:
    kinds, owners, modes, times, links and extended attributes, as root those of trusted.* too."""
    index = os.path.join(work, _INDEX)
    if shutil.which("cp") is None or os.path.basename(upper.rstrip(b"/")) == _INDEX:
        return False  # the two would become one
    sources = [upper, index] if os.path.isdir(index) else [upper]
    done = subprocess.run(
        ["cp", "-a", "--reflink=always", "--", *sources, place],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if done.returncode:
        return False
    name = os.path.join(place, os.path.basename(upper.rstrip(b"/")))
    if name != os.path.join(place, b"upper"):
        os.rename(name, os.path.join(place, b"upper"))
    return True


def _sweep(work: bytes) -> None:
    """Remove what processes have left that are gone."""
    for name in os.listdir(work):
        if name.startswith(PREFIX):
            pid, _, began = name.removeprefix(PREFIX).partition(b"-")
            if not (pid.isdigit() and began.isdigit() and start_time(int(pid)) == int(began)):
                remove_temporary(os.path.join(work, name))
