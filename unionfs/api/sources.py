"""`which`: the layer that a path of a union comes from, what the others have there, and where the bytes are.

The layers of a live mount are opened once more beside it (api.opened); its changes are not held, since one name is
looked at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unionfs.api.layers import LayerSpec, StackSpec
from unionfs.api.opened import opened_path
from unionfs.errors import LayerError
from unionfs.explain.which import Hider, Part, Place, Which
from unionfs.explain.which import which as _which
from unionfs.explain.which import which_all as _which_all
from unionfs.layers.layer import LayerFile
from unionfs.layers.over import FileOver
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.stack import UPPER

__all__ = ["Hider", "Part", "Place", "Source", "Stored", "Which", "which", "which_all"]


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a file's bytes are: the whole of the file `file`, or, where `offset` is not None, `size` bytes from there
    on in a tar; with `sparse` only the first of several pieces. The tar is the uncompressed one, so `file` is that in
    the cache where the layer is compressed."""

    file: bytes
    size: int
    offset: int | None = None
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """`layers`: absolute path of each layer, the upper's first (None where there is none), as numbered in `which`."""

    which: Which
    layers: tuple[bytes | None, ...]
    data: Stored | None


def which(
    path: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> Source:
    """What the union did about one path: in a live mount, or, with `layers` (topmost first) and perhaps an upper, in
    the tree of those.

    The last component may be hidden or deleted. Symbolic links on the way are followed in a mount, as the kernel does,
    and nowhere else. LayerError where no layer has anything there; MountError where there is no mount.
    """
    with opened_path(path, layers, upper, work, store) as (fs, spec, inner), named(path, fs, inner):
        found = _which(fs, inner)
        return Source(found, _paths(spec), _stored(fs, spec, found.data))


def which_all(
    path: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> list[Source]:
    """The same of all names that a directory shows, in order."""
    with opened_path(path, layers, upper, work, store) as (fs, spec, inner), named(path, fs, inner):
        return [Source(one, _paths(spec), _stored(fs, spec, one.data)) for one in _which_all(fs, inner)]


@contextmanager
def named(path: LayerSpec, fs: UnionFilesystem, inner: bytes) -> Iterator[None]:
    """What the engine says of `inner`, in terms of what the caller gave."""
    shown = os.fsdecode(path)
    try:
        yield
    except FileNotFoundError as e:
        link = _link_on(fs, inner)
        if link is not None:
            raise LayerError(f"{shown}: /{os.fsdecode(link)} is a symbolic link", hint="name what it leads to") from e
        raise LayerError(
            f"{shown}: no layer has it, and none hides it", hint="unionfs which --all lists a directory"
        ) from e
    except NotADirectoryError as e:
        raise LayerError(f"{shown} is not a directory", hint="leave --all out") from e
    except OSError as e:
        raise OSError(e.errno or errno.EIO, e.strerror, shown) from e


def _link_on(fs: UnionFilesystem, path: bytes) -> bytes | None:
    """The symbolic link that the way to a path comes upon."""
    parts = path.split(b"/")
    for end in range(1, len(parts)):
        way = b"/".join(parts[:end])
        try:
            kind = _which(fs, way).kind
        except FileNotFoundError:
            return None
        if kind == "symlink":
            return way
    return None


def _paths(spec: StackSpec) -> tuple[bytes | None, ...]:
    return (spec.upper, *spec.lowers)


def _stored(fs: UnionFilesystem, spec: StackSpec, data: Place | None) -> Stored | None:
    """None where there are no bytes."""
    if data is None:
        return None
    stack = fs._union.stack  # its layers, as the walk has just numbered them
    layer = stack.work if data.in_work else stack.layer(data.layer)
    root = spec.work if data.in_work else spec.upper if data.layer == UPPER else spec.lowers[data.layer - 1]
    assert root is not None
    if os.path.isdir(root):
        return Stored(os.path.join(root, data.path), layer.lstat(data.path).st_size)
    file = layer.open(data.path)
    try:
        return _extent(file)
    finally:
        file.close()


def _extent(file: LayerFile) -> Stored | None:
    """Where an open file of a tar lies."""
    if isinstance(file, FileOver):
        file = file.file
    size = file.fstat().st_size
    if file.fd >= 0:  # a hard link of a tar to what a directory below has
        return Stored(os.readlink(b"/proc/self/fd/%d" % file.fd), size)
    extent = getattr(file, "extent", None)
    if extent is None:
        return None
    sparse = not getattr(file, "in_one_piece", True)
    try:
        piece = extent(file.seek_data(0) if sparse else 0)
    except OSError:  # ENXIO: nothing but a hole
        piece = None
    if piece is None:
        return None
    fd, offset, length = piece
    return Stored(os.readlink(b"/proc/self/fd/%d" % fd), length, offset, sparse)
