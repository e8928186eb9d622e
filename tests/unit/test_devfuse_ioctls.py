"""FUSE_IOCTL as bytes: the four that fs/fuse makes by itself, and all others."""

from __future__ import annotations

import errno
import struct

import pytest

from tests.unit import devfuse_bytes as wire
from tests.unit.devfuse_bytes import request
from unionfs.transport.devfuse import ioctls
from unionfs.vfs import LONG_FLAGS, SHORT_FLAGS, FlagsForm

forms = pytest.mark.parametrize("form", [SHORT_FLAGS, LONG_FLAGS], ids=["short", "long"])


class Flags:
    """A file system of one file."""

    def __init__(self) -> None:
        self.values = {form: bytes(range(form.size)) for form in (SHORT_FLAGS, LONG_FLAGS)}

    def fileattr(self, node: int, form: FlagsForm) -> bytes:
        assert node == 7
        return self.values[form]

    def set_fileattr(self, node: int, form: FlagsForm, value: bytes) -> None:
        assert node == 7
        self.values[form] = value


def ask(fs: object, command: int, size: int = 0, room: int = 0, data: bytes = b"") -> tuple[int, bytes]:
    """(errno, what follows the header of the reply)"""
    # struct fuse_ioctl_in: fh, flags, cmd, arg, in_size, out_size
    buffer = request(wire.IOCTL, 7, struct.pack("<QIIQII", 0, 0, command, 0, size, room) + data)
    reply = bytes(ioctls.answer(fs, buffer, len(buffer), 5, 7))  # type: ignore[arg-type]
    length, error, unique = struct.unpack_from("<IiQ", reply)
    assert (length, unique) == (len(reply), 5)
    return -error, reply[16:]


@forms
def test_get_and_set(form: FlagsForm) -> None:
    fs = Flags()
    # struct fuse_ioctl_out: result, flags, in_iovs, out_iovs
    assert ask(fs, form.get, 0, form.size) == (0, bytes(16) + bytes(range(form.size)))
    assert ask(fs, form.set, form.size, 0, b"x" * form.size) == (0, bytes(16))
    assert fs.values[form] == b"x" * form.size


@forms
def test_sizes_that_do_not_fit_are_enotty(form: FlagsForm) -> None:
    fs = Flags()
    for command, size, room, data in (
        (form.get, 0, form.size + 1, b""),
        (form.get, 0, 0, b""),
        (form.set, form.size, 0, b"x" * (form.size - 1)),
        (form.set, form.size + 1, 0, b"x" * (form.size + 1)),
    ):
        assert ask(fs, command, size, room, data) == (errno.ENOTTY, b"")
    assert fs.values == Flags().values


def test_other_ioctls_and_other_file_systems_are_enotty() -> None:
    for command in (0, 1, 0x5401, 0x80087601, 0xFFFFFFFF):
        assert ask(Flags(), command, 0, 8) == (errno.ENOTTY, b"")
    assert ask(object(), SHORT_FLAGS.get, 0, 4) == (errno.ENOTTY, b"")
