"""What each layer has stored, what people see, and what a command has changed, as values to be shown.

    Picture     columns (the upper first, then the layers, topmost first) and the merged tree
    Column      one layer: path -> Stored
    Change      what a command did to one path of one layer

Marks are written as an *encoding* has them:

    kernel      a whiteout is a character device 0:0, an opaque directory has trusted.overlay.opaque = y
    aufs        a whiteout is a file `.wh.NAME`, an opaque directory holds a file `.wh..wh..opq`
    oci         as aufs, and the upper is what `commit` would put into a layer: no redirects

A whiteout stands under the path that it hides, whatever its own name is. Paths are text, without a leading slash.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from unionfs.changeset.change import TYPES
from unionfs.changeset.member import member_of
from unionfs.changeset.tar_format import BLK, CHR, DIR, FIFO, LINK, SYMLINK
from unionfs.changeset.tar_reader import TarEntry, TarReader
from unionfs.changeset.tree import Node, Tree
from unionfs.layers import whiteout
from unionfs.layers.layer import Path
from unionfs.layers.memory import MemoryLayer
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import join
from unionfs.vfs import DT_DIR, DT_LNK, DT_REG, d_type

Encoding = Literal["kernel", "aufs", "oci"]
ENCODINGS: tuple[Encoding, ...] = ("kernel", "aufs", "oci")

#: Characters of a file that are kept.
_TEXT = 60
#: Bytes of a file that are looked at: whoever replays a recording may have files of any size.
_READ = 1 << 20
_XATTR = ("trusted.overlay.", "user.overlay.")


class Stored(NamedTuple):
    """One object of a layer. `kind`: dir, file, symlink, fifo, char, block, socket, link (of a tar) or whiteout.
    `text`: of a file what `summary` says, of a link its target. `marks`: opaque, redirect=…, metacopy. `name`: on the
    disk, if another than in the path. `owner` as UID:GID; `digest` stands for the data."""

    kind: str
    text: str = ""
    marks: tuple[str, ...] = ()
    name: str = ""
    mode: int = 0
    owner: str = ""
    size: int = 0
    mtime_ns: int = 0
    digest: int = 0


class Shown(NamedTuple):
    """One object of the merged tree; `layers` are those it comes from, topmost first: several for a directory, and
    for a metacopy that which has the data."""

    kind: str
    text: str
    layers: tuple[str, ...]


class Column(NamedTuple):
    name: str
    role: Literal["upper", "layer"]
    stored: Mapping[str, Stored]


class Picture(NamedTuple):
    """`merged` is None while nothing is mounted."""

    columns: tuple[Column, ...]
    merged: Mapping[str, Shown] | None

    def paths(self) -> list[str]:
        """All that have a row, each directory before what is in it."""
        found = {path for column in self.columns for path in column.stored} | set(self.merged or ())
        return sorted(found, key=lambda path: path.split("/"))


class Change(NamedTuple):
    """`sign`: + came, - went, ~ is another now. `text` says what it is, or what became of it."""

    layer: str
    sign: Literal["+", "-", "~"]
    path: str
    text: str


# what is stored -------------------------------------------------------------------------------------------------------
def column(layer: MemoryLayer, role: Literal["upper", "layer"], encoding: Encoding) -> Column:
    """A layer as it is on its disk, but whiteouts and opaque marks as the encoding writes them."""
    stored: dict[str, Stored] = {}
    for path in walk(layer):
        directory, _, name = path.rpartition(b"/")
        if whiteout.is_reserved(name):
            continue
        hidden = whiteout.hidden_name(name)
        if hidden is not None:
            path = join(directory, hidden)
            if os.fsdecode(path) not in stored:
                stored[os.fsdecode(path)] = Stored("whiteout", name=os.fsdecode(name))
            continue
        stored[os.fsdecode(path)] = _stored(layer, path, encoding)
    return Column(layer.name, role, stored)


def walk(layer: MemoryLayer, directory: Path = b"") -> Iterator[Path]:
    for name, inode in sorted(layer.inode(directory).entries.items()):
        path = join(directory, name)
        yield path
        if inode.is_dir:
            yield from walk(layer, path)


def _stored(layer: MemoryLayer, path: Path, encoding: Encoding) -> Stored:
    st = layer.lstat(path)
    name = os.fsdecode(path.rpartition(b"/")[2])
    if whiteout.is_whiteout_device(st.st_mode, st.st_rdev):
        return Stored("whiteout", name=name if encoding == "kernel" else ".wh." + name)
    kind = d_type(st.st_mode)
    data = b""
    if kind == DT_LNK:
        data = layer.readlink(path)
    elif kind == DT_REG:
        data = layer.open(path).pread(min(st.st_size, _READ), 0)
    marks = _marks(layer, path)
    text = "" if "metacopy" in marks else summary(data)
    owner = f"{st.st_uid}:{st.st_gid}"
    mode = stat.S_IMODE(st.st_mode)
    return Stored(TYPES[kind], text, marks, "", mode, owner, st.st_size, st.st_mtime_ns, hash(data))


def _marks(layer: MemoryLayer, path: Path) -> tuple[str, ...]:
    found = []
    inode = layer.inode(path)
    if whiteout.OPAQUE in inode.entries:
        found.append("opaque")
    for name, value in sorted(inode.xattrs.items()):
        key = os.fsdecode(name)
        for prefix in _XATTR:
            if key == prefix + "redirect":
                found.append("redirect=" + os.fsdecode(value))
            elif key == prefix + "opaque" and value == b"y" and "opaque" not in found:
                found.append("opaque")
            elif key == prefix + "metacopy":
                found.append("metacopy")
    return tuple(found)


def summary(data: bytes) -> str:
    """What of a file can be shown in a table: its lines, with " / " between them."""
    # More than is shown: a character has four bytes at most, a line break becomes three characters.
    line = " / ".join(data[: 8 * _TEXT].decode("utf-8", "replace").splitlines())
    line = "".join(character if character.isprintable() else "·" for character in line)
    return line if len(line) <= _TEXT else line[: _TEXT - 1] + "…"


_MEMBERS = {DIR: "dir", SYMLINK: "symlink", CHR: "char", BLK: "block", FIFO: "fifo", LINK: "link"}


def members(tar: bytes) -> Iterator[tuple[TarEntry, bytes]]:
    """The members of a layer tar, each with its data."""
    reader = TarReader(io.BytesIO(tar))
    for entry in reader:
        yield entry, b"".join(bytes(part) for part in reader.data())


def tar_column(name: str, tar: bytes) -> Column:
    """The upper as the layer that it would become."""
    stored: dict[str, Stored] = {}
    for entry, data in members(tar):
        member = member_of(entry)
        if member is None or member.kind == "root":
            continue
        directory = os.fsdecode(b"/".join(member.parents))
        if member.kind == "opaque":
            stored[directory] = stored[directory]._replace(marks=("opaque",))
            continue
        path = os.fsdecode(b"/".join((*member.parents, member.hidden or member.name)))
        if member.kind == "whiteout":
            stored[path] = Stored("whiteout", name=os.fsdecode(member.name))
            continue
        kind = _MEMBERS.get(entry.type, "file")
        text = os.fsdecode(entry.linkname) if kind in ("symlink", "link") else summary(data)
        owner = f"{entry.uid}:{entry.gid}"
        stored[path] = Stored(kind, text, (), "", entry.mode, owner, entry.size, entry.mtime_ns, hash(data))
    return Column(name, "upper", stored)


# what people see ------------------------------------------------------------------------------------------------------
def merged(fs: UnionFilesystem, layers: Sequence[MemoryLayer]) -> dict[str, Shown]:
    """Every path of a union of these layers, the upper first."""
    found: dict[str, Shown] = {}
    with Tree(fs) as tree:
        todo = [(b"", tree.root())]
        while todo:
            prefix, directory = todo.pop()
            for name, child in tree.children(directory.node):
                path = prefix + name
                kind = d_type(child.attr.mode)
                text = summary(content(tree, child)) if kind in (DT_REG, DT_LNK) else ""
                seen = [layers[number] for number, at in fs.sources(child.node) if _is_at(layers[number], at, path)]
                found[os.fsdecode(path)] = Shown(TYPES[kind], text, tuple(layer.name for layer in seen))
                if kind == DT_DIR:
                    todo.append((path + b"/", child))
    return found


def _is_at(layer: MemoryLayer, stored: Path, path: Path) -> bool:
    """Is a stored object seen in the row of `path` too: is it there, maybe under another of its names?"""
    try:
        return stored == path or layer.lstat(path).st_ino == layer.lstat(stored).st_ino
    except OSError:
        return False


def content(tree: Tree, node: Node) -> bytes:
    """The data of a regular file, as far as it can be of interest, or the target of a symbolic link."""
    if d_type(node.attr.mode) == DT_LNK:
        return tree.fs.readlink(node.node)
    opened = tree.fs.open(node.node, os.O_RDONLY)
    try:
        return tree.fs.read(opened.fh, 0, min(node.attr.size, _READ))
    finally:
        tree.fs.release(opened.fh)


# what changed ---------------------------------------------------------------------------------------------------------
def changes(before: Picture, after: Picture, encoding: Encoding) -> tuple[Change, ...]:
    """What is stored otherwise now, layer by layer. A directory's time of modification says nothing by itself."""
    found: list[Change] = []
    old_columns = {one.name: one for one in before.columns}
    new_columns = {one.name: one for one in after.columns}
    for name in [*new_columns, *(name for name in old_columns if name not in new_columns)]:
        old = old_columns[name].stored if name in old_columns else {}
        new = new_columns[name].stored if name in new_columns else {}
        for path in sorted({*old, *new}, key=lambda path: path.split("/")):
            was, now = old.get(path), new.get(path)
            if was is None:
                assert now is not None
                found.append(Change(name, "+", path, describe(now, encoding)))
            elif now is None:
                found.append(Change(name, "-", path, describe(was, encoding)))
            elif now.kind != was.kind:
                found.append(Change(name, "~", path, f"{describe(was, encoding)} -> {describe(now, encoding)}"))
            else:
                found += [Change(name, "~", path, text) for text in _differences(was, now, encoding)]
    return tuple(found)


def describe(stored: Stored, encoding: Encoding) -> str:
    """One object in words, as a person would find it on the disk."""
    if stored.kind == "whiteout":
        return "whiteout: character device 0:0" if encoding == "kernel" else f"whiteout: empty file {stored.name}"
    words = [stored.kind]
    if stored.kind == "file" and "metacopy" not in stored.marks:
        words.append(f'"{stored.text}"' if stored.size else "(empty)")
    elif stored.kind in ("symlink", "link"):
        words.append(f"-> {stored.text}")
    return ", ".join([" ".join(words), *(_mark(mark, encoding) for mark in stored.marks)])


def _mark(mark: str, encoding: Encoding) -> str:
    if mark == "opaque":
        return "trusted.overlay.opaque=y" if encoding == "kernel" else "holds .wh..wh..opq"
    if mark == "metacopy":
        return "metacopy: its data is still below"
    return f"trusted.overlay.{mark}"


def _differences(was: Stored, now: Stored, encoding: Encoding) -> Iterator[str]:
    if now.text != was.text or now.digest != was.digest or now.size != was.size:
        yield describe(now, encoding)
    elif now.marks != was.marks:
        gone = [f"no longer {_mark(mark, encoding)}" for mark in was.marks if mark not in now.marks]
        yield ", ".join([*(_mark(mark, encoding) for mark in now.marks if mark not in was.marks), *gone])
    elif now.kind != "dir" and now.mtime_ns != was.mtime_ns:
        yield "time of modification"
    if now.mode != was.mode:
        yield f"mode {was.mode:04o} -> {now.mode:04o}"
    if now.owner != was.owner:
        yield f"owner {was.owner} -> {now.owner}"
