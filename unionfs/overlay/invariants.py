"""The INVARIANTs of the engine's tables, as assertions. Tests call `check` after every operation."""

from __future__ import annotations

from unionfs.overlay.inode import DirInode, FileInode, join
from unionfs.overlay.lookup import stored_path
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import Attr


def check(union: Union) -> None:
    """AssertionError naming the inode where a table contradicts another, or the store."""
    for node, inode in union.table.nodes.items():
        assert inode.node == node or union.table.is_superseded(inode), (node, inode.node)
        assert (
            inode is union.root
            or inode.nlookup
            or inode.opens
            or _has_children(inode)
            or (union.table.is_superseded(inode))
        ), f"unused inode {_name(inode)!r} kept"
        if isinstance(inode, DirInode):
            _check_directory(union, inode)
        elif isinstance(inode, FileInode):
            _check_file(union, inode)


def _has_children(inode: object) -> bool:
    return isinstance(inode, DirInode) and bool(inode.children or inode.batched)


def _name(inode: object) -> bytes:
    if isinstance(inode, DirInode):
        return inode.path
    assert isinstance(inode, FileInode)
    return join(inode.names[0][0].path, inode.names[0][1]) if inode.names else b"(unnamed)"


def _check_directory(union: Union, inode: DirInode) -> None:
    if inode.removed:
        return
    if inode.parent is not None:
        assert inode.parent.children.get(inode.name) is inode, inode.path
        assert inode.path == join(inode.parent.path, inode.name), inode.path
        assert not inode.parent.removed, inode.path
        assert inode.parent.upper or not inode.upper, f"{inode.path!r} in the upper, its parent not"
    assert inode.upper or inode.lowers, inode.path
    if inode.upper:
        union.stack.upper.lstat(inode.path)
    for name, child in inode.children.items():
        if isinstance(child, FileInode):
            assert any(parent is inode and known == name for parent, known, _ in child.names), (inode.path, name)
    if inode.listing is not None:
        entries = inode.listing
        assert not entries.whiteouts & set(entries.names), inode.path
        for name, listed in entries.names.items():
            assert listed.layer != UPPER or inode.upper, (inode.path, name)
        assert set(inode.children) <= set(entries.names), inode.path
    batched = [name for name in inode.listing.names if inode.listing.names[name].batch] if inode.listing else []
    assert len(batched) == inode.batched, inode.path
    for name in batched:
        _check_batched(union, inode, name)


def _check_batched(union: Union, directory: DirInode, name: bytes) -> None:
    assert directory.listing is not None
    listed = directory.listing.names[name]
    assert listed.batch is not None and listed.batch.directory is directory, name
    assert listed.batch.lookups[listed.batch.names.index(name)], name
    assert name not in directory.children, name
    st = union.stack.layer(listed.layer).lstat(join(stored_path(directory, listed.layer), name))
    record = Attr.unpack(listed.batch.record(name))
    assert (record.mode, record.size, record.mtime_ns) == (st.st_mode, st.st_size, st.st_mtime_ns), name


def _check_file(union: Union, inode: FileInode) -> None:
    if inode.data is not None:
        assert not inode.handles and not inode.writers, f"a metacopy is written to: {_name(inode)!r}"
        union.stack.layer(inode.data.layer).lstat(inode.data.path)
    elif inode.links is not None:
        assert not inode.links.readers, f"the data of {_name(inode)!r} is read elsewhere"
    for parent, name, stored in inode.names:
        assert parent.children.get(name) is inode, name
        if stored:
            assert inode.upper, name
            union.stack.upper.lstat(join(parent.path, name))
    if inode.attr is not None and (inode.names or inode.orphan is not None):
        layer, path = union.place(inode)
        st = layer.lstat(path)
        attr = Attr.unpack(inode.attr)
        if inode.links is None or not inode.links.inner_whiteout:
            assert (attr.mode, attr.size, attr.mtime_ns) == (st.st_mode, st.st_size, st.st_mtime_ns), (
                f"stale attributes of {_name(inode)!r}"
            )
