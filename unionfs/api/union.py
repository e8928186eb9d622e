"""`open_union`: a checked stack opened as one file system."""

from __future__ import annotations

from unionfs.api.layers import StackSpec, open_layer
from unionfs.layers.layer import Layer, WritableLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions


def open_union(
    spec: StackSpec, options: UnionOptions | None = None, umask: int = 0, *, merge: bool = True
) -> UnionFilesystem:
    """Open the layers of a checked stack and merge them. `umask`: the process's. `merge`: tars at the bottom may become
    one layer, which is faster; else each stays one of its own. What was opened is closed again if that fails."""
    options = (options or UnionOptions())._replace(read_only=spec.read_only)
    owners = spec.owners
    lowers: list[Layer] = []
    upper: WritableLayer | None = None
    work: WritableLayer | None = None
    try:
        lowers += [open_layer(path) for path in spec.lowers]
        if any(hasattr(layer, "lower_links") for layer in lowers):
            from unionfs.api.tar_layers import merge_tars
            from unionfs.overlay.lower_links import bind_links

            if owners is None and merge:
                lowers = merge_tars(lowers)
            bind_links(lowers)
        if spec.upper is not None:
            upper = _writable(spec.upper, umask)
        if spec.work is not None:
            work = _writable(spec.work, umask)
        if owners is not None:
            stored = tuple(lowers)
            lowers = [owners.lower(layer) for layer in stored]
            if upper is not None:
                upper, work = owners.writable(upper, work, stored, read_only=spec.read_only)
        return UnionFilesystem(lowers, upper, work, options)
    except BaseException:
        for layer in (*lowers, upper, work):
            if layer is not None:
                layer.close()
        raise


def _writable(path: bytes, umask: int) -> WritableDirectory:
    if not umask:
        return WritableDirectory(path)
    from unionfs.layers.unmasked import UnmaskedDirectory

    return UnmaskedDirectory(path, umask)
