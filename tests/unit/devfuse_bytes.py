"""Requests as the kernel sends them, made from fields: the independent half of the devfuse tests.

Layouts are written out here a second time, from linux/fuse.h, so that a wrong one in `abi` does not agree with itself.
"""

from __future__ import annotations

import struct

#: opcode numbers, copied from enum fuse_opcode
LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11
RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, SETXATTR, GETXATTR = 12, 13, 14, 15, 16, 17, 18, 20, 21, 22
LISTXATTR, REMOVEXATTR, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 23, 24, 25, 26, 27, 28, 29, 30
GETLK, SETLK, SETLKW, ACCESS, CREATE, INTERRUPT, BMAP, DESTROY, IOCTL, POLL = 31, 32, 33, 34, 35, 36, 37, 38, 39, 40
BATCH_FORGET, FALLOCATE, READDIRPLUS, RENAME2, LSEEK, COPY_FILE_RANGE = 42, 43, 44, 45, 46, 47
SYNCFS, TMPFILE, STATX, COPY_FILE_RANGE_64 = 50, 51, 52, 53

UNIQUE = 0x1122


def request(
    opcode: int,
    node: int = 1,
    body: bytes = b"",
    *,
    unique: int = UNIQUE,
    uid: int = 1000,
    gid: int = 100,
    pid: int = 77,
) -> bytes:
    """struct fuse_in_header and what follows."""
    head = struct.pack(
        "<IIQQIIIHH",
        40 + len(body),  # len
        opcode,
        unique,
        node,  # nodeid
        uid,
        gid,
        pid,
        0,  # total_extlen
        0,  # padding
    )
    return head + body


def init(major: int = 7, minor: int = 45, flags: int = (1 << 43) - 1, readahead: int = 131072) -> bytes:
    body = struct.pack("<IIIII11I", major, minor, readahead, flags & 0xFFFFFFFF, flags >> 32, *[0] * 11)
    return request(INIT, 0, body)


def read(opcode: int, node: int, fh: int, offset: int, size: int) -> bytes:
    return request(opcode, node, struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0))


def write(node: int, fh: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    return request(WRITE, node, struct.pack("<QQIIQII", fh, offset, len(data), flags, 0, 0, 0) + data)


def setattr_(node: int, valid: int, **fields: int) -> bytes:
    names = "fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode unused4 uid gid unused5".split()
    values = [fields.get(name, 0) for name in names]
    return request(SETATTR, node, struct.pack("<IIQQQqqqIIIIIIII", valid, 0, *values))


#: Every opcode of the protocol once, as (name, bytes, what decode says of it).
EXAMPLES: list[tuple[str, bytes, str]] = [
    ("LOOKUP", request(LOOKUP, 1, b"etc\0"), "LOOKUP node=1 uid=1000 pid=77 'etc'"),
    ("FORGET", request(FORGET, 5, struct.pack("<Q", 3)), "FORGET node=5 uid=1000 pid=77 nlookup=3"),
    (
        "GETATTR",
        request(GETATTR, 5, struct.pack("<IIQ", 1, 0, 9)),  # getattr_flags=FH, dummy, fh
        "GETATTR node=5 uid=1000 pid=77 getattr_flags=0x1 fh=9",
    ),
    (
        "SETATTR",
        setattr_(5, 0b100001001, size=7, mode=0o644, mtime=8, mtimensec=9, uid=1, gid=2),
        (
            "SETATTR node=5 uid=1000 pid=77 valid=265 fh=0 size=7 atime=0 mtime=8 ctime=0 atimensec=0 mtimensec=9 "
            "ctimensec=0 mode=420 uid=1 gid=2"
        ),
    ),
    ("READLINK", request(READLINK, 5), "READLINK node=5 uid=1000 pid=77"),
    ("SYMLINK", request(SYMLINK, 1, b"name\0target\0"), "SYMLINK node=1 uid=1000 pid=77 'name' 'target'"),
    (
        "MKNOD",
        request(MKNOD, 1, struct.pack("<IIII", 0o20644, 0x103, 0o22, 0) + b"null\0"),  # mode, rdev, umask, padding
        "MKNOD node=1 uid=1000 pid=77 mode=8612 rdev=259 umask=18 'null'",
    ),
    (
        "MKDIR",
        request(MKDIR, 1, struct.pack("<II", 0o755, 0o22) + b"d\0"),  # mode, umask
        "MKDIR node=1 uid=1000 pid=77 mode=493 umask=18 'd'",
    ),
    ("UNLINK", request(UNLINK, 1, b"a\0"), "UNLINK node=1 uid=1000 pid=77 'a'"),
    ("RMDIR", request(RMDIR, 1, b"a\0"), "RMDIR node=1 uid=1000 pid=77 'a'"),
    (
        "RENAME",
        request(RENAME, 1, struct.pack("<Q", 2) + b"a\0b\0"),  # newdir
        "RENAME node=1 uid=1000 pid=77 newdir=2 'a' 'b'",
    ),
    ("LINK", request(LINK, 1, struct.pack("<Q", 5) + b"b\0"), "LINK node=1 uid=1000 pid=77 oldnodeid=5 'b'"),
    (
        "OPEN",
        request(OPEN, 5, struct.pack("<II", 0o1002, 1)),  # flags=O_RDWR|O_TRUNC, open_flags=KILL_SUIDGID
        "OPEN node=5 uid=1000 pid=77 flags=0x202 open_flags=0x1",
    ),
    (
        "READ",
        read(READ, 5, 9, 4096, 131072),
        "READ node=5 uid=1000 pid=77 fh=9 offset=4096 size=131072 read_flags=0x0 flags=0x0",
    ),
    (
        "WRITE",
        write(5, 9, 10, b"data", 4),
        "WRITE node=5 uid=1000 pid=77 fh=9 offset=10 size=4 write_flags=0x4 flags=0x0 +4 bytes",
    ),
    ("STATFS", request(STATFS, 1), "STATFS node=1 uid=1000 pid=77"),
    (
        "RELEASE",
        request(RELEASE, 5, struct.pack("<QIIQ", 9, 0x8000, 1, 0)),  # fh, flags, release_flags, lock_owner
        "RELEASE node=5 uid=1000 pid=77 fh=9 flags=0x8000 release_flags=0x1",
    ),
    ("FSYNC", request(FSYNC, 5, struct.pack("<QII", 9, 1, 0)), "FSYNC node=5 uid=1000 pid=77 fh=9 fsync_flags=0x1"),
    (
        "SETXATTR",
        # size, flags=XATTR_REPLACE, setxattr_flags=ACL_KILL_SGID, padding; name NUL value
        request(SETXATTR, 5, struct.pack("<IIII", 3, 2, 1, 0) + b"user.a\0" + b"v\0w"),
        "SETXATTR node=5 uid=1000 pid=77 size=3 flags=0x2 setxattr_flags=0x1 'user.a' +3 bytes",
    ),
    (
        "GETXATTR",
        request(GETXATTR, 5, struct.pack("<II", 255, 0) + b"user.a\0"),
        "GETXATTR node=5 uid=1000 pid=77 size=255 'user.a'",
    ),
    ("LISTXATTR", request(LISTXATTR, 5, struct.pack("<II", 64, 0)), "LISTXATTR node=5 uid=1000 pid=77 size=64"),
    ("REMOVEXATTR", request(REMOVEXATTR, 5, b"user.a\0"), "REMOVEXATTR node=5 uid=1000 pid=77 'user.a'"),
    ("FLUSH", request(FLUSH, 5, struct.pack("<QIIQ", 9, 0, 0, 0)), "FLUSH node=5 uid=1000 pid=77 fh=9"),
    (
        "INIT",
        init(flags=(1 << 37) | (1 << 30) | 1),
        "INIT node=0 uid=1000 pid=77 major=7 minor=45 max_readahead=131072 flags=0x2040000001",
    ),
    (
        "OPENDIR",
        request(OPENDIR, 1, struct.pack("<II", 0, 0)),
        "OPENDIR node=1 uid=1000 pid=77 flags=0x0 open_flags=0x0",
    ),
    (
        "READDIR",
        read(READDIR, 1, 9, 2, 4096),
        "READDIR node=1 uid=1000 pid=77 fh=9 offset=2 size=4096 read_flags=0x0 flags=0x0",
    ),
    (
        "RELEASEDIR",
        request(RELEASEDIR, 1, struct.pack("<QIIQ", 9, 0, 0, 0)),
        "RELEASEDIR node=1 uid=1000 pid=77 fh=9 flags=0x0 release_flags=0x0",
    ),
    (
        "FSYNCDIR",
        request(FSYNCDIR, 1, struct.pack("<QII", 9, 0, 0)),
        "FSYNCDIR node=1 uid=1000 pid=77 fh=9 fsync_flags=0x0",
    ),
    (
        "GETLK",
        request(
            GETLK, 5, struct.pack("<QQQQIIII", 9, 8, 0, 7, 1, 77, 0, 0)
        ),  # fh owner start end type pid lk_flags pad
        "GETLK node=5 uid=1000 pid=77 fh=9 owner=8 start=0 end=7 type=1 pid=77 lk_flags=0x0",
    ),
    (
        "SETLK",
        request(SETLK, 5, struct.pack("<QQQQIIII", 9, 8, 0, 7, 1, 77, 1, 0)),
        "SETLK node=5 uid=1000 pid=77 fh=9 owner=8 start=0 end=7 type=1 pid=77 lk_flags=0x1",
    ),
    (
        "SETLKW",
        request(SETLKW, 5, struct.pack("<QQQQIIII", 9, 8, 0, 7, 1, 77, 1, 0)),
        "SETLKW node=5 uid=1000 pid=77 fh=9 owner=8 start=0 end=7 type=1 pid=77 lk_flags=0x1",
    ),
    ("ACCESS", request(ACCESS, 5, struct.pack("<II", 4, 0)), "ACCESS node=5 uid=1000 pid=77 mask=4"),
    (
        "CREATE",
        request(CREATE, 1, struct.pack("<IIII", 0x241, 0o100644, 0o22, 0) + b"n\0"),  # flags mode umask open_flags
        "CREATE node=1 uid=1000 pid=77 flags=0x241 mode=33188 umask=18 open_flags=0x0 'n'",
    ),
    ("INTERRUPT", request(INTERRUPT, 0, struct.pack("<Q", 66)), "INTERRUPT node=0 uid=1000 pid=77 unique=66"),
    ("BMAP", request(BMAP, 5, struct.pack("<QII", 1, 4096, 0)), "BMAP node=5 uid=1000 pid=77 block=1 blocksize=4096"),
    ("DESTROY", request(DESTROY, 0), "DESTROY node=0 uid=1000 pid=77"),
    (
        "IOCTL",
        request(IOCTL, 5, struct.pack("<QIIQII", 9, 0, 0x5401, 0, 0, 4)),  # fh flags cmd arg in_size out_size
        "IOCTL node=5 uid=1000 pid=77 fh=9 flags=0x0 cmd=21505 arg=0 in_size=0 out_size=4",
    ),
    (
        "POLL",
        request(POLL, 5, struct.pack("<QQII", 9, 1, 0, 1)),
        "POLL node=5 uid=1000 pid=77 fh=9 kh=1 flags=0x0 events=1",
    ),
    (
        "BATCH_FORGET",
        request(BATCH_FORGET, 0, struct.pack("<II", 2, 0) + struct.pack("<QQQQ", 5, 1, 6, 2)),
        "BATCH_FORGET node=0 uid=1000 pid=77 count=2 5:-1 6:-2",
    ),
    (
        "FALLOCATE",
        request(FALLOCATE, 5, struct.pack("<QQQII", 9, 10, 20, 3, 0)),  # fh offset length mode padding
        "FALLOCATE node=5 uid=1000 pid=77 fh=9 offset=10 length=20 mode=3",
    ),
    (
        "READDIRPLUS",
        read(READDIRPLUS, 1, 9, 0, 4096),
        "READDIRPLUS node=1 uid=1000 pid=77 fh=9 offset=0 size=4096 read_flags=0x0 flags=0x0",
    ),
    (
        "RENAME2",
        request(RENAME2, 1, struct.pack("<QII", 2, 1, 0) + b"a\0b\0"),  # newdir flags=NOREPLACE padding
        "RENAME2 node=1 uid=1000 pid=77 newdir=2 flags=0x1 'a' 'b'",
    ),
    (
        "LSEEK",
        request(LSEEK, 5, struct.pack("<QQII", 9, 100, 4, 0)),  # fh offset whence=SEEK_HOLE padding
        "LSEEK node=5 uid=1000 pid=77 fh=9 offset=100 whence=4",
    ),
    (
        "COPY_FILE_RANGE",
        request(COPY_FILE_RANGE, 5, struct.pack("<QQQQQQQ", 9, 0, 6, 10, 1, 1 << 33, 0)),
        (
            "COPY_FILE_RANGE node=5 uid=1000 pid=77 "
            "fh_in=9 off_in=0 nodeid_out=6 fh_out=10 off_out=1 len=8589934592 flags=0x0"
        ),
    ),
    ("SYNCFS", request(SYNCFS, 1, bytes(8)), "SYNCFS node=1 uid=1000 pid=77"),
    (
        "TMPFILE",
        request(TMPFILE, 1, struct.pack("<IIII", 0x410002, 0o100600, 0, 0) + b"#\0"),
        "TMPFILE node=1 uid=1000 pid=77 flags=0x410002 mode=33152 umask=0 open_flags=0x0 '#'",
    ),
    (
        "STATX",
        request(STATX, 5, struct.pack("<IIQII", 0, 0, 0, 0, 0xFFF)),  # getattr_flags reserved fh sx_flags sx_mask
        "STATX node=5 uid=1000 pid=77 getattr_flags=0x0 fh=0 sx_flags=0x0 sx_mask=4095",
    ),
    (
        "COPY_FILE_RANGE_64",
        request(COPY_FILE_RANGE_64, 5, struct.pack("<QQQQQQQ", 9, 0, 6, 10, 1, 1 << 33, 0)),
        (
            "COPY_FILE_RANGE_64 node=5 uid=1000 pid=77 "
            "fh_in=9 off_in=0 nodeid_out=6 fh_out=10 off_out=1 len=8589934592 flags=0x0"
        ),
    ),
]
