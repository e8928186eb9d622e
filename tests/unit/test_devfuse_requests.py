"""Decoding: each opcode from commented bytes, and that no bytes at all do more than raise ProtocolError."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.devfuse_bytes import EXAMPLES, LOOKUP, OPEN, RENAME2, SETXATTR, WRITE, init, request
from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi, requests

NAMES = [name for name, _, _ in EXAMPLES]


@pytest.mark.parametrize(("name", "data", "text"), EXAMPLES, ids=NAMES)
def test_decode_reads_each_field_of_each_opcode(name: str, data: bytes, text: str) -> None:
    assert str(requests.decode(data, len(data))) == text


def test_every_opcode_has_an_example() -> None:
    # The kernel sends neither of these three: they answer notifications and map DAX windows, which are not used.
    left_out = {"NOTIFY_REPLY", "SETUPMAPPING", "REMOVEMAPPING"}
    assert {op.name for op in abi.Opcode} - set(NAMES) == left_out


@pytest.mark.parametrize(("name", "data", "text"), EXAMPLES, ids=NAMES)
def test_decode_looks_at_nothing_past_the_length(name: str, data: bytes, text: str) -> None:
    stale = bytearray(data) + b"\xff" * 200
    assert str(requests.decode(stale, len(data))) == text


@pytest.mark.parametrize(("name", "data", "text"), EXAMPLES, ids=NAMES)
def test_each_truncation_is_a_protocol_error(name: str, data: bytes, text: str) -> None:
    body = len(data) - 40
    for length in range(len(data)):
        # An honest header for the shorter request, then a header that promises more than there is.
        honest = struct.pack("<I", length) + data[4:length]
        if body and length >= 40 and not _complete(name, length):
            with pytest.raises(ProtocolError):
                requests.decode(honest, length)
        with pytest.raises(ProtocolError):
            requests.decode(data[:length], length)


def _complete(name: str, length: int) -> bool:
    """INIT may be as short as before 7.36; nothing else that is cut off makes sense."""
    return name == "INIT" and length >= 40 + 16


@given(st.binary(max_size=200))
def test_any_bytes_may_only_raise_protocol_error(data: bytes) -> None:
    _tolerate(data, len(data))


@given(st.sampled_from(EXAMPLES), st.integers(0, 255), st.binary(min_size=1, max_size=8), st.integers(-3, 3))
def test_mutated_requests_may_only_raise_protocol_error(
    example: tuple[str, bytes, str], at: int, patch: bytes, longer: int
) -> None:
    data = bytearray(example[1])
    at %= len(data)
    data[at : at + len(patch)] = patch
    if longer < 0:
        del data[longer:]
    data += bytes(max(longer, 0))
    data[:4] = struct.pack("<I", len(data))  # else the length check hides the rest
    _tolerate(data, len(data))
    _tolerate(data, len(data), setxattr_ext=False)


@given(st.integers(0, abi.OPCODES + 3), st.binary(max_size=120))
def test_random_bodies_may_only_raise_protocol_error(opcode: int, body: bytes) -> None:
    data = request(opcode, 1, body)
    _tolerate(data, len(data))


def _tolerate(data: bytes | bytearray, length: int, *, setxattr_ext: bool = True) -> None:
    try:
        request = requests.decode(data, length, setxattr_ext=setxattr_ext)
    except ProtocolError:
        return
    assert str(request)


@pytest.mark.parametrize(
    ("opcode", "body"),
    [
        (LOOKUP, b"no terminator"),
        (LOOKUP, b"\0"),  # empty
        (LOOKUP, b"\0\0"),
        (LOOKUP, b"a\0b\0"),  # two where one belongs
        (RENAME2, struct.pack("<QII", 2, 0, 0) + b"only one\0"),
        (RENAME2, struct.pack("<QII", 2, 0, 0) + b"a\0b\0c\0"),
        (RENAME2, struct.pack("<QII", 2, 0, 0) + b"\0b\0"),
        (WRITE, struct.pack("<QQIIQII", 9, 0, 5, 0, 0, 0, 0) + b"four"),  # size says five
        (SETXATTR, struct.pack("<IIII", 9, 0, 0, 0) + b"user.a\0short"),
        (SETXATTR, struct.pack("<IIII", 0, 0, 0, 0) + b"no terminator"),
        (42, struct.pack("<II", 0xFFFFFFFF, 0) + bytes(32)),  # BATCH_FORGET of four billion
    ],
)
def test_inconsistent_requests_are_protocol_errors(opcode: int, body: bytes) -> None:
    data = request(opcode, 1, body)
    with pytest.raises(ProtocolError):
        requests.decode(data, len(data))


def test_setxattr_before_its_extension_is_eight_bytes_shorter() -> None:
    data = request(SETXATTR, 5, struct.pack("<II", 1, 2) + b"user.a\0v")  # size, flags
    assert requests.setxattr(data, len(data), False) == (b"user.a", b"v", 2, 0)


def test_init_of_an_old_kernel_has_no_second_flags() -> None:
    body = struct.pack("<IIII", 7, 31, 131072, 0xFFFFFFFF)  # INIT_EXT is set, but nothing follows
    data = request(26, 0, body)
    assert requests.init(data, len(data)).flags == 0xFFFFFFFF


def test_init_joins_the_two_halves_of_the_flags() -> None:
    data = init(flags=(1 << 37) | (1 << 30))
    assert requests.init(data, len(data)).flags == (1 << 37) | (1 << 30)


def test_unknown_opcode_is_decoded_as_data() -> None:
    data = request(999, 1, b"xyz")
    assert str(requests.decode(data, len(data))) == "opcode 999 node=1 uid=1000 pid=77 +3 bytes"


def test_extensions_do_not_disturb_requests_without_names() -> None:
    data = bytearray(request(OPEN, 5, struct.pack("<II", 0, 0) + bytes(8)))
    data[36:38] = struct.pack("<H", 1)  # total_extlen: one unit of 8 bytes
    assert requests.decode(data, len(data)).fields == {"flags": 0, "open_flags": 0}


#: sizeof, from linux/fuse.h by a C compiler (see test_layouts_have_the_size_of_the_c_structures).
C_STRUCTS = {
    "in_header": abi.IN_HEADER, "out_header": abi.OUT_HEADER, "forget_in": abi.FORGET_IN,
    "batch_forget_in": abi.BATCH_FORGET_IN, "forget_one": abi.FORGET_ONE, "getattr_in": abi.GETATTR_IN,
    "setattr_in": abi.SETATTR_IN, "mknod_in": abi.MKNOD_IN, "mkdir_in": abi.MKDIR_IN, "rename_in": abi.RENAME_IN,
    "rename2_in": abi.RENAME2_IN, "link_in": abi.LINK_IN, "open_in": abi.OPEN_IN, "create_in": abi.CREATE_IN,
    "release_in": abi.RELEASE_IN, "flush_in": abi.FLUSH_IN, "read_in": abi.READ_IN, "write_in": abi.WRITE_IN,
    "fsync_in": abi.FSYNC_IN, "setxattr_in": abi.SETXATTR_IN_EXT, "getxattr_in": abi.GETXATTR_IN,
    "access_in": abi.ACCESS_IN, "interrupt_in": abi.INTERRUPT_IN, "bmap_in": abi.BMAP_IN, "ioctl_in": abi.IOCTL_IN,
    "poll_in": abi.POLL_IN, "fallocate_in": abi.FALLOCATE_IN, "lseek_in": abi.LSEEK_IN,
    "copy_file_range_in": abi.COPY_FILE_RANGE_IN, "lk_in": abi.LK_IN, "syncfs_in": abi.SYNCFS_IN,
    "entry_out": abi.ENTRY_OUT, "attr_out": abi.ATTR_OUT, "open_out": abi.OPEN_OUT, "write_out": abi.WRITE_OUT,
    "getxattr_out": abi.GETXATTR_OUT, "statfs_out": abi.STATFS_OUT, "lseek_out": abi.LSEEK_OUT,
    "init_out": abi.INIT_OUT, "notify_inval_inode_out": abi.NOTIFY_INVAL_INODE_OUT,
    "notify_inval_entry_out": abi.NOTIFY_INVAL_ENTRY_OUT, "notify_delete_out": abi.NOTIFY_DELETE_OUT,
    "notify_store_out": abi.NOTIFY_STORE_OUT,
}  # fmt: skip

HEADER = Path("/usr/include/linux/fuse.h")


@pytest.mark.skipif(not HEADER.exists(), reason="linux/fuse.h is missing (package linux-libc-dev)")
def test_layouts_have_the_size_of_the_c_structures() -> None:
    sizes = _c_sizes(HEADER.read_text())
    assert {name: layout.size for name, layout in C_STRUCTS.items() if name in sizes} == {
        name: sizes[name] for name in C_STRUCTS if name in sizes
    }
    assert len(C_STRUCTS.keys() & sizes.keys()) >= 38


def _c_sizes(header: str) -> dict[str, int]:
    """sizeof of each struct fuse_* in the header: its fields are padded explicitly, so the sum is the size."""
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    sizes: dict[str, int] = {}
    width = {"8": 1, "16": 2, "32": 4, "64": 8}
    for name, body in re.findall(r"struct fuse_(\w+) \{(.*?)\n\};", header, re.S):
        total = 0
        for line in filter(None, map(str.strip, body.split(";"))):
            if found := re.fullmatch(r"u?int(\d+)_t\s+\w+(?:\[(\d+)\])?", line):
                total += width[found[1]] * int(found[2] or 1)
            elif (found := re.fullmatch(r"struct fuse_(\w+)\s+\w+", line)) and found[1] in sizes:
                total += sizes[found[1]]
            else:
                break
        else:
            sizes[name] = total
    return sizes


@pytest.mark.skipif(not HEADER.exists(), reason="linux/fuse.h is missing (package linux-libc-dev)")
def test_numbers_are_those_of_the_header() -> None:
    text = HEADER.read_text()
    for name, value in re.findall(r"FUSE_(\w+)\s*=\s*(\d+),", text):
        if hasattr(abi.Opcode, name):
            assert abi.Opcode[name] == int(value), name
    for name, shift in re.findall(r"#define FUSE_(\w+)\s+\(1(?:ULL)? << (\d+)\)", text):
        if hasattr(abi.Init, name):
            assert abi.Init[name] == 1 << int(shift), name
    for prefix in ("FATTR", "FOPEN"):
        for name, shift in re.findall(rf"#define {prefix}_(\w+)\s+\(1 << (\d+)\)", text):
            assert getattr(abi, f"{prefix}_{name}") == 1 << int(shift), name
