"""INIT: what the kernel offers, what we take of it, and what is done where it is missing. A table, no I/O.

A feature is taken when it is wanted and all its flags are offered. Nothing here is required: a kernel that lacks any
one, or all, still gets a correct mount (Linux 5.4 speaks 7.31), and the `without` column says how.

Not taken, on purpose:

    WRITEBACK_CACHE  write(2) would succeed into the kernel's memory. ENOSPC and EDQUOT would come at close(2), where
                     few look; a killed daemon would take accepted data with it; and the kernel would own mtime
                     without telling us each change, so that it moves when the inode leaves the cache. Shared
                     mappings are cached and written back in any case.
    AUTO_INVAL_DATA  asks for attributes before reads, to notice changes behind the kernel's back: there are none.
    POSIX_LOCKS, FLOCK_LOCKS  locks between users of one mount are the kernel's business.
    NO_OPEN_SUPPORT  every file is opened: its handle survives unlink and copy-up, and passthrough hangs on OPEN.
    HANDLE_KILLPRIV  the first version clears more than POSIX wants; without V2 the kernel does it, right.
    SECURITY_CTX, CREATE_SUPP_GROUP, ALLOW_IDMAP, SPLICE_*  nothing here would use them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi, replies
from unionfs.transport.devfuse.abi import Init
from unionfs.transport.devfuse.requests import InitIn

#: Largest WRITE, in bytes: 256 pages, the kernel's own limit unless fs.fuse.max_pages_limit was raised.
MAX_WRITE: Final = 1 << 20
#: Largest WRITE without MAX_PAGES: 32 pages (FUSE_DEFAULT_MAX_PAGES_PER_REQ).
DEFAULT_MAX_WRITE: Final = 128 << 10
#: Background requests (readahead, writeback, RELEASE) under way at once.
MAX_BACKGROUND: Final = 64
#: Passthrough to files of a plain file system only, so that the mount can itself be a layer of an overlayfs
#: (FILESYSTEM_MAX_STACK_DEPTH is 2; process_init_reply, fs/fuse/inode.c).
MAX_STACK_DEPTH: Final = 1


class Wishes(NamedTuple):
    """What this mount could use.

    `passthrough`: asked for, and we may register backing files. `stable_cookies`: a directory's cookies hold across
    its handles, which lets the kernel keep listings and skip OPENDIR.
    """

    passthrough: bool = False
    stable_cookies: bool = False
    readdirplus: str = "auto"  # "auto", "always" or "never": a choice to measure, not one of correctness


class Feature(NamedTuple):
    """A row: `flags` must all be offered, `wanted` says for which mounts."""

    name: str
    flags: Init
    without: str
    wanted: Callable[[Wishes], bool] = lambda wishes: True


FEATURES: Final = (
    Feature("init_ext", Init.INIT_EXT, "there are no flags above bit 31, so none of passthrough"),
    Feature("async_read", Init.ASYNC_READ, "the kernel sends one READ of a file at a time"),
    Feature("big_writes", Init.BIG_WRITES, "a WRITE holds one page"),
    Feature("max_pages", Init.MAX_PAGES, "a WRITE holds 128 KiB"),
    Feature("atomic_o_trunc", Init.ATOMIC_O_TRUNC, "OPEN comes without O_TRUNC, after a SETATTR of size 0"),
    Feature("export", Init.EXPORT_SUPPORT, "a file handle (NFS) resolves only while its inode is cached"),
    Feature("dont_mask", Init.DONT_MASK, "the kernel applies the umask itself, even where a default ACL stands"),
    Feature("posix_acl", Init.POSIX_ACL, "ACLs are stored and listed, but mode bits alone decide"),
    Feature("killpriv", Init.HANDLE_KILLPRIV_V2, "the kernel clears set-user-ID itself by SETATTR, and asks more"),
    Feature("parallel_dirops", Init.PARALLEL_DIROPS, "lookups and listings of one directory come one by one"),
    Feature("async_dio", Init.ASYNC_DIO, "asynchronous direct I/O is carried out in order"),
    Feature("abort_error", Init.ABORT_ERROR, "an abort looks like an unmount, and leaves a dead mount behind"),
    Feature("cache_symlinks", Init.CACHE_SYMLINKS, "every readlink(2) is a READLINK"),
    Feature("explicit_inval", Init.EXPLICIT_INVAL_DATA, "a change of size drops the cached pages of a file"),
    Feature("setxattr_ext", Init.SETXATTR_EXT, "setgid is not cleared when an ACL is set by a non-member"),
    Feature(
        "readdirplus",
        Init.DO_READDIRPLUS,
        "a listing is a READDIR, and each stat a LOOKUP",
        lambda wishes: wishes.readdirplus != "never",
    ),
    Feature(
        "readdirplus_auto",
        Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO,
        "every listing brings the attributes",
        lambda wishes: wishes.readdirplus == "auto",
    ),
    Feature(
        "no_opendir",
        Init.NO_OPENDIR_SUPPORT,
        "a listing starts with OPENDIR and ends with RELEASEDIR",
        lambda wishes: wishes.stable_cookies,
    ),
    Feature(
        "passthrough",
        Init.INIT_EXT | Init.PASSTHROUGH,
        "data travels by READ and WRITE",
        lambda wishes: wishes.passthrough,
    ),
)


class Agreed(NamedTuple):
    """The outcome. `features` names the rows taken; `max_write` in bytes."""

    minor: int
    flags: int
    features: frozenset[str]
    max_write: int
    max_readahead: int

    @property
    def max_pages(self) -> int:
        return self.max_write // abi.PAGE if "max_pages" in self.features else 0

    def reply(self, unique: int) -> bytes:
        return replies.init(
            unique,
            minor=self.minor,
            max_readahead=self.max_readahead,
            flags=self.flags,
            max_background=MAX_BACKGROUND,
            max_write=self.max_write,
            max_pages=self.max_pages,
            max_stack_depth=MAX_STACK_DEPTH if "passthrough" in self.features else 0,
        )


def agree(offer: InitIn, wishes: Wishes) -> Agreed:
    """Choose from the kernel's offer. ProtocolError for a protocol older than 7.23, or of another major version
    (a newer one is first told ours: see Session)."""
    if offer.major != abi.VERSION or offer.minor < abi.OLDEST_MINOR:
        raise ProtocolError(
            f"the kernel speaks FUSE {offer.major}.{offer.minor}",
            hint=f"at least {abi.VERSION}.{abi.OLDEST_MINOR} is needed",
        )
    taken = {row.name: row for row in FEATURES if row.wanted(wishes) and offer.flags & row.flags == row.flags}
    flags = 0
    for row in taken.values():
        flags |= row.flags
    names = frozenset(taken)
    max_write = MAX_WRITE if "max_pages" in names else DEFAULT_MAX_WRITE
    return Agreed(
        minor=min(offer.minor, abi.MINOR),
        flags=flags,
        features=names,
        max_write=max_write if "big_writes" in names else abi.PAGE,
        max_readahead=offer.max_readahead,
    )
