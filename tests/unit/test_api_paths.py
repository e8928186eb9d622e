"""`Tree`: the path API over the engine and over a plain directory, its errors, and the lookups it gives back."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unionfs.api.paths import MAX_RECENT, MAX_SYMLINKS, Tree
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.vfs import Caller, Filesystem

CALLER = Caller(os.geteuid(), os.getegid(), os.getpid(), 0o022)


def populate(root: Path) -> None:
    (root / "etc").mkdir(parents=True)
    (root / "etc/motd").write_text("welcome\n")
    (root / "etc/link").symlink_to("motd")
    (root / "etc/absolute").symlink_to("/etc/motd")
    (root / "etc/dangling").symlink_to("/var/new")
    (root / "etc/escape").symlink_to("../../../../etc/motd")
    (root / "home").symlink_to("etc")
    (root / "loop").symlink_to("loop")
    (root / "var").mkdir()


def union(tmp_path: Path) -> Filesystem:
    for name in ("top", "upper", "work"):
        (tmp_path / name).mkdir()
    populate(tmp_path / "base")
    lowers = [DirectoryLayer(os.fsencode(tmp_path / name)) for name in ("top", "base")]
    upper, work = (WritableDirectory(os.fsencode(tmp_path / name)) for name in ("upper", "work"))
    return UnionFilesystem(lowers, upper, work)


def loopback(tmp_path: Path) -> Filesystem:
    populate(tmp_path / "base")
    return LoopbackFilesystem(os.fsencode(tmp_path / "base"))


@pytest.fixture(params=[union, loopback], ids=["union", "loopback"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    make: Callable[[Path], Filesystem] = request.param
    with Tree(make(tmp_path), CALLER) as made:
        yield made


def fails(code: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda e: e.errno == code)


# resolution -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path", ["etc/motd", "/etc/motd", "//etc/./motd", "etc/../etc/motd", "../../etc/motd", b"etc/motd"]
)
def test_the_same_file_by_many_spellings(tree: Tree, path: str | bytes) -> None:
    assert tree.read_bytes(path) == b"welcome\n"


def test_path_like_objects_are_paths(tree: Tree) -> None:
    assert tree.read_text(Path("etc") / "motd") == "welcome\n"


@pytest.mark.parametrize("path", ["etc/link", "etc/absolute", "etc/escape", "home/motd", "home/../etc/motd"])
def test_symbolic_links_are_followed_inside_the_tree_only(tree: Tree, path: str) -> None:
    assert tree.read_text(path) == "welcome\n"


def test_dot_dot_behind_a_link_is_the_parent_of_its_target(tree: Tree) -> None:
    tree.makedirs("a/b")
    tree.symlink("/a/b", "short")
    assert sorted(tree.listdir("short/..")) == ["b"]


def test_a_link_to_itself_is_eloop(tree: Tree) -> None:
    with fails(errno.ELOOP):
        tree.stat("loop")
    assert tree.is_symlink("loop") and not tree.exists("loop")


def test_forty_links_are_followed_and_one_more_is_eloop(tree: Tree) -> None:
    for n in range(MAX_SYMLINKS):
        tree.symlink(f"l{n - 1}" if n else "etc/motd", f"l{n}")
    assert tree.read_text(f"l{MAX_SYMLINKS - 1}") == "welcome\n"
    tree.symlink(f"l{MAX_SYMLINKS - 1}", "more")
    with fails(errno.ELOOP):
        tree.read_text("more")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing", errno.ENOENT),
        ("missing/below", errno.ENOENT),
        ("etc/motd/below", errno.ENOTDIR),
        ("etc/motd/", errno.ENOTDIR),
        ("etc/motd/..", errno.ENOTDIR),
        ("etc/dangling", errno.ENOENT),
        ("", errno.ENOENT),
        ("x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_paths_that_lead_nowhere(tree: Tree, path: str, code: int) -> None:
    with pytest.raises(OSError) as caught:
        tree.stat(path)
    assert (caught.value.errno, caught.value.filename) == (code, path)


def test_a_null_byte_is_a_value_error_as_in_os(tree: Tree) -> None:
    with pytest.raises(ValueError, match="null byte"):
        tree.stat("a\0b")


# looking --------------------------------------------------------------------------------------------------------------
def test_listdir_speaks_the_language_of_its_argument(tree: Tree) -> None:
    tree.write_bytes(b"var/\xff", b"")
    assert tree.listdir("var") == ["\udcff"]
    assert tree.listdir(b"var") == [b"\xff"]
    assert tree.read_bytes("var/\udcff") == b""


def test_listdir_of_a_file_is_enotdir(tree: Tree) -> None:
    with fails(errno.ENOTDIR):
        tree.listdir("etc/motd")


def test_listing_is_complete_beyond_one_buffer(tree: Tree) -> None:
    names = {f"file-{n:04}-{'x' * 100}" for n in range(1500)}
    for name in names:
        tree.mknod(f"var/{name}")
    assert set(tree.listdir("var")) == names


def test_scandir_knows_types_without_a_stat(tree: Tree) -> None:
    found = {entry.name: entry for entry in tree.scandir("etc")}
    assert found["motd"].is_file() and not found["motd"].is_dir()
    assert found["link"].is_symlink() and found["link"].is_file() and not found["link"].is_file(follow_symlinks=False)
    assert not found["dangling"].is_file()
    assert found["motd"].inode() == tree.stat("etc/motd").st_ino
    assert found["motd"].path == "etc/motd"


def test_walk_is_that_of_os(tree: Tree, tmp_path: Path) -> None:
    ours = [(os.path.relpath(top, "/"), sorted(d), sorted(f)) for top, d, f in tree.walk("/")]
    theirs = [
        (os.path.relpath(top, tmp_path / "base"), sorted(d), sorted(f)) for top, d, f in os.walk(tmp_path / "base")
    ]
    assert sorted(ours) == sorted(theirs)
    assert [top for top, _, _ in tree.walk("/", topdown=False)][-1] == "/"


def test_walk_leaves_out_what_the_caller_removes(tree: Tree) -> None:
    seen = []
    for top, dirs, _ in tree.walk("/"):
        seen.append(top)
        if "etc" in dirs:
            dirs.remove("etc")
    assert "/var" in seen and "/etc" not in seen


def test_walk_reports_errors_to_onerror(tree: Tree) -> None:
    errors: list[OSError] = []
    assert list(tree.walk("missing", onerror=errors.append)) == []
    assert errors[0].errno == errno.ENOENT


def test_stat_has_nanoseconds_and_type(tree: Tree) -> None:
    tree.utime("etc/motd", ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
    st = tree.stat("etc/link")
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_500_000_000_123_456_789, 1_600_000_000_987_654_321)
    assert stat.S_ISREG(st.st_mode) and stat.S_ISLNK(tree.lstat("etc/link").st_mode)
    assert st.st_size == len("welcome\n")


def test_predicates(tree: Tree) -> None:
    assert tree.is_dir("home") and tree.is_file("etc/link") and tree.is_symlink("home")
    assert tree.lexists("etc/dangling") and not tree.exists("etc/dangling")
    assert not tree.exists("etc/motd/x")


def test_readlink(tree: Tree) -> None:
    assert tree.readlink("etc/absolute") == "/etc/motd"
    assert tree.readlink(b"etc/absolute") == b"/etc/motd"
    with fails(errno.EINVAL):
        tree.readlink("etc/motd")


def test_statvfs(tree: Tree) -> None:
    assert tree.statvfs().namemax == 255


# names ----------------------------------------------------------------------------------------------------------------
def test_mkdir_makedirs_and_rmdir(tree: Tree) -> None:
    tree.makedirs("a/b/c")
    tree.makedirs("a/b/c", exist_ok=True)
    with fails(errno.EEXIST):
        tree.makedirs("a/b/c")
    with fails(errno.EEXIST):
        tree.makedirs("etc/motd", exist_ok=True)
    with fails(errno.ENOTEMPTY):
        tree.rmdir("a/b")
    tree.mkdir("a/d/")
    assert stat.S_IMODE(tree.stat("a/d").st_mode) == 0o755
    tree.rmdir("a/d/")
    assert tree.listdir("a") == ["b"]


@pytest.mark.parametrize("path", ["/", "etc/..", "etc/dangling", "etc"])
def test_what_exists_cannot_be_made(tree: Tree, path: str) -> None:
    with fails(errno.EEXIST):
        tree.mkdir(path)


@pytest.mark.parametrize(
    ("remove", "path", "code"),
    [
        (Tree.unlink, "etc", errno.EISDIR),
        (Tree.unlink, "/", errno.EISDIR),
        (Tree.unlink, "etc/motd/", errno.ENOTDIR),
        (Tree.unlink, "missing", errno.ENOENT),
        (Tree.rmdir, "etc/motd", errno.ENOTDIR),
        (Tree.rmdir, "home", errno.ENOTDIR),
        (Tree.rmdir, "/", errno.EBUSY),
        (Tree.rmdir, "etc", errno.ENOTEMPTY),
        (Tree.rmtree, "home", errno.ENOTDIR),
    ],
)
def test_what_cannot_be_removed(tree: Tree, remove: Callable[[Tree, str], None], path: str, code: int) -> None:
    with fails(code):
        remove(tree, path)


def test_unlink_removes_the_link_and_not_its_target(tree: Tree) -> None:
    tree.unlink("etc/link")
    assert not tree.lexists("etc/link") and tree.exists("etc/motd")


def test_rmtree_does_not_follow_links(tree: Tree) -> None:
    tree.makedirs("a/b")
    tree.symlink("/etc", "a/b/etc")
    tree.write_text("a/file", "")
    tree.rmtree("a")
    assert not tree.exists("a") and tree.exists("etc/motd")


def test_rename_replaces_and_move_does_not(tree: Tree) -> None:
    tree.write_text("new", "new\n")
    with fails(errno.EEXIST):
        tree.move("new", "etc/motd")
    tree.rename("new", "etc/motd")
    assert tree.read_text("etc/motd") == "new\n" and not tree.exists("new")


def test_rename_of_a_lower_directory(tree: Tree) -> None:
    tree.rename("etc", "conf")
    assert tree.read_text("conf/motd") == "welcome\n" and not tree.exists("etc")


def test_exchange_swaps(tree: Tree) -> None:
    tree.write_text("new", "new\n")
    tree.exchange("new", "etc/motd")
    assert (tree.read_text("new"), tree.read_text("etc/motd")) == ("welcome\n", "new\n")


def test_hard_link(tree: Tree) -> None:
    tree.link("etc/motd", "var/other")
    assert tree.stat("var/other").st_ino == tree.stat("etc/motd").st_ino
    assert tree.stat("etc/motd").st_nlink == 2
    tree.link("etc/link", "var/link")
    assert tree.is_symlink("var/link")


def test_fifo_and_its_open(tree: Tree) -> None:
    tree.mkfifo("var/pipe")
    assert stat.S_ISFIFO(tree.stat("var/pipe").st_mode)
    with fails(errno.ENXIO):
        tree.open("var/pipe")


# attributes -----------------------------------------------------------------------------------------------------------
def test_chmod_follows_links(tree: Tree) -> None:
    tree.chmod("etc/link", 0o600)
    assert stat.S_IMODE(tree.stat("etc/motd").st_mode) == 0o600


@pytest.mark.needs_root
def test_chown_leaves_minus_one(tree: Tree) -> None:
    tree.chown("etc/motd", 1234, -1)
    assert (tree.stat("etc/motd").st_uid, tree.stat("etc/motd").st_gid) == (1234, os.getegid())
    tree.lchown("etc/link", 99, 98)
    assert (tree.lstat("etc/link").st_uid, tree.stat("etc/link").st_uid) == (99, 1234)


def test_utime_in_all_its_forms(tree: Tree) -> None:
    tree.utime("etc/motd", (1.5, 2.25))
    assert (tree.stat("etc/motd").st_atime_ns, tree.stat("etc/motd").st_mtime_ns) == (1_500_000_000, 2_250_000_000)
    tree.utime("etc/motd", ns=(None, 7))
    assert (tree.stat("etc/motd").st_atime_ns, tree.stat("etc/motd").st_mtime_ns) == (1_500_000_000, 7)
    tree.utime("etc/motd")
    assert tree.stat("etc/motd").st_mtime > 1_600_000_000
    tree.utime("etc/link", ns=(5, 5), follow_symlinks=False)
    assert tree.lstat("etc/link").st_mtime_ns == 5
    with pytest.raises(ValueError, match="not both"):
        tree.utime("etc/motd", (1, 1), ns=(1, 1))


def test_truncate(tree: Tree) -> None:
    tree.truncate("etc/link", 3)
    assert tree.read_text("etc/motd") == "wel"
    with fails(errno.EISDIR):
        tree.truncate("etc", 0)


def test_extended_attributes(tree: Tree) -> None:
    tree.setxattr("etc/link", "user.colour", b"green")
    assert tree.getxattr("etc/motd", b"user.colour") == b"green"
    assert tree.listxattr("etc/motd") == ["user.colour"] and tree.listxattr(b"etc/motd") == [b"user.colour"]
    with fails(errno.EEXIST):
        tree.setxattr("etc/motd", "user.colour", b"", os.XATTR_CREATE)
    tree.removexattr("etc/motd", "user.colour")
    with fails(errno.ENODATA):
        tree.getxattr("etc/motd", "user.colour")


# files ----------------------------------------------------------------------------------------------------------------
def test_text_modes(tree: Tree) -> None:
    with tree.open("var/file", "w") as file:
        assert isinstance(file, io.TextIOWrapper) and file.mode == "w"
        file.write("grün\r\n")
    with tree.open("var/file", newline="") as file:
        assert file.read() == "grün\r\n"
    with tree.open("var/file", encoding="latin-1") as file:
        assert file.read() == "grÃ¼n\n"
    with tree.open("var/file", "a") as file:
        assert file.tell() == 7
        file.write("more\n")
    assert tree.read_text("var/file") == "grün\nmore\n"


def test_update_modes(tree: Tree) -> None:
    with tree.open("etc/motd", "r+b") as file:
        file.seek(3)
        file.write(b"C")
        file.seek(0, os.SEEK_END)
        file.write(b"end")
        file.seek(0)
        assert file.read() == b"welCome\nend"
    with tree.open("etc/motd", "w+b") as file:
        assert file.read() == b""


def test_exclusive_creation_sees_a_dangling_link(tree: Tree) -> None:
    with fails(errno.EEXIST):
        tree.open("etc/dangling", "x")
    with tree.open("etc/dangling", "w") as file:
        file.write("through the link")
    assert tree.read_text("var/new") == "through the link"


@pytest.mark.parametrize(
    ("path", "mode", "code"),
    [
        ("etc", "r", errno.EISDIR),
        ("/", "w", errno.EISDIR),
        ("new/", "w", errno.EISDIR),
        ("missing", "r+", errno.ENOENT),
        ("missing/file", "w", errno.ENOENT),
        ("etc/motd", "x", errno.EEXIST),
    ],
)
def test_what_cannot_be_opened(tree: Tree, path: str, mode: str, code: int) -> None:
    with fails(code):
        tree.open(path, mode)


@pytest.mark.parametrize("mode", ["", "rw", "q", "rr", "rbt", "+"])
def test_wrong_modes_are_value_errors_as_in_io(tree: Tree, mode: str) -> None:
    with pytest.raises(ValueError):
        tree.open("etc/motd", mode)


def test_wrong_combinations_are_value_errors_and_leave_nothing_open(tree: Tree) -> None:
    with pytest.raises(ValueError, match="binary mode"):
        tree.open("etc/motd", "rb", encoding="utf-8")
    with pytest.raises(ValueError, match="unbuffered"):
        tree.open("etc/motd", "r", buffering=0)


def test_wrong_direction_is_unsupported(tree: Tree) -> None:
    with tree.open("etc/motd", "rb", buffering=0) as reader, pytest.raises(io.UnsupportedOperation):
        reader.write(b"")
    with tree.open("etc/motd", "ab", buffering=0) as writer, pytest.raises(io.UnsupportedOperation):
        writer.read()
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_appending_goes_to_the_end_whoever_else_writes(tree: Tree) -> None:
    with tree.open("var/log", "ab", buffering=0) as one, tree.open("var/log", "ab", buffering=0) as other:
        one.write(b"1")
        other.write(b"2")
        one.write(b"3")
    assert tree.read_bytes("var/log") == b"123"


def test_an_open_file_outlives_its_name(tree: Tree) -> None:
    with tree.open("etc/motd", "r+b", buffering=0) as file:
        tree.unlink("etc/motd")
        file.seek(0, os.SEEK_END)
        file.write(b"on")
        file.seek(0)
        assert file.read() == b"welcome\non"
        file.truncate(3)
        assert file.seek(0, os.SEEK_END) == 3
    assert not tree.exists("etc/motd")


def test_a_reader_sees_what_a_writer_of_the_same_file_wrote(tree: Tree) -> None:
    with tree.open("etc/motd", "rb", buffering=0) as reader:
        with tree.open("etc/motd", "r+b") as writer:
            writer.write(b"WELCOME")
        assert tree.read_bytes("etc/motd") == b"WELCOME\n"
        assert len(reader.read()) == len(b"welcome\n")


def test_large_files_come_back_whole(tree: Tree) -> None:
    data = os.urandom(3_000_001)
    assert tree.write_bytes("var/large", data) == len(data)
    assert tree.read_bytes("var/large") == data
    with tree.open("var/large", "rb") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]


def test_fsync_reaches_the_file_system(tree: Tree) -> None:
    with tree.open("var/file", "wb", buffering=0) as file:
        file.write(b"data")
        file.fsync()  # type: ignore[attr-defined]  # the raw file is ours
        assert file.stat().size == 4  # type: ignore[attr-defined]


# lookups --------------------------------------------------------------------------------------------------------------
class Counting:
    """A file system that counts the lookups handed out and not given back, by node."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self.held: dict[int, int] = {}

    def __getattr__(self, name: str) -> object:
        method = getattr(self._fs, name)
        if name == "forget":

            def forget(node: int, count: int) -> None:
                self.held[node] -= count
                method(node, count)

            return forget
        if name in ("lookup", "mknod", "mkdir", "symlink", "link", "create", "tmpfile"):

            def counted(*args: object) -> object:
                result = method(*args)
                node = result[0].node if name in ("create", "tmpfile") else result.node
                self.held[node] = self.held.get(node, 0) + 1
                return result

            return counted
        return method


def test_every_lookup_is_given_back(tmp_path: Path) -> None:
    counting = Counting(union(tmp_path))
    with Tree(counting, CALLER) as tree:  # type: ignore[arg-type]  # it is one, by __getattr__
        tree.makedirs("a/b/c")
        tree.write_text("a/b/file", "x")
        tree.symlink("file", "a/b/link")
        tree.link("a/b/file", "a/other")
        tree.rename("a/b/file", "a/file")
        list(tree.walk("/", followlinks=False))
        for path in ("missing/x", "etc/motd/x", "loop"):
            with pytest.raises(OSError):
                tree.stat(path)
        with pytest.raises(FileExistsError):
            tree.open("etc/motd", "x")
        tree.forget()
        file = tree.open("etc/link")
        tree.forget()
        assert sum(counting.held.values()) == 1
        file.close()
        file.close()
        tree.rmtree("a")
        tree.forget()
        assert not any(counting.held.values())


def test_lookups_kept_are_bounded(tmp_path: Path) -> None:
    counting = Counting(union(tmp_path))
    with Tree(counting, CALLER) as tree:  # type: ignore[arg-type]  # it is one, by __getattr__
        for n in range(MAX_RECENT + 100):
            tree.mkdir(f"var/{n}")
            tree.listdir(f"var/{n}")
        assert sum(counting.held.values()) == MAX_RECENT
