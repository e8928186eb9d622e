"""The Linux FUSE wire format: numbers and structure layouts, as in include/uapi/linux/fuse.h (protocol 7.45).

Every structure is little-endian with explicit padding; `Struct.size` equals the C `sizeof` (a test checks each).
A request is `IN_HEADER`, then the opcode's structure, then names or data. A reply is `OUT_HEADER`, then the body.

This module knows numbers only: nothing of what they mean to us, and no I/O.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

VERSION: Final = 7
MINOR: Final = 45
#: The oldest minor version answered: Linux 5.4 speaks 7.31; all layouts below are the same since 7.23.
OLDEST_MINOR: Final = 23

ROOT_ID: Final = 1
NAME_MAX: Final = 1024  # FUSE_NAME_MAX, fs/fuse/fuse_i.h; the file system's own limit is lower
PAGE: Final = 4096


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


#: One more than the highest opcode known here: the size of tables indexed by opcode.
OPCODES: Final = max(Opcode) + 1


class Init(IntFlag):
    """INIT flags as one 64-bit word; the upper half travels as `flags2` when INIT_EXT is set."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


# fuse_setattr_in.valid
FATTR_MODE, FATTR_UID, FATTR_GID, FATTR_SIZE = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FATTR_ATIME, FATTR_MTIME, FATTR_FH = 1 << 4, 1 << 5, 1 << 6
FATTR_ATIME_NOW, FATTR_MTIME_NOW, FATTR_LOCKOWNER = 1 << 7, 1 << 8, 1 << 9
FATTR_CTIME, FATTR_KILL_SUIDGID = 1 << 10, 1 << 11

# fuse_open_out.open_flags
FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_NONSEEKABLE, FOPEN_CACHE_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FOPEN_STREAM, FOPEN_NOFLUSH, FOPEN_PARALLEL_DIRECT_WRITES, FOPEN_PASSTHROUGH = 1 << 4, 1 << 5, 1 << 6, 1 << 7

GETATTR_FH = 1 << 0
WRITE_CACHE, WRITE_LOCKOWNER, WRITE_KILL_SUIDGID = 1 << 0, 1 << 1, 1 << 2
OPEN_KILL_SUIDGID = 1 << 0
SETXATTR_ACL_KILL_SGID = 1 << 0
FSYNC_FDATASYNC = 1 << 0
EXPIRE_ONLY = 1 << 0

# fuse_notify_code
NOTIFY_INVAL_INODE, NOTIFY_INVAL_ENTRY, NOTIFY_STORE, NOTIFY_DELETE = 2, 3, 4, 6

#: Top bit of a request's `unique` when the kernel sends it again (HAS_RESEND, which is not asked for).
UNIQUE_RESEND = 1 << 63

# headers ----------------------------------------------------------------------------------------------------------
#: len opcode unique nodeid uid gid pid total_extlen (in 8-byte units) padding
IN_HEADER = Struct("<IIQQIIIHH")
#: len error unique
OUT_HEADER = Struct("<IiQ")
IN_HEADER_SIZE: Final = IN_HEADER.size
OUT_HEADER_SIZE: Final = OUT_HEADER.size

# request bodies ---------------------------------------------------------------------------------------------------
#: major minor max_readahead flags; the rest is there since 7.36
INIT_IN = Struct("<IIII")
#: flags2 unused[11]
INIT_IN_EXT = Struct("<I44x")
#: nlookup
FORGET_IN = Struct("<Q")
#: count dummy
BATCH_FORGET_IN = Struct("<I4x")
#: nodeid nlookup
FORGET_ONE = Struct("<QQ")
#: getattr_flags dummy fh
GETATTR_IN = Struct("<I4xQ")
#: getattr_flags reserved fh sx_flags sx_mask
STATX_IN = Struct("<I4xQII")
#: valid padding fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode unused4 uid gid unused5
SETATTR_IN = Struct("<I4xQQ8xqqqIIII4xII4x")
#: mode rdev umask padding
MKNOD_IN = Struct("<III4x")
#: mode umask
MKDIR_IN = Struct("<II")
#: newdir
RENAME_IN = Struct("<Q")
#: newdir flags padding
RENAME2_IN = Struct("<QI4x")
#: oldnodeid
LINK_IN = Struct("<Q")
#: flags open_flags
OPEN_IN = Struct("<II")
#: flags mode umask open_flags
CREATE_IN = Struct("<IIII")
#: fh flags release_flags lock_owner
RELEASE_IN = Struct("<QII8x")
#: fh unused padding lock_owner
FLUSH_IN = Struct("<Q16x")
#: fh offset size read_flags lock_owner flags padding
READ_IN = Struct("<QQII8xI4x")
#: fh offset size write_flags lock_owner flags padding
WRITE_IN = Struct("<QQII8xI4x")
#: fh fsync_flags padding
FSYNC_IN = Struct("<QI4x")
#: size flags
SETXATTR_IN = Struct("<II")
#: size flags setxattr_flags padding: after SETXATTR_EXT was agreed
SETXATTR_IN_EXT = Struct("<III4x")
#: size padding
GETXATTR_IN = Struct("<I4x")
#: mask padding
ACCESS_IN = Struct("<I4x")
#: unique
INTERRUPT_IN = Struct("<Q")
#: block blocksize padding
BMAP_IN = Struct("<QI4x")
#: fh flags cmd arg in_size out_size
IOCTL_IN = Struct("<QIIQII")
#: fh kh flags events
POLL_IN = Struct("<QQII")
#: fh offset length mode padding
FALLOCATE_IN = Struct("<QQQI4x")
#: fh offset whence padding
LSEEK_IN = Struct("<QqI4x")
#: fh_in off_in nodeid_out fh_out off_out len flags
COPY_FILE_RANGE_IN = Struct("<QQQQQQQ")
#: fh owner start end type pid lk_flags padding
LK_IN = Struct("<QQQQIII4x")
#: padding
SYNCFS_IN = Struct("<8x")

# reply bodies; those of the hot path are joined with OUT_HEADER in replies.py -----------------------------------
#: major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment
#: flags2 max_stack_depth request_timeout unused[11 x u16]
INIT_OUT = Struct("<IIIIHHIIHHIIH22x")
#: nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec fuse_attr
ENTRY_OUT = Struct("<QQQQII88s")
#: attr_valid attr_valid_nsec dummy fuse_attr
ATTR_OUT = Struct("<QI4x88s")
#: fh open_flags backing_id
OPEN_OUT = Struct("<QIi")
#: size padding
WRITE_OUT = Struct("<I4x")
#: size padding
GETXATTR_OUT = Struct("<I4x")
#: blocks bfree bavail files ffree bsize namelen frsize padding spare[6]
STATFS_OUT = Struct("<QQQQQIIII24x")
#: offset
LSEEK_OUT = Struct("<Q")
#: ino off namelen type; then the name, padded to 8
DIRENT = Struct("<QQII")
#: fuse_entry_out, then ino off namelen type
DIRENTPLUS = Struct("<QQQQII88sQQII")

# notifications ----------------------------------------------------------------------------------------------------
#: ino off len
NOTIFY_INVAL_INODE_OUT = Struct("<Qqq")
#: parent namelen flags
NOTIFY_INVAL_ENTRY_OUT = Struct("<QII")
#: parent child namelen padding
NOTIFY_DELETE_OUT = Struct("<QQI4x")
#: nodeid offset size padding
NOTIFY_STORE_OUT = Struct("<QQI4x")
