"""Put a layer tar on a directory, whoever made it.

What image-spec layer.md says holds: entries replace what is there, except that a directory stays and takes the
entry's attributes; `.wh.NAME` removes NAME, `.wh..wh..opq` all that is in its directory, both only what stood there
before this layer, wherever in the tar they come; AUFS's other `.wh..wh.*` names are skipped. Directories get their
attributes last, so that their times survive.

The tar is not trusted. Leading "/" and "./" are dropped; ".." in a name or in the target of a hard link is an error.
Symbolic links in parents are followed within the directory (scoped.py), never in the last component. A file is
unlinked and made anew, never written in place, so neither its other hard links nor a symbolic link's target are
touched. Private xattrs of overlay file systems are not set: they could make the directory, used as a layer, show what
lies elsewhere.

Owners are set where we may (`owner`). Repeating an application gives the same tree; a failure leaves a part applied.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from unionfs.changeset import tar_format as tar
from unionfs.changeset.member import check_owner, components, device_of, member_of, refuse
from unionfs.changeset.prune import Identity, Names, clear_directory, identity
from unionfs.changeset.scoped import Parts, ScopedRoot
from unionfs.changeset.tar_reader import TarEntry, TarReader
from unionfs.changeset.tree import is_carried
from unionfs.errors import ChangesetError, LayerError, TarError
from unionfs.linux import path as linux_path
from unionfs.linux import xattr as linux_xattr
from unionfs.linux.data import pwrite_sparse

Progress = Callable[[int], None]

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What of the file system's answers is the tar's fault.
_TAR_FAULTS: Final = frozenset((errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))


@dataclass(frozen=True, slots=True)
class AppliedLayer:
    """`diff_id`: digest of the uncompressed tar; `digest`, `size`: of the source as read; `entries`: members in it.

    `skipped`: what could not be kept and was left out, one line each ("/dev/null: device")."""

    diff_id: str
    digest: str
    size: int
    entries: int
    skipped: tuple[str, ...] = ()


def apply(
    source: bytes | str | BinaryIO,
    directory: bytes | str,
    *,
    progress: Progress | None = None,
    owner: bool | None = None,
    skip_devices: bool = False,
) -> AppliedLayer:
    """Apply the layer tar `source` (plain, gzip, zstd, bzip2 or xz: told from the content) to `directory`.

    `progress` gets the bytes of `source` read so far. `owner` None: set owners if root. Without `owner`, xattrs that
    need privilege are skipped; devices that may not be made are an error, or are skipped with `skip_devices`.
    TarError for a malformed or hostile tar, LayerError where `directory` is none, OSError as file systems say.
    """
    if not isinstance(source, bytes | str):
        return _apply(source, os.fsencode(directory), progress, owner, skip_devices)
    with open(source, "rb", buffering=0) as stream:
        return _apply(stream, os.fsencode(directory), progress, owner, skip_devices)


def _apply(
    stream: BinaryIO, directory: bytes, progress: Progress | None, owner: bool | None, skip_devices: bool
) -> AppliedLayer:
    reader = TarReader(stream, progress)
    entries = 0
    try:
        applier = _Applier(directory, reader, os.geteuid() == 0 if owner is None else owner, skip_devices)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LayerError(f"{os.fsdecode(directory)}: {error.strerror}", hint="create the directory first") from error
    try:
        for entry in reader:
            applier.apply(entry)
            entries += 1
        applier.finish()
    finally:
        applier.close()
    return AppliedLayer(reader.diff_id, reader.digest, reader.size, entries, tuple(applier.skipped))


class _Directory(NamedTuple):
    """A directory entry whose attributes wait for the end."""

    parts: Parts
    entry: TarEntry


class _Applier:
    def __init__(self, directory: bytes, reader: TarReader, owner: bool, skip_devices: bool) -> None:
        self._reader, self._owner, self._skip_devices = reader, owner, skip_devices
        self._root = ScopedRoot(directory, self._made)
        self._mine: dict[Identity, set[bytes]] = {}  # by directory: the names that this layer has put there
        self._directories: dict[Identity, _Directory] = {}
        self._privileged = os.geteuid() == 0
        self.skipped: list[str] = []

    def close(self) -> None:
        self._root.close()

    def apply(self, entry: TarEntry) -> None:
        with _blaming(entry):
            member = member_of(entry)
            if member is None:
                return
            if member.kind == "root":
                self._root_entry(entry)
            elif member.kind == "opaque":
                self._opaque(member.parents)
            elif member.kind == "whiteout":
                self._whiteout(member.parents, member.hidden)
            else:
                self._object((*member.parents, member.name), entry)

    def finish(self) -> None:
        """Directories get their attributes: the deepest first, for a mode may forbid us to go on."""
        for key, (parts, entry) in sorted(self._directories.items(), key=lambda item: -len(item[1].parts)):
            with _blaming(entry):
                try:
                    parent = self._existing(parts[:-1])
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    continue  # a link has taken the place of a parent since
                name = parts[-1] if parts else b"."
                st = None if parent is None else _lstat(parent, name)
                # A file system may have given the number of a directory that was replaced to what replaced it.
                if parent is not None and st and (st.st_dev, st.st_ino) == key and stat.S_ISDIR(st.st_mode):
                    self._attributes(parent, name, entry)

    # whiteouts ----------------------------------------------------------------------------------------------------
    def _opaque(self, parts: Parts) -> None:
        fd = self._existing(parts)
        if fd is not None:
            clear_directory(fd, self._mine)
            self._root.invalidate()

    def _whiteout(self, parent: Parts, name: bytes) -> None:
        fd = self._existing(parent)
        if fd is not None:
            self._remove(fd, name, self._mine)

    def _existing(self, parts: Parts) -> int | None:
        """The directory, or None where there is none: then there is nothing to hide either."""
        try:
            return self._root.open(parts, create=False)
        except NotADirectoryError:
            return None

    def _remove(self, dir_fd: int, name: bytes, spare: Names | None = None) -> None:
        """Remove whatever has this name; with `spare` only what is not of this layer."""
        st = _lstat(dir_fd, name)
        if st is None:
            return
        mine = spare is not None and name in spare.get(identity(dir_fd), ())
        if stat.S_ISDIR(st.st_mode):
            child = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                left = clear_directory(child, spare)
            finally:
                os.close(child)
            if not (left or mine):
                os.rmdir(name, dir_fd=dir_fd)
            self._root.invalidate()
        elif not mine:
            os.unlink(name, dir_fd=dir_fd)
            if stat.S_ISLNK(st.st_mode):
                self._root.invalidate()

    # objects ------------------------------------------------------------------------------------------------------
    def _root_entry(self, entry: TarEntry) -> None:
        if entry.type != tar.DIR:
            refuse(entry, "only a directory can be the root")
        self._directories[identity(self._root.fd)] = _Directory((), entry)

    def _object(self, parts: Parts, entry: TarEntry) -> None:
        parent, name = self._root.resolve(parts[:-1], create=True), parts[-1]
        assert parent is not None
        dir_fd = parent.fd
        if entry.type == tar.DIR:
            # By where it is: a link on the way there may be replaced before it gets its attributes.
            self._make_directory(dir_fd, (*parent.parts, name), entry)
        elif entry.type == tar.LINK:
            self._link(dir_fd, name, entry)
        else:
            self._remove(dir_fd, name)
            if entry.type == tar.REG:
                self._make_file(dir_fd, name, entry)
            elif not self._make_special(dir_fd, name, entry):
                return
        self._mine.setdefault(identity(dir_fd), set()).add(name)

    def _make_directory(self, dir_fd: int, parts: Parts, entry: TarEntry) -> None:
        name = parts[-1]
        st = _lstat(dir_fd, name)
        if st is None or not stat.S_ISDIR(st.st_mode):
            self._remove(dir_fd, name)
            os.mkdir(name, 0o700, dir_fd=dir_fd)
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            self._forget((st.st_dev, st.st_ino))
        elif not self._privileged and st.st_mode & 0o700 != 0o700:
            linux_path.fchmodat_nofollow(dir_fd, name, stat.S_IMODE(st.st_mode) | 0o700)
        self._directories[st.st_dev, st.st_ino] = _Directory(parts, entry)

    def _made(self, fd: int) -> None:
        """A parent that the tar does not mention."""
        os.chmod(b"/proc/self/fd/%d" % fd, 0o755)  # the umask does not count
        self._forget(identity(fd))

    def _forget(self, key: Identity) -> None:
        """The file system gave this inode number to a new directory."""
        self._mine.pop(key, None)
        self._directories.pop(key, None)

    def _link(self, dir_fd: int, name: bytes, entry: TarEntry) -> None:
        """A hard link to what this layer or a lower one has put there. Its own attributes are its target's."""
        target = components(entry, entry.linkname)
        target_fd = self._root.open(target[:-1], create=False) if target else None
        there = None if target_fd is None else _lstat(target_fd, target[-1])
        if target_fd is None or there is None:
            refuse(entry, f"a hard link to {os.fsdecode(entry.linkname)}, which does not exist")
        if stat.S_ISDIR(there.st_mode):
            refuse(entry, "a hard link to a directory")
        here = _lstat(dir_fd, name)
        if here is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return
        self._remove(dir_fd, name)
        try:
            os.link(target[-1], name, src_dir_fd=target_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            refuse(entry, f"a hard link to {os.fsdecode(entry.linkname)}, which it replaces")

    def _make_special(self, dir_fd: int, name: bytes, entry: TarEntry) -> bool:
        """A symbolic link, fifo or device. False where it was left out."""
        if entry.type == tar.SYMLINK:
            if not entry.linkname:
                refuse(entry, "a symbolic link without a target")
            os.symlink(entry.linkname, name, dir_fd=dir_fd)
        elif entry.type == tar.FIFO:
            os.mkfifo(name, 0o600, dir_fd=dir_fd)
        elif not self._make_device(dir_fd, name, entry):
            return False
        self._attributes(dir_fd, name, entry)
        return True

    def _make_device(self, dir_fd: int, name: bytes, entry: TarEntry) -> bool:
        device = device_of(entry)
        kind = stat.S_IFCHR if entry.type == tar.CHR else stat.S_IFBLK
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=dir_fd)
        except PermissionError as error:
            if not self._skip_devices:
                raise ChangesetError(
                    f"{_shown(entry)}: may not make a device here", hint="run as root, or use --skip-devices"
                ) from error
            self.skipped.append(f"{_shown(entry)}: device")
            return False
        return True

    # files --------------------------------------------------------------------------------------------------------
    def _make_file(self, dir_fd: int, name: bytes, entry: TarEntry) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)
        try:
            extents = [(0, entry.size)] if entry.extents is None else entry.extents
            pieces = self._reader.data()
            piece = memoryview(b"")
            for offset, length in extents:
                while length:
                    piece = piece or next(pieces)
                    part, piece = piece[:length], piece[length:]
                    pwrite_sparse(fd, part, offset)
                    offset, length = offset + len(part), length - len(part)
            os.ftruncate(fd, entry.size)
            self._attributes(dir_fd, name, entry, fd)
        finally:
            os.close(fd)

    # attributes ---------------------------------------------------------------------------------------------------
    def _attributes(self, dir_fd: int, name: bytes, entry: TarEntry, fd: int | None = None) -> None:
        """Owner, xattrs, mode, time, in this order: chown clears set-user-ID and file capabilities; an ACL changes the
        mode's group bits, and the mode then sets its mask; everything but utime sets ctime only."""
        target = {"path": name, "dir_fd": dir_fd, "follow_symlinks": False} if fd is None else {"path": fd}
        if self._owner:
            check_owner(entry)
            os.chown(**target, uid=entry.uid, gid=entry.gid)
        self._set_xattrs(dir_fd, name, entry)
        if entry.type != tar.SYMLINK:
            if fd is None:
                linux_path.fchmodat_nofollow(dir_fd, name, entry.mode)
            else:
                os.fchmod(fd, entry.mode)
        os.utime(**target, ns=(entry.mtime_ns, entry.mtime_ns))

    def _set_xattrs(self, dir_fd: int, name: bytes, entry: TarEntry) -> None:
        """The entry's, and no others: a new file inherits ACLs, an old directory had its own."""
        for xattr in linux_xattr.llistxattr(dir_fd, name):
            if is_carried(xattr) and xattr not in entry.xattrs:
                with _tolerating(errno.ENODATA, errno.EPERM, errno.EOPNOTSUPP):
                    linux_xattr.lremovexattr(dir_fd, name, xattr)
        for xattr, value in entry.xattrs.items():
            if not is_carried(xattr):
                continue
            try:
                linux_xattr.lsetxattr(dir_fd, name, xattr, value)
            except OSError as error:
                if error.errno in (errno.ERANGE, errno.E2BIG, errno.EINVAL):
                    refuse(entry, f"a malformed xattr {os.fsdecode(xattr)}")
                if error.errno != errno.EOPNOTSUPP and (error.errno != errno.EPERM or self._owner):
                    raise
                self.skipped.append(f"{_shown(entry)}: xattr {os.fsdecode(xattr)}")


def _lstat(dir_fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _shown(entry: TarEntry) -> str:
    return "/" + os.fsdecode(entry.name).removeprefix("./").strip("/")


@contextmanager
def _blaming(entry: TarEntry) -> Iterator[None]:
    """Errors that come of the tar's names are the tar's."""
    try:
        yield
    except OSError as error:
        if error.errno in _TAR_FAULTS:
            raise TarError(f"{os.fsdecode(entry.name)}: {error.strerror}", offset=entry.offset) from error
        raise


@contextmanager
def _tolerating(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
