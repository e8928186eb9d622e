"""Directories of lower layers renamed: merged ones, ones that were new a layer ago, over and over, layer upon layer."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.tools import RENAME_EXCHANGE, expect, names, opened, renameat2
from tests.semantics.unions import Union, contents

pytestmark = [pytest.mark.needs("union"), pytest.mark.engine]

Contents = dict[str, str | bytes | None]


def a_tree(d: Path) -> None:
    (d / "dir" / "sub" / "deep").mkdir(parents=True)
    for place in ("dir", "dir/sub", "dir/sub/deep"):
        for name in ("a", "b"):
            (d / place / name).write_bytes(f"{place}/{name}".encode())
    (d / "other").mkdir()
    (d / "other" / "o").write_bytes(b"o")


def more(d: Path) -> None:
    """Merges with a_tree: one name hidden, one added."""
    (d / "dir" / "sub").mkdir(parents=True)
    (d / "dir" / "a").write_bytes(b"above")
    (d / "dir" / "sub" / "added").write_bytes(b"added")


def moved(before: Contents, old: str, new: str) -> Contents:
    """`before` with the directory `old` called `new`."""
    renamed = {new + p[len(old) :] if p == old or p.startswith(old + "/") else p: v for p, v in before.items()}
    return dict(sorted(renamed.items()))


def lasting(union: Union, wanted: Contents) -> None:
    """The mount shows `wanted`, now and after a remount."""
    assert contents(union.mnt) == wanted
    union.remount()
    assert contents(union.mnt) == wanted


@pytest.mark.populate(base=a_tree, above=more)
@pytest.mark.parametrize(
    ("old", "new"),
    [("dir", "new"), ("dir", "other/dir"), ("dir/sub", "sub"), ("dir/sub", "dir/sub2"), ("dir/sub/deep", "other/x")],
)
def test_merged_directory_keeps_everything_and_its_number(mnt: Path, old: str, new: str) -> None:
    before, ino = contents(mnt), os.stat(mnt / old).st_ino
    os.rename(mnt / old, mnt / new)
    assert contents(mnt) == moved(before, old, new)
    assert os.stat(mnt / new).st_ino == ino
    with expect(errno.ENOENT):
        os.stat(mnt / old)


def test_renames_within_and_across_lasting_over_remount(union: Union) -> None:
    a_tree(union.lower())
    more(union.lower())
    mnt = union.mount()
    wanted = contents(mnt)
    for old, new in (("dir/sub", "dir/s"), ("dir", "other/dir"), ("other/dir/s/deep", "deep"), ("other", "o2")):
        os.rename(mnt / old, mnt / new)
        wanted = moved(wanted, old, new)
        lasting(union, wanted)
    with open(mnt / "o2" / "dir" / "s" / "added", "ab") as f:
        f.write(b" changed")
    os.unlink(mnt / "deep" / "a")
    (mnt / "dir").mkdir()
    wanted |= {"o2/dir/s/added": b"added changed", "dir": None}
    del wanted["deep/a"]
    lasting(union, dict(sorted(wanted.items())))


def test_renamed_once_in_every_layer(union: Union, tmp_path: Path) -> None:
    """What a build with a rename in each step leaves: a chain of redirects, each into the layer below."""
    a_tree(union.lower())
    mnt = union.mount()
    wanted = contents(mnt)
    for i, (old, new) in enumerate((("dir", "d1"), ("d1", "other/d2"), ("other/d2/sub", "s"), ("other", "dir"))):
        os.rename(mnt / old, mnt / new)
        wanted = moved(wanted, old, new)
        (mnt / new / f"step{i}").write_bytes(b"step")
        wanted = dict(sorted({**wanted, f"{new}/step{i}": b"step"}.items()))
        assert contents(mnt) == wanted
        union.rotate()
        assert contents(mnt) == wanted
    assert contents(union.flattened(tmp_path / "flat")) == wanted


def test_directory_that_was_new_one_layer_ago(union: Union, tmp_path: Path) -> None:
    a_tree(union.lower())
    mnt = union.mount()
    (mnt / "fresh").mkdir()
    a_tree(mnt / "fresh")
    shutil.copytree(mnt / "fresh", mnt / "dir" / "fresh2")
    union.rotate()
    wanted = contents(mnt)
    inos = {name: os.stat(mnt / name).st_ino for name in ("fresh/dir/a", "fresh/dir/sub/b", "dir/fresh2/other/o")}
    for old, new in (("fresh", "renamed"), ("dir/fresh2", "fresh"), ("renamed/dir", "dir/moved")):
        os.rename(mnt / old, mnt / new)
        wanted = moved(wanted, old, new)
        inos = {moved({p: None}, old, new).popitem()[0]: ino for p, ino in inos.items()}
    assert contents(mnt) == wanted
    assert {name: os.stat(mnt / name).st_ino for name in inos} == inos
    lasting(union, wanted)
    assert {name: os.stat(mnt / name).st_ino for name in inos} == inos
    union.rotate()
    assert contents(mnt) == wanted
    assert contents(union.flattened(tmp_path / "flat")) == wanted


def test_new_directory_under_the_old_name_is_empty(union: Union, tmp_path: Path) -> None:
    a_tree(union.lower())
    mnt = union.mount()
    wanted = moved(contents(mnt), "dir", "old")
    os.rename(mnt / "dir", mnt / "old")
    os.mkdir(mnt / "dir")
    (mnt / "dir" / "a").write_bytes(b"new a")
    wanted = dict(sorted({**wanted, "dir": None, "dir/a": b"new a"}.items()))
    lasting(union, wanted)
    union.rotate()
    shutil.rmtree(mnt / "old")
    wanted = {path: value for path, value in wanted.items() if path.split("/")[0] != "old"}
    lasting(union, wanted)
    assert contents(union.flattened(tmp_path / "flat")) == wanted


@pytest.mark.populate(base=a_tree, above=more)
def test_rename_over_an_empty_and_a_full_directory(mnt: Path) -> None:
    before = contents(mnt)
    with expect(errno.ENOTEMPTY):
        os.rename(mnt / "dir", mnt / "other")
    os.unlink(mnt / "other" / "o")
    os.rename(mnt / "dir", mnt / "other")
    del before["other"], before["other/o"]
    assert contents(mnt) == moved(before, "dir", "other")


@pytest.mark.needs("rename_flags")
def test_exchange_of_two_merged_directories_lasts(union: Union, tmp_path: Path) -> None:
    a_tree(union.lower())
    more(union.lower())
    mnt = union.mount()
    before = contents(mnt)
    inos = os.stat(mnt / "dir").st_ino, os.stat(mnt / "other").st_ino
    renameat2(mnt / "dir", mnt / "other", RENAME_EXCHANGE)
    wanted = moved(moved(moved(before, "dir", "tmp"), "other", "dir"), "tmp", "other")
    assert (os.stat(mnt / "other").st_ino, os.stat(mnt / "dir").st_ino) == inos
    lasting(union, wanted)
    union.rotate()
    assert contents(mnt) == wanted
    assert contents(union.flattened(tmp_path / "flat")) == wanted


@pytest.mark.populate(base=a_tree, above=more)
def test_what_is_open_below_a_renamed_directory_goes_on(mnt: Path) -> None:
    with opened(mnt / "dir" / "sub" / "a", os.O_RDWR) as fd, opened(mnt / "dir", os.O_RDONLY) as directory:
        os.rename(mnt / "dir", mnt / "other" / "moved")
        os.pwrite(fd, b"DIR", 0)
        assert os.stat("sub/a", dir_fd=directory).st_ino == os.fstat(fd).st_ino
        os.rename("sub", "sub2", src_dir_fd=directory, dst_dir_fd=directory)
        os.pwrite(fd, b"SUB", 4)
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    assert (mnt / "other" / "moved" / "sub2" / "a").read_bytes() == b"DIR/SUB/a"
    assert names(mnt / "other" / "moved") == {"a", "b", "sub2", "made"}


def test_directory_moved_into_an_opaque_one_and_out_again_a_layer_later(union: Union) -> None:
    """An opaque directory on the way of an absolute redirect ends it, but not where the next redirect is absolute too
    (ovl_check_redirect() of fs/overlayfs/namei.c)."""
    a_tree(union.lower())
    (union.layers[0] / "file").write_bytes(b"in the way")
    mnt = union.mount()
    wanted = contents(mnt / "dir" / "sub")
    (mnt / "file").unlink()
    (mnt / "file").mkdir()  # over a whiteout: opaque
    os.rename(mnt / "dir" / "sub", mnt / "file" / "moved")
    union.rotate()
    os.rename(mnt / "file" / "moved", mnt / "other" / "again")
    assert contents(mnt / "other" / "again") == wanted
    union.remount()
    assert contents(mnt / "other" / "again") == wanted


# What package managers do ------------------------------------------------------------------------------------------
def dpkg_database(d: Path) -> None:
    for name in ("info", "updates", "triggers"):
        (d / "dpkg" / name).mkdir(parents=True)
    (d / "dpkg" / "status").write_bytes(b"old status")
    (d / "dpkg" / "info" / "p.list").write_bytes(b"old list")
    (d / "dpkg" / "info" / "p.md5sums").write_bytes(b"old sums")
    (d / "etc" / "p").mkdir(parents=True)
    (d / "etc" / "p" / "conf").write_bytes(b"edited by the user")
    (d / "share" / "doc" / "p").mkdir(parents=True)
    (d / "share" / "doc" / "p" / "copyright").write_bytes(b"old")
    (d / "program").write_bytes(b"old program")
    os.symlink("share", d / "was-symlink")


def replace_status(m: Path) -> None:
    """dpkg's atomic_file_backup and atomic_file_commit."""
    (m / "dpkg" / "status-new").write_bytes(b"new status")
    with opened(m / "dpkg" / "status-new", os.O_RDONLY) as fd:
        os.fsync(fd)
    os.link(m / "dpkg" / "status", m / "dpkg" / "status-old")
    os.rename(m / "dpkg" / "status-new", m / "dpkg" / "status")
    with opened(m / "dpkg", os.O_RDONLY) as fd:
        os.fsync(fd)


def swap_control_directory(m: Path) -> None:
    """dpkg unpacks control files into tmp.ci, moves them into info, and removes what is left of the directory."""
    (m / "dpkg" / "tmp.ci").mkdir()
    for name in ("list", "postinst"):
        (m / "dpkg" / "tmp.ci" / name).write_bytes(b"new " + name.encode())
        os.rename(m / "dpkg" / "tmp.ci" / name, m / "dpkg" / "info" / f"p.{name}")
    os.unlink(m / "dpkg" / "info" / "p.md5sums")
    os.rmdir(m / "dpkg" / "tmp.ci")
    os.rename(m / "dpkg" / "info", m / "dpkg" / "tmp.info")  # alternatives of other managers: the whole directory
    os.rename(m / "dpkg" / "tmp.info", m / "dpkg" / "info")


def unpack_over(m: Path) -> None:
    """tarobject(): unpacked as .dpkg-new, the old one kept as .dpkg-tmp by a link, then renamed over."""
    (m / "program.dpkg-new").write_bytes(b"new program")
    os.chmod(m / "program.dpkg-new", 0o755)
    os.link(m / "program", m / "program.dpkg-tmp")
    os.rename(m / "program.dpkg-new", m / "program")
    os.unlink(m / "program.dpkg-tmp")


def conffile_directory(m: Path) -> None:
    """dpkg-maintscript-helper dir_to_symlink: the directory goes aside, a link comes in, the conffile follows."""
    (m / "etc" / "p" / "conf.dpkg-new").write_bytes(b"of the maintainer")
    os.rename(m / "etc" / "p", m / "etc" / "p.dpkg-backup")
    (m / "etc" / "p2").mkdir()
    os.symlink("p2", m / "etc" / "p")
    os.rename(m / "etc" / "p.dpkg-backup" / "conf", m / "etc" / "p" / "conf")
    os.rename(m / "etc" / "p.dpkg-backup" / "conf.dpkg-new", m / "etc" / "p" / "conf.dpkg-dist")
    os.rmdir(m / "etc" / "p.dpkg-backup")


def symlink_to_directory(m: Path) -> None:
    os.rename(m / "was-symlink", m / "was-symlink.dpkg-backup")
    (m / "was-symlink").mkdir()
    (m / "was-symlink" / "f").write_bytes(b"f")
    os.unlink(m / "was-symlink.dpkg-backup")


def remove_and_purge(m: Path) -> None:
    os.rename(m / "share" / "doc" / "p", m / "share" / "doc" / "p.dpkg-tmp")
    shutil.rmtree(m / "share" / "doc" / "p.dpkg-tmp")
    for name in ("share/doc", "share"):
        os.rmdir(m / name)


STEPS: list[Callable[[Path], None]] = [
    replace_status, swap_control_directory, unpack_over, conffile_directory, symlink_to_directory, remove_and_purge,
]  # fmt: skip
AFTER_DPKG: Contents = {
    "dpkg": None, "dpkg/info": None, "dpkg/info/p.list": b"new list", "dpkg/info/p.postinst": b"new postinst",
    "dpkg/status": b"new status", "dpkg/status-old": b"old status", "dpkg/triggers": None, "dpkg/updates": None,
    "etc": None, "etc/p": "-> p2", "etc/p2": None, "etc/p2/conf": b"edited by the user",
    "etc/p2/conf.dpkg-dist": b"of the maintainer", "program": b"new program",
    "was-symlink": None, "was-symlink/f": b"f",
}  # fmt: skip


@pytest.mark.parametrize("layers", ["one-layer", "layer-per-step"])
def test_package_manager_s_renames(union: Union, tmp_path: Path, layers: str) -> None:
    dpkg_database(union.lower())
    mnt = union.mount()
    for step in STEPS:
        step(mnt)
        if layers == "layer-per-step" and step is not STEPS[-1]:
            union.rotate()
    assert os.stat(mnt / "program").st_nlink == os.stat(mnt / "dpkg" / "status-old").st_nlink == 1
    lasting(union, AFTER_DPKG)
    assert contents(union.flattened(tmp_path / "flat")) == AFTER_DPKG
