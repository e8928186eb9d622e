"""Encoding: each reply against bytes written out by field."""

from __future__ import annotations

import struct

from unionfs.transport.devfuse import notify, replies
from unionfs.vfs import Attr, DirEntry, DirEntryPlus, StatFs

RECORD = Attr(7, 100, 8, 1_000_000_001, 2_000_000_002, 3_000_000_003, 0o100644, 1, 10, 20, 0, 4096).pack()
YEARS = 315_360_000


def header(size: int, error: int = 0, unique: int = 5) -> bytes:
    """struct fuse_out_header: len, error, unique."""
    return struct.pack("<IiQ", 16 + size, error, unique)


def test_error_is_a_bare_header_with_a_negative_errno() -> None:
    assert replies.error(5, 2) == header(0, -2)


def test_empty() -> None:
    assert replies.empty(5) == header(0)


def test_data_follows_the_header() -> None:
    assert replies.data(5, b"target") == header(6) + b"target"
    assert replies.data_header(5, 6) == header(6)


def entry_out(node: int, attr_valid: int, attr: bytes) -> bytes:
    return struct.pack("<QQQQII", node, 0, YEARS, attr_valid, 0, 0) + attr  # nodeid generation valid valid nsec nsec


def test_entry_has_the_record_as_its_attributes() -> None:
    assert replies.entry(5, 42, RECORD, YEARS) == header(128) + entry_out(42, YEARS, RECORD)


def test_negative_entry_is_node_zero_with_a_timeout() -> None:
    assert replies.negative_entry(5) == header(128) + entry_out(0, 0, bytes(88))


def test_attr() -> None:
    body = struct.pack("<QII", 60, 0, 0) + RECORD  # attr_valid attr_valid_nsec dummy
    assert replies.attr(5, RECORD, 60) == header(104) + body


def test_opened() -> None:
    body = struct.pack("<QIi", 9, 1 << 7, 3)  # fh open_flags backing_id
    assert replies.opened(5, 9, 1 << 7, 3) == header(16) + body


def test_created_is_an_entry_and_an_open_file() -> None:
    body = entry_out(42, 0, RECORD) + struct.pack("<QIi", 9, 2, 0)
    assert replies.created(5, 42, RECORD, 0, 9, 2, 0) == header(144) + body


def test_counts_and_offsets() -> None:
    assert replies.written(5, 4096) == header(8) + struct.pack("<II", 4096, 0)
    assert replies.xattr_size(5, 12) == header(8) + struct.pack("<II", 12, 0)
    assert replies.offset(5, 1 << 40) == header(8) + struct.pack("<Q", 1 << 40)


def test_statfs() -> None:
    body = struct.pack("<QQQQQIIII6I", 3, 4, 5, 6, 7, 1, 255, 2, 0, *[0] * 6)  # … bsize namelen frsize padding spare
    assert replies.statfs(5, StatFs(bsize=1, frsize=2, blocks=3, bfree=4, bavail=5, files=6, ffree=7, namemax=255)) == (
        header(80) + body
    )


def test_init_splits_the_flags() -> None:
    flags = (1 << 37) | 1
    reply = replies.init(
        5,
        minor=45,
        max_readahead=9,
        flags=flags,
        max_background=64,
        max_write=1 << 20,
        max_pages=256,
        max_stack_depth=1,
    )
    body = struct.pack(
        "<IIIIHHIIHHIIH11H",
        7, 45, 9,
        1,  # flags
        64, 48,  # max_background congestion_threshold
        1 << 20,
        1,  # time_gran
        256, 0,  # max_pages map_alignment
        1 << 5,  # flags2: passthrough is bit 37
        1,  # max_stack_depth
        0, *[0] * 11,
    )  # fmt: skip
    assert reply == header(64) + body


def test_directory_entries_are_padded_to_eight() -> None:
    entries = [DirEntry(b".", 1, 4, 1), DirEntry(b"eight888", 2, 8, 2), DirEntry(b"nine99999", 3, 10, 3)]
    body = (
        struct.pack("<QQII", 1, 1, 1, 4) + b"." + bytes(7)  # ino off namelen type name
        + struct.pack("<QQII", 2, 2, 8, 8) + b"eight888"
        + struct.pack("<QQII", 3, 3, 9, 10) + b"nine99999" + bytes(7)
    )  # fmt: skip
    assert replies.directory(5, entries) == header(len(body)) + body


def test_directory_plus_carries_an_entry_each() -> None:
    entries = [DirEntryPlus(b"ab", 42, RECORD, 9)]
    body = entry_out(42, YEARS, RECORD) + struct.pack("<QQII", 7, 9, 2, 8) + b"ab" + bytes(6)
    assert replies.directory_plus(5, entries, YEARS) == header(len(body)) + body


def test_overheads_are_what_an_entry_takes() -> None:
    assert len(replies.directory(5, [DirEntry(b"12345678", 1, 4, 1)])) == 16 + replies.DIRENT_OVERHEAD + 8
    plus = replies.directory_plus(5, [DirEntryPlus(b"12345678", 2, RECORD, 1)], 0)
    assert len(plus) == 16 + replies.DIRENTPLUS_OVERHEAD + 8


def test_end_of_directory_is_an_empty_reply() -> None:
    assert replies.directory(5, []) == replies.directory_plus(5, [], 0) == header(0)


# notifications: unique 0, the code where the error stands -----------------------------------------------------------
def test_notify_inval_inode() -> None:
    body = struct.pack("<Qqq", 42, -1, 0)  # ino off len
    assert notify.inval_inode(42, -1) == header(24, 2, 0) + body


def test_notify_inval_entry() -> None:
    body = struct.pack("<QII", 1, 3, 0) + b"etc\0"  # parent namelen flags name
    assert notify.inval_entry(1, b"etc") == header(20, 3, 0) + body


def test_notify_store_begins_with_node_offset_and_size() -> None:
    body = struct.pack("<QQII", 42, 0, 100, 0)
    assert notify.store_header(42, 100) == header(24 + 100, 4, 0) + body


def test_notify_delete() -> None:
    body = struct.pack("<QQII", 1, 42, 3, 0) + b"etc\0"  # parent child namelen padding name
    assert notify.delete(1, 42, b"etc") == header(28, 6, 0) + body
