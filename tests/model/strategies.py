"""What Hypothesis draws: small stacks over the names a–d, and the arguments of operations, mostly on what exists.

Everything lies within depth 3, so that whiteouts, opaque directories, hard links and renames meet often. The targets of
symbolic links never exist.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from .layers import PRIVILEGED, Inode, Layer, Node, Stack

NAMES = "abcd"
DEPTH = 3
DANGLING = ("nowhere", "../no/where")
XATTRS = ["user.x", "user.y"]
IDS = [(0, 0)]
MODES = [0o644, 0o755, 0o600]
if PRIVILEGED:
    XATTRS += ["trusted.z", "trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.overlay.q"]
    IDS = [(0, 0), (1000, 0), (0, 1000), (1000, 1001)]
    MODES += [0o4755, 0o2755, 0o2644, 0o444, 0o000]
DIRECTORY_MODES = [0o755, 0o700, 0o1755] + ([0o2755] if PRIVILEGED else [])

names = st.sampled_from(NAMES)
modes = st.sampled_from(MODES)
directory_modes = st.sampled_from(DIRECTORY_MODES)
ids = st.sampled_from(IDS)
data = st.sampled_from([b"x", b"hello", b"0123456789", b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"])
offsets = st.sampled_from([0, 1, 7, 4096, 9000])
sizes = st.sampled_from([0, 1, 7, 5000])
targets = st.sampled_from(DANGLING)
xattr_names = st.sampled_from(XATTRS)
xattr_values = st.sampled_from([b"", b"y", b"/a", b"value"])
slots = st.integers(0, 1)
times = st.integers(1, 999).map(lambda n: 1_400_000_000_000_000_000 + n * 1_000_000_007)

paths = st.lists(names, min_size=1, max_size=DEPTH).map("/".join)


# layers -----------------------------------------------------------------------------------------------------------
@st.composite
def layers(draw: st.DrawFn) -> Layer:
    nodes: list[Node] = []
    _fill(draw, nodes, "")
    files = [node.path for node in nodes if node.kind == "file"]
    directories = ["", *(node.path for node in nodes if node.kind == "dir")]
    for _ in range(draw(st.integers(0, 2)) if files else 0):
        path = f"{draw(st.sampled_from(directories))}/{draw(names)}".lstrip("/")
        if all(node.path != path for node in nodes):
            nodes.append(Node("link", path, target=draw(st.sampled_from(files))))
    return tuple(nodes)


def _fill(draw: st.DrawFn, nodes: list[Node], directory: str) -> None:
    kinds = ["file", "file", "dir", "dir", "symlink", "fifo", "whiteout"]
    for name in sorted(draw(st.sets(names, max_size=3))):
        path = f"{directory}/{name}".lstrip("/")
        deepest = path.count("/") == DEPTH - 1
        kind = draw(st.sampled_from([k for k in kinds if k != "dir" or not deepest]))
        nodes.append(draw(_node(kind, path)))
        if kind == "dir":
            _fill(draw, nodes, path)


@st.composite
def _node(draw: st.DrawFn, kind: str, path: str) -> Node:
    if kind == "whiteout":
        return Node(kind, path)
    fields: dict[str, Any] = {}
    if kind != "symlink":
        fields["mode"] = draw(directory_modes if kind == "dir" else modes)
    if PRIVILEGED:
        fields["uid"], fields["gid"] = draw(ids)
    if kind == "file":
        fields["data"] = draw(data)
    if kind == "symlink":
        fields["target"] = draw(targets)
    if kind == "dir":
        fields["opaque"] = draw(st.sampled_from([False, False, True]))
    if kind in ("file", "dir"):
        fields["xattrs"] = draw(st.sampled_from([(), (), (("user.x", b"1"),), (("user.x", b"2"), ("user.y", b""))]))
    return Node(kind, path, **fields)


@st.composite
def stacks(draw: st.DrawFn, encodings: tuple[str, ...] = ("kernel",)) -> Stack:
    lowers = tuple(draw(st.lists(layers(), min_size=1, max_size=4)))
    upper = draw(st.one_of(st.just(()), st.just(()), layers()))
    return Stack(lowers, upper, tuple(draw(st.sampled_from(encodings)) for _ in lowers))


def without_upper(stack: Stack) -> Stack:
    """The stack with an empty upper: whiteouts in one are written in the kernel's encoding, with trusted xattrs."""
    return replace(stack, upper=())


def without_xattrs(stack: Stack) -> Stack:
    """The stack for a store that has none: AUFS's encoding, no upper that would need a mark."""

    def plain(nodes: Layer) -> Layer:
        return tuple(replace(node, xattrs=()) for node in nodes)

    return Stack(tuple(plain(nodes) for nodes in stack.lowers), (), ("aufs",) * len(stack.lowers))


# operations -------------------------------------------------------------------------------------------------------
def existing(root: Inode) -> list[str]:
    """Every path of the tree but the root, sorted."""
    found: list[str] = []

    def add(inode: Inode, path: str) -> None:
        for name in sorted(inode.children):
            found.append(f"{path}/{name}".lstrip("/"))
            add(inode.children[name], found[-1])

    add(root, "")
    return found


def known(root: Inode) -> st.SearchStrategy[str]:
    """A path that names something, if there is any; now and then any path."""
    there = existing(root)
    return st.one_of(st.sampled_from(there), st.sampled_from(there), st.sampled_from(there), paths) if there else paths


def free(root: Inode) -> st.SearchStrategy[str]:
    """A path in a directory that exists, free or taken; now and then any path."""
    directories = [path for path in existing(root) if path.count("/") < DEPTH - 1 and _kind(root, path) == "dir"]
    within = st.builds(lambda d, n: f"{d}/{n}".lstrip("/"), st.sampled_from(["", *directories]), names)
    return st.one_of(within, within, paths)


def _kind(root: Inode, path: str) -> str:
    for name in path.split("/"):
        root = root.children[name]
    return root.kind
