"""Which requests may take long, and so are for a worker. Handing one over costs some 20 µs, hence not all are.

What only the file system can know is asked of its optional parts `slow` and `slow_name`. No I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Final

from unionfs.transport.devfuse import abi, ioctls
from unionfs.transport.devfuse.abi import IN_HEADER_SIZE, OPCODES, Opcode
from unionfs.transport.devfuse.requests import Buffer
from unionfs.vfs import Filesystem, NodeId

#: (request, node) -> may it take long?
Slow = Callable[[Buffer, int], bool]

#: Flags of an OPEN that changes the file.
CHANGING: Final = os.O_ACCMODE | os.O_TRUNC

_BODY: Final = IN_HEADER_SIZE
_NAME: Final = 256  # with its NUL
_ALWAYS: Final = (
    Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.SYNCFS, Opcode.FALLOCATE, Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64,
)  # fmt: skip


def slow_table(fs: Filesystem) -> list[Slow | None]:
    """By opcode; None: never."""
    slow: Callable[[NodeId], bool] | None = getattr(fs, "slow", None)
    slow_name: Callable[[NodeId, bytes], bool] | None = getattr(fs, "slow_name", None)
    table: list[Slow | None] = [None] * OPCODES
    for opcode in _ALWAYS:
        table[opcode] = _always
    table[Opcode.OPEN] = _open(slow)
    table[Opcode.SETATTR] = _setattr(slow)
    if slow is not None:
        table[Opcode.LINK] = lambda buffer, node: slow(abi.LINK_IN.unpack_from(buffer, _BODY)[0])
        table[Opcode.IOCTL] = lambda buffer, node: ioctls.may_change(buffer) and slow(node)
        table[Opcode.SETXATTR] = table[Opcode.REMOVEXATTR] = lambda buffer, node: slow(node)
    if slow_name is not None:
        # Taking a name from a lower hard link copies it up.
        table[Opcode.UNLINK] = _by_name(slow_name)
        table[Opcode.RENAME] = _by_two_names(slow_name, abi.RENAME_IN)
        table[Opcode.RENAME2] = _by_two_names(slow_name, abi.RENAME2_IN)
    return table


def _always(buffer: Buffer, node: int) -> bool:
    return True


def _open(slow: Callable[[NodeId], bool] | None) -> Slow:
    def is_slow(buffer: Buffer, node: int) -> bool:
        flags = abi.OPEN_IN.unpack_from(buffer, _BODY)[0]
        if not flags & CHANGING:
            return False
        # Freeing the blocks of a large file takes long as well.
        return bool(flags & os.O_TRUNC) or (slow is not None and slow(node))

    return is_slow


def _setattr(slow: Callable[[NodeId], bool] | None) -> Slow:
    def is_slow(buffer: Buffer, node: int) -> bool:
        valid = abi.SETATTR_IN.unpack_from(buffer, _BODY)[0]
        return bool(valid & abi.FATTR_SIZE) or (slow is not None and slow(node))

    return is_slow


# The names are taken unchecked: the handler does that.
def _by_name(slow_name: Callable[[NodeId, bytes], bool]) -> Slow:
    """The body is one name."""
    end = _BODY + _NAME
    return lambda buffer, node: slow_name(node, bytes(buffer[_BODY:end]).partition(b"\0")[0])


def _by_two_names(slow_name: Callable[[NodeId, bytes], bool], layout: Struct) -> Slow:
    """The body is `layout`, which begins with the new parent, the old and the new name."""
    start = _BODY + layout.size

    def is_slow(buffer: Buffer, node: int) -> bool:
        old, _, rest = bytes(buffer[start : start + 2 * _NAME]).partition(b"\0")
        new_parent: int = layout.unpack_from(buffer, _BODY)[0]
        return slow_name(node, old) or slow_name(new_parent, rest.partition(b"\0")[0])

    return is_slow
