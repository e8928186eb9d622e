"""What a member of a layer tar stands for: an object, or a mark of what lower layers have (image-spec layer.md).

Paths are judged here, for all who read layers: leading "/" and "./" are dropped; ".." is an error, and so is what no
file can be called. So are numbers of owners and devices. AUFS's own names (`.wh..wh.*` but the opaque mark) stand for
nothing.
"""

from __future__ import annotations

import os
from typing import Final, Literal, NamedTuple, NoReturn

from unionfs.changeset.tar_reader import TarEntry
from unionfs.errors import TarError
from unionfs.layers import whiteout

Parts = tuple[bytes, ...]

_MAX_ID: Final = 0xFFFFFFFE  # 0xFFFFFFFF is chown(2)'s "leave it"


class Member(NamedTuple):
    """`parents` and `name` are where it stands in the tar; for a whiteout `hidden` is the name it hides there."""

    kind: Literal["root", "object", "whiteout", "opaque"]
    parents: Parts
    name: bytes
    hidden: bytes = b""


def member_of(entry: TarEntry) -> Member | None:
    """None for what stands for nothing. TarError for a name that makes no sense."""
    parts = components(entry, entry.name)
    if not parts:
        return Member("root", (), b"")
    parents, name = parts[:-1], parts[-1]
    # The names of whiteouts are rare, and looking for them in each part is not for nothing.
    if whiteout.PREFIX not in entry.name:
        return Member("object", parents, name)
    if any(part.startswith(whiteout.META) for part in parents):
        return None
    if any(part.startswith(whiteout.PREFIX) for part in parents):
        refuse(entry, "it lies below a whiteout")
    if name == whiteout.OPAQUE:
        return Member("opaque", parents, name)
    if name.startswith(whiteout.META):
        return None
    if not name.startswith(whiteout.PREFIX):
        return Member("object", parents, name)
    hidden = name[len(whiteout.PREFIX) :]
    if hidden in (b"", b".", b".."):
        refuse(entry, "a whiteout of nothing")
    return Member("whiteout", parents, name, hidden)


def components(entry: TarEntry, name: bytes) -> Parts:
    """The names of a path; "/" and "./" in front, and doubled slashes, mean nothing."""
    parts = tuple([part for part in name.split(b"/") if part not in (b"", b".")])
    if b".." in parts:
        refuse(entry, "a path with .. in it")
    if b"\0" in name or (len(name) > 255 and any(len(part) > 255 for part in parts)):
        refuse(entry, "no file can have this name")
    return parts


def check_owner(entry: TarEntry) -> None:
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        refuse(entry, f"no owner has the number {entry.uid}:{entry.gid}")


def device_of(entry: TarEntry) -> int:
    """The device number of a device node."""
    if not (0 <= entry.devmajor <= 0xFFF and 0 <= entry.devminor <= 0xFFFFF):
        refuse(entry, f"no device has the number {entry.devmajor}:{entry.devminor}")
    return os.makedev(entry.devmajor, entry.devminor)


def refuse(entry: TarEntry, why: str) -> NoReturn:
    raise TarError(f"{os.fsdecode(entry.name)}: {why}", offset=entry.offset)
