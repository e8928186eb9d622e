"""Scripts that once showed a disagreement, by what they show. Each is replayed in every arena that can hold it.

Made by pasting what a failing state machine prints.
"""

from __future__ import annotations

from .drivers import Op
from .layers import GROUP, OWNER, PRIVILEGED, Node, Stack, without_stray_whiteouts

REGRESSIONS: dict[str, tuple[Stack, list[Op]]] = {
    "a copied-up file keeps its inode number over a remount": (
        Stack(lowers=((Node("file", "a", mode=0o644),),)),
        [("append", "a", b"x")],
    ),
    "directories exchanged with a file keep their numbers": (
        Stack(lowers=((Node("dir", "a"), Node("file", "b", mode=0o644)),)),
        [("rename", "a", "b", 2)],
    ),
    "an xattr whiteout in the root of a layer hides": (
        Stack(lowers=((Node("whiteout", "a"),), (Node("file", "a", mode=0o644),)), encodings=("xattr", "kernel")),
        [],
    ),
    "a link over a name that exists is EEXIST before a directory is EPERM": (
        Stack(lowers=((Node("symlink", "a", target="nowhere"),), (Node("dir", "c"),))),
        [("link", "c", "a")],
    ),
    "a hard-link group copied up by one name shows the new data under the other": (
        Stack(lowers=((Node("file", "d", mode=0o644), Node("link", "c", target="d")), ())),
        [("append", "c", b"hello")],
    ),
    "a file linked after copy-up has one number under both names, whichever is asked first": (
        Stack(lowers=((Node("file", "c", mode=0o644),), ())),
        [("link", "c", "b")],
    ),
    "a lower group gains a name beside its own": (
        Stack(
            lowers=(
                (
                    Node("dir", "c"),
                    Node("file", "c/c", mode=0o644),
                    Node("link", "d", target="c/c"),
                ),
            )
        ),
        [("link", "c/c", "c/d")],
    ),
    "looking at a group's other name changes no time": (
        Stack(
            lowers=(
                (
                    Node("dir", "a"),
                    Node("dir", "a/c"),
                    Node("file", "a/d", mode=0o644),
                    Node("link", "a/c/a", target="a/d"),
                ),
                (),
            )
        ),
        [("chown", "a/c/a", 1000, 0)],
    ),
    "an unlinked file that is open gets no name any more": (
        Stack(lowers=((Node("dir", "a"),),)),
        [("create", "a/c", 0o644), ("open", 0, "a/c", False), ("unlink", "a/c"), ("hlink", 0, "a/c")],
    ),
    "nor does an unlinked lower file that is open": (
        Stack(lowers=((Node("file", "a", mode=0o644),),)),
        [
            ("open", 0, "a", False),
            ("unlink", "a"),
            ("hlink", 0, "b"),
            ("hlink", 0, "a"),
            ("tmpfile", 1, "", 0o600),
            ("hlink", 1, "a"),
        ],
    ),
    "chown takes set-user-ID away even if it changes no id": (
        Stack(lowers=((Node("file", "a", mode=0o4755),),)),
        [("chown", "a", -1, -1)],
    ),
}

#: Those of a store whose marks are `user.` xattrs.
USER_MARKS: dict[str, tuple[Stack, list[Op]]] = {
    "an attribute that a user has named as other unions name a mark is none in the next layer": (
        Stack(lowers=((Node("dir", "d"), Node("dir", "d/d")),)),
        [("setxattr", "d", "trusted.overlay.redirect", b"value", 0), ("rotate",)],
    ),
    "nor is it where a rename has copied it": (
        Stack(lowers=((Node("dir", "a"), Node("file", "a/b", mode=0o644)), ())),
        [
            ("setxattr", "a", "trusted.overlay.opaque", b"y", 0),
            ("rotate",),
            ("rename", "a", "c"),
            ("rotate",),
            ("chmod", "c", 0o700),
        ],
    ),
}

#: Those of a store that may hold metacopies.
METACOPIES: dict[str, tuple[Stack, list[Op]]] = {
    **REGRESSIONS,
    "a metacopy of a metacopy, moved and then written to": (
        Stack(lowers=((Node("dir", "d"), Node("file", "d/a", data=b"hello")),)),
        [
            ("chmod", "d/a", 0o600),
            ("rotate",),
            ("rename", "d/a", "b"),
            ("rotate",),
            ("chown", "b", 1000, 1000),
            ("write", "b", 1, b"x"),
        ],
    ),
    "an open metacopy is unlinked, changed and written to": (
        Stack(lowers=((Node("file", "a", data=b"hello"),),)),
        [("chmod", "a", 0o600), ("open", 0, "a", False), ("unlink", "a"), ("hchmod", 0, 0o644), ("hread", 0)],
    ),
}

#: Those of a store without xattrs (rigs.STORES["ramfs"]).
PLAIN: dict[str, tuple[Stack, list[Op]]] = {
    "without RENAME_WHITEOUT, a rename over a name that only the lowers have": (
        Stack(
            lowers=(
                (
                    Node("dir", "c"),
                    Node("file", "c/b", mode=0o644),
                ),
                (
                    Node("dir", "b"),
                    Node("symlink", "b/d", target="nowhere"),
                ),
            ),
            encodings=("aufs", "aufs"),
        ),
        [("rename", "c/b", "b/d")],
    ),
    "the link count of a group outlives its inode's being forgotten": (
        Stack(
            lowers=(
                (
                    Node("file", "a", mode=0o644),
                    Node("file", "b", mode=0o644),
                    Node("link", "c", target="b"),
                ),
            ),
        ),
        [("rename", "a", "b"), ("drop_caches",)],
    ),
    "a whiteout of the mount before is replaced by a new file": (
        Stack(lowers=((Node("fifo", "b"),),)),
        [("unlink", "b"), ("remount",), ("mkfifo", "b", 0o444)],
    ),
    "a lower directory keeps its number when it moves, cannot be redirected and is forgotten": (
        Stack(lowers=((Node("dir", "a"), Node("dir", "c")),)),
        [("rename", "a", "c/a"), ("drop_caches",)],
    ),
    "a lower directory keeps its mtime when it moves and cannot be redirected": (
        Stack(lowers=((Node("dir", "c"), Node("symlink", "c/d", target="nowhere")), (Node("dir", "d"),))),
        [("rename", "c/d", "d", 2)],
    ),
}


def applicable(scripts: dict[str, tuple[Stack, list[Op]]]) -> dict[str, tuple[Stack, list[Op]]]:
    """Those that this user can set up: other owners, trusted xattrs and mounts need root."""
    return scripts if PRIVILEGED else {name: script for name, script in scripts.items() if not _needs_root(*script)}


def _needs_root(stack: Stack, ops: list[Op]) -> bool:
    owners = {(node.uid, node.gid) for nodes in (stack.upper, *stack.lowers) for node in nodes}
    return owners > {(OWNER, GROUP)} or any(op[0] in ("chown", "hchown") for op in ops)


def kernel_reads(scripts: dict[str, tuple[Stack, list[Op]]]) -> dict[str, tuple[Stack, list[Op]]]:
    """Those whose layers the kernel understands, and lists rightly."""
    return {
        name: (stack, ops)
        for name, (stack, ops) in scripts.items()
        if "aufs" not in stack.encodings and without_stray_whiteouts(stack) == stack
    }
