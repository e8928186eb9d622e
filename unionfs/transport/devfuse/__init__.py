"""The Linux FUSE protocol, spoken on /dev/fuse without libfuse.

    abi          numbers and structure layouts of linux/fuse.h
    requests     bytes -> fields, with every length checked
    replies      values -> bytes
    negotiate    INIT as a table
    session      request bytes -> vfs.Filesystem -> reply bytes: no I/O
    answers      its handlers, one for each opcode
    watching     the same, with somebody told of each request
    slow         which requests are for a worker
    files        open files: which data path each takes
    passthrough  which backing file the kernel reads and writes by itself
    reading      READ replies, copied or spliced
    notify       telling the kernel to forget
    channel      mount, unmount, abort
    workers      threads for slow requests
    parking      which requests change something; those that are held
    gate         holding them
    ioctls       inode flags
    patience     how long to look before sleeping
    loop         taking requests, waiting, sending replies

A file system may offer more than `vfs.Filesystem` asks; each is used where it is there:

    slow(node) -> bool            a change of `node` would first copy up a lot of data: do not make others wait
    supersede(node)               the next lookup of this inode answers with a fresh NodeId; the old one stays valid
    open_later(node) -> fh | None a handle for reading whose file is opened when first read: the kernel has the data
    find(parent, name)            `lookup` that returns None where there is no such name
    xattr_refusal(node, name)     the errno of `getxattr` where that is known without looking, else 0
    stable_cookies: bool          cookies of a directory hold in all its handles as long as its node is known
    attach(notifier, statistics, gate, watch)   see vfs.Filesystem
    cancellation(asked)           see there, too: `asked` once INTERRUPT has come and the caller is to die
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unionfs.errors import MountError
from unionfs.linux import fuse_dev
from unionfs.transport import MountOptions
from unionfs.transport.devfuse import channel
from unionfs.transport.devfuse.channel import abort, connection_of, unmount
from unionfs.transport.devfuse.gate import ChangeGate
from unionfs.transport.devfuse.loop import Loop
from unionfs.transport.devfuse.notify import Notifier
from unionfs.transport.devfuse.passthrough import Backings
from unionfs.transport.devfuse.reading import FileReader
from unionfs.transport.devfuse.session import Session
from unionfs.vfs import Filesystem

_log = logging.getLogger(__name__)

__all__ = ["abort", "connection_of", "serve", "unmount"]


def serve(fs: Filesystem, mountpoint: bytes | str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount `fs` on `mountpoint`, call `ready` once it answers, return after the unmount. See unionfs.transport."""
    where = os.path.abspath(os.fsencode(mountpoint))
    fd = channel.mount(where, options)
    ended = False
    try:
        backings = None
        if options.passthrough and channel.may_register_backing_files():
            backings = Backings(
                lambda file: fuse_dev.passthrough_open(fd, file), lambda number: fuse_dev.passthrough_close(fd, number)
            )
        notifier = Notifier.on(fd)
        reader = FileReader(fd)
        session = Session(
            fs,
            backings=backings,
            reader=reader,
            invalidate=notifier.inval_attributes,
            generation=int.from_bytes(os.urandom(4), "little"),
        )
        loop = Loop(fd, session, debug=options.debug)
        session.on_interrupt = loop.cancel
        connection = channel.connection_of(where)
        gate = None if connection is None else ChangeGate(loop, notifier, session.files, (0, connection))
        with _attached(fs, notifier, session, gate):
            try:
                loop.run(ready)
                ended = True
            except ConnectionAbortedError:
                _log.warning("%s: the connection was aborted", os.fsdecode(where))
        session.close()
        reader.close()
    finally:
        # With its last descriptor the connection ends, and nothing waits for us for ever.
        os.close(fd)
        if not ended:
            _remove_dead_mount(where)


@contextmanager
def _attached(fs: Filesystem, notifier: Notifier, session: Session, gate: ChangeGate | None) -> Iterator[None]:
    attach = getattr(fs, "attach", None)
    if attach is None:
        yield
        return
    attach(notifier, session.statistics, gate, session.watch)
    try:
        yield
    finally:
        attach(None, session.statistics, None, None)
        notifier.close()


def _remove_dead_mount(mountpoint: bytes) -> None:
    """After a failure of ours or an abort: what stays mounted would answer ENOTCONN for ever."""
    try:
        channel.unmount(mountpoint, lazy=True)
    except (OSError, MountError) as error:
        _log.warning("%s: not unmounted: %s", os.fsdecode(mountpoint), error)
