"""Unions on unions: the kernel's overlayfs over ours, ours over the kernel's, ours over ours.

`below` is a union; `top` has the tree of `below` as its lower layer, or keeps its upper and work directory in it. What
is done through `top` must come to the same as in a plain directory, and again when both have been taken down and up.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.compat.real_mount import run
from tests.golden.trees import describe
from tests.posix.tools import names
from tests.rigs import RIGS, Backing, Watchdog
from tests.semantics.unions import Union, copy_tree, same_text
from unionfs import api
from unionfs.errors import ChangesetError

pytestmark = [pytest.mark.needs_root, pytest.mark.peer]

#: Of more data than is copied up in one piece, and read by passthrough where there is passthrough.
LARGE = bytes(range(256)) * 2000
OPAQUE, NOTE = "trusted.overlay.opaque", "user.overlay.note"


class Nest(NamedTuple):
    below: Union
    top: Union

    def remount(self) -> Path:
        """Both down and up again."""
        self.top.unmount()
        self.below.remount()
        return self.top.mount()


def nests(*pairs: str) -> pytest.MarkDecorator:
    """Parametrize `nest` by pairs of rigs, "TOP over BELOW"; what a machine lacks skips with its reason."""
    params = []
    for pair in pairs:
        reasons = [RIGS[name].missing for name in pair.split(" over ")]
        marks = [pytest.mark.skip(reason=reason) for reason in reasons if reason]
        if "fusepy" in pair:
            marks.append(pytest.mark.slow)
        params.append(pytest.param(pair, id=pair.replace(" ", "-"), marks=marks))
    return pytest.mark.parametrize("nest", params, indirect=True)


#: The kernel alone, whose word is the same: it takes no union of its own for an upper.
REFERENCE = ("kernel over kernel",)
KERNEL_ON_OURS = ("kernel over union-devfuse", "kernel over union-cached", "kernel over union-fusepy")
OURS_ON_KERNEL = ("union-devfuse over kernel", "union-cached over kernel", "union-fusepy over kernel")
OURS_ON_OURS = (
    "union-devfuse over union-devfuse", "union-cached over union-cached", "union-devfuse over union-cached",
    "union-fusepy over union-devfuse", "union-devfuse over union-fusepy",
)  # fmt: skip


@pytest.fixture
def nest(request: pytest.FixtureRequest, backing: Backing, watchdog: Watchdog) -> Iterator[Nest]:
    top_rig, below_rig = (RIGS[name] for name in request.param.split(" over "))
    below = Union(below_rig, backing.directory("nest-below"), watchdog, 60.0)
    top = Union(top_rig, backing.directory("nest-top"), watchdog, 60.0)
    yield Nest(below, top)
    try:
        top.close()
    finally:
        below.close()


# What is there, and what is done -------------------------------------------------------------------------------------
def fill(root: Path) -> Path:
    for (
        name
    ) in ". kept kept/sub emptied emptied/sub replaced replaced/sub moved moved/sub moved/sub/deep links".split():
        (root / name).mkdir(exist_ok=True)
        (root / name / "file").write_text(f"{name}\n")
        (root / name / "other").write_text(f"other {name}\n")
    (root / "large").write_bytes(LARGE)
    (root / "mapped").write_bytes(LARGE)
    (root / "links" / "one").write_text("one\n")
    os.link(root / "links" / "one", root / "links" / "two")
    os.link(root / "links" / "one", root / "three")
    os.symlink("kept/file", root / "symlink")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "kept" / "file", "user.note", b"below")
    return root
    return root


def first(root: Path) -> None:
    """Changes of every kind: copy-up, whiteouts, opaque and renamed directories, a hard link."""
    (root / "kept" / "file").write_text("changed\n")
    (root / "kept" / "other").unlink()
    run("rm", "-r", str(root / "emptied"))
    run("rm", "-r", str(root / "replaced"))
    (root / "replaced").mkdir()
    (root / "replaced" / "new").write_text("new\n")
    (root / "moved").rename(root / "moved-1")
    (root / "moved-1" / "sub" / "file").unlink()
    with open(root / "large", "ab") as f:
        f.write(b"first")
    os.setxattr(root / "kept" / "sub", "user.dir", b"first")


def second(root: Path) -> None:
    """More of it, on what `first` has left: what was moved moves on, what was removed comes back, and the reverse."""
    (root / "kept" / "file").unlink()
    (root / "kept" / "other").write_text("back\n")
    (root / "emptied").mkdir()
    (root / "emptied" / "sub").write_text("a file where a directory was\n")
    (root / "replaced" / "new").unlink()
    (root / "replaced" / "sub").mkdir()
    (root / "moved-1").rename(root / "kept" / "moved-2")
    (root / "kept" / "moved-2" / "sub").rename(root / "sub")
    (root / "sub" / "deep" / "other").unlink()
    (root / "fifo").unlink()
    (root / "fifo").mkdir()
    (root / "symlink").unlink()
    (root / "symlink").write_text("no link\n")
    with open(root / "large", "r+b") as f:
        f.seek(100_000)
        f.write(b"second")
    with open(root / "mapped", "r+b") as g, mmap.mmap(g.fileno(), 0) as mapped:
        mapped[4096:4102] = b"mapped"
        mapped.flush()
        assert os.pread(g.fileno(), 6, 4096) == b"mapped"
    (root / "sub" / "file").write_text("where `first` removed one\n")
    os.removexattr(root / "kept" / "sub", "user.dir")
    (root / "kept" / "sub" / "file").chmod(0o600)
    os.chown(root / "kept" / "sub" / "other", 1000, 1000)


def third(root: Path) -> None:
    """And after a remount."""
    (root / "kept" / "moved-2" / "other").unlink()
    (root / "kept" / "moved-2").rename(root / "moved")
    run("rm", "-r", str(root / "sub"))
    (root / "sub").mkdir()
    (root / "large").write_bytes(b"short")


def change_links(root: Path) -> None:
    """A file of three names: one gone, one new, and written by each of two."""
    os.link(root / "links" / "one", root / "links" / "four")
    with open(root / "links" / "four", "a") as f:
        f.write("by four\n")
    (root / "three").unlink()
    with open(root / "links" / "two", "a") as g:
        g.write("by two\n")
    os.setxattr(root / "links" / "one", "user.all", b"links")


def same(mnt: Path, plain: Path) -> None:
    same_text(describe(plain, times=False), describe(mnt, times=False), "plain", "union")


def fill_with_escapes(root: Path) -> None:
    """Attributes that look like the union's own: somebody's data, to be kept and to mean nothing."""
    os.setxattr(root / "kept", OPAQUE, b"y")
    os.setxattr(root / "kept", NOTE, b"of a directory")
    os.setxattr(root / "kept" / "sub" / "other", NOTE, b"of a file")


def check_escapes(root: Path) -> None:
    assert os.getxattr(root / "kept", OPAQUE) == b"y"
    assert os.getxattr(root / "kept", NOTE) == b"of a directory"
    assert os.getxattr(root / "kept" / "sub" / "other", NOTE) == b"of a file"
    assert {OPAQUE, NOTE} <= set(os.listxattr(root / "kept"))
    assert names(root / "kept") >= {"sub", "other"}  # those of the layers below: it is not opaque


# Below as the lower of top -------------------------------------------------------------------------------------------
@nests(*REFERENCE, *KERNEL_ON_OURS, *OURS_ON_KERNEL, *OURS_ON_OURS)
def test_changed_union_is_the_lower_of_another(nest: Nest, plain: Path) -> None:
    below, top = nest
    fill(below.lower())
    copy_tree(below.layers[0], plain)
    first(below.mount())
    first(plain)
    top.lower(below.mnt)
    mnt = top.mount()
    same(mnt, plain)
    before = describe(below.mnt)
    second(mnt)
    fill_with_escapes(mnt)
    second(plain)
    same(mnt, plain)
    check_escapes(mnt)
    nest.remount()
    same(mnt, plain)
    check_escapes(mnt)
    third(mnt)
    third(plain)
    same(mnt, plain)
    nest.remount()
    same(mnt, plain)
    assert describe(below.mnt) == before


@nests(*OURS_ON_KERNEL, *OURS_ON_OURS)
def test_hard_links_of_a_union_below_stay_one_file_while_mounted(nest: Nest, plain: Path) -> None:
    below, top = nest
    fill(below.lower())
    copy_tree(below.layers[0], plain)
    top.lower(below.mount())
    change_links(top.mount())
    change_links(plain)
    same(top.mnt, plain)


@nests("kernel over union-devfuse", "kernel over union-cached", *OURS_ON_KERNEL, *OURS_ON_OURS)
def test_no_name_shows_another_file_after_a_remount_of_the_union_below(nest: Nest) -> None:
    """Node numbers, and thus the handles that the kernel would make of them, begin anew with each mount: what is
    kept about a lower file by its handle would be about another one then."""
    below, top = nest
    base = below.lower()
    for i in range(40):
        (base / f"file{i}").write_text(f"{i}\n")
        os.link(base / f"file{i}", base / f"link{i}")
    top.lower(below.mount())
    top.mount()
    for i in range(0, 40, 2):  # these get their numbers first
        with open(top.mnt / f"file{i}", "a") as f:
            f.write("more\n")
    wanted = {i: (top.mnt / f"file{i}").read_text() for i in range(40)}
    top.unmount()
    below.remount()
    for i in range(39, -1, -1):
        (below.mnt / f"link{i}").stat()
    top.mount()
    for i in range(40):
        assert (top.mnt / f"file{i}").read_text() == wanted[i]
        # A copy that was made of its other name need not be known any more; another file's it must not be.
        assert (top.mnt / f"link{i}").read_text() in (wanted[i], f"{i}\n")


@nests(*REFERENCE, *KERNEL_ON_OURS, *OURS_ON_KERNEL, *OURS_ON_OURS)
def test_union_in_the_middle_of_the_layers(nest: Nest, plain: Path) -> None:
    """A plain layer below the union and one above it: what the union hides of its own is hidden, of the others not."""
    below, top = nest
    bottom = top.lower()
    (bottom / "kept").mkdir()
    (bottom / "kept" / "other").write_text("of the bottom, since the union's whiteout is the union's own affair\n")
    (bottom / "replaced").mkdir()
    (bottom / "replaced" / "bottom").write_text("the same for an opaque directory\n")
    (bottom / "only").write_text("here\n")
    fill(below.lower())
    first(below.mount())
    top.lower(below.mnt)
    above = top.lower()
    (above / "kept").mkdir()
    os.mknod(above / "kept" / "file", stat.S_IFCHR, 0)
    os.mknod(above / "only", stat.S_IFCHR, 0)
    (above / "emptied").mkdir()
    (above / "emptied" / "above").write_text("above\n")
    first(fill(plain / "merged"))
    for source in (below.mnt, bottom):
        run("cp", "-an", f"{source}/.", str(plain / "merged"))
    (plain / "merged" / "kept" / "file").unlink()
    (plain / "merged" / "only").unlink()
    copy_tree(above / "emptied", plain / "merged" / "emptied")
    same(top.mount(), plain / "merged")
    nest.remount()
    same(top.mnt, plain / "merged")


# The upper of top in below -------------------------------------------------------------------------------------------
def upper_in_below(nest: Nest) -> Path:
    """Mount `below`, then `top` on a plain lower, with upper and work directory in `below`."""
    below, top = nest
    (below.lower() / "private").mkdir()
    (below.layers[0] / "beside").write_text("beside\n")
    below.mount()
    top.use(below.mnt / "private")
    fill(top.lower())
    return top.mount()


@nests("kernel over union-devfuse", "kernel over union-cached", *OURS_ON_KERNEL, *OURS_ON_OURS)
def test_upper_lies_in_another_union(nest: Nest, plain: Path) -> None:
    mnt = upper_in_below(nest)
    below, top = nest
    copy_tree(top.layers[0], plain)
    kept = describe(top.layers[0])
    for number, change in enumerate((first, second, third)):
        change(mnt)
        change(plain)
        same(mnt, plain)
        if number == 1:
            fill_with_escapes(mnt)
        nest.remount()
        same(mnt, plain)
        if number == 1:
            check_escapes(mnt)
            for path in (mnt / "kept", mnt / "kept" / "sub" / "other"):
                os.removexattr(path, NOTE)
    assert describe(top.layers[0]) == kept
    # In the union below, all of that is somebody's files.
    assert names(below.mnt) - {"private.log"} == {"beside", "private"}  # but for the log of the test's own server
    assert "kept" in names(below.mnt / "private" / "upper")
    assert not os.path.lexists(below.layers[0] / "private" / "upper")


@nests("kernel over union-devfuse", "kernel over union-cached")
def test_whiteouts_of_the_kernels_overlayfs_are_files_of_ours(nest: Nest, plain: Path) -> None:
    """It makes them by mknod(2), links them to each other and renames them into place (ovl_whiteout()). To our union
    they are objects that hide nothing, of its lower or of its upper."""
    mnt = upper_in_below(nest)
    below, top = nest
    copy_tree(top.layers[0], plain)
    for name in ("three", "links/one", "kept/file", "kept/other"):
        (mnt / name).unlink()
        (plain / name).unlink()
    run("rm", "-r", str(mnt / "replaced"))
    run("rm", "-r", str(plain / "replaced"))
    same(mnt, plain)
    for remounted in (False, True):
        if remounted:
            nest.remount()
            same(mnt, plain)
        inside = below.mnt / "private" / "upper"
        assert names(inside) == {"three", "links", "kept", "replaced"}
        for whiteout in (inside / "three", inside / "links" / "one", inside / "kept" / "file", inside / "replaced"):
            st = whiteout.lstat()
            assert stat.S_ISCHR(st.st_mode) and st.st_rdev == 0, whiteout
        # Stored, none of them is one: a union that has this upper for a layer is to show them.
        assert not any(stat.S_ISCHR(path.lstat().st_mode) for path in (below.upper / "private" / "upper").rglob("*"))
    top.unmount()
    # As the objects they are they can be moved and removed. What the upper above loses by it, it shows again.
    (inside / "three").rename(inside / "kept" / "three")
    (inside / "replaced").unlink()
    top.mount()
    assert (top.mnt / "three").exists() and (top.mnt / "replaced" / "file").exists()
    assert not os.path.lexists(top.mnt / "kept" / "three")


@nests("kernel over union-devfuse")
def test_commit_names_a_whiteout_of_the_overlay_inside(nest: Nest) -> None:
    """In a layer it would be one of the layer's own, and hide what is below."""
    mnt = upper_in_below(nest)
    (mnt / "three").unlink()
    nest.top.unmount()
    below = nest.below
    below.unmount()
    with pytest.raises(ChangesetError, match=r"/private/upper/three: .* cannot hold the whiteout of an overlay"):
        api.commit(layers=below.layers, upper=below.upper, output=below.directory / "layer.tar")
    below.mount()
    run("rm", "-r", str(below.mnt / "private"))
    below.unmount()
    api.commit(layers=below.layers, upper=below.upper, output=below.directory / "layer.tar")
