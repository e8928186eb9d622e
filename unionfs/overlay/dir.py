"""Making and removing names: create, mkdir, mknod, symlink, link, unlink, rmdir (fs/overlayfs/dir.c).

A new object whose owner is the daemon's own is made in place by one system call; any other, or one that takes the
place of a whiteout, is staged in the work directory and renamed, so that no half-made object is ever visible.

Removing an object that the lowers would show again leaves a whiteout, in the same rename that takes the object away.

All functions expect `union.lock` to be held.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import LayerFile, Path, WritableLayer
from unionfs.overlay import hardlink, lookup
from unionfs.overlay.copy_up import copy_up_directory, copy_up_name, mark_impure
from unionfs.overlay.inode import DirInode, FileInode, Inode, Listed, join
from unionfs.overlay.listing import listing
from unionfs.overlay.stack import UPPER
from unionfs.overlay.step import Step
from unionfs.overlay.union import NAME_MAX, Union, fail
from unionfs.vfs import DT_CHR, DT_DIR, DT_REG, Attr, Caller, d_type

_ACL_DEFAULT = b"system.posix_acl_default"


class New(NamedTuple):
    """What to make: `mode` with its S_IFMT bits, the device number, the link's target."""

    mode: int
    rdev: int = 0
    target: bytes = b""


def check_new_name(union: Union, directory: DirInode, name: bytes) -> None:
    """EEXIST and friends, before anything is changed."""
    if len(name) > NAME_MAX:
        fail(errno.ENAMETOOLONG)
    union.check_writable()
    if is_reserved(union, directory, name):
        fail(errno.EINVAL)  # would be taken for a whiteout, or never be seen
    if name in listing(union, directory).names:
        fail(errno.EEXIST)


def is_reserved(union: Union, directory: DirInode, name: bytes) -> bool:
    """Names the upper needs for itself: where it is AUFS-encoded all of AUFS's, else those that other writers leave
    beside an opaque mark, and the one that would make it AUFS-encoded."""
    if union.stack.aufs:
        return name.startswith(whiteout.PREFIX)
    return name == whiteout.OPAQUE or (name == whiteout.AUFS_MARKER and directory is union.root)


# creating -------------------------------------------------------------------------------------------------------------
def create(
    union: Union, directory: DirInode, name: bytes, new: New, caller: Caller, flags: int | None = None
) -> tuple[Inode, LayerFile | None]:
    """Make an object; with `flags`, a regular file is also opened. The inode's lookup count is the caller's affair."""
    check_new_name(union, directory, name)
    copy_up_directory(union, directory)
    owner = _owner(union, directory, new, caller)
    over_whiteout = name in listing(union, directory).whiteouts
    path = join(directory.path, name)
    inner_whiteout = whiteout.is_whiteout_device(new.mode, new.rdev)
    in_place = owner.is_daemon and not over_whiteout and not inner_whiteout
    if inner_whiteout:
        mark_impure(union, directory)
    if in_place:
        file = make(union.stack.upper, path, new, owner.mode, flags)
    else:
        staged, folder, file = stage(union, directory, new, owner, flags)
        try:
            if over_whiteout and stat.S_ISDIR(new.mode):
                union.work.set_opaque(union.stack.work, staged)
            union.work.put_in(staged, directory.path, name, is_dir=stat.S_ISDIR(new.mode), over_whiteout=over_whiteout)
        except BaseException:
            if file is not None:
                file.close()
            union.work.discard(staged)
            raise
        finally:
            if folder is not None:
                union.work.discard(folder)
    directory.changed()
    st = file.fstat() if file is not None else union.stack.upper.lstat(path)
    if not in_place:
        union.placed(st.st_ino)
    inode = _enter(union, directory, name, st, inner_whiteout=inner_whiteout)
    inode.bare = True if union.work.makes_bare and not directory.default_acl else None
    return inode, file


class _Owner(NamedTuple):
    """Who a new object belongs to, and its mode; `is_daemon`: the file system gives it just that by itself."""

    uid: int
    gid: int
    mode: int
    is_daemon: bool


def _owner(union: Union, directory: DirInode, new: New, caller: Caller) -> _Owner:
    """Owner, group and mode by inode_init_owner() of fs/inode.c, the umask only where no default ACL rules."""
    gid, mode = caller.gid, new.mode
    group = directory.handed_down
    if group is None:
        parent = Attr.unpack(union.attributes(directory))
        group = directory.handed_down = parent.gid if parent.mode & stat.S_ISGID else -1
    if group >= 0:
        gid = group
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
    if not stat.S_ISLNK(mode) and not has_default_acl(union, directory):
        mode &= ~caller.umask
    return _Owner(caller.uid, gid, mode, caller.uid == union.owner[0] and (group >= 0 or gid == union.owner[1]))


def has_default_acl(union: Union, directory: DirInode) -> bool:
    if directory.default_acl is None:
        layer, path = union.place(directory)
        directory.default_acl = layer.getxattr(path, _ACL_DEFAULT) is not None
    return directory.default_acl


def make(tree: WritableLayer, path: Path, new: New, mode: int, flags: int | None) -> LayerFile | None:
    """One system call for one new object of this `mode`; an open file if `flags` asks for it."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        file = tree.create(path, stat.S_IMODE(mode), os.O_RDWR)
        if flags is not None:
            return file
        file.close()
    elif kind == stat.S_IFDIR:
        tree.mkdir(path, stat.S_IMODE(mode))
    elif kind == stat.S_IFLNK:
        tree.symlink(path, new.target)
    else:
        tree.mknod(path, mode, new.rdev)
    return None


def stage(
    union: Union, directory: DirInode, new: New, owner: _Owner, flags: int | None
) -> tuple[Path, Path | None, LayerFile | None]:
    """Build an object in the work directory with everything it would have had if made in `directory`.

    Returns (its path, a folder to discard afterwards or None, the open file or None). Where the parent has a default
    ACL the object is made inside a folder that has it too, so that the file system itself does the inheriting.
    """
    work, folder = union.stack.work, None
    inner_whiteout = whiteout.is_whiteout_device(new.mode, new.rdev)
    staged = union.work.stage_inner_whiteout() if inner_whiteout else union.work.temporary()
    if has_default_acl(union, directory) and not (stat.S_ISLNK(owner.mode) or inner_whiteout):
        folder = staged
        acl = union.stack.upper.getxattr(directory.path, _ACL_DEFAULT)
        work.mkdir(folder, 0o700)
        if acl is not None:
            work.setxattr(folder, _ACL_DEFAULT, acl)
        staged = join(folder, b"new")
    file: LayerFile | None = None
    try:
        if not inner_whiteout:
            file = make(work, staged, new, owner.mode, flags)
        if (owner.uid, owner.gid) != union.owner:
            work.chown(staged, owner.uid, owner.gid)
        if not stat.S_ISLNK(owner.mode) and owner.mode & 0o6000:
            # chown(2) cleared them, and mkdir(2) never set them. The other bits are the ACL's affair by now.
            work.chmod(staged, stat.S_IMODE(work.lstat(staged).st_mode) | owner.mode & 0o6000)
    except BaseException:
        if file is not None:
            file.close()
        union.work.discard(folder if folder is not None else staged)
        raise
    return staged, folder, file


def _enter(
    union: Union, directory: DirInode, name: bytes, st: os.stat_result, *, inner_whiteout: bool = False
) -> Inode:
    """Note a new object of the upper in the tables."""
    type_ = DT_CHR if inner_whiteout else d_type(st.st_mode)
    entries = listing(union, directory)
    entries.put(name, Listed(UPPER, type_, st.st_ino))
    entries.whiteouts.discard(name)
    ino = union.stack.number(UPPER, st.st_ino, st.st_dev)
    # A new object may have the stored number of one that was copied up and is gone.
    union.origins.pop((st.st_dev, st.st_ino), None)
    if type_ == DT_DIR:
        child = DirInode(union.table.allocate(), ino, directory, name)
        child.upper = True
        directory.children[name] = child
        union.table.add(child)
        return child
    file = FileInode(union.table.allocate(), ino, type_, directory, name)
    if inner_whiteout:
        file.linked().inner_whiteout = True
    directory.children[name] = file
    union.table.add(file)
    union.set_attributes(file, st)
    return file


def create_unnamed(union: Union, directory: DirInode, mode: int, caller: Caller) -> tuple[FileInode, LayerFile]:
    """O_TMPFILE: a staged file that has no name yet, and may never get one."""
    copy_up_directory(union, directory)
    new = New(stat.S_IFREG | stat.S_IMODE(mode))
    owner = _owner(union, directory, new, caller)
    staged, folder, file = stage(union, directory, new, owner, os.O_RDWR)
    assert file is not None
    if folder is not None:
        moved = union.work.temporary()
        union.stack.work.rename(staged, union.stack.work, moved)
        union.work.discard(folder)
        staged = moved
    st = file.fstat()
    inode = FileInode(union.table.allocate(), union.stack.number(UPPER, st.st_ino, st.st_dev), DT_REG)
    inode.linked().orphan = staged
    union.origins.pop((st.st_dev, st.st_ino), None)
    union.table.add(inode)
    return inode, file


def link(union: Union, inode: FileInode, directory: DirInode, name: bytes) -> None:
    """Another name for a file that is in the upper already (ovl_link())."""
    check_new_name(union, directory, name)
    copy_up_directory(union, directory)
    over_whiteout = name in listing(union, directory).whiteouts
    tree, path = union.upper_place(inode)
    if inode.orphan is not None and not inode.opens:
        fail(errno.ENOENT)
    if inode.links is not None and inode.links.inner_whiteout:
        mark_impure(union, directory)
    if inode.index is not None:
        mark_impure(union, directory)
        hardlink.save_nlink(union, inode)
    elif inode.data is not None:
        mark_impure(union, directory)
    elif union.origins:
        st = tree.lstat(path)
        if (st.st_dev, st.st_ino) in union.origins:
            mark_impure(union, directory)
    links = inode.linked()
    if links.orphan is not None:
        # The only link is our own; it becomes the name.
        union.work.put_in(links.orphan, directory.path, name, is_dir=False, over_whiteout=over_whiteout)
        links.orphan = None
    elif over_whiteout:
        temporary = union.work.temporary()
        tree.link(path, union.stack.work, temporary)
        try:
            union.work.put_in(temporary, directory.path, name, is_dir=False, over_whiteout=True)
        except BaseException:
            union.work.discard(temporary)
            raise
    else:
        tree.link(path, union.stack.upper, join(directory.path, name))
        if union.stack.trace is not None:
            union.stack.trace(Step("linked", path=join(directory.path, name), other=path))
    if links.index is not None:
        hardlink.set_nlink(union, links, links.nlink + 1)
    inode.names.append((directory, name, True))
    directory.children[name] = inode
    inode.attr = None
    directory.changed()
    st = union.stack.upper.lstat(join(directory.path, name))
    entries = listing(union, directory)
    entries.put(name, Listed(UPPER, inode.type, st.st_ino))
    entries.whiteouts.discard(name)
    union.table.remember_real((UPPER, st.st_dev, st.st_ino), inode)


# removing -------------------------------------------------------------------------------------------------------------
def unlink(union: Union, directory: DirInode, name: bytes, inode: Inode) -> None:
    """`inode` is what `name` leads to, now; the caller has copied up a lower hard link (`hides_lower_link`) before."""
    try:
        if not isinstance(inode, FileInode):
            fail(errno.EISDIR)
        _unlink(union, directory, name, inode)
    finally:
        union.release_unused(inode)


def _unlink(union: Union, directory: DirInode, name: bytes, inode: FileInode) -> None:
    copy_up_directory(union, directory)
    keep_in_group(union, inode, directory, name)
    stored = is_stored(inode, directory, name)
    entries = listing(union, directory)
    positive = entries.lower_positive(name)
    record = union.attributes(inode)
    try:
        hardlink.save_nlink(union, inode)
        if stored:
            _remove_stored(union, inode, directory, name, leave_whiteout=positive)
        elif positive:
            union.work.add_whiteout(directory.path, name)
    except BaseException:
        hardlink.restore_nlink(union, inode)
        raise
    # POINT OF NO RETURN.
    lost_name(union, inode, directory, name, record)
    _hide(union, directory, name, positive)


def keep_in_group(union: Union, inode: FileInode, directory: DirInode, name: bytes) -> None:
    """Before a name of a copied-up hard-link group goes: have it stored, so that one call takes it from what people see
    and from the stored link count, which the group's is relative to (ovl_nlink_start())."""
    if inode.index is not None and not is_stored(inode, directory, name):
        copy_up_name(union, inode, directory, name)


def is_stored(inode: FileInode, directory: DirInode, name: bytes) -> bool:
    """Does the upper have the file under this very name?"""
    return (directory, name, True) in inode.names


def needs_orphan(union: Union, inode: FileInode) -> bool:
    """Would removing one name leave an inode that people can still act on, with no place? Whoever looked it up may
    hold it without our knowing (O_PATH), or be about to open it; most give it back at once."""
    if inode.index is not None or inode.orphan is not None or not (inode.opens or inode.nlookup):
        return False
    return sum(stored for _, _, stored in inode.names) == 1


def _remove_stored(union: Union, inode: FileInode, directory: DirInode, name: bytes, *, leave_whiteout: bool) -> None:
    keep = needs_orphan(union, inode)
    if not keep and not leave_whiteout:
        union.stack.upper.unlink(join(directory.path, name))
        if union.stack.trace is not None:
            union.stack.trace(Step("removed", path=join(directory.path, name)))
        return
    if not keep and union.work.devices:
        union.work.cover(directory.path, name)
        return
    taken = union.work.take_out(directory.path, name, leave_whiteout=leave_whiteout)
    if keep:
        inode.linked().orphan = taken
        if union.stack.trace is not None:
            union.stack.trace(Step("kept", path=taken))
    else:
        union.work.discard(taken)


def lost_name(union: Union, inode: FileInode, directory: DirInode, name: bytes, record: bytes) -> None:
    """One name of a file is gone from the store: bring the inode up to date. `record`: its attributes before."""
    inode.forget_name(directory, name)
    inode.attr = None
    if inode.links is not None and inode.links.index is not None:
        hardlink.set_nlink(union, inode.links, inode.links.nlink - 1)
        hardlink.drop_index(union, inode)
    if inode.names or inode.index is not None:
        return
    if inode.orphan is None and not inode.handles:
        # It has no place to ask any more. (Names nobody has asked for may remain, and be looked up yet.)
        inode.attr = union.unlinked(record, max(0, Attr.unpack(record).nlink - 1))


def _hide(union: Union, directory: DirInode, name: bytes, positive: bool) -> None:
    entries = listing(union, directory)
    entries.drop(name)
    if positive:
        entries.covered.add(name)
        entries.whiteouts.add(name)
    directory.changed()


def is_empty(union: Union, directory: DirInode) -> bool:
    return not listing(union, directory).names


def rmdir(union: Union, directory: DirInode, name: bytes) -> None:
    child = lookup.existing(union, directory, name)
    try:
        if not isinstance(child, DirInode):
            fail(errno.ENOTDIR)
        if not is_empty(union, child):
            fail(errno.ENOTEMPTY)
        _rmdir(union, directory, name, child)
    finally:
        union.release_unused(child)


def _rmdir(union: Union, directory: DirInode, name: bytes, child: DirInode) -> None:
    copy_up_directory(union, directory)
    positive = listing(union, directory).lower_positive(name)
    record = union.attributes(child)
    if not child.upper:
        union.work.add_whiteout(directory.path, name)
    elif positive or _holds_debris(union, child):
        union.work.discard(union.work.take_out(directory.path, name, leave_whiteout=positive))
    else:
        union.stack.upper.rmdir(child.path)
        if union.stack.trace is not None:
            union.stack.trace(Step("removed", path=child.path))
    removed(union, child, record)
    _hide(union, directory, name, positive)


def _holds_debris(union: Union, directory: DirInode) -> bool:
    """Does the upper's copy hold anything that is not visible: whiteouts, other writers' marks?"""
    return bool(union.stack.upper.scan(directory.path))


def removed(union: Union, child: DirInode, record: bytes) -> None:
    """A directory is gone from the store; who has it open still sees its last attributes."""
    assert child.parent is not None
    del child.parent.children[child.name]
    child.removed = True
    child.listing = None
    child.attr = union.unlinked(record)


def hides_lower_link(union: Union, inode: Inode) -> bool:
    """Must a lower file be copied up before one of its names is whited out? A hard-link group's count has no place to
    be kept otherwise (ovl_nlink_start())."""
    if not isinstance(inode, FileInode) or inode.upper or inode.lower is None:
        return False
    return Attr.unpack(union.attributes(inode)).nlink > 1
