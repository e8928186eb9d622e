"""What can be wrong in one directory, whatever is below it. No I/O.

`judge(folder, view)` gives the `Fault`s of a directory's entries, and of its root's own attributes, each with the steps
that mend it without loss: none where it takes somebody's judgement.

In an upper that does not say by `.wh..wh.aufs` that it is written with AUFS names, `.wh.` names are data of its users,
but for what fuse-overlayfs leaves there.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Path
from unionfs.upkeep import attributes
from unionfs.upkeep.steps import STAGED, MakeEmpty, RemoveXattr, Rmdir, SetXattr, Step, Unlink
from unionfs.upkeep.stored import (
    FUSE_OVERLAYFS,
    NAMESPACES,
    Folder,
    Stored,
    announces_xattr_whiteouts,
    has_whiteout_mark,
    is_debris,
    join,
    opaque_value,
    split_mark,
)


class Fault(NamedTuple):
    """`repair` says what `steps` do, or why there are none."""

    path: Path
    rule: str
    message: str
    repair: str
    steps: tuple[Step, ...] = ()


class View(NamedTuple):
    """How a tree is to be read. `aufs`: its `.wh.` names are whiteouts. `namespace`: of the first of the union's own
    attributes met in it, b"" before that: those of the other may be the data of an overlay inside it. (Where that would
    matter, the directories on the way have been copied up, and say which is ours.)"""

    aufs: bool
    namespace: bytes = b""


def first_namespace(folder: Folder) -> bytes:
    """The namespace of the union's own attributes, as far as this directory tells."""
    for stored in (folder.itself, *folder.children.values()):
        for name in stored.marks:
            own = split_mark(name)
            if own is not None:
                return own[0]
    return b""


def is_opaque(folder: Folder, view: View) -> bool:
    return opaque_value(folder.itself, view.namespace) == b"y" or (view.aufs and whiteout.OPAQUE in folder.children)


def whiteouts_of(folder: Folder, view: View) -> Iterator[tuple[bytes, Stored]]:
    """(hidden name, the object that hides it)."""
    announced = announces_xattr_whiteouts(folder.itself, view.namespace)
    for name, child in folder.children.items():
        if whiteout.is_reserved(name) or is_debris(name, child):
            continue
        hidden = whiteout.hidden_name(name) if view.aufs else None
        if hidden is not None:
            yield hidden, child
        elif child.is_device_whiteout or (announced and has_whiteout_mark(child)):
            yield name, child


def judge(folder: Folder, view: View) -> Iterator[Fault]:
    if not folder.path:
        yield from _attributes(folder.itself, view)
    for _, child in sorted(folder.children.items()):
        yield from _attributes(child, view)
    if is_opaque(folder, view):
        for name, child in sorted(whiteouts_of(folder, view)):
            if _may_go(child):
                message = f"whiteout of {_show(name)} in an opaque directory, which hides all of it anyway"
                yield Fault(child.path, "whiteout-in-opaque", message, "remove the whiteout", (Unlink(child.path),))
    elif not announces_xattr_whiteouts(folder.itself, view.namespace):
        for _, child in sorted(folder.children.items()):
            if has_whiteout_mark(child):
                message = "overlay.whiteout in a directory whose overlay.opaque is not x: an empty file, no whiteout"
                repair = "none: whether it is to hide something is not known"
                yield Fault(child.path, "whiteout-not-announced", message, repair)
    yield from _unannounced(folder, view)
    for name, child in sorted(folder.children.items()):
        if name.startswith(whiteout.PREFIX):
            yield from _aufs_name(folder, name, child, view)


def _unannounced(folder: Folder, view: View) -> Iterator[Fault]:
    """A mount without `metacopy=on` looks for metacopies in impure directories alone. The kernel's `index=off` leaves
    others, where one that had lost its hard links was moved to."""
    for _, child in sorted(folder.children.items()):
        if not stat.S_ISREG(child.st.st_mode) or child.own(b"metacopy", view.namespace) is None:
            continue
        namespace = view.namespace or next(one for one in NAMESPACES if one + b"metacopy" in child.marks)
        if folder.itself.own(b"impure", namespace) is None:
            message = f"has the metacopy {_show(child.path.rpartition(b'/')[2])}, and no overlay.impure that says so"
            steps = (SetXattr(folder.path, namespace + b"impure", b"y"),)
            yield Fault(folder.path, "metacopy-not-announced", message, "mark the directory impure", steps)
        return


def _may_go(child: Stored) -> bool:
    return child.is_empty_file or child.is_device_whiteout


def _attributes(stored: Stored, view: View) -> Iterator[Fault]:
    mixed = False
    for name, value in sorted(stored.marks.items()):
        own = split_mark(name)
        if own is not None and own[0] == (view.namespace or own[0]):
            found = attributes.fault(stored, own[1], value)
        elif own is not None:
            mixed, found = True, None
        elif name == FUSE_OVERLAYFS + b"opaque":
            found = attributes.fault(stored, b"opaque", value)
        else:
            found = None
        if found is not None:
            steps = (RemoveXattr(stored.path, name),) if found.harmless else ()
            yield Fault(stored.path, found.rule, found.message, _attribute_repair(found), steps)
    if mixed:
        message = f"attributes of another namespace than {view.namespace.decode()}* elsewhere in the tree"
        yield Fault(stored.path, "mixed-namespaces", message, "none: they may be the data of an overlay inside")


def _attribute_repair(found: attributes.Fault) -> str:
    if found.harmless:
        return "remove the attribute"
    if found.rule == "unfinished-conversion":
        return "none: run unionfs convert again"
    return "none: what was meant is not known"


# .wh. names -----------------------------------------------------------------------------------------------------------
def _aufs_name(folder: Folder, name: bytes, child: Stored, view: View) -> Iterator[Fault]:
    remove = (Unlink(child.path),)
    if name == STAGED and _may_go(child):
        yield Fault(child.path, "aufs-debris", "left by an interrupted conversion", "remove it", remove)
    elif is_debris(name, child):
        yield Fault(child.path, "aufs-debris", "whiteout of fuse-overlayfs's own marker", "remove it", remove)
    elif not view.aufs:
        return
    elif name in whiteout.NO_WHITEOUTS:
        if _may_go(child):
            yield Fault(child.path, "aufs-debris", "a whiteout of no name", "remove it", remove)
        else:
            yield Fault(child.path, "aufs-malformed", "a whiteout of no name, with something in it", _LOOK)
    elif whiteout.is_reserved(name):
        yield from _reserved(folder, name, child)
    else:
        yield from _whiteout(folder, name, child, view)


_LOOK = "none: look at what is in it, and remove it by hand"


def _reserved(folder: Folder, name: bytes, child: Stored) -> Iterator[Fault]:
    if name == whiteout.OPAQUE or (name == whiteout.AUFS_MARKER and not folder.path):
        if not _may_go(child):
            yield Fault(child.path, "aufs-malformed", "a marker that is no empty file", _LOOK)
        return
    message = "AUFS's own; nobody sees it"
    if _may_go(child):
        yield Fault(child.path, "aufs-debris", message, "remove it", (Unlink(child.path),))
    elif child.is_dir:
        yield Fault(child.path, "aufs-debris", message, "remove it, if it is empty", (Rmdir(child.path),))
    else:
        yield Fault(child.path, "aufs-debris", message, _LOOK)


def _whiteout(folder: Folder, name: bytes, child: Stored, view: View) -> Iterator[Fault]:
    hidden = whiteout.hidden_name(name)
    assert hidden is not None
    if not child.is_empty_file:
        yield Fault(child.path, "aufs-malformed", "a whiteout that is no empty file (image-spec layer.md)", _LOOK)
        return
    beside = folder.children.get(hidden)
    if beside is None or is_opaque(folder, view):
        return
    if stat.S_ISDIR(beside.st.st_mode) and opaque_value(beside, view.namespace) != b"y":
        message = f"whiteout beside the directory {_show(hidden)}, which is thereby opaque"
        steps = (MakeEmpty(join(beside.path, whiteout.OPAQUE)), Unlink(child.path))
        repair = f"mark the directory by {whiteout.OPAQUE.decode()}, then remove the whiteout"
        yield Fault(child.path, "whiteout-beside-name", message, repair, steps)
    else:
        message = f"whiteout beside {_show(hidden)}, which hides what is below anyway"
        yield Fault(child.path, "whiteout-beside-name", message, "remove the whiteout", (Unlink(child.path),))


def _show(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
