"""Layer trees made to lead the engine astray: names, depths, redirects, whiteouts, links, and work directories.

Each ends with a result or an OSError, the canary beside and above the layers untouched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.canary import BAITS, Canary, is_secret
from tests.posix.tools import expect
from tests.requirements import requires
from tests.rigs import run
from tests.unit.overlay_rig import Rig, tree, union
from tests.unit.test_overlay_marks import NoMarks
from unionfs.errors import ChangesetError, UnionFSError
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionOptions
from unionfs.vfs import RENAME_EXCHANGE

pytestmark = requires("root")  # devices and trusted.*

LONG = "n" * 255
DEEP = 1000


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    made = Canary(tmp_path, "a", "b", "c", "upper", "work")
    yield made
    made.check()


def everything(u: Rig, directory: str = "") -> list[str]:
    """All paths of the union, each looked up and read; AssertionError where one holds anything of the canary."""
    found, todo = [], [directory]
    while todo:
        at = todo.pop()
        for name in u.list(at):
            path = f"{at}/{name}" if at else name
            found.append(path)
            mode = u.stat(path).mode
            if stat.S_ISDIR(mode):
                todo.append(path)
            elif stat.S_ISREG(mode):
                assert not is_secret(u.read(path)), path
    return sorted(found)


# links ----------------------------------------------------------------------------------------------------------------
def _chown(u: Rig, path: str) -> None:
    u.setattr(path, uid=1000, gid=1000)


def _times(u: Rig, path: str) -> None:
    u.setattr(path, atime_ns=5, mtime_ns=5)


def _label(u: Rig, path: str) -> None:
    with u.node(path) as node:
        u.fs.setxattr(node, b"trusted.label", b"1", 0)


ON_LINKS: dict[str, Callable[[Rig, str], object]] = {
    "read": lambda u, p: u.read(p),
    "write": lambda u, p: u.write(p, b"x"),
    "truncate": lambda u, p: u.write(p, b"", flags=os.O_TRUNC),
    "resize": lambda u, p: u.setattr(p, size=0),
    "chmod": lambda u, p: u.setattr(p, mode=0o777),
    "chown": _chown,
    "utime": _times,
    "setxattr": _label,
    "list": lambda u, p: u.list(p),
    "create below": lambda u, p: u.create(f"{p}/file", b"x"),
    "mkdir below": lambda u, p: u.mkdir(f"{p}/new"),
    "unlink below": lambda u, p: u.unlink(f"{p}/file"),
    "rename below": lambda u, p: u.rename(f"{p}/file", "taken"),
    "link to": lambda u, p: u.link(p, "linked"),
    "rename over": lambda u, p: u.rename("plain", p),
    "exchange": lambda u, p: u.rename(p, "plain", RENAME_EXCHANGE),
    "unlink": lambda u, p: u.unlink(p),
    "mkdir": lambda u, p: u.mkdir(p),
}


@pytest.mark.parametrize("where", ["lower", "upper"])
@pytest.mark.parametrize("name", ON_LINKS)
def test_links_that_lead_to_the_canary(tmp_path: Path, canary: Canary, name: str, where: str) -> None:
    a = tree(tmp_path / "a", plain="plain", d__f="")
    (tmp_path / "upper").mkdir()
    canary.bait(a if where == "lower" else tmp_path / "upper")
    for bait in BAITS:
        with union(tmp_path, [a]) as u, contextlib.suppress(OSError):
            ON_LINKS[name](u, bait)
        canary.check()
    with union(tmp_path, [a]) as u:
        everything(u)


@pytest.mark.parametrize("where", ["lower", "upper"])
def test_directory_replaced_by_a_link_while_it_is_in_use(tmp_path: Path, canary: Canary, where: str) -> None:
    """Known as a directory, a link by now: every operation below it."""
    a = tree(tmp_path / "a", plain="plain", d__file="mine", d__dir__file="mine")
    if where == "upper":
        shutil.copytree(a / "d", tree(tmp_path / "upper") / "d")
    layer = a if where == "lower" else tmp_path / "upper"
    os.symlink(canary.root / "dir", layer / "link")
    with union(tmp_path, [a]) as u, u.node("d") as node, u.node("d/dir") as below, u.node("d/file") as file:
        u.fs.check_invariants = lambda: None  # type: ignore[method-assign]  # they are about what the layers hold
        fh = u.fs.opendir(node)
        os.rename(layer / "d", layer / "was")
        os.rename(layer / "link", layer / "d")
        for refresh in (lambda: None, u.fs.refresh):
            refresh()
            for path in ("d", "d/dir"):
                for operation in ON_LINKS.values():
                    with contextlib.suppress(OSError):
                        operation(u, path)
                    canary.check()
            for inode in (node, below, file):
                for call in (u.fs.getattr, u.fs.listxattr, u.fs.opendir):
                    with contextlib.suppress(OSError):
                        call(inode)
        with contextlib.suppress(OSError):
            assert all(not is_secret(entry.name) for entry in u.fs.readdir(fh, 0, 4096, 24))
        os.rename(layer / "d", layer / "link")
        shutil.rmtree(layer / "was", ignore_errors=True)


# names and depths -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("upper", [WritableDirectory, NoMarks])
def test_name_of_255_bytes(tmp_path: Path, canary: Canary, upper: type[WritableDirectory]) -> None:
    a = tree(tmp_path / "a", **{LONG: "1", f"{LONG[1:]}d__x": "2", "short": "3"})
    with union(tmp_path, [a], upper=upper) as u:
        u.write(LONG, b"2")
        u.rename(f"{LONG[1:]}d", LONG[2:] + "dd") if upper is WritableDirectory else None
        with expect(errno.ENAMETOOLONG):
            u.rename("short", LONG + "n")
        with expect(errno.ENAMETOOLONG):
            u.create(LONG + "n")
        if upper is WritableDirectory:
            u.unlink(LONG)
            assert not u.exists(LONG)
        else:
            with expect(errno.ENAMETOOLONG):  # `.wh.` and the name are 259
                u.unlink(LONG)
            assert u.read(LONG) == b"2"
    canary.check()


def test_tree_of_depth_1000(tmp_path: Path, canary: Canary) -> None:
    """Deeper than PATH_MAX is long, and than Python recurses."""
    a = tree(tmp_path / "a", top__d__bottom="1")
    at = os.open(a / "top" / "d", os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir(b"deeper", dir_fd=at)
        below = os.open(b"deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    bottom = "top/d" + "/deeper" * DEEP
    with union(tmp_path, [a]) as u:
        u.fs.check_invariants = lambda: None  # type: ignore[method-assign]  # a thousand stats after each step
        assert u.list(bottom) == ["file"]
        u.write(f"{bottom}/file", b"copied up with a thousand directories")
        u.rename("top/d", "moved")
        assert u.read(f"moved{'/deeper' * DEEP}/file").startswith(b"copied")
        u.fs.refresh()
        u.unlink(f"moved{'/deeper' * DEEP}/file")
        u.rename("moved/deeper", "second")
    with union(tmp_path, [a]) as u:
        u.fs.check_invariants = lambda: None  # type: ignore[method-assign]
        assert u.list("second" + "/deeper" * (DEEP - 1)) == []
    run("rm", "-rf", str(a), str(tmp_path / "upper"))  # which is more than shutil.rmtree can do


# whiteouts ------------------------------------------------------------------------------------------------------------
ODD_NAMES = (".wh.", ".wh..", ".wh...", ".wh....", ".wh..wh.", ".wh..wh..", ".wh..wh..wh.x", ".wh..wh..opq.", ".wh.\n")


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "fifo", "whiteout"])
@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("where", ["a", "upper", "aufs upper"])
def test_odd_whiteouts(tmp_path: Path, canary: Canary, name: str, kind: str, where: str) -> None:
    a, b = tree(tmp_path / "a", d__x="a"), tree(tmp_path / "b", d__x="b", d__y="b", z="b")
    upper = tree(tmp_path / "upper", d=None)
    if where == "aufs upper":
        (upper / ".wh..wh.aufs").touch()
    for place in (a if where == "a" else upper, (a if where == "a" else upper) / "d"):
        match kind:
            case "file":
                (place / name).touch()
            case "directory":
                (place / name / "b").mkdir(parents=True)
            case "symlink":
                os.symlink(canary.root / "dir", place / name)
            case "fifo":
                os.mkfifo(place / name)
            case _:
                os.mknod(place / name, stat.S_IFCHR, 0)
    with union(tmp_path, [a, b], upper=NoMarks if where == "aufs upper" else WritableDirectory) as u:
        found = everything(u)
        assert {"d", "d/x", "d/y", "z"} <= set(found)
        for path in ("d/x", "d/y", "z"):
            u.unlink(path)
        with contextlib.suppress(OSError):
            u.create(name, b"mine")
        u.mkdir("d/new")
        u.rename("d", "moved")
        everything(u)
    canary.check()


# redirects ------------------------------------------------------------------------------------------------------------
OUTSIDE = (
    b"..", b"../canary", b"/..", b"/../canary/dir", b"/d/../../canary", b"", b"/", b"//", b"/to_canary", b"to_canary",
    b"/to_canary_up", b"to_parent", b"/to_parent/canary/dir", b"/d/e/../../to_canary", b"d\0",
    b"/" + b"e/" * 2000 + b"e", b"n" * 255, b"n" * 256, b"/" + b"n" * 256, b".", b"/./d", b"/d/", b"\xff",
    b"/to_canary_file", b"/to_fifo",
)  # fmt: skip


@pytest.mark.parametrize("layer", ["a", "upper"])
@pytest.mark.parametrize("value", OUTSIDE, ids=lambda value: repr(value[:24]))
def test_redirect_stays_in_the_layers(tmp_path: Path, canary: Canary, value: bytes, layer: str) -> None:
    a, b = tree(tmp_path / "a", d__e__mine=""), tree(tmp_path / "b", d__e__below="", other="")
    tree(tmp_path / "upper", d__e__upper="")
    for place in (a, b, tmp_path / "upper"):
        canary.bait(place)
    for path in ("d", "d/e"):
        with contextlib.suppress(OSError):
            os.setxattr(tmp_path / layer / path, "trusted.overlay.redirect", value)
    with union(tmp_path, [a, b]) as u:
        everything(u)
        u.create("d/e/new", b"")
        u.rename("d/e", "moved")
        everything(u)
    canary.check()


def test_redirects_in_a_circle(tmp_path: Path, canary: Canary) -> None:
    """Each directory of each layer says that it goes on in another, one above itself among them."""
    layers = [tree(tmp_path / name, x__x__x__a="", y__b="", z__c="") for name in "abc"]
    for layer in (*layers, tree(tmp_path / "upper", x__x__x__u="", y__u="", z__u="")):
        for path, value in (("x", b"/y"), ("y", b"/z"), ("z", b"/x/x"), ("x/x", b"/x"), ("x/x/x", b"/x/x/x")):
            os.setxattr(layer / path, "trusted.overlay.redirect", value)
    with union(tmp_path, layers) as u:
        assert len(everything(u)) < 200
        u.rename("x/x", "out")
        u.rename("x", "out/new")
        everything(u)
    with union(tmp_path, layers) as u:
        everything(u)
        u.fs.refresh()
        everything(u)


# work directories -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["work", "index", "work/incompat", "work/incompat/volatile"])
@pytest.mark.parametrize("kind", ["link to the canary", "dangling link", "file", "fifo"])
@pytest.mark.parametrize("volatile", [False, True])
def test_work_directory_made_by_somebody_else(
    tmp_path: Path, canary: Canary, name: str, kind: str, volatile: bool
) -> None:
    a = tree(tmp_path / "a", x="1", d__y="2")
    os.link(a / "x", a / "linked")
    place = tmp_path / "work" / name
    place.parent.mkdir(parents=True)
    match kind:
        case "link to the canary":
            os.symlink(canary.root / "dir", place)
        case "dangling link":
            os.symlink(canary.root / "nothing", place)
        case "file":
            place.touch()
        case _:
            os.mkfifo(place)
    with (
        contextlib.suppress(OSError, UnionFSError),
        union(tmp_path, [a], options=UnionOptions(volatile=volatile)) as u,
    ):
        u.write("x", b"2")
        u.unlink("x")
        u.rename("d", "e")
        u.unlink("e/y")
    canary.check()


def test_debris_in_the_work_directory_is_swept_not_followed(tmp_path: Path, canary: Canary) -> None:
    debris = tmp_path / "work" / "work"
    (debris / "#1" / "deep" / "deeper").mkdir(parents=True)
    (debris / "#2").mkdir(mode=0)
    canary.bait(debris)
    canary.bait(debris / "#1" / "deep")
    os.mknod(debris / "#4", stat.S_IFCHR, 0)
    with union(tmp_path, [tree(tmp_path / "a", x="1")]) as u:
        assert os.listdir(debris) == []
        u.write("x", b"2")


# what is written of it ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_commit_refuses_whiteouts_of_nothing_by_name(tmp_path: Path, canary: Canary, name: str) -> None:
    """A layer with a whiteout of "." or ".." could remove what its reader stands in."""
    from unionfs import api

    a = tree(tmp_path / "a", d__x="1")
    for aufs in (False, True):
        upper = tree(tmp_path / "upper", d=None)
        (upper / "d" / name).touch()
        if aufs:
            (upper / ".wh..wh.aufs").touch()
        canary.expect("layer.tar")
        with pytest.raises(ChangesetError, match=r"d/\.wh\."):
            api.commit(layers=[str(a)], upper=str(upper), output=str(tmp_path / "layer.tar"))
    assert not (tmp_path / "layer.tar").exists()
