"""Two trees at once, in order of path components: `differences` yields what differs, as it is met.

Both views are listed one directory at a time, and their names merged. So what is held is the listings of the
directories on one path, and of hard links one record for each inode that has several names: memory does not grow with
the trees. Nothing is read of a file that can be told apart without; what two names share is read once.

*Hard links* are compared as groups: names that both trees have, and that are one file in the one and not in the other,
differ. A name that only one of them has is A or D, and says nothing of the others.

*Failures*: what cannot be read is told to `on_failure` and passed over, with all below it where it is a directory's
listing. So whoever ignores them must not take silence for sameness.

The walk is iterative: paths may be longer than any recursion limit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from unionfs.changeset.change import Kind
from unionfs.changeset.content import Content, Digests
from unionfs.changeset.difference import EVERY, Reason, Reasons, differing, same_data
from unionfs.compare.globs import Scope, Verdict
from unionfs.compare.view import Item, View, join
from unionfs.vfs import DT_LNK, DT_UNKNOWN, TYPES, Attr, d_type

_ORDER: Final = {reason: number for number, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class State:
    """One side of a difference. `target` of symbolic links; `xattrs` only where they differ; `known`: see Item."""

    attr: Attr
    known: Reasons = EVERY
    target: bytes | None = None
    xattrs: dict[bytes, bytes] | None = None

    @property
    def type(self) -> int:
        return d_type(self.attr.mode)

    @property
    def kind(self) -> str:
        """What people call the type."""
        return TYPES.get(self.type, "unknown")


@dataclass(frozen=True, slots=True)
class Difference:
    """One path at which the trees differ, b"" the root.

    A: only the second tree has it; D: only the first; C: both, and `reasons` say in what they differ: none where it is
    a directory that is here for what is in it. `inside`: the D or A of something in a directory that is D or A itself.
    """

    path: bytes
    kind: Kind
    reasons: tuple[Reason, ...] = ()
    before: State | None = None
    after: State | None = None
    inside: bool = False

    @property
    def type(self) -> int:
        """DT_* of what stands there now; of what stood there for D."""
        state = self.after or self.before
        return state.type if state is not None else DT_UNKNOWN

    @property
    def was(self) -> int:
        return DT_UNKNOWN if self.before is None else self.before.type

    def only(self, wanted: Reasons) -> Difference:
        """Without the reasons that are not wanted."""
        return replace(self, reasons=tuple(reason for reason in self.reasons if reason in wanted))


#: What cannot be read, and of which side's tree it is.
OnFailure = Callable[[OSError], None]
#: The name for people of what is at a path.
Label = Callable[[bytes], str]


def raise_failure(error: OSError) -> None:
    raise error


class Side:
    """A view whose failures name what could not be read. `at` is the path that is looked at."""

    def __init__(self, view: View, label: Label | None = None) -> None:
        self.view, self.label = view, label or (lambda path: "/" + os.fsdecode(path))
        self.at = b""

    def _named(self, error: OSError) -> OSError:
        number = error.errno or errno.EIO
        return OSError(number, error.strerror or os.strerror(number), self.label(self.at))

    def root(self) -> Item:
        self.at = b""
        try:
            return self.view.root()
        except OSError as error:
            raise self._named(error) from error

    def children(self, ref: Any) -> list[Item]:
        try:
            return self.view.children(ref)
        except OSError as error:
            raise self._named(error) from error

    def find(self, path: bytes) -> Item | None:
        self.at = path
        try:
            return self.view.find(path)
        except OSError as error:
            raise self._named(error) from error

    def state(self, path: bytes) -> State | None:
        """What is at a path."""
        item = self.find(path)
        if item is None:
            return None
        try:
            return self.state_of(item)
        finally:
            self.view.forget(item.ref)

    def state_of(self, item: Item) -> State:
        shown = d_type(item.attr.mode) == DT_LNK and Reason.LINK in item.known
        return State(item.attr, item.known, self.readlink(item.ref) if shown else None)

    def xattrs(self, ref: Any) -> dict[bytes, bytes]:
        try:
            return self.view.xattrs(ref)
        except OSError as error:
            raise self._named(error) from error

    def readlink(self, ref: Any) -> bytes:
        try:
            return self.view.readlink(ref)
        except OSError as error:
            raise self._named(error) from error

    def content(self, ref: Any) -> Content | Digests:
        try:
            return self.view.content(ref)
        except OSError as error:
            raise self._named(error) from error


class _Pair(NamedTuple):
    """What the trees have at a path; at least one of them has something. `within`: in a directory of only one."""

    path: bytes
    one: Item | None
    other: Item | None
    within: bool


class _Frame(NamedTuple):
    """A directory that is being gone through: of both trees, or of one."""

    path: bytes
    items: tuple[Item | None, Item | None]
    pairs: Iterator[tuple[bytes, Item | None, Item | None]]
    verdict: Verdict
    within: bool
    told: list[bool]  # whether it has been yielded itself


def differences(
    one: Side,
    other: Side,
    *,
    wanted: Reasons = EVERY,
    exact: bool = False,
    scope: Scope | None = None,
    parents: bool = False,
    inside: bool = False,
    on_failure: OnFailure = raise_failure,
) -> Iterator[Difference]:
    """What differs between two trees, in order of path components.

    `wanted`: the reasons that count; without TYPE, objects of two types are nowhere compared. `exact`: see `differing`.
    `parents`: the directories above a difference are C. `inside`: what is in a directory that the second tree lacks is
    D, each for itself; what is in one that only the second has is always A.
    """
    walk = _Walk(one, other, wanted, exact, on_failure)
    return walk.run(scope or Scope(), parents, inside)


class _Walk:
    def __init__(self, one: Side, other: Side, wanted: Reasons, exact: bool, on_failure: OnFailure) -> None:
        self._one, self._other = one, other
        self._wanted, self._exact = wanted, exact
        self._failed = on_failure
        # Of hard links: the first name met of an inode, and whether two of them hold the same.
        self._first: tuple[dict[tuple[int, int], bytes], dict[tuple[int, int], bytes]] = ({}, {})
        self._read: dict[tuple[int, int, int, int], bool] = {}

    # the way ------------------------------------------------------------------------------------------------------
    def run(self, scope: Scope, parents: bool, inside: bool) -> Iterator[Difference]:
        try:
            pair: _Pair | None = _Pair(b"", self._one.root(), self._other.root(), False)
        except OSError as error:
            self._failed(error)
            return
        frames: list[_Frame] = []
        try:
            while pair is not None:
                self._one.at = self._other.at = pair.path
                verdict = scope.of(pair.path, frames[-1].verdict if frames else Verdict.IN)
                found = self._met(pair) if verdict is Verdict.IN else None
                if found is not None:
                    if parents:
                        yield from self._untold(frames)
                    yield found
                frame = self._entered(pair, verdict, found is not None, inside)
                if frame is not None:
                    frames.append(frame)
                pair = self._next(frames)
        finally:
            while frames:
                self._leave(frames.pop())

    def _met(self, pair: _Pair) -> Difference | None:
        """What is to be told of one path."""
        path, a, b, within = pair
        try:
            return self._lone(path, a, b, within) if a is None or b is None else self._both(path, a, b)
        except OSError as error:
            self._failed(_at(error, path))
            return None

    def _entered(self, pair: _Pair, verdict: Verdict, told: bool, inside: bool) -> _Frame | None:
        """Go into a directory; let go of what is none, or is not to be looked into."""
        old, new = _directory(pair.one), _directory(pair.other)
        if new is None and not inside:
            old = None
        if verdict is not Verdict.OUT and (old is not None or new is not None):
            try:
                listings = (
                    [] if old is None else self._one.children(old.ref),
                    [] if new is None else self._other.children(new.ref),
                )
            except OSError as error:
                self._failed(_at(error, pair.path))
            else:
                within = old is None or new is None
                return _Frame(pair.path, (pair.one, pair.other), _joined(*listings), verdict, within, [told])
        self._forget(pair.one, pair.other)
        return None

    def _next(self, frames: list[_Frame]) -> _Pair | None:
        while frames:
            frame = frames[-1]
            for name, a, b in frame.pairs:
                return _Pair(join(frame.path, name), a, b, frame.within)
            self._leave(frames.pop())
        return None

    def _leave(self, frame: _Frame) -> None:
        for _, a, b in frame.pairs:
            self._forget(a, b)
        self._forget(*frame.items)

    def _forget(self, a: Item | None, b: Item | None) -> None:
        if a is not None:
            self._one.view.forget(a.ref)
        if b is not None:
            self._other.view.forget(b.ref)

    def _untold(self, frames: list[_Frame]) -> Iterator[Difference]:
        for frame in frames:
            if not frame.told[0]:
                frame.told[0] = True
                a, b = frame.items
                before = None if a is None else State(a.attr, a.known)
                after = None if b is None else State(b.attr, b.known)
                yield Difference(frame.path, Kind.CHANGED, (), before, after)

    # one path -----------------------------------------------------------------------------------------------------
    def _lone(self, path: bytes, a: Item | None, b: Item | None, within: bool) -> Difference:
        kind = Kind.ADDED if a is None else Kind.DELETED
        before = None if a is None else self._one.state_of(a)
        after = None if b is None else self._other.state_of(b)
        return Difference(path, kind, (), before, after, within)

    def _both(self, path: bytes, a: Item, b: Item) -> Difference | None:
        reasons = self._reasons(path, a, b)
        if not reasons:
            return None
        before, after = self._one.state_of(a), self._other.state_of(b)
        if Reason.XATTR in reasons:
            old, new = self._one.xattrs(a.ref), self._other.xattrs(b.ref)
            before = replace(before, xattrs=_without(old, new))
            after = replace(after, xattrs=_without(new, old))
        return Difference(path, Kind.CHANGED, tuple(reasons), before, after)

    def _reasons(self, path: bytes, a: Item, b: Item) -> list[Reason]:
        wanted = self._wanted & a.known & b.known
        linked = not a.attr.is_dir and not b.attr.is_dir and (a.attr.nlink > 1 or b.attr.nlink > 1)
        asked = wanted - {Reason.CONTENT} if linked else wanted
        exact = self._exact and not (a.coarse or b.coarse)
        found = list(differing(self._one, a.ref, a.attr, self._other, b.ref, b.attr, asked, exact=exact))
        if linked and d_type(a.attr.mode) == d_type(b.attr.mode):
            if Reason.HARDLINK in wanted and self._first_name(0, path, a) != self._first_name(1, path, b):
                found.append(Reason.HARDLINK)
            if Reason.CONTENT in wanted and not self._same_data(a, b):
                found.append(Reason.CONTENT)
        return sorted(found, key=_ORDER.__getitem__)

    def _first_name(self, side: int, path: bytes, item: Item) -> bytes:
        if item.attr.nlink < 2:
            return path
        return self._first[side].setdefault((item.device, item.attr.ino), path)

    def _same_data(self, a: Item, b: Item) -> bool:
        """Of two files, one of which has several names: read once, if both have."""
        if d_type(a.attr.mode) != d_type(b.attr.mode) or not _is_regular(a):
            return True
        if a.attr.size != b.attr.size and a.attr.size >= 0 <= b.attr.size:
            return False
        key = (a.device, a.attr.ino, b.device, b.attr.ino)
        known = self._read.get(key)
        if known is None:
            known = same_data(self._one, a.ref, self._other, b.ref)
            if a.attr.nlink > 1 and b.attr.nlink > 1:
                self._read[key] = known
        return known


def _joined(old: list[Item], new: list[Item]) -> Iterator[tuple[bytes, Item | None, Item | None]]:
    """Two listings in order of names as one."""
    at = of_new = 0
    while at < len(old) or of_new < len(new):
        if of_new == len(new) or (at < len(old) and old[at].name < new[of_new].name):
            yield old[at].name, old[at], None
            at += 1
        elif at == len(old) or new[of_new].name < old[at].name:
            yield new[of_new].name, None, new[of_new]
            of_new += 1
        else:
            yield old[at].name, old[at], new[of_new]
            at, of_new = at + 1, of_new + 1


def _directory(item: Item | None) -> Item | None:
    return item if item is not None and item.attr.is_dir else None


def _is_regular(item: Item) -> bool:
    return (item.attr.mode & 0o170000) == 0o100000


def _without(own: dict[bytes, bytes], others: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those that the other has not, or another value."""
    return {name: value for name, value in own.items() if others.get(name) != value}


def _at(error: OSError, path: bytes) -> OSError:
    """With a name, where whoever raised it had none."""
    if isinstance(error.filename, str):
        return error
    number = error.errno or errno.EIO
    return OSError(number, error.strerror or os.strerror(number), "/" + os.fsdecode(path))
