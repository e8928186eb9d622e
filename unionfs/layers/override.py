"""Owner, mode and type kept in an extended attribute, so that who may not chown or mknod can store any of them.

    uid:gid:octal-mode[:type]     type: file, dir, symlink, pipe, socket, block-MAJ-MIN, char-MAJ-MIN

as containers/storage writes it (pkg/idtools; what follows a further "-" is for later versions) and fuse-overlayfs
without the type. One of three attributes, which the root of a layer tells:

    security.fuseoverlayfs.override_stat    PRIVILEGED, xattr_permissions=1
    user.containers.override_stat           CONTAINERS, xattr_permissions=2
    user.fuseoverlayfs.override_stat        USER, of fuse-overlayfs before 1.14; an upper that has it keeps it

The stored mode lets the daemon's user do everything, and says nothing else. Only regular files and directories have the
attribute; so a device, or a symbolic link or special file whose owner may not be given to it, is stored as a regular
file, a link with its target as the data. Any other link or special file is stored as itself.

In a CONTAINERS layer `security.NAME`, and a user's attribute that looks like a union's own, are stored as
`user.containers.override_NAME` (encode_xattr_name() of fuse-overlayfs). The override attributes themselves can be
neither seen nor changed: they would make anybody root. There are no ACLs, which would be about the stored mode.

Layers are not trusted: whatever is no such value is as if it were not there, and is logged, once for a layer.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from unionfs.layers.layer import Layer, LayerFile, Path, ScanEntry, WritableLayer
from unionfs.layers.over import FileOver, LayerOver, WritableOver, altered
from unionfs.layers.whiteout import is_whiteout_device
from unionfs.vfs import DT_REG, d_type

PRIVILEGED: Final = b"security.fuseoverlayfs.override_stat"
CONTAINERS: Final = b"user.containers.override_stat"
USER: Final = b"user.fuseoverlayfs.override_stat"
#: In the order in which a layer's root is asked (direct_load_data_source() of fuse-overlayfs).
ATTRIBUTES: Final = (PRIVILEGED, CONTAINERS, USER)

_ESCAPE: Final = b"user.containers.override_"
_SECURITY: Final = b"security."
_CAPABILITY: Final = b"security.capability"
#: The union's own names are kept apart from a user's by one more `overlay.` (overlay/stack.py).
_NAMESPACES: Final = (b"user.overlay.", b"trusted.overlay.")
_ACLS: Final = b"system.posix_acl_"
_XATTR_NAME_MAX: Final = 255
_PATH_MAX: Final = 4096

_VALUE: Final = re.compile(rb"(-1|[0-9]{1,10}):(-1|[0-9]{1,10}):([0-7]{1,11})(?::([a-z]+)(-.*)?)?", re.DOTALL)
_DEVICE: Final = re.compile(rb"-+([0-9]{1,8})[-:]([0-9]{1,8})(?:[-:].*)?", re.DOTALL)
_KINDS: Final = {
    b"file": stat.S_IFREG,
    b"dir": stat.S_IFDIR,
    b"symlink": stat.S_IFLNK,
    b"pipe": stat.S_IFIFO,
    b"socket": stat.S_IFSOCK,
    b"block": stat.S_IFBLK,
    b"char": stat.S_IFCHR,
}
_WORDS: Final = {kind: word for word, kind in _KINDS.items()}
_DEVICES: Final = (stat.S_IFBLK, stat.S_IFCHR)
_HOLDERS: Final = (stat.S_IFREG, stat.S_IFDIR)
#: Where a link or special file is replaced: a name that no layer shows (image-spec layer.md), in its own directory.
_REPLACEMENT: Final = b".wh..wh.override"

_log = logging.getLogger(__name__)


class Override(NamedTuple):
    """What a value says. `mode` has no type bits; `kind` is a stat.S_IF… An id of -1 is the stored one: fuse-overlayfs
    before 1.14 wrote what chown(2) was given."""

    uid: int
    gid: int
    mode: int
    kind: int
    rdev: int = 0

    def value(self) -> bytes:
        word = _WORDS[self.kind]
        if self.kind in _DEVICES:
            word += b"-%d-%d" % (os.major(self.rdev), os.minor(self.rdev))
        return b"%d:%d:%04o:%b" % (self.uid, self.gid, self.mode, word)


def parse(value: bytes, stored: int) -> Override | None:
    """The override that a value makes of an object whose type is `stored`; None where it is no override for that."""
    match = _VALUE.fullmatch(value)
    if match is None:
        return None
    uid, gid, mode = int(match[1]), int(match[2]), int(match[3], 8)
    kind = stored if match[4] is None else _KINDS.get(match[4])
    # 2**32 - 1 is no id (chown(2)).
    if kind is None or max(uid, gid) >= 0xFFFF_FFFF or mode > 0xFFFF_FFFF:
        return None
    if (stored == stat.S_IFDIR) != (kind == stat.S_IFDIR):
        return None  # what is no directory has no entries to show
    rdev = 0
    if kind in _DEVICES:
        device = _DEVICE.fullmatch(match[5] or b"")
        if device is None or int(device[1]) >= 1 << 12 or int(device[2]) >= 1 << 20:
            return None
        rdev = os.makedev(int(device[1]), int(device[2]))
    return Override(uid, gid, stat.S_IMODE(mode), kind, rdev)


def detect(layer: Layer) -> bytes | None:
    """Which of ATTRIBUTES a layer uses, as its root says."""
    names = layer.listxattr(b"")
    return next((name for name in ATTRIBUTES if name in names), None)


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class _Rules:
    """One layer's: how its stored attributes and names are shown."""

    def __init__(self, attribute: bytes, layer: str) -> None:
        self.attribute = attribute
        self._layer = layer
        self._contained = attribute == CONTAINERS
        self._said = False

    def of(self, st: os.stat_result, value: bytes | None, what: bytes) -> Override:
        """What is shown of an object that is stored as `st`."""
        kind = stat.S_IFMT(st.st_mode)
        if value is not None and kind in _HOLDERS:
            found = parse(value, kind)
            if found is not None:
                uid, gid = found.uid, found.gid
                return found._replace(uid=st.st_uid if uid < 0 else uid, gid=st.st_gid if gid < 0 else gid)
            if not self._said:
                self._said = True
                _log.warning("layer %s: %r of %r is %r, and ignored", self._layer, self.attribute, what, value[:80])
        return Override(st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode), kind, st.st_rdev)

    def stat(self, st: os.stat_result, value: bytes | None, what: bytes) -> os.stat_result:
        if value is None:
            return st
        uid, gid, mode, kind, rdev = self.of(st, value, what)
        empty = kind not in (*_HOLDERS, stat.S_IFLNK)
        return altered(st, uid=uid, gid=gid, mode=kind | mode, rdev=rdev, empty=empty)

    # names ------------------------------------------------------------------------------------------------------
    def stored_name(self, name: bytes) -> bytes | None:
        """Where an attribute is stored; None where there can be none of the name."""
        if name in ATTRIBUTES or name.startswith(_ACLS):
            return None
        if not self._contained:
            return name
        if name.startswith(_ESCAPE):
            return None
        if name.startswith(_SECURITY):
            name = _ESCAPE + name
        for namespace in _NAMESPACES:
            if name.startswith(namespace + b"overlay."):
                name = _ESCAPE + namespace + name[len(namespace + b"overlay.") :]
        return name if len(name) <= _XATTR_NAME_MAX else None

    def shown_name(self, name: bytes) -> bytes | None:
        if name in ATTRIBUTES or name.startswith(_ACLS):
            return None
        if not self._contained:
            return name
        if name.startswith(_SECURITY):
            return None  # the host's
        if not name.startswith(_ESCAPE):
            return name
        inner = name[len(_ESCAPE) :]
        for namespace in _NAMESPACES:
            if inner.startswith(namespace):
                return namespace + b"overlay." + inner[len(namespace) :]
        return inner if inner.startswith(_SECURITY) else None

    def settable(self, name: bytes) -> bytes:
        stored = self.stored_name(name)
        if stored is None:
            raise refuse(errno.EOPNOTSUPP if name.startswith(_ACLS) else errno.EPERM)
        return stored


def _changed(current: Override, uid: int, gid: int, mode: int | None) -> bytes:
    """The value after a chown (-1: as it is) or chmod."""
    mode = current.mode if mode is None else stat.S_IMODE(mode)
    if current.kind == stat.S_IFREG and (uid != -1 or gid != -1):
        # chown_common() of fs/open.c
        mode &= ~stat.S_ISUID
        if mode & stat.S_IXGRP:
            mode &= ~stat.S_ISGID
    uid, gid = current.uid if uid == -1 else uid, current.gid if gid == -1 else gid
    return current._replace(uid=uid, gid=gid, mode=mode).value()


def _stored_mode(mode: int) -> int:
    """No set-ID bits, which would be about the daemon's user; and whatever is shown, the daemon may."""
    return mode & 0o777 | 0o700


class OverrideFile(FileOver):
    __slots__ = ("_rules", "_what")

    def __init__(self, file: LayerFile, rules: _Rules, what: bytes) -> None:
        super().__init__(file)
        self._rules = rules
        self._what = what

    def _value(self) -> bytes | None:
        return self._xattr(self._rules.attribute)

    def _xattr(self, name: bytes) -> bytes | None:
        try:
            return os.getxattr(self.fd, name)
        except OSError as e:
            if e.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return None
            raise

    def fstat(self) -> os.stat_result:
        return self._rules.stat(self.file.fstat(), self._value(), self._what)

    def stat_when_opened(self) -> os.stat_result:
        return self._rules.stat(self.file.stat_when_opened(), self._value(), self._what)

    def chmod(self, mode: int) -> None:
        self._change(-1, -1, mode)

    def chown(self, uid: int, gid: int) -> None:
        self._change(uid, gid, None)
        capability = self._rules.stored_name(_CAPABILITY) or _CAPABILITY
        if self._xattr(capability) is not None:
            os.removexattr(self.fd, capability)

    def _change(self, uid: int, gid: int, mode: int | None) -> None:
        current = self._rules.of(self.file.fstat(), self._value(), self._what)
        self.file.setxattr(self._rules.attribute, _changed(current, uid, gid, mode))

    def setxattr(self, name: bytes, value: bytes) -> None:
        self.file.setxattr(self._rules.settable(name), value)


class OverrideLayer(LayerOver):
    """Implements `Layer`: another layer, whose objects are what `attribute` of them says."""

    def __init__(self, layer: Layer, attribute: bytes) -> None:
        super().__init__(layer)
        self._rules = _Rules(attribute, layer.name)

    def _value(self, path: Path) -> bytes | None:
        try:
            return self._layer.getxattr(path, self._rules.attribute)
        except PermissionError:
            return None  # a file that the daemon may not read is nobody's of ours

    def _kind(self, path: Path) -> int:
        return stat.S_IFMT(self.lstat(path).st_mode)

    def lstat(self, path: Path) -> os.stat_result:
        st = self._layer.lstat(path)
        if stat.S_IFMT(st.st_mode) not in _HOLDERS:
            return st
        return self._rules.stat(st, self._value(path), path)

    def stat_in(self, path: Path) -> Callable[[bytes], os.stat_result]:
        before = path + b"/" if path else b""
        return lambda name: self.lstat(before + name)

    def scan(self, path: Path) -> list[ScanEntry]:
        before = path + b"/" if path else b""
        return [self._typed(before, entry) for entry in self._layer.scan(path)]

    def _typed(self, before: bytes, entry: ScanEntry) -> ScanEntry:
        if entry.type != DT_REG:
            return entry
        try:
            value = self._value(before + entry.name)
        except FileNotFoundError:
            return entry  # gone since the listing was read
        found = None if value is None else parse(value, stat.S_IFREG)
        return entry if found is None else entry._replace(type=d_type(found.kind))

    def readlink(self, path: Path) -> bytes:
        if stat.S_ISLNK(self._layer.lstat(path).st_mode):
            return self._layer.readlink(path)
        if self._kind(path) != stat.S_IFLNK:
            raise refuse(errno.EINVAL)
        file = self._layer.open(path)
        try:
            target = file.pread(_PATH_MAX, 0)
        finally:
            file.close()
        if not target or b"\0" in target or len(target) == _PATH_MAX:
            raise refuse(errno.EIO)  # symlink(2) makes no such link
        return target

    def open(self, path: Path, flags: int = os.O_RDONLY) -> LayerFile:
        file = OverrideFile(self._layer.open(path, flags), self._rules, path)
        try:
            kind = stat.S_IFMT(file.stat_when_opened().st_mode)
            if kind != stat.S_IFREG:
                raise refuse(errno.ELOOP if kind == stat.S_IFLNK else errno.ENXIO)
        except BaseException:
            file.close()
            raise
        return file

    def getxattr(self, path: Path, name: bytes) -> bytes | None:
        stored = self._rules.stored_name(name)
        return None if stored is None else self._layer.getxattr(path, stored)

    def listxattr(self, path: Path) -> list[bytes]:
        names = (self._rules.shown_name(name) for name in self._layer.listxattr(path))
        return [name for name in names if name is not None]


class OverrideUpper(OverrideLayer, WritableOver):
    """Implements `WritableLayer`. A new object gets its attribute at once; nobody but the caller sees it before."""

    def __init__(self, layer: WritableLayer, attribute: bytes) -> None:
        WritableOver.__init__(self, layer)
        self._rules = _Rules(attribute, layer.name)

    @property
    def new_owner(self) -> tuple[int, int]:
        return -1, -1  # nothing has a right owner by itself

    def _new(self, mode: int, kind: int, rdev: int = 0) -> bytes:
        return Override(os.geteuid(), os.getegid(), stat.S_IMODE(mode), kind, rdev).value()

    # new objects ------------------------------------------------------------------------------------------------
    def create(self, path: Path, mode: int, flags: int = os.O_RDWR) -> LayerFile:
        return self._make(path, self._new(mode, stat.S_IFREG), _stored_mode(mode), flags)

    def _make(self, path: Path, value: bytes, stored_mode: int, flags: int = os.O_RDWR) -> OverrideFile:
        file = self._tree.create(path, stored_mode, flags)
        try:
            file.setxattr(self._rules.attribute, value)
        except BaseException:
            file.close()
            self._tree.unlink(path)
            raise
        return OverrideFile(file, self._rules, path)

    def tmpfile(self, path: Path, mode: int) -> LayerFile:
        file = self._tree.tmpfile(path, _stored_mode(mode))
        try:
            file.setxattr(self._rules.attribute, self._new(mode, stat.S_IFREG))
        except BaseException:
            file.close()
            raise
        return OverrideFile(file, self._rules, path)

    def mkdir(self, path: Path, mode: int) -> None:
        self._tree.mkdir(path, _stored_mode(mode))
        try:
            self._tree.setxattr(path, self._rules.attribute, self._new(mode, stat.S_IFDIR))
        except BaseException:
            self._tree.rmdir(path)
            raise

    def mknod(self, path: Path, mode: int, rdev: int) -> None:
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFREG:
            self.create(path, mode).close()
            return
        try:
            self._tree.mknod(path, mode, rdev)
        except PermissionError:
            if is_whiteout_device(mode, rdev):
                raise  # a mark of the union's, which must be what it seems
            self._make(path, self._new(mode, kind, rdev), 0o700).close()

    # attributes -------------------------------------------------------------------------------------------------
    def chmod(self, path: Path, mode: int) -> None:
        st = self._layer.lstat(path)
        if stat.S_IFMT(st.st_mode) not in _HOLDERS:
            self._tree.chmod(path, mode)
            return
        current = self._rules.of(st, self._value(path), path)
        if current.kind == stat.S_IFLNK:
            raise refuse(errno.EOPNOTSUPP)
        self._tree.setxattr(path, self._rules.attribute, _changed(current, -1, -1, mode))

    def chown(self, path: Path, uid: int, gid: int) -> None:
        st = self._layer.lstat(path)
        if stat.S_IFMT(st.st_mode) not in _HOLDERS:
            self._chown_special(path, st, uid, gid)
            return
        current = self._rules.of(st, self._value(path), path)
        self._tree.setxattr(path, self._rules.attribute, _changed(current, uid, gid, None))
        if current.kind == stat.S_IFREG and self.getxattr(path, _CAPABILITY) is not None:
            self.removexattr(path, _CAPABILITY)

    def _chown_special(self, path: Path, st: os.stat_result, uid: int, gid: int) -> None:
        try:
            self._tree.chown(path, uid, gid)
        except OSError as e:
            # EINVAL: an id that a user namespace does not have. Other names would stay the old object.
            if e.errno not in (errno.EPERM, errno.EINVAL) or st.st_nlink != 1:
                raise
            self._replace(path, st, uid, gid)

    def _replace(self, path: Path, st: os.stat_result, uid: int, gid: int) -> None:
        """Store a link or special file as a regular one. Atomic; a crash may leave _REPLACEMENT, which the next such
        call in the directory removes."""
        parent, slash, _ = path.rpartition(b"/")
        staged = parent + slash + _REPLACEMENT
        around = self._tree.lstat(parent)
        try:
            self._tree.unlink(staged)
        except FileNotFoundError:
            pass
        is_link = stat.S_ISLNK(st.st_mode)
        now = self._rules.of(st, None, path)
        file = self._make(staged, _changed(now, uid, gid, 0o777 if is_link else None), 0o700)
        try:
            if is_link:
                file.pwrite(self._tree.readlink(path), 0)
            file.utime(st.st_atime_ns, st.st_mtime_ns)
            self._tree.rename(staged, self._tree, path)
        except BaseException:
            self._tree.unlink(staged)
            raise
        finally:
            file.close()
        self._tree.utime(parent, around.st_atime_ns, around.st_mtime_ns)

    def setxattr(self, path: Path, name: bytes, value: bytes, flags: int = 0) -> None:
        self._tree.setxattr(path, self._rules.settable(name), value, flags)

    def removexattr(self, path: Path, name: bytes) -> None:
        stored = self._rules.stored_name(name)
        if stored is None:
            raise refuse(errno.EOPNOTSUPP if name.startswith(_ACLS) else errno.ENODATA)
        self._tree.removexattr(path, stored)
