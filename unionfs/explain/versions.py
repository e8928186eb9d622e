"""The union as it was at each of its layers: what that one and those below it show together.

Layer numbers are those of the whole union. A version is the engine's own, over the same open layers, and reads only.
"""

from __future__ import annotations

from unionfs.layers.layer import Layer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.stack import UPPER

_NAMESPACES = (b"trusted.", b"user.")


class Versions:
    """Of a union, which nobody changes meanwhile and which is closed by its owner, after the last use of these."""

    def __init__(self, fs: UnionFilesystem) -> None:
        self._fs = fs
        self._made: dict[int, UnionFilesystem] = {}
        stack = fs._union.stack
        #: From the top.
        self.numbers = range(UPPER if stack.has_upper else 1, len(stack.lowers) + 1)

    def layer(self, number: int) -> Layer:
        return self._fs._union.stack.layer(number)

    def shift(self, number: int) -> int:
        """What is to be added to a layer's number in the version of layer `number` to get that in the union."""
        return 0 if number == self.numbers.start else number - 1

    def at(self, number: int) -> UnionFilesystem:
        """The union of layer `number` and all below it."""
        if number == self.numbers.start:
            return self._fs
        known = self._made.get(number)
        if known is None:
            stack = self._fs._union.stack
            known = UnionFilesystem(
                stack.lowers[number - 1 :], None, None, UnionOptions(read_only=True, metacopy=self._fs._union.metacopy)
            )
            # In the union's own namespace, whose redirects it follows, though there is no upper to say so.
            known._union.stack.use_namespace(next(one for one in _NAMESPACES if stack.private(b"").startswith(one)))
            stack.share_dir_fds()  # the layers may keep more of their directories open for a smaller stack
            self._made[number] = known
        return known

    def before(self, number: int) -> UnionFilesystem | None:
        """The union of what lies below a layer; None below the last."""
        return self.at(number + 1) if number + 1 in self.numbers else None
