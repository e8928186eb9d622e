"""Trees to be compared or written down: what their names mean, and how each is opened.

    DIR                 a directory, as it lies there; if a unionfs is mounted on it, the merged tree, of one moment
    FILE                a layer tar, as it lies there; or a snapshot
    NAME[:TAG], ID      an image of the store: its layers merged
    oci:, oci-archive:, docker-archive:    an image elsewhere
    layer:PATH          a directory or tar as a changeset: whiteouts in any encoding are whiteouts
    upper:DIR           the same of an upper, where `.wh.` names are files
    snapshot:FILE       mtree(5), as `write_snapshot` and other programs write it

What exists as a path is that path, as for layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from unionfs.api import HOLD_SECONDS
from unionfs.api.changes import OnHold, check_outside, holding
from unionfs.api.hold import Held
from unionfs.api.layers import LayerSpec, StackSpec, check_directory, expand, names_image, open_layer
from unionfs.api.mounting import mounted_stack
from unionfs.api.union import open_union
from unionfs.changeset.replacing import replacing
from unionfs.compare import mtree
from unionfs.compare.globs import Scope
from unionfs.compare.snapshot import SnapshotView, write
from unionfs.compare.stored import ChangesetView
from unionfs.compare.view import FilesystemView, LayerView
from unionfs.compare.walk import Side
from unionfs.errors import LayerError, SnapshotError
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import Layer
from unionfs.mounts.registry import find
from unionfs.overlay import UnionOptions

__all__ = ["Pausing", "Snapshot", "open_tree", "write_snapshot"]

_LAYER: Final = "layer:"
_UPPER: Final = "upper:"
_SNAPSHOT: Final = "snapshot:"


@dataclass(frozen=True, slots=True)
class Pausing:
    """Whether the changes of a mount are held while it is read, for how long at most, and who is told."""

    wanted: bool = True
    limit: float = HOLD_SECONDS
    on_hold: OnHold | None = None


#: Called with what is not as it should be, and what to do about it.
OnWarning = Callable[[str, str | None], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tree that was written down: the file, or None where it went to a stream, and how many objects there are."""

    path: bytes | None
    objects: int


@contextmanager
def open_tree(
    spec: LayerSpec,
    *,
    store: LayerSpec | None = None,
    pausing: Pausing | None = None,
    on_warning: OnWarning | None = None,
) -> Iterator[tuple[Side, Held]]:
    """The tree that a name means, for the block, with the hold on it. LayerError, MountError, ImageError or
    SnapshotError where there is none; MountError at the end of the block, where changes were not held until then."""
    text = os.fsdecode(spec)
    with ExitStack() as stack:
        free = Held(None, HOLD_SECONDS)
        if text.startswith(_SNAPSHOT):
            yield _snapshot(text.removeprefix(_SNAPSHOT)), free
        elif text.startswith(_UPPER):
            path = text.removeprefix(_UPPER)
            layer: Layer = stack.enter_context(_closing(DirectoryLayer(check_directory(path))))
            yield Side(ChangesetView(layer, upper=True), named_below(path)), free
        elif text.startswith(_LAYER):
            path = text.removeprefix(_LAYER)
            layer = stack.enter_context(_closing(open_layer(path)))
            _warn_of_links(layer, path, on_warning)
            yield Side(ChangesetView(layer), named_below(path)), free
        elif names_image(spec):
            lowers, images = expand([spec], store)
            fs = open_union(StackSpec(lowers, images=images))
            stack.callback(fs.close)
            yield Side(FilesystemView(fs), named_below(text)), free
        elif os.path.isfile(spec) and _is_snapshot(spec):
            yield _snapshot(text), free
        elif os.path.isdir(spec) and _is_mounted(os.fsencode(spec)):
            yield stack.enter_context(_mount(spec, pausing or Pausing()))
        else:
            layer = stack.enter_context(_closing(open_layer(spec)))
            _warn_of_links(layer, text, on_warning)
            yield Side(LayerView(layer), named_below(text)), free


def named_below(name: str) -> Callable[[bytes], str]:
    """How what is in the tree is called."""
    return lambda path: f"{name.rstrip('/')}/{os.fsdecode(path)}" if path else name


@contextmanager
def _closing(layer: Layer) -> Iterator[Layer]:
    try:
        yield layer
    finally:
        layer.close()


def _is_mounted(path: bytes) -> bool:
    """Whether a unionfs is mounted there whose layers we know, or that has lost its daemon, which is to be said."""
    mounted = find(path)
    return mounted is not None and (mounted.record is not None or mounted.state == "dead")


@contextmanager
def _mount(mountpoint: LayerSpec, pausing: Pausing) -> Iterator[tuple[Side, Held]]:
    spec = mounted_stack(mountpoint)
    held = None if spec.upper is None else mountpoint  # without an upper nothing changes
    with holding(held, pausing.wanted, pausing.limit, pausing.on_hold) as hold:
        # Metacopies are looked for everywhere, as by diff.
        fs = open_union(spec._replace(read_only=True), UnionOptions(metacopy=True))
        try:
            yield Side(FilesystemView(fs), named_below(os.fsdecode(mountpoint))), hold
        finally:
            fs.close()


def _warn_of_links(layer: Layer, name: str, on_warning: OnWarning | None) -> None:
    links = getattr(layer, "lower_links", 0)
    if links and on_warning is not None:
        what = "hard link leads" if links == 1 else "hard links lead"
        on_warning(f"{links} {what} from {name} to layers below, and is not compared", "compare images, or mounts")


def _is_snapshot(spec: LayerSpec) -> bool:
    with open(spec, "rb") as file:
        return mtree.is_mtree(file.read(len(mtree.SIGNATURE)))


def _snapshot(name: str) -> Side:
    try:
        with open(name, "rb") as file:
            return Side(SnapshotView(file), named_below(name))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as e:
        raise LayerError(
            f"snapshot {name}: {(e.strerror or '').lower()}", hint="unionfs snapshot TREE -o FILE makes one"
        ) from e
    except SnapshotError as e:
        raise SnapshotError(f"snapshot {name}: {e}", hint=e.hint or "it is no mtree(5), or has been damaged") from e


def write_snapshot(
    tree: LayerSpec,
    output: LayerSpec | BinaryIO,
    *,
    paths: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    store: LayerSpec | None = None,
    pausing: Pausing | None = None,
    on_warning: OnWarning | None = None,
    progress: Callable[[int], None] | None = None,
) -> Snapshot:
    """Write a tree down as mtree(5), to compare with it later: to the file `output`, or to an open binary stream.

    Atomic: a file appears complete, or stays as it was. OSError names what cannot be read. `paths`, `exclude`: patterns
    (`unionfs.compare.globs`) of what is written, and what is not.
    """
    scope = Scope(paths, exclude)
    with ExitStack() as stack:
        side, hold = stack.enter_context(open_tree(tree, store=store, pausing=pausing, on_warning=on_warning))
        if not isinstance(output, str | bytes | os.PathLike):
            objects = write(side, output, scope=scope, progress=progress)
            output.flush()
            return Snapshot(None, objects)
        path = os.path.abspath(os.fsencode(output))
        if hold.holds:
            check_outside(output, tree)
        with replacing(path) as file:
            with os.fdopen(os.dup(file.fileno()), "wb") as out:
                objects = write(side, out, scope=scope, progress=progress)
            hold.end()  # before the file appears
        return Snapshot(path, objects)
