"""Every operation, failing at every one of the calls it makes on the upper: full disk, quota, no descriptor left, a
broken disk, a file system that the kernel has made read-only, a call that was interrupted. (Dying there instead is
test_overlay_kill.py.)

A `Fault` counts the calls that may fail and refuses one of them. The sweep repeats an operation with the first refused,
the second, and so on until none is. After each failure what people see is as before, in this union and in a fresh one
over the same upper; nothing is left in the work directory, no inode is held; and the operation succeeds when repeated.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.golden.trees import describe
from tests.unit.overlay_rig import ME, Rig, tree, union
from unionfs.layers.fd_file import FdFile
from unionfs.layers.layer import LayerFile
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionOptions
from unionfs.overlay.inode import FileInode
from unionfs.vfs import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, ROOT

#: What takes space or an inode in the upper, and what takes a descriptor.
SPACE = frozenset("create tmpfile mkdir mknod symlink link link_file rename setxattr pwrite copy_range".split())
DESCRIPTORS = frozenset("create tmpfile open scan".split())
#: What changes anything there.
CHANGING = SPACE | frozenset("unlink rmdir chmod chown utime truncate removexattr ftruncate fsync".split())
KINDS = {
    "ENOSPC": (errno.ENOSPC, SPACE),
    "EDQUOT": (errno.EDQUOT, SPACE),
    "EMFILE": (errno.EMFILE, DESCRIPTORS),
    "EIO": (errno.EIO, CHANGING),
    "EROFS": (errno.EROFS, CHANGING),
    "EINTR": (errno.EINTR, CHANGING),
}


class Fault:
    """Refuses the call number `at` of those named in `calls`; None: none. `met` says which that was."""

    def __init__(self, number: int, calls: frozenset[str]) -> None:
        self.number = number
        self.calls = calls
        self.at: int | None = None
        self.met = ""

    def arm(self, at: int) -> None:
        self.at, self.met = at, ""

    def disarm(self) -> None:
        self.at = None

    def check(self, call: str) -> None:
        if self.at is None or call not in self.calls:
            return
        self.at -= 1
        if self.at < 0:
            self.at, self.met = None, call
            raise OSError(self.number, os.strerror(self.number))


def failing(fault: Fault) -> type[WritableDirectory]:
    """An upper whose calls, and those on its files, ask `fault` first."""

    def checked(base: type, name: str) -> Callable[..., Any]:
        def call(self: object, *args: Any, **kwargs: Any) -> Any:
            fault.check(name)
            result = getattr(base, name)(self, *args, **kwargs)
            return file(result.fd) if isinstance(result, FdFile) else result

        return call

    def subclass(base: type) -> Any:
        names = [name for name in CHANGING | DESCRIPTORS if hasattr(base, name)]
        return type("Failing", (base,), {name: checked(base, name) for name in names})

    file = subclass(FdFile)
    return subclass(WritableDirectory)  # type: ignore[no-any-return]


# what people see --------------------------------------------------------------------------------------------------
def seen(u: Rig) -> dict[str, tuple[object, ...]]:
    """Everything a person can find out about the tree, by path."""
    found: dict[str, tuple[object, ...]] = {}
    todo = [""]
    while todo:
        path = todo.pop()
        with u.node(path) as node:
            xattrs = {name: u.fs.getxattr(node, name) for name in u.fs.listxattr(node)}
            attr = u.stat(path)
            what: object = None
            if stat.S_ISDIR(attr.mode):
                names = u.list(path)
                todo += [f"{path}/{name}" if path else name for name in names]
                what = tuple(names)
            elif stat.S_ISLNK(attr.mode):
                what = u.fs.readlink(node)
            elif stat.S_ISREG(attr.mode):
                what = u.read(path)
            # Of directories the link count says how the upper is stored.
            nlink = 0 if stat.S_ISDIR(attr.mode) else attr.nlink
            found[path] = (attr.mode, attr.uid, attr.gid, nlink, attr.ino, attr.mtime_ns, what, sorted(xattrs.items()))
    return found


def lowers(base: Path) -> list[Path]:
    low, above = base / "low", base / "above"
    for directory in ("dir/sub/deep", "other", "empty"):
        (low / directory).mkdir(parents=True)
    (above / "dir").mkdir(parents=True)
    for name, text in {
        "file": "data", "second": "two", "big": "x" * 300_000, "one": "linked", "dir/inner": "i", "dir/sub/x": "s",
        "other/y": "o",
    }.items():  # fmt: skip
        (low / name).write_text(text)
    (above / "dir/above").write_text("a")
    with open(low / "sparse", "wb") as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), b"end", (1 << 20) - 3)
    os.link(low / "one", low / "pair")
    os.symlink("file", low / "symlink")
    os.setxattr(low / "second", "user.old", b"value")
    return [above, low]


# operations -------------------------------------------------------------------------------------------------------
def nothing(_: Rig) -> None:
    pass


def entry(u: Rig, made: Any) -> None:
    u.fs.forget(made.node, 1)


def create(u: Rig, path: str) -> None:
    with u.parent(path) as (parent, name):
        made, opened = u.fs.create(parent, name, 0o644, os.O_RDWR, ME)
        u.fs.release(opened.fh)
        entry(u, made)


def opening(path: str, flags: int) -> Callable[[Rig], None]:
    def operate(u: Rig) -> None:
        with u.node(path) as node:
            u.fs.release(u.fs.open(node, flags).fh)

    return operate


def setxattr(path: str) -> Callable[[Rig], None]:
    def operate(u: Rig) -> None:
        with u.node(path) as node:
            u.fs.setxattr(node, b"user.new", b"value", 0)

    return operate


def removexattr(u: Rig) -> None:
    with u.node("second") as node:
        u.fs.removexattr(node, b"user.old")


def symlink(path: str) -> Callable[[Rig], None]:
    def operate(u: Rig) -> None:
        with u.parent(path) as (parent, name):
            entry(u, u.fs.symlink(parent, name, b"target", ME))

    return operate


def mknod(path: str, mode: int = stat.S_IFIFO | 0o600) -> Callable[[Rig], None]:
    def operate(u: Rig) -> None:
        with u.parent(path) as (parent, name):
            entry(u, u.fs.mknod(parent, name, mode, 0, ME))

    return operate


def without(*paths: str) -> Callable[[Rig], None]:
    """Remove files and directories, the latter empty by then."""

    def prepare(u: Rig) -> None:
        for path in paths:
            u.rmdir(path) if stat.S_ISDIR(u.stat(path).mode) else u.unlink(path)

    return prepare


def both(*steps: Callable[[Rig], object]) -> Callable[[Rig], None]:
    def run(u: Rig) -> None:
        for step in steps:
            step(u)

    return run


def touched(*paths: str) -> Callable[[Rig], None]:
    """Copied up: the times are changed."""
    return both(*(lambda u, path=path: u.setattr(path, mtime_ns=10**18) for path in paths))


class Case(NamedTuple):
    """`prepare` what exists, `operate`. `held` is open for reading meanwhile.

    `whiteout_late`: a visible whiteout takes the old name's place after the rename. That replaces a name, so it takes
    no space, and is not made to fail here. `time_late`: who dies may leave another time of modification (fill.py).
    `inner_whiteout`: there is a visible whiteout.
    """

    operate: Callable[[Rig], object]
    prepare: Callable[[Rig], object] = nothing
    held: str = ""
    whiteout_late: bool = False
    time_late: str = ""
    options: UnionOptions = UnionOptions()
    inner_whiteout: bool = False


def rename(old: str, new: str, flags: int = 0) -> Callable[[Rig], None]:
    return lambda u: u.rename(old, new, flags)


def unnamed(u: Rig) -> None:
    """O_TMPFILE alone: naming it is `link`."""
    with u.node("dir") as node:
        made, opened = u.fs.tmpfile(node, 0o600, os.O_RDWR, ME)
        u.fs.release(opened.fh)
        entry(u, made)


def name_unnamed(u: Rig) -> None:
    """O_TMPFILE, written, and given the name dir/inner or, where that is taken, dir/new."""
    with u.node("dir") as node:
        made, opened = u.fs.tmpfile(node, 0o600, os.O_RDWR, ME)
        try:
            u.fs.write(opened.fh, 0, b"data")
            entry(u, u.fs.link(made.node, node, b"new" if u.exists("dir/inner") else b"inner", ME))
        finally:
            u.fs.release(opened.fh)
            entry(u, made)


_META = UnionOptions(metacopy=True)
METACOPIES: dict[str, Case] = {
    "chmod to a metacopy": Case(lambda u: u.setattr("big", mode=0o600), options=_META),
    "chmod a hard link to a metacopy": Case(lambda u: u.setattr("one", mode=0o600), held="pair", options=_META),
    "rename to a metacopy": Case(rename("big", "dir/new"), options=_META),
    "rename a metacopy": Case(rename("big", "new"), touched("big"), held="big", options=_META),
    "link to a metacopy": Case(lambda u: u.link("big", "dir/new"), options=_META),
    "link a metacopy": Case(lambda u: u.link("big", "dir/new"), touched("big"), options=_META),
    "unlink a metacopy that is open": Case(lambda u: u.unlink("big"), touched("big"), held="big", options=_META),
    "exchange metacopies": Case(rename("big", "dir/inner", RENAME_EXCHANGE), touched("big"), options=_META),
    "rename a directory with metacopies and no redirect": Case(
        rename("dir", "new"), touched("dir/inner"), options=_META._replace(redirect_dir=False)
    ),
    "truncate a metacopy": Case(lambda u: u.setattr("big", size=10), touched("big"), options=_META),
    "open and truncate a metacopy": Case(opening("big", os.O_WRONLY | os.O_TRUNC), touched("big"), options=_META),
    "open a metacopy for writing": Case(opening("big", os.O_RDWR), touched("big"), options=_META),
    "open a metacopy for writing that is open": Case(
        opening("big", os.O_RDWR), touched("big"), held="big", options=_META
    ),
    "open a sparse metacopy for writing": Case(opening("sparse", os.O_RDWR), touched("sparse"), options=_META),
    "open a metacopy with links for writing": Case(
        opening("new", os.O_RDWR),
        both(touched("big"), lambda u: u.link("big", "new")),
        held="big",
        time_late="big new",
        options=_META,
    ),
    "truncate a metacopy with links": Case(
        lambda u: u.setattr("one", size=1), touched("pair"), time_late="one pair", options=_META
    ),
}

EMPTIED = ("dir/sub/x", "dir/sub/deep", "dir/sub", "dir/inner", "dir/above")
CASES: dict[str, Case] = {
    "create": Case(lambda u: create(u, "new")),
    "create in a lower directory": Case(lambda u: create(u, "dir/sub/deep/new")),
    "create over a whiteout": Case(lambda u: create(u, "file"), without("file")),
    "mkdir": Case(lambda u: u.mkdir("dir/new")),
    "mkdir with set-group-ID": Case(lambda u: u.mkdir("new", 0o2755)),
    "mkdir over a whiteout": Case(lambda u: u.mkdir("file"), without("file")),
    "mkdir over a lower directory's whiteout": Case(lambda u: u.mkdir("dir"), without(*EMPTIED, "dir")),
    "symlink": Case(symlink("dir/new")),
    "symlink over a whiteout": Case(symlink("file"), without("file")),
    "mknod over a whiteout": Case(mknod("file"), without("file")),
    "mknod of a whiteout": Case(mknod("dir/new", stat.S_IFCHR), inner_whiteout=True),
    "mknod of a whiteout over a whiteout": Case(mknod("file", stat.S_IFCHR), without("file"), inner_whiteout=True),
    "link of a visible whiteout": Case(lambda u: u.link("w", "dir/new"), mknod("w", stat.S_IFCHR), inner_whiteout=True),
    "tmpfile": Case(unnamed),
    "link": Case(lambda u: u.link("file", "dir/new")),
    "link of a lower hard link": Case(lambda u: u.link("one", "new")),
    "link of a copied-up hard link": Case(lambda u: u.link("pair", "new"), touched("one")),
    "link over a whiteout": Case(lambda u: u.link("big", "file"), without("file")),
    "link of a symlink": Case(lambda u: u.link("symlink", "new")),
    "unlink": Case(lambda u: u.unlink("file")),
    "unlink in a lower directory": Case(lambda u: u.unlink("dir/sub/x")),
    "unlink a copy": Case(lambda u: u.unlink("file"), touched("file")),
    "unlink an open file": Case(lambda u: u.unlink("file"), held="file"),
    "unlink an open copy": Case(lambda u: u.unlink("file"), touched("file"), held="file"),
    "unlink a hard link": Case(lambda u: u.unlink("one")),
    "unlink a hard link that is open": Case(lambda u: u.unlink("one"), held="pair"),
    "unlink a copied-up hard link": Case(lambda u: u.unlink("one"), touched("pair")),
    "unlink the last hard link, open": Case(lambda u: u.unlink("one"), without("pair"), held="one"),
    "rmdir": Case(lambda u: u.rmdir("empty")),
    "rmdir a copy": Case(lambda u: u.rmdir("empty"), touched("empty")),
    "rmdir of whiteouts": Case(lambda u: u.rmdir("dir"), without(*EMPTIED)),
    "rename": Case(rename("file", "dir/new")),
    "rename a large file": Case(rename("big", "new")),
    "rename a copy": Case(rename("file", "dir/new"), touched("file")),
    "rename over a file": Case(rename("file", "second")),
    "rename over a copy": Case(rename("file", "second"), touched("second")),
    "rename over an open copy": Case(rename("file", "second"), touched("second"), held="second"),
    "rename over an open lower file": Case(rename("file", "second"), held="second"),
    "rename over a hard link": Case(rename("file", "one")),
    "rename over a hard link that is open": Case(rename("file", "one"), held="pair"),
    "rename a hard link": Case(rename("one", "dir/new")),
    "rename a hard link over a file": Case(rename("one", "file")),
    "rename over a whiteout": Case(rename("file", "second"), without("second")),
    "rename without replacing": Case(rename("file", "new", RENAME_NOREPLACE)),
    "rename leaving a whiteout": Case(rename("file", "new", RENAME_WHITEOUT), whiteout_late=True),
    "rename a new file leaving a whiteout": Case(
        rename("n", "m", RENAME_WHITEOUT), lambda u: create(u, "n"), whiteout_late=True
    ),
    "rename a directory": Case(rename("dir", "new")),
    "rename a directory elsewhere": Case(rename("dir", "other/new")),
    "rename a copied-up directory": Case(rename("dir", "other/new"), touched("dir/inner")),
    "rename a directory over a whiteout": Case(rename("dir", "file"), without("file")),
    "rename a directory over an empty one": Case(rename("other", "empty")),
    "rename a directory over whiteouts": Case(rename("other", "dir"), without(*EMPTIED)),
    "rename a new directory over whiteouts": Case(
        rename("new", "dir"), both(without(*EMPTIED), lambda u: u.mkdir("new"))
    ),
    "rename a new directory over a whiteout": Case(
        rename("new", "file"), both(without("file"), lambda u: u.mkdir("new"))
    ),
    "exchange two files": Case(rename("file", "dir/inner", RENAME_EXCHANGE)),
    "exchange a file and a directory": Case(rename("file", "dir", RENAME_EXCHANGE)),
    "exchange two directories": Case(rename("other", "dir/sub", RENAME_EXCHANGE)),
    "exchange hard links": Case(rename("one", "file", RENAME_EXCHANGE)),
    "chmod": Case(lambda u: u.setattr("dir/sub/x", mode=0o600)),
    "chmod a hard link": Case(lambda u: u.setattr("one", mode=0o600)),
    "chmod a directory": Case(lambda u: u.setattr("dir/sub", mode=0o700)),
    "utime of a symlink": Case(lambda u: u.setattr("symlink", mtime_ns=10**18)),
    "truncate": Case(lambda u: u.setattr("big", size=10)),
    "truncate to more": Case(lambda u: u.setattr("file", size=1000)),
    "truncate a hard link": Case(lambda u: u.setattr("one", size=1)),
    "setxattr": Case(setxattr("file")),
    "setxattr of a hard link": Case(setxattr("one")),
    "setxattr of a directory": Case(setxattr("dir/sub")),
    "removexattr": Case(removexattr),
    "open for writing": Case(opening("file", os.O_RDWR)),
    "open and truncate": Case(opening("big", os.O_WRONLY | os.O_TRUNC)),
    "open for reading and truncate": Case(opening("big", os.O_RDONLY | os.O_TRUNC)),
    "open a large file for writing": Case(opening("big", os.O_WRONLY)),
    "open a file for writing that is open": Case(opening("file", os.O_RDWR), held="file"),
    "open a hard link for writing": Case(opening("pair", os.O_RDWR)),
    "open a hard link for writing that is open": Case(opening("pair", os.O_RDWR), held="one"),
    "chmod a file that is open": Case(lambda u: u.setattr("big", mode=0o600), held="big"),
    "open a sparse file for writing": Case(opening("sparse", os.O_RDWR)),
    **METACOPIES,
    "name an unnamed file": Case(name_unnamed),
    "name an unnamed file over a whiteout": Case(name_unnamed, without("dir/inner")),
}  # fmt: skip


@contextmanager
def holding(u: Rig, path: str) -> Iterator[None]:
    """`path` open for reading, so that the kernel knows the inode."""
    if not path:
        yield
        return
    with u.node(path) as node:
        fh = u.fs.open(node, os.O_RDONLY).fh
        expected = u.fs.read(fh, 0, 10)
        try:
            yield
            assert u.fs.read(fh, 0, 10) == expected, "the open file reads otherwise"
        finally:
            u.fs.release(fh)


def debris(base: Path) -> list[str]:
    """What is in `work/` but the entries of groups that live there for the session (hardlink.index_path)."""
    return [name for name in os.listdir(base / "work/work") if not name.startswith("#i")]


def changes_nothing(case: Case) -> bool:
    """Nothing that people see."""
    return case.operate is unnamed or "open" in repr(case)


def one_failure(base: Path, layers: list[Path], case: Case, fault: Fault, at: int) -> bool:
    """The operation with its call number `at` refused. False where it made fewer calls."""
    with union(base, layers, upper=failing(fault), options=case.options) as u:
        case.prepare(u)
        before = seen(u)
        with holding(u, case.held):
            fault.arm(at)
            failed = False
            try:
                case.operate(u)
            except OSError as e:
                assert e.errno == fault.number, e
                failed = True
            fault.disarm()
            if not fault.met:
                return False
            u.fs.check_invariants()
            if case.whiteout_late and failed and fault.met == "rename":
                return True
            after = seen(u)
            assert after == before if failed else after != before or changes_nothing(case), fault.met
            u.fs._union.work.discard(b"work/#none")  # whatever is discarded next takes along what could not be
            assert case.held or debris(base) == [], fault.met
        held = [inode for inode in u.fs._union.table if inode.node != ROOT]
        assert not held, f"still known: {[i.names if isinstance(i, FileInode) else i for i in held]}"
        assert seen(u) == after
    with union(base, layers, options=case.options) as u:
        again = seen(u)
        assert plain(again) == plain(after), f"another tree after a remount ({fault.met})"
        if not failed:
            return True
        case.operate(u)
        assert seen(u) != again or changes_nothing(case)
        after = seen(u)
    with union(base, layers) as u:
        assert plain(seen(u)) == plain(after)
    assert debris(base) == []
    return True


def plain(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Without inode numbers, which an unprivileged remount cannot tell."""
    return {path: (*values[:4], *values[5:]) for path, values in tree.items()}


def sweep(base: Path, case: Case, kind: str) -> None:
    number, calls = KINDS[kind]
    layers = lowers(base)
    below = describe(base)
    for at in range(200):
        place = base / str(at)
        place.mkdir()
        more = one_failure(place, layers, case, Fault(number, calls), at)
        shutil.rmtree(place)
        if not more:
            assert describe(base)[1:] == below[1:], "a lower layer was changed"
            return
    raise AssertionError("more than 200 calls for one operation")


@pytest.mark.parametrize("kind", ["ENOSPC", "EMFILE", "EIO"])
@pytest.mark.parametrize("name", CASES)
def test_failure_at_every_call_changes_nothing(tmp_path: Path, name: str, kind: str) -> None:
    sweep(tmp_path, CASES[name], kind)


@pytest.mark.parametrize("kind", ["EROFS", "EINTR"])
@pytest.mark.parametrize("name", ["rename a directory elsewhere", "unlink a hard link that is open", "link", "rmdir"])
def test_refusals_of_other_kinds_change_nothing_either(tmp_path: Path, name: str, kind: str) -> None:
    sweep(tmp_path, CASES[name], kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EDQUOT", "EROFS", "EINTR"])
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_refusal_changes_nothing(tmp_path: Path, name: str, kind: str) -> None:
    sweep(tmp_path, CASES[name], kind)


@pytest.mark.parametrize("name", [name for name in CASES if "director" in name])
def test_quota_is_no_reason_to_move_a_directory_in_another_way(tmp_path: Path, name: str) -> None:
    """ENOSPC may mean that a redirect is too long for the file system; EDQUOT may not."""
    sweep(tmp_path, CASES[name], "EDQUOT")


def test_short_write_of_a_copy_is_no_copy(tmp_path: Path) -> None:
    """On a disk that is almost full write(2) takes what fits, and only the next one fails."""
    room = 100

    class File(FdFile):
        def pwrite(self, data: bytes | memoryview, offset: int) -> int:
            if offset >= room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().pwrite(data[: room - offset], offset)

        def copy_range(self, source: LayerFile, source_offset: int, offset: int, length: int) -> int:
            return self.pwrite(source.pread(length, source_offset), offset)

    class Full(WritableDirectory):
        def create(self, path: bytes, mode: int, flags: int = os.O_RDWR) -> FdFile:
            return File(super().create(path, mode, flags).fd)

    lower = tree(tmp_path / "lower", x="x" * 1000)
    with union(tmp_path, [lower], upper=Full) as u:
        with pytest.raises(OSError) as caught:
            u.setattr("x", mode=0o600)
        assert caught.value.errno == errno.ENOSPC
        assert u.read("x") == b"x" * 1000 and u.stored() == [] and debris(tmp_path) == []
        room = 1000
        u.setattr("x", mode=0o600)
        assert u.read("x") == b"x" * 1000
    assert (tmp_path / "upper/x").read_text() == "x" * 1000


def test_reader_follows_to_the_copy_though_a_first_copy_up_failed(tmp_path: Path) -> None:
    fault = Fault(errno.EMFILE, DESCRIPTORS)
    lower = tree(tmp_path / "lower", x="old")
    with union(tmp_path, [lower], upper=failing(fault)) as u, u.node("x") as node:
        reader = u.fs.open(node, os.O_RDONLY).fh
        for at in range(10):
            fault.arm(at)
            try:
                opened = u.fs.open(node, os.O_RDWR).fh
            except OSError as e:
                assert e.errno == errno.EMFILE
                assert u.fs.read(reader, 0, 9) == b"old"
                continue
            fault.disarm()
            break
        assert at >= 2, "neither the copy nor the reader's descriptor was refused"
        u.fs.write(opened, 0, b"new")
        assert u.fs.read(reader, 0, 9) == b"new"
        u.fs.release(opened)
        u.fs.release(reader)
