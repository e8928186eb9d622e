"""`LoopbackFilesystem` in process, without a mount: what the contract of vfs.Filesystem says, on a real directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.tools import as_user, expect
from tests.requirements import requires
from unionfs import vfs
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.vfs import NOW, ROOT, Attr, Caller, Filesystem, SetAttr

ME = Caller(os.geteuid(), os.getegid())
BUDGET, OVERHEAD = 4096, 24


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The directory below; the umask is 0, as a server's is."""
    old = os.umask(0)
    (tmp_path / "r").mkdir(mode=0o755)
    yield tmp_path / "r"
    os.umask(old)


@pytest.fixture
def fs(root: Path) -> Iterator[LoopbackFilesystem]:
    made = LoopbackFilesystem(os.fsencode(root))
    yield made
    made.close()


def attr(fs: Filesystem, node: int, fh: int | None = None) -> Attr:
    return Attr.unpack(fs.getattr(node, fh))


def listing(fs: Filesystem, fh: int, budget: int = BUDGET) -> list[bytes]:
    """All names, read in replies of `budget` bytes."""
    found: list[bytes] = []
    offset = 0
    while entries := fs.readdir(fh, offset, budget, OVERHEAD):
        found += [entry.name for entry in entries]
        offset = entries[-1].cookie
    return found


def test_it_is_a_filesystem(fs: LoopbackFilesystem) -> None:
    checked: Filesystem = fs  # for mypy
    assert checked.statistics() == {"nodes": 1, "open_handles": 0}


def test_lookup_gives_the_attributes_that_lstat_gives(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"data")
    (root / "l").symlink_to("f")
    for name in (b"f", b"l"):
        entry = fs.lookup(ROOT, name)
        assert Attr.unpack(entry.attr) == Attr.from_stat(os.lstat(os.fsencode(root) + b"/" + name))
    assert fs.readlink(fs.lookup(ROOT, b"l").node) == b"f"


def test_lookup_errors(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"")
    with expect(errno.ENOENT):
        fs.lookup(ROOT, b"no")
    with expect(errno.ENAMETOOLONG):
        fs.lookup(ROOT, b"n" * 256)
    with expect(errno.ENOTDIR):
        fs.lookup(fs.lookup(ROOT, b"f").node, b"x")
    with expect(errno.ESTALE):
        fs.lookup(999, b"x")


def test_hard_links_are_one_node(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "a").write_bytes(b"x")
    node = fs.lookup(ROOT, b"a").node
    made = fs.link(node, ROOT, b"b", ME)
    assert made.node == node == fs.lookup(ROOT, b"b").node
    fs.unlink(ROOT, b"a")
    assert attr(fs, node).nlink == 1
    assert fs.open(node, os.O_RDONLY).fd >= 0


def test_nodes_live_as_long_as_their_lookups(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"")
    node = fs.lookup(ROOT, b"f").node
    assert fs.lookup(ROOT, b"f").node == node
    fs.forget(node, 1)
    assert attr(fs, node).size == 0
    fs.forget(node, 1)
    with expect(errno.ESTALE):
        fs.getattr(node)
    fs.forget(node, 5)
    assert fs.statistics()["nodes"] == 1


def test_handles_keep_a_forgotten_node(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"data")
    node = fs.lookup(ROOT, b"f").node
    fh = fs.open(node, os.O_RDONLY).fh
    fs.forget(node, 1)
    assert attr(fs, node).size == 4
    fs.release(fh)
    assert fs.statistics() == {"nodes": 1, "open_handles": 0}


def test_child_is_found_after_its_parent_was_forgotten_and_renamed(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_bytes(b"data")
    outer = fs.lookup(ROOT, b"d").node
    inner = fs.lookup(outer, b"e").node
    leaf = fs.lookup(inner, b"f").node
    fs.forget(outer, 1)
    fs.forget(inner, 1)
    fs.rename(ROOT, b"d", ROOT, b"moved", 0)
    assert attr(fs, leaf).size == 4
    assert fs.lookup(ROOT, b"moved").node == outer


def test_number_used_again_is_another_node(fs: LoopbackFilesystem, root: Path) -> None:
    # Without that, the kernel sees one inode change its type and answers EIO for ever.
    seen = set()
    for _ in range(20):
        (root / "x").write_bytes(b"")
        seen.add(fs.lookup(ROOT, b"x").node)
        fs.unlink(ROOT, b"x")
        (root / "x").mkdir()
        seen.add(fs.lookup(ROOT, b"x").node)
        fs.rmdir(ROOT, b"x")
    assert len(seen) == 40


def test_unlinked_open_file_is_reached_through_its_handle(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"0123456789")
    node = fs.lookup(ROOT, b"f").node
    fh = fs.open(node, os.O_RDWR).fh
    fs.unlink(ROOT, b"f")
    assert attr(fs, node).nlink == 0
    changed = Attr.unpack(fs.setattr(node, SetAttr(size=3, mode=0o600, mtime_ns=5), ME, fh))
    assert (changed.size, stat.S_IMODE(changed.mode), changed.mtime_ns) == (3, 0o600, 5)
    assert fs.write(fh, 3, b"X") == 1
    assert fs.read(fh, 0, 10) == b"012X"
    again = fs.open(node, os.O_RDONLY)
    assert fs.read(again.fh, 0, 10) == b"012X"


def test_rename_moves_the_node_and_drops_the_replaced(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "a").write_bytes(b"one")
    (root / "b").write_bytes(b"two!")
    one, two = fs.lookup(ROOT, b"a").node, fs.lookup(ROOT, b"b").node
    fh = fs.open(two, os.O_RDONLY).fh
    fs.rename(ROOT, b"a", ROOT, b"b", 0)
    assert fs.lookup(ROOT, b"b").node == one
    assert attr(fs, one).size == 3
    assert (attr(fs, two).nlink, fs.read(fh, 0, 9)) == (0, b"two!")


def test_rename_exchange_swaps_the_nodes(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"file")
    (root / "d").mkdir()
    (root / "d" / "in").write_bytes(b"inside")
    file, directory = fs.lookup(ROOT, b"f").node, fs.lookup(ROOT, b"d").node
    inside = fs.lookup(directory, b"in").node
    fs.rename(ROOT, b"f", ROOT, b"d", vfs.RENAME_EXCHANGE)
    assert (fs.lookup(ROOT, b"d").node, fs.lookup(ROOT, b"f").node) == (file, directory)
    assert attr(fs, inside).size == 6


def test_create_opens_what_it_makes(fs: LoopbackFilesystem, root: Path) -> None:
    entry, opened = fs.create(ROOT, b"f", 0o000, os.O_WRONLY | os.O_EXCL, ME)
    assert fs.write(opened.fh, 0, b"x") == 1
    assert stat.S_IMODE(attr(fs, entry.node).mode) == 0
    with expect(errno.EEXIST):
        fs.create(ROOT, b"f", 0o644, os.O_WRONLY | os.O_EXCL, ME)
    os.chmod(root / "f", 0o644)
    entry2, _ = fs.create(ROOT, b"f", 0o600, os.O_RDONLY, ME)
    assert entry2.node == entry.node


def test_umask_of_the_caller_applies(fs: LoopbackFilesystem) -> None:
    caller = ME._replace(umask=0o027)
    made = fs.mkdir(ROOT, b"d", 0o777, caller)
    assert stat.S_IMODE(Attr.unpack(made.attr).mode) == 0o750
    made = fs.mknod(ROOT, b"p", stat.S_IFIFO | 0o666, 0, caller)
    assert Attr.unpack(made.attr).mode == stat.S_IFIFO | 0o640


@requires("root")
def test_owner_is_the_caller_and_set_id_bits_survive_the_chown(fs: LoopbackFilesystem, root: Path) -> None:
    caller = Caller(1000, 1001)
    made = Attr.unpack(fs.mknod(ROOT, b"f", stat.S_IFREG | 0o6755, 0, caller).attr)
    assert (made.uid, made.gid, stat.S_IMODE(made.mode)) == (1000, 1001, 0o6755)
    os.chown(root, 0, 77)
    os.chmod(root, 0o2777)
    made = Attr.unpack(fs.mkdir(ROOT, b"d", 0o700, caller).attr)
    assert (made.uid, made.gid, stat.S_IMODE(made.mode)) == (1000, 77, 0o2700)
    entry, _ = fs.tmpfile(ROOT, 0o640, os.O_RDWR, caller)
    assert (attr(fs, entry.node).uid, attr(fs, entry.node).gid) == (1000, 77)


@requires("root")
def test_nothing_is_left_of_a_creation_that_fails(fs: LoopbackFilesystem, root: Path) -> None:
    os.chmod(root, 0o777)
    for make in (
        lambda: fs.mkdir(ROOT, b"d", 0o755, Caller(1000, 1000)),
        lambda: fs.create(ROOT, b"f", 0o644, os.O_RDWR, Caller(1000, 1000)),
    ):
        with expect(errno.EPERM):  # the server, as this user, may not give files away
            as_user(make)
    assert os.listdir(root) == []


def test_tmpfile_gets_its_name_by_link(fs: LoopbackFilesystem, root: Path) -> None:
    entry, opened = fs.tmpfile(ROOT, 0o600, os.O_RDWR, ME)
    assert attr(fs, entry.node).nlink == 0
    fs.write(opened.fh, 0, b"data")
    made = fs.link(entry.node, ROOT, b"named", ME)
    assert made.node == entry.node
    fs.release(opened.fh)
    assert (root / "named").read_bytes() == b"data"
    sealed, _ = fs.tmpfile(ROOT, 0o600, os.O_RDWR | os.O_EXCL, ME)
    with expect(errno.ENOENT):
        fs.link(sealed.node, ROOT, b"no", ME)


def test_setattr_each_field(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"0123456789")
    os.utime(root / "f", ns=(1, 2))
    node = fs.lookup(ROOT, b"f").node

    def change(changes: SetAttr) -> Attr:
        return Attr.unpack(fs.setattr(node, changes, ME))

    assert stat.S_IMODE(change(SetAttr(mode=0o4711)).mode) == 0o4711
    assert change(SetAttr(atime_ns=-5)).atime_ns == -5
    assert change(SetAttr(mtime_ns=7)).atime_ns == -5
    after = change(SetAttr(atime_ns=NOW))
    assert (after.atime_ns > 10**18, after.mtime_ns) == (True, 7)
    assert change(SetAttr(size=4)).size == 4
    assert stat.S_IMODE(change(SetAttr(kill_priv=True)).mode) == 0o711


def test_times_of_a_symlink_are_its_own(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"")
    (root / "l").symlink_to(root / "f")
    node = fs.lookup(ROOT, b"l").node
    assert Attr.unpack(fs.setattr(node, SetAttr(mtime_ns=9), ME)).mtime_ns == 9
    assert (root / "f").stat().st_mtime_ns != 9


@requires("root")
def test_attributes_of_a_symlink_are_its_own(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"")
    (root / "l").symlink_to(root / "f")
    node = fs.lookup(ROOT, b"l").node
    fs.setxattr(node, b"trusted.x", b"1", 0)
    assert fs.getxattr(node, b"trusted.x") == b"1"
    assert b"trusted.x" in fs.listxattr(node)
    assert "trusted.x" not in os.listxattr(root / "f")
    fs.removexattr(node, b"trusted.x")
    with expect(errno.ENODATA):
        fs.getxattr(node, b"trusted.x")


@requires("root")
def test_kill_priv_on_write(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"x")
    node = fs.lookup(ROOT, b"f").node
    fh = fs.open(node, os.O_RDWR).fh
    for bits, kept, left in ((0o6755, 0o6755, 0o755), (0o2745, 0o2745, 0o2745)):
        os.chmod(root / "f", bits)
        fs.write(fh, 0, b"y")
        assert stat.S_IMODE(attr(fs, node).mode) == kept
        fs.write(fh, 0, b"y", kill_priv=True)
        assert stat.S_IMODE(attr(fs, node).mode) == left


def test_readdir_reads_on_from_any_cookie(fs: LoopbackFilesystem, root: Path) -> None:
    for i in range(100):
        (root / f"file{i:03d}").write_bytes(b"")
    fh = fs.opendir(ROOT)
    everything = listing(fs, fh)
    assert everything[:2] == [b".", b".."]
    assert sorted(everything[2:]) == [b"file%03d" % i for i in range(100)]
    assert listing(fs, fh, budget=100) == everything
    entries = fs.readdir(fh, 0, 1 << 20, OVERHEAD)
    assert [e.name for e in fs.readdir(fh, entries[40].cookie, 1 << 20, OVERHEAD)] == everything[41:]


def test_readdir_keeps_to_its_budget(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "abc").write_bytes(b"")
    fh = fs.opendir(ROOT)
    # ".", ".." and "abc" take 24 + 8 bytes each.
    assert [len(fs.readdir(fh, 0, budget, OVERHEAD)) for budget in (31, 32, 63, 64, 95, 96, 97)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]


def test_snapshot_holds_while_entries_come_and_go(fs: LoopbackFilesystem, root: Path) -> None:
    for i in range(10):
        (root / f"f{i}").write_bytes(b"")
    fh = fs.opendir(ROOT)
    first = fs.readdir(fh, 0, 32 * 4, OVERHEAD)
    for entry in first[2:]:
        fs.unlink(ROOT, entry.name)
    (root / "new").write_bytes(b"")
    rest = fs.readdir(fh, first[-1].cookie, BUDGET, OVERHEAD)
    assert sorted(e.name for e in [*first, *rest][2:]) == [b"f%d" % i for i in range(10)]
    assert b"new" in listing(fs, fh)


def test_readdirplus_looks_up_and_leaves_out_what_vanished(fs: LoopbackFilesystem, root: Path) -> None:
    for name in ("a", "b", "c"):
        (root / name).write_bytes(b"x")
    fh = fs.opendir(ROOT)
    dots = fs.readdirplus(fh, 0, 32 * 2, OVERHEAD)
    assert [(e.name, e.node) for e in dots] == [(b".", 0), (b"..", 0)]
    os.unlink(root / "b")
    plus = fs.readdirplus(fh, dots[-1].cookie, BUDGET, OVERHEAD)
    assert sorted(e.name for e in plus) == [b"a", b"c"]
    for entry in plus:
        assert attr(fs, entry.node).size == 1
        fs.forget(entry.node, 1)
    assert fs.statistics()["nodes"] == 1


def test_types_and_numbers_of_entries(fs: LoopbackFilesystem, root: Path) -> None:
    (root / "f").write_bytes(b"")
    (root / "d").mkdir()
    (root / "l").symlink_to("f")
    os.mkfifo(root / "p")
    fh = fs.opendir(ROOT)
    entries = {e.name: e for e in fs.readdir(fh, 0, BUDGET, OVERHEAD)}
    assert {name: e.type for name, e in entries.items()} == {
        b".": vfs.DT_DIR, b"..": vfs.DT_DIR, b"f": vfs.DT_REG, b"d": vfs.DT_DIR, b"l": vfs.DT_LNK, b"p": vfs.DT_FIFO,
    }  # fmt: skip
    for name in ("f", "d", "l", "p"):
        assert entries[name.encode()].ino == (root / name).lstat().st_ino


def test_tree_deeper_than_path_max(fs: LoopbackFilesystem) -> None:
    node = ROOT
    for _ in range(60):
        node = fs.mkdir(node, b"d" * 250, 0o755, ME).node
    entry, opened = fs.create(node, b"leaf", 0o644, os.O_RDWR, ME)
    fs.write(opened.fh, 0, b"deep")
    fs.release(opened.fh)
    assert attr(fs, entry.node).size == 4


def test_symlinks_are_never_followed_on_the_way(fs: LoopbackFilesystem, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"")
    (root / "l").symlink_to(tmp_path / "outside")
    node = fs.lookup(ROOT, b"l").node
    with expect(errno.ENOTDIR):
        fs.lookup(node, b"secret")


def test_data_calls(fs: LoopbackFilesystem, root: Path) -> None:
    _, one = fs.create(ROOT, b"one", 0o644, os.O_RDWR, ME)
    _, two = fs.create(ROOT, b"two", 0o644, os.O_RDWR, ME)
    fs.write(one.fh, 1 << 20, memoryview(b"data"))
    assert fs.lseek(one.fh, 0, os.SEEK_DATA) == 1 << 20
    assert fs.lseek(one.fh, 0, os.SEEK_HOLE) == 0
    with expect(errno.EINVAL):
        fs.lseek(one.fh, 0, os.SEEK_SET)
    assert fs.copy_file_range(one.fh, 1 << 20, two.fh, 10, 100) == 4
    assert fs.read(two.fh, 0, 100) == bytes(10) + b"data"
    fs.fallocate(two.fh, 0, 0, 50)
    assert (root / "two").stat().st_size == 50
    fs.flush(two.fh)
    fs.fsync(two.fh, True)
    fs.fsync(two.fh, False)
    with expect(errno.EBADF):
        fs.read(12345, 0, 1)


def test_the_whole(fs: LoopbackFilesystem, root: Path) -> None:
    st, figures = os.statvfs(root), fs.statfs(ROOT)
    assert (figures.bsize, figures.blocks, figures.namemax) == (st.f_bsize, st.f_blocks, st.f_namemax)
    fs.syncfs()
    directory = fs.opendir(ROOT)
    fs.fsyncdir(directory, False)
    fs.releasedir(directory)
    held = fs.opendir(ROOT)
    assert fs.statistics()["open_handles"] == 1
    before = len(os.listdir("/proc/self/fd"))
    fs.close()
    fs.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2
    with expect(errno.EBADF):
        fs.readdir(held, 0, BUDGET, OVERHEAD)
