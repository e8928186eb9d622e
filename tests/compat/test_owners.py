"""Owners mapped, squashed and kept in xattrs, on mounts: root's, an ordinary user's, and beside fuse-overlayfs.

What one of the two programs writes the other must read the same, whoever reads its own.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.compat.idmapped import idmapped
from tests.golden.trees import describe
from tests.requirements import requires
from tests.rigs import connection_of, mount_line, run
from tests.unit.as_user import NOBODY
from tests.unit.cli_runner import program
from unionfs.api import mount_helper, owners
from unionfs.layers.override import CONTAINERS, USER
from unionfs.linux.idmapped import is_idmapped
from unionfs.transport import devfuse

pytestmark = [pytest.mark.needs_fuse, requires("root", "fuse")]

_PRELOADED = owners, devfuse  # the fork that becomes an ordinary user may not be able to read them

SHIFT = "uidmapping=:0:100000:5000,gidmapping=:0:100000:5000"


class Place:
    """Directories for one mount at a time: `lower`, `upper`, `work` and `mnt`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.lower, self.upper, self.work, self.mnt = (base / name for name in ("lower", "upper", "work", "mnt"))
        for path in (self.lower, self.upper, self.work, self.mnt):
            path.mkdir()
            path.chmod(0o755)

    def options(self, extra: str, *, upper: bool, lowers: Sequence[Path] = ()) -> str:
        stack = ":".join(str(path) for path in lowers or [self.lower])
        above = f",upperdir={self.upper},workdir={self.work}" if upper else ""
        return f"lowerdir={stack}{above},{extra}"

    @contextlib.contextmanager
    def mounted(
        self, extra: str, by: str = "unionfs", *, upper: bool = True, lowers: Sequence[Path] = ()
    ) -> Iterator[Path]:
        options = self.options(extra, upper=upper, lowers=lowers)
        if by == "unionfs":
            ran = program("-o", options, self.mnt, module="unionfs.api.mount_helper")
            assert (ran.status, ran.err) == (0, b""), ran
        else:
            run(by, "-o", options, str(self.mnt))
        try:
            yield self.mnt
            run("umount", str(self.mnt))
        finally:
            self.abort()

    def abort(self) -> None:
        if mount_line(self.mnt) is not None:
            with contextlib.suppress(OSError):
                Path(f"/sys/fs/fuse/connections/{connection_of(self.mnt)}/abort").write_text("1")
            run("umount", "-l", str(self.mnt))


@pytest.fixture
def place(open_tmp: Path) -> Place:
    return Place(open_tmp)


def owned(path: Path, uid: int, gid: int, mode: int | None = None) -> Path:
    """Make a file there, of this owner."""
    path.write_text(path.name)
    os.chown(path, uid, gid)
    if mode is not None:
        path.chmod(mode)
    return path


def owner(path: Path) -> tuple[int, int]:
    st = path.lstat()
    return st.st_uid, st.st_gid


def as_uid(uid: int, script: str, directory: Path, *capabilities: str) -> str:
    """Run a shell script as this user and group; its stdout."""
    caps = ",".join(f"+{name}" for name in capabilities) or "-all"
    identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    done = subprocess.run(
        ["setpriv", *identity, "sh", "-euc", script], cwd="/", env={**os.environ, "D": str(directory)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# root's mounts -------------------------------------------------------------------------------------------------------
def test_ids_are_mapped_both_ways(place: Place) -> None:
    owned(place.lower / "mine", 33, 33, 0o600)
    owned(place.lower / "nobodys", 6000, 7000)
    place.upper.chmod(0o777)
    with place.mounted(SHIFT) as mnt:
        assert owner(mnt / "mine") == (100_033, 100_033) and owner(mnt / "nobodys") == (65534, 65534)
        as_uid(100_033, 'cat "$D/mine"; echo more >> "$D/mine"; mkdir "$D/dir"; echo x > "$D/dir/new"', mnt)
        assert owner(mnt / "dir/new") == (100_033, 100_033)
        os.chown(mnt / "dir/new", 100_001, 104_999)
        assert owner(mnt / "dir/new") == (100_001, 104_999)
        with pytest.raises(AssertionError, match="Permission denied"):
            as_uid(33, 'cat "$D/mine"', mnt)
    assert owner(place.upper / "mine") == owner(place.upper / "dir") == (33, 33)
    assert owner(place.upper / "dir/new") == (1, 4999)


def test_a_lower_on_an_idmapped_mount_is_not_mapped_once_more(place: Place) -> None:
    owned(place.lower / "roots", 0, 0)
    mapped = place.base / "mapped"
    mapped.mkdir()
    with idmapped(place.lower, mapped, "0 100000 5000"):
        assert owner(mapped / "roots") == (100_000, 100_000)
        for path, expected in ((place.lower, False), (mapped, True)):
            fd = os.open(path, os.O_PATH)
            assert is_idmapped(fd) == expected
            os.close(fd)
        with place.mounted(SHIFT, lowers=[mapped]) as mnt:
            assert owner(mnt / "roots") == (100_000, 100_000)
            with (mnt / "roots").open("a") as file:
                file.write("more")
            os.chown(mnt / "roots", 100_005, -1)
            assert owner(mnt / "roots") == (100_005, 100_000)
    assert owner(place.upper / "roots") == (5, 0)


def test_commit_of_kept_owners(place: Place) -> None:
    owned(place.lower / "f", 0, 0)
    ran = program("mount", "-o", place.options("xattr_permissions=2", upper=True), place.mnt)
    assert (ran.status, ran.err) == (0, b"")
    try:
        owned(place.mnt / "new", 33, 44, 0o4755)
        os.chown(place.mnt / "f", 5, 6)
        ran = program("commit", place.mnt, "-o", place.base / "layer.tar")
        assert (ran.status, ran.err) == (0, b"")
        listed = program("diff", place.mnt).lines
    finally:
        program("umount", place.mnt)
        place.abort()
    assert listed == ["C /f", "A /new"]
    with tarfile.open(place.base / "layer.tar") as tar:
        members = {m.name: (m.uid, m.gid, m.mode, sorted(m.pax_headers)) for m in tar if m.isfile()}
    assert {name: member[:3] for name, member in members.items()} == {"f": (5, 6, 0o644), "new": (33, 44, 0o4755)}
    assert not any("override" in key for member in members.values() for key in member[3])
    assert owner(place.upper / "new") == owner(place.upper / "f") == (0, 0)


@pytest.mark.parametrize(
    "extra, error",
    [("uidmapping=1:2", "not an id mapping"), ("squash_to_uid=x", "not an id"), ("xattr_permissions=9", "0, 1 or 2")],
)
def test_options_without_meaning_mount_nothing(place: Place, extra: str, error: str) -> None:
    ran = program("-o", place.options(extra, upper=True), place.mnt, module="unionfs.api.mount_helper")
    assert ran.status == 1 and error in ran.errors[0] and mount_line(place.mnt) is None


# an ordinary user's --------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def users_mount(place: Place, extra: str) -> Iterator[Path]:
    """The mount of an ordinary user, made by a fork of this process."""
    argv = ["-o", place.options(extra, upper=True), str(place.mnt)]
    log = place.base / "users.log"
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.environ["UNIONFS_RUNTIME_DIR"] = str(place.base / "users.run")
            stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(stderr, 2)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            status = mount_helper.main(argv)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, log.read_text()
    try:
        yield place.mnt
        as_uid(NOBODY, 'fusermount3 -u "$D"', place.mnt)
    finally:
        place.abort()


@requires("fusermount3")
def test_an_ordinary_users_mount_holds_any_owner_and_type(device_for_all: None, place: Place) -> None:
    owned(place.lower / "lower", 12, 13, 0o640)
    place.lower.joinpath("lower").chmod(0o644)
    for path in (place.base, place.upper, place.work, place.mnt):
        os.chown(path, NOBODY, NOBODY)
    change = """cd "$D"; umask 022
        echo text > f; chown 1000:1001 f; chmod 4711 f
        mkdir d; chown 7:8 d; chmod 3770 d
        ln -s to/there link; chown -h 5:6 link
        mknod null c 1 3; chown 0:0 null; mknod disk b 8 1; mkfifo pipe; chown 9:9 pipe
        chown 14:15 lower; chmod 600 lower"""
    show = 'cd "$D"; stat -c "%n %u:%g %f %t:%T" *; readlink link; cat f lower'
    capabilities = ("chown", "mknod", "fowner", "fsetid", "dac_override")
    seen = []
    with users_mount(place, "xattr_permissions=2") as mnt:
        as_uid(NOBODY, change, mnt, *capabilities)
        seen.append(as_uid(NOBODY, show, mnt, *capabilities))
    with users_mount(place, "xattr_permissions=2") as mnt:
        seen.append(as_uid(NOBODY, show, mnt, *capabilities))
    expected = [
        "d 7:8 47f8 0:0",
        "disk 65534:65534 61a4 8:1",
        "f 1000:1001 89c9 0:0",
        "link 5:6 a1ff 0:0",
        "lower 14:15 8180 0:0",
        "null 0:0 21a4 1:3",
        "pipe 9:9 11a4 0:0",
        "to/there",
        "text",
        "lower",
    ]
    assert [text.splitlines() for text in seen] == [expected, expected]
    stored = {name: (place.upper / name).lstat() for name in os.listdir(place.upper)}
    assert {st.st_uid for st in stored.values()} == {NOBODY}
    assert stat.S_ISREG(stored["null"].st_mode) and stat.S_ISREG(stored["link"].st_mode)
    assert os.getxattr(place.upper / "disk", CONTAINERS) == b"65534:65534:0644:block-8-1"


# beside fuse-overlayfs -----------------------------------------------------------------------------------------------
BOTH = ["unionfs", "fuse-overlayfs"]
MAPPINGS = [
    SHIFT,
    "uidmapping=0:1000:1:1:100001:65535,gidmapping=0:1000:1",
    "uidmapping=0:0:10",
    "squash_to_root",
    "squash_to_uid=77,squash_to_gid=78",
    "squash_to_root,squash_to_gid=78",
    "squash_to_uid=77," + SHIFT,
]


def fill(lower: Path) -> None:
    (lower / "d").mkdir()
    os.chown(lower / "d", 33, 44)
    for name, uid, gid in (("root", 0, 0), ("one", 1, 1), ("high", 70_000, 80_000), ("d/in", 4999, 5000)):
        owned(lower / name, uid, gid)
    os.symlink("one", lower / "link")
    os.chown(lower / "link", 12, 13, follow_symlinks=False)


def change(mnt: Path) -> None:
    """What root, and with a mapping who is root there, does in a mount."""
    for name in ("high", "d/in"):
        with (mnt / name).open("a") as file:
            file.write("more")
    (mnt / "new").write_text("new")
    (mnt / "made").mkdir(mode=0o750)
    os.chown(mnt / "made", 100_003, 100_004)
    os.chown(mnt / "one", 100_001, 1)
    os.chown(mnt / "d/in", 5, 6)
    (mnt / "root").chmod(0o4755)


def tree(path: Path) -> list[str]:
    """fuse-overlayfs before 1.14 shows CONTAINERS."""
    return [line.partition(f" {os.fsdecode(CONTAINERS)}=")[0] for line in describe(path, times=False)]


@pytest.mark.peer
@requires("fuse-overlayfs")
@pytest.mark.parametrize("extra", MAPPINGS)
def test_the_same_owners_are_shown_and_stored_as_by_fuse_overlayfs(open_tmp: Path, extra: str) -> None:
    shown, stored = [], []
    for by in BOTH:
        (open_tmp / by).mkdir()
        place = Place(open_tmp / by)
        fill(place.lower)
        with place.mounted(extra, by, upper=False) as mnt:
            before = tree(mnt)
        with place.mounted(extra, by) as mnt:
            change(mnt)
            shown.append((before, tree(mnt)))
        names = (Path(directory, name) for directory, dirs, files in os.walk(place.upper) for name in dirs + files)
        stored.append({os.fspath(p.relative_to(place.upper)): owner(p) for p in names if not p.name.startswith(".wh.")})
    assert shown[0] == shown[1]
    assert stored[0] == stored[1]


@pytest.mark.peer
@requires("fuse-overlayfs")
@pytest.mark.parametrize("writer", BOTH)
def test_kept_owners_are_read_the_same_by_both(place: Place, writer: str) -> None:
    """fuse-overlayfs before 1.14 keeps them in USER, and so do we in an upper whose root has it."""
    fill(place.lower)
    os.setxattr(place.upper, USER, b"0:0:755")
    with place.mounted("xattr_permissions=2", writer) as mnt:
        change(mnt)
        written = tree(mnt)
    assert owner(place.upper / "made") == (0, 0), "they are kept in the xattr"
    for reader in BOTH:
        with place.mounted("xattr_permissions=2", reader) as mnt:
            assert tree(mnt) == written, reader


@pytest.mark.peer
@requires("fuse-overlayfs")
def test_a_layer_that_we_wrote_is_a_layer_of_fuse_overlayfs(place: Place) -> None:
    with place.mounted("xattr_permissions=2") as mnt:
        owned(mnt / "f", 33, 44, 0o4755)
        (mnt / "d").mkdir()
        os.chown(mnt / "d", 5, 6)
        (mnt / "d").chmod(0o2750)
        written = tree(mnt)
    layer = place.base / "layer"
    place.upper.rename(layer)
    place.upper.mkdir()
    for reader in BOTH:
        with place.mounted("xattr_permissions=2", reader, upper=False, lowers=[layer, place.lower]) as mnt:
            assert tree(mnt) == written, reader
