"""One directory in another encoding: what is stored in, steps out. No I/O.

    kernel           char device 0:0; overlay.opaque = y
    xattr            empty file with overlay.whiteout in a directory with overlay.opaque = x; overlay.opaque = y
    aufs             .wh.NAME; .wh..wh..opq
    fuse-overlayfs   char device 0:0, .wh.NAME where there are none; .wh..wh..opq and user.fuseoverlayfs.opaque = y

All of them are read, in any mixture, so that what a crash left half converted is converted by the next run.

INVARIANT: after each step a reader of all encodings sees the same names, and the same hidden. A name is hidden in the
new way before it ceases to be in the old; a directory is opaque in the new way before it ceases to be in the old, and
is said to have xattr whiteouts before it has the first and until it has lost the last.

What a whiteout says is kept; its mode, owner and times are not. A whiteout in an opaque directory hides nothing: it is
kept only as device and `.wh.NAME`. As xattr no such directory has any, and new devices in one the kernel would list.
`.wh.NAME` beside NAME becomes an opaque directory, or nothing if NAME is none.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from unionfs.layers import whiteout
from unionfs.layers.layer import Path
from unionfs.upkeep.attributes import CONVERTING, PROBE
from unionfs.upkeep.steps import (
    STAGED,
    MakeDevice,
    MakeEmpty,
    PutDevice,
    PutMarked,
    RemoveXattr,
    SetXattr,
    Step,
    Unlink,
)
from unionfs.upkeep.stored import (
    FUSE_OVERLAYFS,
    USER,
    Folder,
    Stored,
    announces_xattr_whiteouts,
    has_whiteout_mark,
    is_debris,
    is_escaped,
    join,
    opaque_value,
    split_mark,
)

Encoding = Literal["kernel", "xattr", "aufs", "fuse-overlayfs"]
ENCODINGS: Final[tuple[Encoding, ...]] = ("kernel", "xattr", "aufs", "fuse-overlayfs")
NAME_MAX: Final = 255
_FUSE_OPAQUE: Final = FUSE_OVERLAYFS + b"opaque"


class Target(NamedTuple):
    """`namespace` of the union's own attributes, "trusted.overlay." or "user.overlay.". `translate`: those of the
    other one are moved there. `devices`: whiteout devices can be made. `aufs`: the tree's `.wh.` names are whiteouts;
    else they are data, and so `.wh..wh..opq` alone means nothing. `upper`: it is one."""

    encoding: Encoding
    namespace: bytes
    translate: bool
    devices: bool = True
    aufs: bool = True
    upper: bool = False

    @property
    def dotted(self) -> bool:
        """Whiteouts are written as `.wh.NAME`."""
        return self.encoding == "aufs" or (self.encoding == "fuse-overlayfs" and not self.devices)


class Refusal(NamedTuple):
    path: Path
    reason: str


class _Whiteouts(NamedTuple):
    """The whiteouts of a directory, by the name they hide, in each of the encodings."""

    devices: dict[bytes, Stored]
    marked: dict[bytes, Stored]
    dotted: dict[bytes, Stored]


def _read(folder: Folder, target: Target) -> _Whiteouts:
    found = _Whiteouts({}, {}, {})
    announced = announces_xattr_whiteouts(folder.itself)
    for name, child in sorted(folder.children.items()):
        if _is_dropped(name, child) or whiteout.is_reserved(name):
            continue
        hidden = whiteout.hidden_name(name) if target.aufs else None
        if hidden is not None:
            found.dotted[hidden] = child
        elif child.is_device_whiteout:
            found.devices[name] = child
        elif announced and has_whiteout_mark(child):
            found.marked[name] = child
    return found


def _is_dropped(name: bytes, child: Stored) -> bool:
    """What a crash of ours left, and debris of fuse-overlayfs, which the kernel would list."""
    return (name == STAGED and (child.is_empty_file or child.is_device_whiteout)) or is_debris(name, child)


# what cannot be -------------------------------------------------------------------------------------------------------
def refusals(folder: Folder, target: Target) -> Iterator[Refusal]:
    """What the target cannot hold, and what cannot be told apart from something else."""
    if not folder.path:
        yield from _cannot_hold(folder.itself, target)
    announced = announces_xattr_whiteouts(folder.itself)
    found = _read(folder, target)
    for name, child in sorted(folder.children.items()):
        yield from _cannot_hold(child, target)
        if has_whiteout_mark(child) and not announced and target.encoding == "xattr":
            yield Refusal(child.path, "an empty file that would become a whiteout")
        if name.startswith(whiteout.PREFIX):
            yield from _cannot_name(folder, name, child, target)
    if target.dotted:
        for hidden, child in (found.devices | found.marked).items():
            if len(whiteout.PREFIX + hidden) > NAME_MAX:
                yield Refusal(child.path, "a whiteout whose name is too long for .wh.NAME")
    if target.encoding == "xattr" and target.upper and any(found):
        yield Refusal(folder.path, "whiteouts in an upper, where the kernel would list xattr ones")


def _cannot_hold(stored: Stored, target: Target) -> Iterator[Refusal]:
    if target.encoding in ("aufs", "fuse-overlayfs"):
        for key in (b"redirect", b"metacopy", b"unionfs.whiteout"):
            # A redirect of a file that is no metacopy means nothing: its data came up.
            spent = key == b"redirect" and not stored.is_dir and stored.own(b"metacopy") is None
            if stored.own(key) is not None and not spent:
                yield Refusal(stored.path, f"overlay.{key.decode()}, which {target.encoding} has not")
    if {stored.marks.get(name, b"")[:1] for name in whiteout.OPAQUE_XATTRS} >= {b"x", b"y"}:
        yield Refusal(stored.path, "opaque for some readers, and not for others")
    if not target.translate:
        return
    for name in stored.marks:
        own = split_mark(name)
        if is_escaped(name):
            yield Refusal(stored.path, "the attribute of an overlay inside the overlay")
        elif own is not None and own[0] != target.namespace and target.namespace == USER and not _holds_user(stored):
            yield Refusal(stored.path, "neither file nor directory, so it cannot have user. attributes")


def _holds_user(stored: Stored) -> bool:
    """xattr(7)"""
    return stored.is_dir or stat.S_ISREG(stored.st.st_mode)


def _cannot_name(folder: Folder, name: bytes, child: Stored, target: Target) -> Iterator[Refusal]:
    if _is_dropped(name, child) or (name == whiteout.AUFS_MARKER and not folder.path):
        return
    if not target.aufs:
        # The opaque marker beside the attribute is fuse-overlayfs's.
        marker = name == whiteout.OPAQUE and opaque_value(folder.itself) == b"y"
        if target.encoding in ("aufs", "fuse-overlayfs") and not marker:
            yield Refusal(child.path, f"a name that {target.encoding} keeps for itself")
        return
    if name == whiteout.OPAQUE or whiteout.hidden_name(name) is not None:
        if not (child.is_empty_file or child.is_device_whiteout):
            yield Refusal(child.path, "a whiteout that is no empty file")
    elif not target.dotted:
        yield Refusal(child.path, "AUFS's own; unionfs check --repair removes it")
    hidden = whiteout.hidden_name(name)
    beside = folder.children.get(hidden) if hidden is not None else None
    if beside is not None and beside.is_dir and not target.dotted and announces_xattr_whiteouts(beside):
        yield Refusal(child.path, "a whiteout beside a directory that has xattr whiteouts")


# what is done ---------------------------------------------------------------------------------------------------------
def plan(folder: Folder, target: Target) -> list[Step]:
    """The steps that bring one directory and what is in it into the target encoding; none if it is in it. To be taken
    in order, and the directories from the root down, each read when its turn comes."""
    steps: list[Step] = [Unlink(c.path) for name, c in sorted(folder.children.items()) if _is_dropped(name, c)]
    if target.translate:
        # A directory's own attributes come with its parent's, so that they are in one namespace when its turn comes.
        for stored in (folder.itself, *(child for _, child in sorted(folder.children.items()))):
            steps += translation(stored, target.namespace)
        folder = _translated(folder, target.namespace)
    opaque = opaque_value(folder.itself) == b"y" or (target.aufs and whiteout.OPAQUE in folder.children)
    found = _read(folder, target)
    if target.dotted:
        steps += _to_dotted(folder, found)
    elif target.encoding == "xattr":
        steps += _to_marked(folder, found, target, opaque)
    else:
        steps += _to_devices(folder, found, opaque)
    if not target.dotted:
        steps += _beside(folder, found, target)
    return steps + _opaqueness(folder, target, opaque)


def _to_dotted(folder: Folder, found: _Whiteouts) -> Iterator[Step]:
    for hidden, child in (found.devices | found.marked).items():
        if hidden not in found.dotted:
            yield MakeEmpty(join(folder.path, whiteout.PREFIX + hidden))
        yield Unlink(child.path)


def _to_devices(folder: Folder, found: _Whiteouts, opaque: bool) -> Iterator[Step]:
    for child in found.marked.values():
        yield PutDevice(child.path)
    for hidden, child in found.dotted.items():
        if hidden not in folder.children:
            if not opaque:
                yield MakeDevice(join(folder.path, hidden))
            yield Unlink(child.path)
        elif hidden in found.devices or hidden in found.marked:
            yield Unlink(child.path)


def _to_marked(folder: Folder, found: _Whiteouts, target: Target, opaque: bool) -> Iterator[Step]:
    if opaque:
        for child in (found.devices | found.marked).values():
            yield Unlink(child.path)
        for hidden, child in found.dotted.items():
            if not _stays(folder, found, hidden):
                yield Unlink(child.path)
        return
    mark = target.namespace + b"whiteout"
    new = {hidden for hidden in found.dotted if hidden not in folder.children}
    if (found.devices or found.marked or new) and folder.itself.marks.get(target.namespace + b"opaque") != b"x":
        yield SetXattr(folder.path, target.namespace + b"opaque", b"x")
    for child in found.devices.values():
        yield PutMarked(child.path, mark)
    for hidden, child in found.dotted.items():
        if hidden in new:
            yield PutMarked(join(folder.path, hidden), mark)
        if not _stays(folder, found, hidden):
            yield Unlink(child.path)


def _stays(folder: Folder, found: _Whiteouts, hidden: bytes) -> bool:
    """Is there something of a hidden name that is no whiteout itself?"""
    return hidden in folder.children and hidden not in found.devices and hidden not in found.marked


def _beside(folder: Folder, found: _Whiteouts, target: Target) -> Iterator[Step]:
    """`.wh.NAME` beside NAME."""
    for hidden, child in found.dotted.items():
        if not _stays(folder, found, hidden):
            continue
        beside = folder.children[hidden]
        if beside.is_dir and opaque_value(beside) != b"y":
            if target.encoding == "fuse-overlayfs":
                yield MakeEmpty(join(beside.path, whiteout.OPAQUE))
                yield SetXattr(beside.path, _FUSE_OPAQUE, b"y")
            else:
                yield SetXattr(beside.path, target.namespace + b"opaque", b"y")
        yield Unlink(child.path)


def _opaqueness(folder: Folder, target: Target, opaque: bool) -> list[Step]:
    """The directory's own marks, after its whiteouts: until then it may have to announce them."""
    path, marks = folder.path, folder.itself.marks
    own = target.namespace + b"opaque"
    keep: set[bytes] = set()
    steps: list[Step] = []
    by_file = target.encoding in ("aufs", "fuse-overlayfs")
    if opaque:
        if by_file and whiteout.OPAQUE not in folder.children:
            steps.append(MakeEmpty(join(path, whiteout.OPAQUE)))
        wanted = {"aufs": None, "fuse-overlayfs": _FUSE_OPAQUE}.get(target.encoding, own)
        if wanted is not None:
            keep.add(wanted)
            if marks.get(wanted) != b"y":
                steps.append(SetXattr(path, wanted, b"y"))
    elif target.encoding == "xattr":
        keep.add(own)
    steps += [
        RemoveXattr(path, name)
        for name in (*whiteout.OPAQUE_XATTRS, *whiteout.XWHITEOUTS_XATTRS)
        if name in marks and name not in keep
    ]
    if not by_file and whiteout.OPAQUE in folder.children and opaque:
        steps.append(Unlink(folder.children[whiteout.OPAQUE].path))
    return steps


# namespaces -----------------------------------------------------------------------------------------------------------
def _is_moved(name: bytes, namespace: bytes) -> bytes | None:
    own = split_mark(name)
    if own is None or own[0] == namespace or own[1] in (CONVERTING, PROBE):
        return None
    return namespace + own[1]


def translation(stored: Stored, namespace: bytes) -> list[Step]:
    """Every attribute is there in the new namespace before the first goes from the old."""
    moved = {name: new for name in sorted(stored.marks) if (new := _is_moved(name, namespace)) is not None}
    missing = (SetXattr(stored.path, new, stored.marks[old]) for old, new in moved.items() if new not in stored.marks)
    return [*missing, *(RemoveXattr(stored.path, old) for old in moved)]


def _translated(folder: Folder, namespace: bytes) -> Folder:
    def moved(stored: Stored) -> Stored:
        marks = {_is_moved(name, namespace) or name: value for name, value in stored.marks.items()}
        marks |= {name: value for name, value in stored.marks.items() if name.startswith(namespace)}
        return stored._replace(marks=marks)

    return Folder(moved(folder.itself), {name: moved(child) for name, child in folder.children.items()})
