"""`which`: the layer that a path of a union comes from, what the others have there, and where the bytes are.

The layers of a live mount are opened once more beside it, read-only, as for `diff`; its changes are not held, since one
name is looked at. Unlike for a mount, tars at the bottom of a stack are not merged into one index: they are to be told
apart.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unionfs.api.layers import LayerSpec, StackSpec, plan
from unionfs.api.mounting import mounted_stack
from unionfs.api.union import open_union
from unionfs.errors import LayerError, MountError
from unionfs.explain.location import Locator, Roots, Stored
from unionfs.explain.which import Hider, Part, Place, Which
from unionfs.explain.which import which as _which
from unionfs.explain.which import which_all as _which_all
from unionfs.mounts.registry import find
from unionfs.overlay import UnionFilesystem, UnionOptions

__all__ = ["Hider", "Part", "Place", "Source", "Stored", "Which", "which", "which_all"]


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
    with opened(path, layers, upper, work, store) as (fs, spec, inner), naming(path, fs, inner):
        found = _which(fs, inner)
        return Source(found, _paths(spec), Locator(fs, roots_of(spec)).find(found.data))


def which_all(
    path: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    store: LayerSpec | None = None,
) -> list[Source]:
    """The same of all names that a directory shows, in order."""
    with opened(path, layers, upper, work, store) as (fs, spec, inner), naming(path, fs, inner):
        locator = Locator(fs, roots_of(spec))
        return [Source(one, _paths(spec), locator.find(one.data)) for one in _which_all(fs, inner)]


@contextmanager
def opened(
    path: LayerSpec,
    layers: Iterable[LayerSpec],
    upper: LayerSpec | None,
    work: LayerSpec | None,
    store: LayerSpec | None,
) -> Iterator[tuple[UnionFilesystem, StackSpec, bytes]]:
    """The union, the stack it is of, and the path in it."""
    layers, wanted = tuple(layers), os.fsencode(path)
    if layers or upper is not None:
        spec, inner = plan(layers, upper, work, read_only=True, store=store), relative(wanted)
    else:
        mountpoint, inner = mount_of(wanted)
        spec = mounted_stack(mountpoint)
    with looking(spec) as fs:
        yield fs, spec, inner


@contextmanager
def looking(spec: StackSpec) -> Iterator[UnionFilesystem]:
    """The union of a stack, to be looked at. Metacopies are looked for everywhere, as by diff."""
    fs = open_union(spec._replace(read_only=True), UnionOptions(metacopy=True), merge=False)
    try:
        yield fs
    finally:
        fs.close()


def mount_of(path: bytes) -> tuple[bytes, bytes]:
    """The mountpoint of the mount that a path lies in, and the path there. What is deleted lies where it would be."""
    parent, _, name = os.path.abspath(path).rpartition(b"/")
    place = os.path.join(os.path.realpath(parent or b"/"), name)
    mounted = find(place, inside=True)
    if mounted is None:
        raise MountError(
            f"{os.fsdecode(path)} is in no unionfs mount", hint="unionfs mounts lists them; or name the layers with -l"
        )
    mountpoint = os.path.realpath(mounted.mountpoint)
    if os.path.commonpath([place, mountpoint]) != mountpoint:  # a symbolic link to the mountpoint itself
        place = os.path.realpath(path)
    return mounted.mountpoint, relative(os.path.relpath(place, mountpoint))


def relative(path: bytes) -> bytes:
    """A path of the tree as layers know it: "." and ".." are taken away as names, so none leads out."""
    return os.path.normpath(b"/" + path).lstrip(b"/")


@contextmanager
def naming(path: LayerSpec, fs: UnionFilesystem, inner: bytes) -> Iterator[None]:
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


def roots_of(spec: StackSpec) -> Roots:
    return Roots((spec.upper, *spec.lowers), spec.work)
