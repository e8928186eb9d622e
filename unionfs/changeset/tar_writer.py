"""Writing a changeset: the difference of two views as an OCI layer tar, reproducible to the byte.

Order: by path components, a directory before what is in it, and in each directory first `.wh..wh..opq`, then the
whiteouts, then the entries (image-spec: whiteouts SHOULD come before their siblings). Explicit whiteouts are
preferred; the opaque whiteout is written only for a directory that stood in the lowers, is opaque now, and would let
something shine through. Parents of changes are members too, so that extraction alone restores their times. A renamed
directory is written in full under its new name: OCI knows no redirect.

What a layer tar cannot hold is refused, by name, before a byte is written: sockets (unless skipped), names that begin
with `.wh.`, xattr names with "=". The file appears under its name only when complete; a failure leaves nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from unionfs.changeset import tar_format as tar
from unionfs.changeset.change import Change, Kind
from unionfs.changeset.compression import MEDIA_TYPES, Compression, by_suffix, compressor
from unionfs.changeset.diff import Survey
from unionfs.changeset.pipeline import Pipeline
from unionfs.changeset.replacing import replacing
from unionfs.changeset.tree import Tree
from unionfs.errors import ChangesetError
from unionfs.layers import whiteout
from unionfs.layers.layer import Layer
from unionfs.vfs import (
    DT_BLK,
    DT_CHR,
    DT_DIR,
    DT_FIFO,
    DT_LNK,
    DT_REG,
    DT_SOCK,
    DT_UNKNOWN,
    SEEK_DATA,
    SEEK_HOLE,
    Attr,
    Filesystem,
    OpenResult,
    d_type,
)

Progress = Callable[[int], None]
AllRead = Callable[[], None]

_TAR_TYPES = {
    DT_REG: tar.REG,
    DT_LNK: tar.SYMLINK,
    DT_CHR: tar.CHR,
    DT_BLK: tar.BLK,
    DT_DIR: tar.DIR,
    DT_FIFO: tar.FIFO,
}
#: lseek(2) where the storage cannot seek for data: then everything is data.
_NO_SEEK = frozenset((errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESPIPE))


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """`diff_id`: digest of the uncompressed tar; `digest`, `size`: of what was written; `entries`: members in it."""

    diff_id: str
    digest: str
    size: int
    uncompressed_size: int
    media_type: str
    entries: int


def write_layer(
    before: Filesystem,
    after: Filesystem,
    upper: Layer,
    out_path: bytes | str,
    compression: Compression | None = None,
    *,
    clamp_mtime: int | None = None,
    skip_sockets: bool = False,
    progress: Progress | None = None,
    all_read: AllRead | None = None,
) -> WrittenLayer:
    """Write what changed from `before` to `after` (see `diff`) as a layer tar at `out_path`.

    `compression` None: by the suffix of `out_path`. `clamp_mtime`: seconds (SOURCE_DATE_EPOCH); later mtimes become
    this one. `progress` gets the bytes of tar made so far, each MiB. `all_read` is called when nothing more is read of
    the trees, and what it raises is a failure. Atomic: an older file of the name is replaced by
    the complete new one, synced to disk; on failure it stays, and nothing else does. (A device or fifo is
    written to as it is.) ChangesetError for what the format cannot hold, OSError as file systems and output say.
    """
    path = os.fsencode(out_path)
    compression = by_suffix(path) if compression is None else compression
    with Survey(before, after, upper) as survey:
        writer = _Writer(survey.after, survey.changes, clamp_mtime, skip_sockets)
        with replacing(path) as out:
            return writer.write(out, compression, progress, all_read)


def write_layer_stream(
    before: Filesystem,
    after: Filesystem,
    upper: Layer,
    out: BinaryIO,
    compression: Compression = "none",
    *,
    clamp_mtime: int | None = None,
    skip_sockets: bool = False,
    progress: Progress | None = None,
    all_read: AllRead | None = None,
) -> WrittenLayer:
    """As `write_layer`, into an open binary stream, which is flushed and stays open. A failure leaves a partial tar."""
    with Survey(before, after, upper) as survey:
        writer = _Writer(survey.after, survey.changes, clamp_mtime, skip_sockets)
        layer = writer.write(out, compression, progress, all_read)
    out.flush()
    return layer


def write_tree(fs: Filesystem, out: BinaryIO, *, progress: Progress | None = None) -> WrittenLayer:
    """Write all of a file system as one tar, the root itself left out, into an open stream, which stays open."""
    with Tree(fs) as tree:
        written = _Writer(tree, _everything(tree), None, False).write(out, "none", progress, None)
    out.flush()
    return written


def _everything(tree: Tree) -> Iterator[Change]:
    pending = [(b"", tree.root())]
    while pending:
        directory, at = pending.pop()
        for name, child in tree.children(at.node):
            path = directory + b"/" + name if directory else name
            yield Change(path, Kind.ADDED, child.attr, node=child.node)
            if d_type(child.attr.mode) == DT_DIR:
                pending.append((path, child))


class _Writer:
    """One layer. The handles of `changes` belong to `tree`."""

    def __init__(self, tree: Tree, changes: Iterable[Change], clamp_mtime: int | None, skip_sockets: bool) -> None:
        self._tree = tree
        self._clamp_ns = None if clamp_mtime is None else clamp_mtime * 1_000_000_000
        self._first_names: dict[int, bytes] = {}
        if skip_sockets:
            changes = _without_sockets(changes)
        self._changes = sorted(changes, key=_order)
        self._entries = 0
        for change in self._changes:
            _check(change)

    def write(
        self, out: BinaryIO, compression: Compression, progress: Progress | None, all_read: AllRead | None
    ) -> WrittenLayer:
        pipeline = Pipeline(out, compressor(compression), progress)
        try:
            for change in self._changes:
                self._write_change(pipeline, change)
            pipeline.write(tar.TRAILER)
            size = pipeline.total
            if all_read is not None:
                all_read()
            diff_id, digest, stored = pipeline.finish()
        finally:
            pipeline.close()
        return WrittenLayer(diff_id, digest, stored, size, MEDIA_TYPES[compression], self._entries)

    def _write_change(self, out: Pipeline, change: Change) -> None:
        if change.attr is None:
            if not change.covered:
                directory, slash, name = change.path.rpartition(b"/")
                self._whiteout(out, directory + slash + whiteout.PREFIX + name)
            return
        self._entries += 1
        first = change.link_to
        if first is None and change.attr.nlink > 1 and change.type != DT_DIR:
            first = self._first_names.setdefault(change.attr.ino, change.path)
        if first is not None and first != change.path:
            out.write(tar.member(self._fields(change, change.attr, tar.LINK)._replace(linkname=first)))
            return
        fields = self._fields(change, change.attr, _TAR_TYPES[change.type])
        xattrs = self._tree.xattrs(change.node)
        if change.type == DT_REG:
            out.write(tar.member(fields._replace(size=change.attr.size), xattrs))
            self._data(out, change, change.attr)
            return
        if change.type == DT_LNK:
            fields = fields._replace(linkname=self._tree.fs.readlink(change.node))
        out.write(tar.member(fields, xattrs))
        if change.opaque:
            self._whiteout(out, (change.path + b"/" if change.path else b"") + whiteout.OPAQUE)

    def _fields(self, change: Change, attr: Attr, type: bytes) -> tar.Fields:
        mtime = attr.mtime_ns if self._clamp_ns is None else min(attr.mtime_ns, self._clamp_ns)
        rdev = attr.rdev if type in (tar.CHR, tar.BLK) else 0
        return tar.Fields(change.path or b".", type, attr.mode, attr.uid, attr.gid, 0, mtime, b"", rdev)

    def _whiteout(self, out: Pipeline, path: bytes) -> None:
        """An empty regular file; mode as moby's, owner and time fixed, since no file of the union has them."""
        self._entries += 1
        out.write(tar.member(tar.Fields(path, tar.REG, 0o600)))

    # data ---------------------------------------------------------------------------------------------------------
    def _data(self, out: Pipeline, change: Change, attr: Attr) -> None:
        if not attr.size:
            return
        opened = self._tree.fs.open(change.node, os.O_RDONLY)
        try:
            if attr.blocks * 512 >= attr.size:
                self._copy(out, change, opened, 0, attr.size)
            else:
                at = 0
                for start, end in self._extents(opened, attr.size):
                    out.zeros(start - at)
                    self._copy(out, change, opened, start, end)
                    at = end
                out.zeros(attr.size - at)
        finally:
            self._tree.fs.release(opened.fh)
        out.zeros(tar.padding(attr.size))

    def _copy(self, out: Pipeline, change: Change, opened: OpenResult, at: int, end: int) -> None:
        while at < end:
            room = out.space(end - at)
            if opened.fd >= 0:
                count = os.preadv(opened.fd, [room], at)
            else:
                data = self._tree.fs.read(opened.fh, at, len(room))
                count = len(data)
                room[:count] = data
            if not count:
                shown = os.fsdecode(change.path)
                raise ChangesetError(f"/{shown}: it became shorter while it was read", hint="stop what writes to it")
            out.advance(count)
            at += count

    def _extents(self, opened: OpenResult, size: int) -> Iterator[tuple[int, int]]:
        """Where a file with holes has data; the rest reads as zeros."""
        at = 0
        while at < size:
            try:
                start = self._tree.fs.lseek(opened.fh, at, SEEK_DATA)
                end = self._tree.fs.lseek(opened.fh, start, SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno not in _NO_SEEK:
                    raise
                start, end = at, size
            start, at = min(start, size), min(end, size)
            yield start, at


def _order(change: Change) -> list[bytes]:
    """Component-wise, whiteouts before their siblings."""
    key = [b"\1" + name for name in change.path.split(b"/")] if change.path else []
    if change.attr is None:
        key[-1] = b"\0" + key[-1][1:]
    return key


def _without_sockets(changes: Iterable[Change]) -> Iterator[Change]:
    """A socket that took the place of something still removes it."""
    for change in changes:
        if change.attr is None or change.type != DT_SOCK:
            yield change
        elif change.was not in (DT_UNKNOWN, DT_SOCK):
            yield Change(change.path, Kind.DELETED, None, change.was)


def _check(change: Change) -> None:
    path = os.fsdecode(b"/" + change.path)
    if change.path.rpartition(b"/")[2].startswith(whiteout.PREFIX):
        raise ChangesetError(f"{path}: a layer tar cannot hold a name that begins with .wh.", hint="rename it")
    if change.attr is not None and whiteout.is_whiteout_device(change.attr.mode, change.attr.rdev):
        raise ChangesetError(
            f"{path}: a layer tar cannot hold the whiteout of an overlay that lies inside",
            hint="remove that overlay's upper; what is to be kept of it, commit from a mount of it",
        )
    if change.type == DT_SOCK and change.kind is not Kind.DELETED:
        raise ChangesetError(f"{path}: a layer tar cannot hold a socket", hint="remove it, or use --skip-sockets")
