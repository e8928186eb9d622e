"""`check` and `convert`: what is wrong with an upper or a layer, and its whiteouts in another encoding.

A directory is taken for an upper where its work directory is given or stands beside it as UPPER.work, else for a
layer. What changes it holds it meanwhile, so that no mount of ours begins to write to it, and refuses one in use.
Attributes of the trusted. namespace are seen by root alone: to all others a tree that has some looks as if it had none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from unionfs.api.layers import LayerSpec, check_directory, default_work, expand, open_layer
from unionfs.errors import LayerError
from unionfs.layers.upper import WritableDirectory
from unionfs.mounts.registry import Registry
from unionfs.upkeep.check import Checked, Finding
from unionfs.upkeep.check import check as _check
from unionfs.upkeep.convert import ENCODINGS, Converted, Encoding, Namespace
from unionfs.upkeep.convert import convert as _convert
from unionfs.upkeep.data import bring_up_data, metacopies

__all__ = ["ENCODINGS", "Checked", "Converted", "Encoding", "Finding", "Namespace", "check", "convert"]


def check(
    directory: LayerSpec,
    *,
    layers: Iterable[LayerSpec] = (),
    work: LayerSpec | None = None,
    repair: bool = False,
    store: LayerSpec | None = None,
) -> Checked:
    """What is wrong with an upper or a layer, by rules about its whiteouts, attributes and work directory.

    `layers`: what is below it, topmost first; without them nothing is said of whiteouts, redirects and metacopies that
    lead to nothing; `store`: where images among them are looked for by name. `repair`: mend what can be mended without
    loss; MountError where a live mount uses it. Without, the work directory of one in use is not judged.
    """
    if os.path.isfile(directory):
        if repair or work is not None:
            raise LayerError(
                f"layer {os.fsdecode(directory)} is a tar, which is only read",
                hint="without --repair and -w; or `unionfs apply` it to a directory first",
            )
        return _check_tar(directory, layers, store)
    path, desk = _tree(directory, work)
    below, _ = expand(layers, store)
    with ExitStack() as stack:
        tree = stack.enter_context(_open(path, repair))
        shelf = stack.enter_context(_open(desk, repair)) if desk is not None else None
        if repair:
            stack.enter_context(_held(path, desk))
        in_use = not repair and Registry().user_of(path) is not None
        lowers = [open_layer(one) for one in below]  # closed by what they are given to
        return _check(
            tree,
            upper=desk is not None,
            work=None if in_use else shelf,
            lowers=lowers,
            repair=(tree, shelf) if repair else None,
        )


def _check_tar(tar: LayerSpec, layers: Iterable[LayerSpec], store: LayerSpec | None) -> Checked:
    below, _ = expand(layers, store)
    tree = open_layer(tar)
    try:
        return _check(tree, lowers=[open_layer(one) for one in below])
    finally:
        tree.close()


def convert(
    directory: LayerSpec,
    encoding: Encoding,
    *,
    xattrs: Namespace | None = None,
    layers: Iterable[LayerSpec] = (),
    work: LayerSpec | None = None,
) -> Converted:
    """Bring the whiteouts and opaque marks of an upper or a layer into another encoding, in place.

    `layers`: what is below it, topmost first: from them, metacopies get their data where the encoding has none.
    `xattrs`: the namespace its own attributes shall be in; None leaves them in theirs. LayerError names what the
    encoding cannot hold, before anything is changed; MountError where a live mount uses it. Idempotent; what a crash
    leaves half done reads the same, and the next call completes it.
    """
    path, desk = _tree(directory, work)
    below, _ = expand(layers)
    with ExitStack() as stack:
        tree = stack.enter_context(_open(path, True))
        shelf = stack.enter_context(_open(desk, True)) if desk is not None else None
        stack.enter_context(_held(path, desk))
        if below and encoding in ("aufs", "fuse-overlayfs"):
            _bring_up_data(path, desk, below)
        privileged = os.geteuid() == 0
        return _convert(tree, encoding, xattrs=xattrs, work=shelf, upper=desk is not None, privileged=privileged)


def _bring_up_data(path: bytes, desk: bytes | None, below: tuple[bytes, ...]) -> None:
    with _open(path, True) as tree:
        if not metacopies(tree, upper=desk is not None):
            return
    # Whatever the umask: a metacopy's copy is given its mode (overlay.copy_up).
    with _work(path, desk) as shelf:
        upper, work = WritableDirectory(path), WritableDirectory(shelf)
        bring_up_data(upper, work, [open_layer(one) for one in below], upper=desk is not None)


@contextmanager
def _work(path: bytes, desk: bytes | None) -> Iterator[bytes]:
    """The tree's work directory; for a layer, one made for the time being."""
    if desk is not None:
        yield desk
        return
    made = tempfile.mkdtemp(prefix=b"unionfs-", dir=os.path.dirname(os.path.abspath(path)))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _tree(directory: LayerSpec, work: LayerSpec | None) -> tuple[bytes, bytes | None]:
    """The directory, and its work directory if it is an upper."""
    path = check_directory(directory)
    if work is not None:
        return path, check_directory(work)
    desk = default_work(path)
    return path, desk if os.path.isdir(desk) else None


@contextmanager
def _open(path: bytes, writes: bool) -> Iterator[WritableDirectory]:
    """A tree that is to be read, and changed if `writes`."""
    if writes and not os.access(path, os.W_OK):
        raise LayerError(f"{os.fsdecode(path)} cannot be written by this user", hint="run as its owner or root")
    layer = WritableDirectory(path)
    try:
        yield layer
    finally:
        layer.close()


@contextmanager
def _held(path: bytes, desk: bytes | None) -> Iterator[None]:
    directories = [(path, "layer")] if desk is None else [(path, "upper"), (desk, "work directory")]
    with Registry().hold(*directories):
        yield
