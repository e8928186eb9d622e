"""Hard links of a layer tar to what only a layer below it has: found in the union of those layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unionfs.layers.layer import Layer, Path
from unionfs.layers.tar import TarLayer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.vfs import ROOT


def bind_links(lowers: Sequence[Layer]) -> None:
    """Tell tar layers with hard links to what only layers below them have where that is (topmost first)."""
    for position, layer in reversed(list(enumerate(lowers))):  # what a link leads to may be such a link itself
        if isinstance(layer, TarLayer) and layer.lower_links and lowers[position + 1 :]:
            layer.bind(_finder(lowers[position + 1 :]))


def _finder(layers: Sequence[Layer]) -> Callable[[Path], tuple[Layer, Path] | None]:
    """Finds paths in the union of some layers, which it does not close."""
    union = UnionFilesystem(layers, None, None, UnionOptions(read_only=True))

    def find(path: Path) -> tuple[Layer, Path] | None:
        node = ROOT
        try:
            for name in path.split(b"/"):
                node = union.lookup(node, name).node
            return union.stored(node)
        except OSError:
            return None

    return find
