"""`Describer`: the extended attributes `user.unionfs.*` of an open union, as explain/attributes.py has them.

Tars at the bottom of a stack may be one layer to the engine, whose index is merged; then they are opened each by itself
the first time that somebody asks, so that they are told apart as `unionfs which` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unionfs.api.layers import StackSpec
from unionfs.layers.layer import Layer, Path
from unionfs.overlay import UnionFilesystem, UnionOptions

if TYPE_CHECKING:
    from unionfs.layers.tar import TarLayer


class Describer:
    """Called with the union's lock held. `close` it before the union."""

    def __init__(self, fs: UnionFilesystem, spec: StackSpec) -> None:
        self._fs = fs
        self._spec = spec
        self._tars: list[TarLayer] = []

    def __call__(self, path: Path, name: bytes) -> bytes | None:
        from unionfs.explain.attributes import attribute  # few mounts are ever asked
        from unionfs.explain.which import which

        try:
            found = which(self._apart(), path)
        except FileNotFoundError:
            return None
        return attribute(found, (self._spec.upper, *self._spec.lowers), self._spec.work, name)

    def _apart(self) -> UnionFilesystem:
        """The union with each of its layers as one of its own. What it shares with the other is closed with that."""
        stack = self._fs._union.stack
        if len(stack.lowers) == len(self._spec.lowers):
            return self._fs
        kept: list[Layer] = list(stack.lowers[:-1])
        if not self._tars:
            from unionfs.api.tar_layers import open_tar

            self._tars = [open_tar(path) for path in self._spec.lowers[len(kept) :]]
        upper = stack.upper if stack.has_upper else None
        work = stack.work if stack.has_work else None
        return UnionFilesystem([*kept, *self._tars], upper, work, UnionOptions(read_only=True, metacopy=True))

    def close(self) -> None:
        for tar in self._tars:
            tar.close()


def describe(fs: UnionFilesystem, spec: StackSpec) -> None:
    """Let an open union answer for `user.unionfs.*`."""
    fs.describe(Describer(fs, spec))
