"""The work directory: where things are built before one rename makes them real.

Layout, as the kernel's: `work/` holds temporary objects named `#<hex>`, `index/` one entry per copied-up hard-link
group, named by the hex of the group's origin handle. Whatever a crash leaves in `work/` was never visible; it is
swept when the directory is next used (ovl_workdir_cleanup() of fs/overlayfs/readdir.c), unless `work/incompat/` forbids
that (incompat.py).

`Workdir` also knows how the upper's file system can hold marks: whiteout devices and xattrs where it has them, else
the AUFS names (`.wh.NAME`, `.wh..wh..opq`), announced by `.wh..wh.aufs` in the upper's root.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat

from unionfs.layers import whiteout
from unionfs.layers.layer import Path, WritableLayer
from unionfs.overlay import incompat
from unionfs.overlay.inode import join
from unionfs.overlay.stack import ALONE, IMPURE, INNER_WHITEOUT, OPAQUE, REDIRECT, Stack, UnionOptions
from unionfs.overlay.step import Step
from unionfs.vfs import DT_DIR, RENAME_EXCHANGE, RENAME_WHITEOUT

WORK, INDEX = b"work", b"index"
_NO_XATTR = (errno.EPERM, errno.EOPNOTSUPP, errno.EACCES)


def exists(layer: WritableLayer, path: Path) -> bool:
    try:
        layer.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_tree(layer: WritableLayer, path: Path) -> None:
    """Remove `path` and all below it. Without recursion: the depth is whatever somebody made it."""
    stack = [path]
    while stack:
        top = stack[-1]
        try:
            layer.unlink(top)
        except (IsADirectoryError, PermissionError):
            pass
        else:
            stack.pop()
            continue
        children = layer.scan(top)
        directories = [join(top, entry.name) for entry in children if entry.type == DT_DIR]
        for entry in children:
            if entry.type != DT_DIR:
                layer.unlink(join(top, entry.name))
        if directories:
            stack.extend(directories)
        else:
            layer.rmdir(top)
            stack.pop()


class Workdir:
    def __init__(self, stack: Stack, options: UnionOptions) -> None:
        """Make `work/` and `index/`, sweep what a crash left, find out what the file system can hold. Idempotent.

        LayerError for an upper that is not to be used (incompat.py)."""
        self._stack = stack
        self.tree = stack.work
        self._upper = stack.upper
        self._temporary = itertools.count(1)
        self._left: list[Path] = []  # what could not be discarded yet
        self._is_alone = False  # so far as is known
        for name in (WORK, INDEX):
            self._make(name)
        incompat.check(self._upper, self.tree, options.force)  # what it leaves may go
        for entry in self.tree.scan(WORK):
            remove_tree(self.tree, join(WORK, entry.name))
        self._probe(options)
        if options.volatile:
            incompat.mark_volatile(self.tree)

    def _make(self, name: Path) -> None:
        """A directory whose objects get exactly the owner and mode they are made with (ovl_workdir_create())."""
        try:
            self.tree.mkdir(name, 0o700)
        except FileExistsError:
            pass
        self.tree.chmod(name, 0o700)
        for acl in (b"system.posix_acl_default", b"system.posix_acl_access"):
            if self.tree.getxattr(name, acl) is not None:
                self.tree.removexattr(name, acl)

    def _probe(self, options: UnionOptions) -> None:
        probe = self.temporary()
        self.tree.create(probe, 0o600).close()
        #: A new file has no xattrs, not even some that a security module gives.
        self.makes_bare = not self.tree.listxattr(probe)
        namespaces = (options.xattr_prefix,) if options.xattr_prefix else (b"trusted.", b"user.")
        self.xattrs = any(self._holds_xattrs(probe, namespace) for namespace in namespaces)
        self.tree.unlink(probe)
        try:
            self.tree.mknod(probe, stat.S_IFCHR | 0o000, 0)
            self.tree.unlink(probe)
            self.devices = True
        except OSError:
            self.devices = False
        self.rename_whiteout = self.devices and self._renames_with_whiteout()
        # A device stands in a name's own place, which a directory then can take by an exchange only.
        self.devices = self.rename_whiteout or (self.devices and self._exchanges())
        if not (self.devices and self.xattrs) and not self._stack.aufs:
            st = self._upper.lstat(b"")
            self._upper.create(whiteout.AUFS_MARKER, 0o600).close()
            self._upper.utime(b"", st.st_atime_ns, st.st_mtime_ns)
            self._stack.aufs = True

    def _holds_xattrs(self, probe: Path, namespace: bytes) -> bool:
        self._stack.use_namespace(namespace)
        try:
            self.tree.setxattr(probe, self._stack.private(OPAQUE), b"y")
        except OSError as e:
            if e.errno not in _NO_XATTR:
                raise
            return False
        return True

    def _renames_with_whiteout(self) -> bool:
        """ovl_check_rename_whiteout() of fs/overlayfs/super.c."""
        source, target = self.temporary(), self.temporary()
        self.tree.create(source, 0o600).close()
        try:
            self.tree.rename(source, self.tree, target, RENAME_WHITEOUT)
        except OSError:
            self.tree.unlink(source)
            return False
        self.tree.unlink(target)
        self.tree.unlink(source)
        return True

    def _exchanges(self) -> bool:
        """Not through libfuse 2, say."""
        one, other = self.temporary(), self.temporary()
        for path in (one, other):
            self.tree.create(path, 0o600).close()
        try:
            self.tree.rename(one, self.tree, other, RENAME_EXCHANGE)
        except OSError:
            return False
        finally:
            self.tree.unlink(one)
            self.tree.unlink(other)
        return True

    def temporary(self) -> Path:
        """A path in `work/` that no other call gets."""
        return b"%s/#%x" % (WORK, next(self._temporary))

    def discard(self, path: Path) -> None:
        """Remove a temporary object. Never fails: what cannot be removed (to list a directory takes a descriptor) is
        tried again with the next one, and at last swept by the next user."""
        left, self._left = self._left, []
        for one in (path, *left):
            try:
                remove_tree(self.tree, one)
            except FileNotFoundError:
                pass
            except OSError:
                self._left.append(one)

    # marks ------------------------------------------------------------------------------------------------------
    def set_opaque(self, tree: WritableLayer, path: Path) -> None:
        """Make a directory that is not visible yet opaque."""
        if self.xattrs:
            tree.setxattr(path, self._stack.private(OPAQUE), b"y")
        else:
            try:
                tree.create(join(path, whiteout.OPAQUE), 0o600).close()
            except FileExistsError:
                pass
        if self._stack.trace is not None:
            self._stack.trace(Step("opaque", path=path))

    def set_mark(self, path: Path, name: bytes, value: bytes) -> None:
        """Set one of the union's own attributes on an object of the upper."""
        if not self.xattrs:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._upper.setxattr(path, self._stack.private(name), value)
        if self._stack.trace is not None and name == IMPURE:
            self._stack.trace(Step("impure", path=path))
        elif self._stack.trace is not None and name == REDIRECT:
            self._stack.trace(Step("redirect", path=path, other=value))

    def set_apart(self, name: bytes) -> None:
        """Before an xattr of this name is stored as data: if it would be a mark to who reads the upper as a layer of
        unknown origin, have the upper's root say that it is not (`Stack.read_root`). Kernels ignore what it says."""
        if self._is_alone or not self._stack.is_foreign(name):
            return
        self.set_mark(b"", ALONE, b"y")
        self._is_alone = True

    def add_whiteout(self, directory: Path, name: bytes) -> None:
        """White out a name that the upper does not have."""
        if self.devices:
            self._upper.mknod(join(directory, name), stat.S_IFCHR, 0)
        else:
            self._upper.create(join(directory, whiteout.PREFIX + name), 0o600).close()
        if self._stack.trace is not None:
            self._stack.trace(Step("whiteout", path=join(directory, name)))

    def drop_whiteout(self, directory: Path, name: bytes) -> None:
        """Take back a whiteout of the AUFS kind, if it is one: its name stands beside the one it hides."""
        if self._stack.aufs:
            try:
                self._upper.unlink(join(directory, whiteout.PREFIX + name))
            except FileNotFoundError:
                pass  # it was a device, and has been replaced

    def in_the_way(self, path: Path) -> bool:
        """Is a whiteout in the name's own place? Not if it is one of the AUFS kind."""
        return not self._stack.aufs or exists(self._upper, path)

    def stage_inner_whiteout(self) -> Path:
        """A whiteout that people see as such, since a mount on top of ours has made it: the kernel's encoding is
        taken by our own, so it is an empty file with a mark. EPERM where the upper cannot hold that, as the kernel's
        overlayfs says in any case (ovl_mknod())."""
        if not self.xattrs:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        path = self.temporary()
        self.tree.create(path, 0o600).close()
        try:
            self.tree.setxattr(path, self._stack.private(INNER_WHITEOUT), b"y")
        except BaseException:
            self.discard(path)
            raise
        return path

    # moves between upper and work ---------------------------------------------------------------------------------
    def take_out(self, directory: Path, name: bytes, *, leave_whiteout: bool) -> Path:
        """Move an object of the upper into `work/` and return its path there. Atomic for readers: afterwards the
        name is gone, or (`leave_whiteout`) whited out."""
        source, target = join(directory, name), self.temporary()
        if leave_whiteout and self.rename_whiteout:
            self._upper.rename(source, self.tree, target, RENAME_WHITEOUT)
        elif leave_whiteout and self.devices:
            self.tree.mknod(target, stat.S_IFCHR, 0)
            self._upper.rename(source, self.tree, target, RENAME_EXCHANGE)
        else:
            if leave_whiteout:
                self.add_whiteout(directory, name)
            self._upper.rename(source, self.tree, target)
        if self._stack.trace is not None:
            self._stack.trace(Step("removed", path=source))
            if leave_whiteout and self.devices:
                self._stack.trace(Step("whiteout", path=source))
        return target

    def cover(self, directory: Path, name: bytes) -> None:
        """Replace an object of the upper, no directory, by a whiteout. Atomic for readers; nothing is left to be
        discarded, which would go on counting as a link. `devices` only."""
        staged = self.temporary()
        self.tree.mknod(staged, stat.S_IFCHR, 0)
        try:
            self.tree.rename(staged, self._upper, join(directory, name))
        except BaseException:
            self.discard(staged)
            raise
        if self._stack.trace is not None:
            self._stack.trace(Step("removed", path=join(directory, name)))
            self._stack.trace(Step("whiteout", path=join(directory, name)))

    def put_in(self, path: Path, directory: Path, name: bytes, *, is_dir: bool, over_whiteout: bool) -> None:
        """Give a staged object its name in the upper, over a whiteout if one is there. Atomic for readers."""
        target = join(directory, name)
        if over_whiteout and is_dir and self.in_the_way(target):
            # A directory cannot be renamed over the whiteout, which is no directory.
            self.tree.rename(path, self._upper, target, RENAME_EXCHANGE)
            self.discard(path)
        else:
            self.tree.rename(path, self._upper, target)
            if over_whiteout:
                self.drop_whiteout(directory, name)
        if self._stack.trace is not None:
            self._stack.trace(Step("placed", path=target, what="whiteout" if over_whiteout else ""))
