"""rsync -aHAX --delete into a mount and out of it: afterwards there is nothing left to do, in either direction.

rsync makes each file under a temporary name, gives it owner, mode, ACL, xattrs and times, and renames it over the old
one; hard links it makes anew by link(2); and it compares all of that when asked again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.compat.real_mount import run
from tests.golden.trees import describe
from tests.requirements import requires
from tests.semantics.unions import Union, same_text

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, requires("rsync", "acl", "setfattr")]

YEAR_2001 = 10**18
ODD_NAMES = (
    b"new\nline", b"latin-\xe9", b" blank ", b"*[a-z]?", b"-rf", b"\\back\\slash", "日本".encode(), b"n" * 255,
    b".hidden", b"user:pass", b"a=b", b"quote'\"",
)  # fmt: skip


def tree(root: Path) -> Path:
    """Some of everything that rsync carries over."""
    for name in ("etc/deep/deeper", "dev", "names", "same", "data", "locked"):
        (root / name).mkdir(parents=True)
    for i in range(60):
        (root / "etc" / f"file{i}").write_text(f"{i}\n" * i)
        (root / "etc" / "deep" / f"f{i}").write_text(f"deep {i}\n")
    for odd in ODD_NAMES:
        with open(os.fsencode(root / "names") + b"/" + odd, "wb") as f:
            f.write(odd)
    for i in range(4):
        (root / "same" / f"one{i}").write_text(f"group {i}\n" * 50)
        for j in range(3):
            os.link(root / "same" / f"one{i}", root / "etc" / "deep" / f"link{i}-{j}")
    os.symlink("etc/file1", root / "link")
    os.symlink("\udce9 nowhere", root / "names" / "dangling")
    os.mkfifo(root / "dev" / "fifo", 0o620)
    os.mknod(root / "dev" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "dev" / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.link(root / "dev" / "null", root / "dev" / "null2")
    os.mknod(root / "dev" / "socket", stat.S_IFSOCK | 0o600)
    with open(root / "data" / "sparse", "wb") as f:
        f.truncate(3 << 20)
        f.seek(1 << 20)
        f.write(b"island" * 1000)
    (root / "data" / "dense").write_bytes(bytes(range(256)) * 4000)
    (root / "data" / "zeros").write_bytes(bytes(300_000))
    xattrs(root)
    (root / "locked").chmod(0o500)
    (root / "data" / "dense").chmod(0o4755)
    os.chown(root / "etc" / "file7", 1234, 4_000_000_000)
    os.lchown(root / "link", 65534, 65534)
    for number, (directory, dirs, files) in enumerate(os.walk(root, topdown=False)):
        for name in [*dirs, *files]:
            os.utime(Path(directory, name), ns=(YEAR_2001, YEAR_2001 + 1 + number), follow_symlinks=False)
    return root


def xattrs(root: Path) -> None:
    run("setfacl", "-m", "u:1000:rw,g:2000:r,m::rw", str(root / "etc" / "file3"))
    run("setfacl", "-m", "u:1000:rwx", "-d", "-m", "u:1000:rwx,g:50:rx", str(root / "etc" / "deep"))
    os.setxattr(root / "etc" / "file4", "user.note", b"\x00binary\xff" * 100)
    os.setxattr(root / "etc", "user.directory", b"")
    os.setxattr(root / "same" / "one1", "user.shared", b"by all links")
    os.setxattr(root / "link", "trusted.of-a-link", b"yes", follow_symlinks=False)
    # cap_net_raw+ep, as vfs_cap_data of linux/capability.h has it (revision 2)
    os.setxattr(root / "data" / "zeros", "security.capability", bytes.fromhex("01000002" + "00200000" + "00" * 12))


def change(root: Path) -> None:
    """Another state of the tree: of every kind something is gone, new, changed, or turned into something else."""
    (root / "etc" / "file10").unlink()
    (root / "etc" / "file11").write_text("changed\n")
    (root / "etc" / "deep" / "link0-1").unlink()
    run("rm", "-r", str(root / "etc" / "deep" / "deeper"))
    (root / "etc" / "deep" / "deeper").write_text("a file now\n")
    (root / "etc" / "file12").unlink()
    (root / "etc" / "file12").mkdir()
    (root / "etc" / "file12" / "in").write_text("in\n")
    (root / "dev" / "disk").unlink()
    os.mknod(root / "dev" / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 1))
    (root / "dev" / "fifo").unlink()
    os.link(root / "same" / "one2", root / "same" / "one2-more")
    with open(root / "same" / "one3", "a") as f:
        f.write("more\n")
    with open(root / "data" / "sparse", "r+b") as g:
        g.seek(2 << 20)
        g.write(b"second")
    with open(root / "data" / "dense", "r+b") as h:
        h.seek(500_000)
        h.write(b"in the middle")
    os.removexattr(root / "etc" / "file4", "user.note")
    os.setxattr(root / "etc" / "file5", "user.new", b"new")
    run("setfacl", "-b", str(root / "etc" / "file3"))
    run("rm", "-r", str(root / "names"))
    (root / "names").mkdir()
    (root / "names" / "only").write_text("only this\n")
    (root / "etc" / "file13").chmod(0o600)
    os.chown(root / "etc" / "file14", 1, 2)
    (root / "link").unlink()
    os.symlink("etc/file2", root / "link")


def rsync(source: Path, target: Path, *options: str) -> str:
    """What it changed, one line a name (-i). Times are compared to the nanosecond."""
    return run(
        "rsync", "-aHAXS", "--numeric-ids", "--modify-window=-1", "--delete", "-i", *options, f"{source}/", f"{target}/"
    )


def left_to_do(one: Path, other: Path) -> str:
    """What rsync would still change, both ways. Contents are compared, not only size and time."""
    return rsync(one, other, "-n", "-c") + rsync(other, one, "-n", "-c")


def same(one: Path, other: Path) -> None:
    assert left_to_do(one, other) == ""
    same_text(describe(one), describe(other), str(one), str(other))


@pytest.mark.engine
def test_tree_goes_in_and_out_and_nothing_is_left_to_do(union: Union, plain: Path) -> None:
    source, back = tree(plain / "source"), plain / "back"
    union.lower()
    mnt = union.mount()
    assert rsync(source, mnt / "tree") != ""
    same(source, mnt / "tree")
    rsync(mnt / "tree", back)
    same(source, back)
    union.remount()
    same(source, mnt / "tree")
    assert os.stat(mnt / "tree" / "data" / "sparse").st_blocks < 1000


@pytest.mark.engine
def test_lower_tree_is_brought_to_another_state(union: Union, plain: Path) -> None:
    base = union.lower()
    tree(base / "tree")
    kept = describe(base)
    source = plain / "source"
    run("cp", "-a", str(base / "tree"), str(source))
    same(base / "tree", source)
    mnt = union.mount()
    same(source, mnt / "tree")
    assert os.listdir(union.upper) == []  # to compare copies nothing up
    change(source)
    rsync(source, mnt / "tree")
    same(source, mnt / "tree")
    union.remount()
    same(source, mnt / "tree")
    rsync(mnt / "tree", plain / "back")
    same(source, plain / "back")
    assert describe(base) == kept
    union.unmount()
    stored = {str(path.relative_to(union.upper)) for path in union.upper.rglob("*") if is_whiteout(path)}
    assert {"tree/etc/file10", "tree/dev/fifo", "tree/etc/deep/link0-1"} <= stored
    assert not os.path.lexists(union.upper / "tree" / "data" / "zeros")  # what was the same is not copied


def is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


@pytest.mark.engine
@pytest.mark.parametrize("options", [(), ("--inplace", "--no-S"), ("--delay-updates", "--delete-delay")])
def test_two_states_in_turn_by_every_way_of_writing(union: Union, plain: Path, options: tuple[str, ...]) -> None:
    """There and back again, over whiteouts of the first round; `--inplace` writes into the old files."""
    base = union.lower()
    tree(base / "tree")
    first, second = plain / "first", plain / "second"
    for copy in (first, second):
        run("cp", "-a", str(base / "tree"), str(copy))
    change(second)
    mnt = union.mount()
    for round_, state in enumerate((second, first, second)):
        rsync(state, mnt / "tree", *options)
        same(state, mnt / "tree")
        if round_ == 1:
            union.remount()
    same(first, base / "tree")


@pytest.mark.engine
def test_everything_is_deleted_by_an_empty_source(union: Union, plain: Path) -> None:
    base = union.lower()
    tree(base / "tree")
    kept = describe(base)
    mnt = union.mount()
    assert len(rsync(plain, mnt / "tree").splitlines()) > 100
    assert os.listdir(mnt / "tree") == []
    union.remount()
    assert os.listdir(mnt / "tree") == []
    (mnt / "tree").rmdir()
    assert os.listdir(mnt) == []
    assert describe(base) == kept
