"""Hard links in a difference: which names must be written, and which may be left to link to.

A layer tar is applied name by name, so the groups of hard links in the result follow from three facts: names that the
layer leaves alone keep the inode they had in the lowers; a name written with data gets a new inode; a name written as
a link joins its target. `resolve` decides, for each group of the union, what must be written so that the result has
the same groups. It only ever adds writes: to write a group in full is right in every case, merely larger.

Knows nothing of file systems: names, inode numbers and link counts in, verdicts out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Member(NamedTuple):
    """One name of a hard-linked inode of the union.

    `before_ino` is None where the lowers have no object (or a directory) at this path. `written`: the layer holds
    an entry for the name whatever is decided here. The inode numbers of the two views are never compared.
    """

    path: bytes
    before_ino: int | None
    before_nlink: int
    nlink: int
    written: bool


class Verdict(NamedTuple):
    """What to do with a name: `write` it although its own attributes did not change; `link_to` a name left alone."""

    path: bytes
    write: bool
    link_to: bytes | None


def resolve(group: Iterable[Member]) -> Iterator[Verdict]:
    """Verdicts for the names of one inode, in path order; names without a verdict stay as they are.

    - all names of the inode are in `group`, unless names outside the union's tree raise its link count.
    """
    members = sorted(group)
    untouched = [m for m in members if not m.written]
    if not untouched:
        return
    origin = untouched[0].before_ino
    of_origin = [m for m in members if m.before_ino == origin]
    if not _keeps_its_names(members, of_origin):
        for member in untouched:
            yield Verdict(member.path, True, None)
        return
    anchor = untouched[0].path
    for member in members:
        if member.written:
            yield Verdict(member.path, False, anchor)
        elif member.before_ino != origin:
            yield Verdict(member.path, True, anchor)


def _keeps_its_names(members: list[Member], of_origin: list[Member]) -> bool:
    """Whether the names left alone still are all names of their inode in the lowers.

    Either every name that the lowers' inode had is in the group. Or nothing happened to the group at all: the lowers'
    files are linked from outside the layer (`cp -al` trees), and the count says so before and after.
    """
    if len(of_origin) == of_origin[0].before_nlink:
        return True
    return len(of_origin) == len(members) and all(not m.written and m.nlink == m.before_nlink for m in members)
