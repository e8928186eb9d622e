"""Whatever the trees: nothing differs from itself, a comparison the other way round is its mirror, what is told makes
the one of the other, and a snapshot is as good as the tree."""

from __future__ import annotations

import io
import stat

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compare_rig import Plot, compared, side
from unionfs.changeset.change import Kind
from unionfs.changeset.difference import EVERY, Reason
from unionfs.compare.snapshot import SnapshotView, write
from unionfs.compare.walk import Difference, Side, differences
from unionfs.layers.memory import MemoryLayer

NAMES = st.sampled_from([b"a", b"b", b"a-b", b"\xff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
STEPS = st.one_of(
    st.tuples(st.just("file"), PATHS, st.sampled_from([b"", b"1", b"2", b"12"])),
    st.tuples(st.just("dir"), PATHS),
    st.tuples(st.just("to"), PATHS, NAMES),
    st.tuples(st.just("device"), PATHS, st.just(1), st.integers(3, 4)),
    st.tuples(st.just("join"), PATHS, PATHS),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o644, 0o4755, 0o700])),
    st.tuples(st.just("chown"), PATHS, st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("setxattr"), PATHS, st.sampled_from([b"user.a", b"user.b"]), NAMES),
    st.tuples(st.just("utime"), PATHS, st.just(0), st.sampled_from([0, 1, 10**9])),
    st.tuples(st.just("unlink"), PATHS),
)


def grown(steps: list[tuple[object, ...]]) -> Plot:
    """What the steps make of an empty tree; those that fail are none."""
    tree = Plot()
    for name, *arguments in steps:
        try:
            getattr(tree, str(name))(*arguments)
        except OSError:
            continue
    return tree


TREES = st.lists(STEPS, max_size=25).map(grown)
OPTIONS = {"exact": True, "inside": True}


def mirrored(found: list[Difference]) -> list[Difference]:
    swapped = {Kind.ADDED: Kind.DELETED, Kind.DELETED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}
    return [Difference(d.path, swapped[d.kind], d.reasons, d.after, d.before, d.inside) for d in found]


@given(TREES)
@settings(deadline=None, max_examples=100)
def test_nothing_differs_from_itself(tree: Plot) -> None:
    assert compared(tree, tree, **OPTIONS) == []


@given(TREES, TREES)
@settings(deadline=None, max_examples=200)
def test_the_other_way_round_is_the_mirror(one: Plot, other: Plot) -> None:
    assert compared(other, one, **OPTIONS) == mirrored(compared(one, other, **OPTIONS))


@given(TREES, TREES)
@settings(deadline=None, max_examples=200)
def test_what_is_told_makes_the_one_tree_of_the_other(one: Plot, other: Plot) -> None:
    for difference in compared(one, other, **OPTIONS):
        carry(one, other, difference)
    # Directories' times were set by what was made in them; who writes a layer sets them last.
    assert compared(one, other, wanted=EVERY - {Reason.DIRMTIME}, **OPTIONS) == []


def carry(one: MemoryLayer, other: MemoryLayer, difference: Difference) -> None:
    """Do to `one` what the difference says, and nothing that it does not."""
    path, reasons = difference.path, set(difference.reasons)
    if difference.kind is Kind.DELETED:
        if not difference.inside:
            remove(one, path)
        return
    st = other.lstat(path)
    if difference.kind is Kind.ADDED or reasons & {Reason.TYPE, Reason.HARDLINK, Reason.LINK, Reason.DEVICE}:
        remove(one, path)
        make(one, other, path)
        return
    if Reason.CONTENT in reasons:
        remove(one, path)
        make(one, other, path)
        return
    if Reason.OWNER in reasons:
        one.chown(path, st.st_uid, st.st_gid)
    if reasons & {Reason.MODE, Reason.OWNER} and not stat.S_ISLNK(st.st_mode):
        one.chmod(path, stat.S_IMODE(st.st_mode))
    if Reason.XATTR in reasons:
        for name in one.listxattr(path):
            one.removexattr(path, name)
        copy_xattrs(one, other, path)
    if reasons & {Reason.MTIME, Reason.DIRMTIME}:
        one.utime(path, 0, st.st_mtime_ns)


def remove(tree: MemoryLayer, path: bytes) -> None:
    try:
        st = tree.lstat(path)
    except OSError:
        return
    if stat.S_ISDIR(st.st_mode):
        for entry in tree.scan(path):
            remove(tree, path + b"/" + entry.name)
        tree.rmdir(path)
    else:
        tree.unlink(path)


def make(one: MemoryLayer, other: MemoryLayer, path: bytes) -> None:
    st = other.lstat(path)
    for name in earlier_names(other, st.st_ino, path) if not stat.S_ISDIR(st.st_mode) else ():
        one.link(name, one, path)
        return
    kind = stat.S_IFMT(st.st_mode)
    if kind == stat.S_IFDIR:
        one.mkdir(path, 0o755)
    elif kind == stat.S_IFLNK:
        one.symlink(path, other.readlink(path))
    elif kind == stat.S_IFREG:
        file = one.create(path, 0o644)
        file.pwrite(other.open(path).pread(st.st_size, 0), 0)
    else:
        one.mknod(path, st.st_mode, st.st_rdev)
    one.chown(path, st.st_uid, st.st_gid)
    if kind != stat.S_IFLNK:
        one.chmod(path, stat.S_IMODE(st.st_mode))
    copy_xattrs(one, other, path)
    one.utime(path, 0, st.st_mtime_ns)


def earlier_names(tree: MemoryLayer, inode: int, path: bytes) -> list[bytes]:
    """Names of a file before this one, in the order of a comparison."""
    found: list[bytes] = []
    todo = [b""]
    while todo:
        at = todo.pop()
        for entry in tree.scan(at):
            name = at + b"/" + entry.name if at else entry.name
            if entry.ino == inode and name.split(b"/") < path.split(b"/"):
                found.append(name)
            if stat.S_ISDIR(tree.lstat(name).st_mode):
                todo.append(name)
    return sorted(found, key=lambda name: name.split(b"/"))[:1]


def copy_xattrs(one: MemoryLayer, other: MemoryLayer, path: bytes) -> None:
    for name in other.listxattr(path):
        one.setxattr(path, name, other.getxattr(path, name) or b"")


@given(TREES, TREES)
@settings(deadline=None, max_examples=100)
def test_a_snapshot_is_as_good_as_the_tree(one: Plot, other: Plot) -> None:
    out = io.BytesIO()
    write(side(one), out)
    snapshot = Side(SnapshotView(io.BytesIO(out.getvalue())))
    told = [(d.path, d.kind, d.reasons) for d in differences(snapshot, side(other), exact=True, inside=True)]
    assert told == [(d.path, d.kind, d.reasons) for d in compared(one, other, **OPTIONS)]
