"""Layer stacks as small values: `Node`, `Layer`, `Stack`; written to disk by `build`, merged on paper by `merge`.

A layer is a tuple of nodes, parents before children. `merge` is the definition of what a stack shows, in terms of
paths only: of each name the topmost node wins, directories merge downwards until something that is no directory,
a whiteout or an opaque mark ends it (Documentation/filesystems/overlayfs.rst). It reads no disk and knows nothing of
unionfs. `build` writes the same layers in any of the encodings a reader must understand:

    kernel   char device 0:0; xattr overlay.opaque=y                          (the kernel's own)
    xattr    empty file with xattr overlay.whiteout; parent overlay.opaque=x  (composefs, read by the kernel too)
    aufs     .wh.NAME; .wh..wh..opq                                           (OCI changesets, fuse-overlayfs)

INVARIANT: the repr of a Stack is the Python source of it, so that a counterexample can be pasted as a regression.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any

PRIVILEGED = os.geteuid() == 0
XATTR_PREFIX = "trusted." if PRIVILEGED else "user."
OWNER, GROUP = os.geteuid(), os.getegid()

TYPES = {"dir": stat.S_IFDIR, "file": stat.S_IFREG, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO}


@dataclass(frozen=True, repr=False)
class Node:
    """One stored object. `kind`: dir, file, symlink, fifo, whiteout, or link (another name of the file `target`)."""

    kind: str
    path: str
    mode: int = 0o755
    uid: int = OWNER
    gid: int = GROUP
    data: bytes = b""
    target: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    opaque: bool = False

    def __repr__(self) -> str:
        extra = [
            f"{f.name}={oct(value) if f.name == 'mode' else repr(value)}"
            for f in fields(self)[2:]
            if (value := getattr(self, f.name)) != f.default
        ]
        return f"Node({', '.join([repr(self.kind), repr(self.path), *extra])})"


Layer = tuple[Node, ...]


@dataclass(frozen=True, repr=False)
class Stack:
    """`lowers` topmost first. `upper`: what an earlier mount left there. `encodings`: one per lower, else kernel's."""

    lowers: tuple[Layer, ...]
    upper: Layer = ()
    encodings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        def layer(nodes: Layer) -> str:
            return "(" + "".join(f"\n            {node!r}," for node in nodes) + ("\n        )" if nodes else ")")

        parts = ["lowers=(" + "".join(f"\n        {layer(nodes)}," for nodes in self.lowers) + "\n    )"]
        if self.upper:
            parts.append(f"upper={layer(self.upper)}")
        if any(e != "kernel" for e in self.encodings):
            parts.append(f"encodings={self.encodings!r}")
        return f"Stack({', '.join(parts)})"

    @property
    def has_links(self) -> bool:
        return any(node.kind == "link" for nodes in (self.upper, *self.lowers) for node in nodes)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For Hypothesis' own report, which would print a screen of defaults: the script says it all."""
        printer.text("<Stack as in the script>")

    def mtime(self, level: int, number: int) -> int:
        """The explicit mtime (ns) of node `number` of layer `level` (0: the upper). Its fraction is no microsecond."""
        return (1_500_000_000 + 1_000 * level + number) * 1_000_000_000 + 123_456_700 + number


# on disk ----------------------------------------------------------------------------------------------------------
def build(stack: Stack, directory: str, namespace: str = XATTR_PREFIX) -> tuple[list[str], str, str]:
    """Write the layers, an upper and an empty workdir into the empty `directory`: (lowers, upper, work).

    `namespace`: of the xattrs that are marks.
    """
    prefix = f"{namespace}overlay."
    lowers = []
    for level, nodes in enumerate(stack.lowers, start=1):
        encoding = stack.encodings[level - 1] if stack.encodings else "kernel"
        lowers.append(f"{directory}/l{level}")
        _build_layer(stack, level, nodes, lowers[-1], encoding, prefix)
    upper, work = f"{directory}/upper", f"{directory}/work"
    _build_layer(stack, 0, stack.upper, upper, "kernel", prefix)
    os.mkdir(work)
    return lowers, upper, work


def _build_layer(stack: Stack, level: int, nodes: Layer, root: str, encoding: str, prefix: str) -> None:
    os.mkdir(root)
    os.chmod(root, 0o755)
    for node in nodes:
        _write(node, f"{root}/{node.path}", encoding, prefix)
    for number, node in reversed(list(enumerate(nodes))):  # children first: they change their parent's times
        path = f"{root}/{node.path}"
        if node.kind not in ("whiteout", "link"):
            os.utime(path, ns=(0, stack.mtime(level, number)), follow_symlinks=False)


def _write(node: Node, path: str, encoding: str, prefix: str) -> None:
    if node.kind == "whiteout":
        _write_whiteout(path, encoding, prefix)
        return
    if node.kind == "link":
        os.link(f"{path[: -len(node.path)]}{node.target}", path, follow_symlinks=False)
        return
    if node.kind == "dir":
        os.mkdir(path)
        if node.opaque and encoding == "aufs":
            os.close(os.open(f"{path}/.wh..wh..opq", os.O_CREAT | os.O_WRONLY, 0o600))
        elif node.opaque:
            os.setxattr(path, f"{prefix}opaque", b"y")
    elif node.kind == "file":
        with open(path, "xb") as file:
            file.write(node.data)
    elif node.kind == "symlink":
        os.symlink(node.target, path)
    else:
        os.mkfifo(path)
    if PRIVILEGED:
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
    if node.kind != "symlink":
        os.chmod(path, node.mode)
    for name, value in node.xattrs:
        os.setxattr(path, name, value, follow_symlinks=False)


def _write_whiteout(path: str, encoding: str, prefix: str) -> None:
    parent, name = os.path.split(path)
    if encoding == "kernel":
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        return
    if encoding == "xattr" and _is_opaque(parent, prefix):
        return  # opaque says "y" or "x": an opaque directory can hold no such whiteout, and needs none
    stored = f"{parent}/.wh.{name}" if encoding == "aufs" else path
    os.close(os.open(stored, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if encoding == "xattr":
        os.setxattr(stored, f"{prefix}whiteout", b"y")
        os.setxattr(parent, f"{prefix}opaque", b"x")


def _is_opaque(directory: str, prefix: str) -> bool:
    try:
        return os.getxattr(directory, f"{prefix}opaque") == b"y"
    except OSError:
        return False


# on paper ---------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Inode:
    """An object people see. `nlink` counts the names of a non-directory; `mtime` None: whatever the clock said."""

    kind: str
    mode: int
    uid: int
    gid: int
    data: bytes = b""
    target: str = ""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, Inode] = field(default_factory=dict)
    nlink: int = 1
    mtime: int | None = None
    linkable: bool = False  # made by O_TMPFILE and never named (I_LINKABLE)
    serial: int = field(default_factory=count().__next__)


@dataclass(eq=False)
class _Stored:
    """A node of one layer in its tree. Names of one file share their `inode`."""

    node: Node
    inode: Inode
    children: dict[str, _Stored] = field(default_factory=dict)


def _layer_tree(stack: Stack, level: int, nodes: Layer) -> _Stored:
    root = _Stored(Node("dir", "", mode=0o755), Inode("dir", 0o755, OWNER, GROUP))
    by_path = {"": root}
    for number, node in enumerate(nodes):
        if node.kind == "link":
            stored = _Stored(node, by_path[node.target].inode)
            stored.inode.nlink += 1
        else:
            mode = 0o777 if node.kind == "symlink" else node.mode
            inode = Inode(node.kind, mode, node.uid, node.gid, node.data, node.target, dict(node.xattrs))
            inode.mtime = stack.mtime(level, number)
            stored = _Stored(node, inode)
        parent, _, name = node.path.rpartition("/")
        by_path[node.path] = by_path[parent].children[name] = stored
    return root


def merge(stack: Stack) -> Inode:
    """The root of what the stack shows. A file's `nlink` counts its names in its layer, hidden ones included, as
    st_nlink of the layer does (the kernel, index=on: the same)."""
    return _merge(_layer_trees(stack), [])


def without_stray_whiteouts(stack: Stack) -> Stack:
    """The stack without the whiteouts in directories that merge with nothing below, where they hide nothing."""
    stray: list[Node] = []
    _merge(_layer_trees(stack), stray)
    marked = {id(node) for node in stray}
    upper, *lowers = (tuple(n for n in nodes if id(n) not in marked) for nodes in (stack.upper, *stack.lowers))
    return replace(stack, lowers=tuple(lowers), upper=upper)


def _layer_trees(stack: Stack) -> list[_Stored]:
    return [_layer_tree(stack, level, nodes) for level, nodes in enumerate((stack.upper, *stack.lowers))]


def _merge(candidates: list[_Stored], stray: list[Node]) -> Inode:
    """What a name shows that has these nodes, topmost first, of which the first is neither whiteout nor missing.

    Whiteouts in directories that merge with nothing below are added to `stray`.
    """
    top = candidates[0]
    if top.node.kind != "dir":
        return top.inode
    merged = []
    for stored in candidates:
        if stored.node.kind != "dir":
            break
        merged.append(stored)
        if stored.node.opaque:
            break
    stray += [child.node for child in merged[-1].children.values() if child.node.kind == "whiteout"]
    for name in sorted({name for stored in merged for name in stored.children}):
        found = [stored.children[name] for stored in merged if name in stored.children]
        if found[0].node.kind != "whiteout":
            top.inode.children[name] = _merge(found, stray)
    return top.inode
