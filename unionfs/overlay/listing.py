"""The merged names of a directory, made by reading the directory once in each layer that has it.

Rules, per layer from the top (ovl_dir_read_merged() of fs/overlayfs/readdir.c, image-spec layer.md):

- a name seen higher up wins; two directories of one name merge, and the listing notes the layers;
- a whiteout hides its name in the layers below; an AUFS whiteout leaves the same layer's own entry alone;
- `.wh..wh..opq` ends the run for the whole directory; xattr opaqueness ended it when the directory was looked up.

The listing is kept up to date by those who change the upper (`Listing`'s own fields), so it is read once only. Reading
holds `union.lock`.
"""

from __future__ import annotations

import errno

from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path, ScanEntry
from unionfs.overlay.inode import DirInode, Listed, Listing, join
from unionfs.overlay.stack import UPPER
from unionfs.overlay.union import Union
from unionfs.vfs import DT_CHR, DT_DIR, DT_REG


def listing(union: Union, directory: DirInode) -> Listing:
    """The directory's merged names. Raises what reading a layer raises."""
    if directory.listing is None:
        directory.listing = _Reader(union, directory).read()
        union.counters["listings"] += 1
    return directory.listing


class _Stored:
    """One layer's directory, sorted into entries, names hidden below, and the end of the run."""

    __slots__ = ("entries", "hidden", "opaque")

    def __init__(self) -> None:
        self.entries: list[ScanEntry] = []
        self.hidden: set[bytes] = set()
        self.opaque = False


def read_stored(layer: Layer, path: Path, *, aufs: bool, xwhiteouts: tuple[bytes, ...]) -> _Stored:
    """Read one stored directory. `aufs`: `.wh.` names are whiteouts and AUFS's own; else only the opaque file, which
    other writers leave beside the xattr, is left out. `xwhiteouts`: which xattrs make an empty file a whiteout."""
    stored = _Stored()
    for entry in layer.scan(path):
        name = entry.name
        if name.startswith(whiteout.PREFIX):
            if name == whiteout.OPAQUE or (aufs and whiteout.is_reserved(name)):
                stored.opaque = stored.opaque or (aufs and name == whiteout.OPAQUE)
                continue
            hidden = whiteout.hidden_name(name) if aufs else None
            if hidden is not None:
                stored.hidden.add(hidden)
                continue
        if (entry.type == DT_CHR and _is_device(layer, join(path, name))) or (
            xwhiteouts and entry.type == DT_REG and _is_marked(layer, join(path, name), xwhiteouts)
        ):
            stored.hidden.add(name)
            continue
        stored.entries.append(entry)
    return stored


def _is_device(layer: Layer, path: Path) -> bool:
    st = layer.lstat(path)
    return whiteout.is_whiteout_device(st.st_mode, st.st_rdev)


def _is_marked(layer: Layer, path: Path, marks: tuple[bytes, ...]) -> bool:
    """ovl_path_check_xwhiteout_xattr(): only an empty regular file can be one."""
    return layer.lstat(path).st_size == 0 and any(layer.getxattr(path, name) is not None for name in marks)


class _Reader:
    def __init__(self, union: Union, directory: DirInode) -> None:
        self._union = union
        self._directory = directory
        self._result = Listing()
        self._ended: set[bytes] = set()  # names that lower layers cannot contribute to
        self._pending: set[bytes] = set()  # names of the upper whose fate in the lowers is not known yet

    def read(self) -> Listing:
        directory, union = self._directory, self._union
        if directory.removed:
            return self._result
        if directory.upper:
            self._read_upper()
        for position, (number, path) in enumerate(directory.lowers):
            xwhiteouts = union.stack.marks_of(number).whiteout if number in directory.xwhiteouts else ()
            try:
                stored = read_stored(union.stack.layer(number), path, aufs=True, xwhiteouts=xwhiteouts)
            except OSError as e:
                # A lower changed behind our back: what is no directory any more contributes nothing.
                if e.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise
                continue
            self._add_lower(number, stored)
            if stored.opaque:
                directory.lowers = directory.lowers[: position + 1]
                break
        return self._result

    def _read_upper(self) -> None:
        stack, directory = self._union.stack, self._directory
        xwhiteouts = stack.marks_of(UPPER).whiteout if UPPER in directory.xwhiteouts else ()
        stored = read_stored(stack.upper, directory.path, aufs=stack.aufs, xwhiteouts=xwhiteouts)
        names = self._result.names
        for entry in stored.entries:
            names[entry.name] = Listed(UPPER, entry.type, entry.ino)
            if entry.type != DT_DIR:
                self._ended.add(entry.name)
        self._result.whiteouts = stored.hidden
        self._ended |= stored.hidden
        self._pending = set(names) | stored.hidden
        if stored.opaque:
            self._directory.lowers = ()

    def _add_lower(self, number: int, stored: _Stored) -> None:
        names, ended, pending = self._result.names, self._ended, self._pending
        new = tuple.__new__  # a NamedTuple's own constructor takes twice the time, and this is done for every name
        fresh: list[bytes] = []
        for name, type_, ino in stored.entries:
            if name in pending:
                pending.discard(name)
                self._result.covered.add(name)
            if name in ended:
                continue
            above = names.get(name)
            if above is None:
                names[name] = new(Listed, (number, type_, ino, (), None))
                if type_ != DT_DIR:
                    fresh.append(name)
            elif type_ == DT_DIR:
                names[name] = above._replace(more=(*above.more, number))
            else:
                fresh.append(name)
        ended.update(fresh)
        if stored.hidden:
            ended |= stored.hidden
            pending -= stored.hidden
