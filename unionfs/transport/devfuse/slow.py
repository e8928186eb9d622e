"""Which requests by name may take long: those whose name, or whose victim's, leads to what would be copied up first.

Each function makes an entry of session's table: from a request to whether a worker is to answer it. The names are taken
unchecked; the handler checks them. `slow_name` is the file system's (see the package).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from unionfs.transport.devfuse.abi import IN_HEADER_SIZE
from unionfs.transport.devfuse.requests import Buffer
from unionfs.vfs import NodeId

SlowName = Callable[[NodeId, bytes], bool]
_NAME = 256  # with its NUL


def by_name(slow_name: SlowName) -> Callable[[Buffer, int], bool]:
    """The body is one name."""
    end = IN_HEADER_SIZE + _NAME
    return lambda buffer, node: slow_name(node, bytes(buffer[IN_HEADER_SIZE:end]).partition(b"\0")[0])


def by_two_names(slow_name: SlowName, layout: Struct) -> Callable[[Buffer, int], bool]:
    """The body is `layout`, which begins with the new parent, the old and the new name."""
    start = IN_HEADER_SIZE + layout.size

    def is_slow(buffer: Buffer, node: int) -> bool:
        old, _, rest = bytes(buffer[start : start + 2 * _NAME]).partition(b"\0")
        new_parent: int = layout.unpack_from(buffer, IN_HEADER_SIZE)[0]
        return slow_name(node, old) or slow_name(new_parent, rest.partition(b"\0")[0])

    return is_slow
