"""The traps of fusepy 3.0.1 and of libfuse 2, one by one, through real mounts."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.posix.tools import as_user, expect, fallocate, opened, umask, utimensat
from tests.requirements import need, requires
from tests.rigs import PROJECT, Backing
from tests.unit import mounts_program
from tests.unit.as_user import NOBODY, run_as_nobody
from unionfs.errors import MountError
from unionfs.linux import libfuse2
from unionfs.linux.mount import mountinfo
from unionfs.mounts import mountpoint
from unionfs.mounts.registry import Registry

pytestmark = requires("root", "fuse", "libfuse")

PATIENCE = 20.0
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


class Mount:
    """A running fusepy_program. `root` is what `mnt` shows."""

    def __init__(self, base: Path, **spec: Any) -> None:
        self.root, self.mnt, self._record = base / "root", base / "mnt", base / "record"
        for directory in (self.root, self.mnt):
            directory.mkdir(exist_ok=True)
        given = {"root": self.root, "mountpoint": self.mnt, "record": self._record}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.compat.fusepy_program", json.dumps({**given, **spec}, default=str)],
            cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._read = 0

    def await_ready(self) -> None:
        assert self.process.stdout is not None and self.process.stderr is not None
        if self.process.stdout.readline() != "ready\n":
            pytest.fail(self.process.stderr.read())

    def asked(self, *names: str) -> list[list[Any]]:
        """What the file system was asked since the last call; of these operations, if any are named."""
        with open(self._record, "rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        calls = [json.loads(line) for line in data.splitlines()]
        return [call for call in calls if not names or call[0] in names]

    def stop(self) -> tuple[dict[str, int], str]:
        """SIGTERM; the statistics at the end, and the log."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        return json.loads(out), err

    def clean(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.communicate()
        if any(row.mountpoint == os.fsencode(self.mnt) for row in mountinfo()):
            subprocess.run(["umount", "-l", self.mnt], check=True)


@pytest.fixture
def base(backing: Backing) -> Path:
    return backing.directory("fusepy")


@pytest.fixture
def mount(base: Path) -> Iterator[Mount]:
    made = Mount(base)
    try:
        made.await_ready()
        yield made
        if made.process.poll() is None:
            statistics, log = made.stop()
            # Every lookup forgotten (but the root, which is never looked up), every handle released.
            assert statistics == {"nodes": 1, "open_handles": 0}
            assert "ERROR" not in log and "Traceback" not in log, log
    finally:
        made.clean()


# the library ----------------------------------------------------------------------------------------------------------
def test_mount_options_that_libfuse_refuses_are_an_error_in_its_words_and_leave_no_mount(base: Path) -> None:
    mount = Mount(base, extra=["nonsense"])
    try:
        out, err = mount.process.communicate(timeout=PATIENCE)
        assert mount.process.returncode == 1 and out == ""
        assert err == f"error: cannot mount on {mount.mnt}: fuse: unknown option `nonsense'\n"
        assert os.fsencode(mount.mnt) not in {row.mountpoint for row in mountinfo()}
    finally:
        mount.clean()


def test_mount_looks_as_any_other_of_roots(mount: Mount) -> None:
    (row,) = [row for row in mountinfo() if row.mountpoint == os.fsencode(mount.mnt)]
    assert (row.fstype, row.source) == (b"fuse.unionfs", b"unionfs")
    assert {b"nosuid", b"nodev", b"ro"}.isdisjoint(row.options)
    assert {b"allow_other", b"default_permissions"} <= set(row.super_options)


def test_extra_options_reach_the_mount(base: Path) -> None:
    mount = Mount(base, extra=["nosuid", "nodev", "noexec"])
    try:
        mount.await_ready()
        (row,) = [row for row in mountinfo() if row.mountpoint == os.fsencode(mount.mnt)]
        assert {b"nosuid", b"nodev", b"noexec"} <= set(row.options)
    finally:
        mount.clean()


def test_statfs_passes_through(mount: Mount) -> None:
    ours, theirs = os.statvfs(mount.mnt), os.statvfs(mount.root)
    assert (ours.f_blocks, ours.f_frsize, ours.f_namemax) == (theirs.f_blocks, theirs.f_frsize, theirs.f_namemax)


# the daemon -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_with_a_handler_of_pythons_ends_an_idle_mount(mount: Mount, number: signal.Signals) -> None:
    # run_in_foreground has set Python handlers before the mount. fuse_main would leave them, and never run them.
    mount.process.send_signal(number)
    assert mount.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("fault", ["SystemExit", "KeyboardInterrupt", "ZeroDivisionError", "NoErrno"])
def test_bug_in_an_operation_is_eio_logged_once_with_its_request(mount: Mount, fault: str) -> None:
    (mount.mnt / "file").touch()
    with expect(errno.EIO):
        os.getxattr(mount.mnt / "file", f"user.fault.{fault}")
    assert (mount.mnt / "file").exists()
    _, log = mount.stop()
    assert log.count("in answer to GETXATTR unique=") == 1 and f"pid={os.getpid()}\n" in log
    assert log.count("Traceback") == 1


def test_slow_operation_does_not_hold_up_others(mount: Mount) -> None:
    os.mkfifo(mount.root / "gate")
    with opened(mount.mnt / "file", os.O_CREAT | os.O_RDWR) as fd:
        sync = os.fork()
        if sync == 0:
            os.fsync(fd)
            os._exit(0)
        with open(mount.root / "gate", "w"):  # opened by both ends: the daemon waits in fsync
            assert (mount.mnt / "file").stat().st_size == 0
            assert os.listdir(mount.mnt) == sorted(os.listdir(mount.mnt))
        assert os.waitpid(sync, 0)[1] == 0


# data -----------------------------------------------------------------------------------------------------------------
def test_writes_are_big(mount: Mount) -> None:
    (mount.mnt / "file").write_bytes(b"x" * (1 << 20))
    sizes = [size for _, _, _, size in mount.asked("write")]
    assert max(sizes) == 128 * 1024 and sum(sizes) == 1 << 20


def test_pages_stay_cached_from_one_open_to_the_next(mount: Mount) -> None:
    (mount.root / "file").write_bytes(b"x" * 8192)
    assert len((mount.mnt / "file").read_bytes()) == 8192
    assert mount.asked("read")
    assert len((mount.mnt / "file").read_bytes()) == 8192
    assert mount.asked("read") == []


def test_fallocate_reaches_the_file_system(mount: Mount) -> None:
    with opened(mount.mnt / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"x" * 8192)
        fallocate(fd, 0, 0, 16384)
        fallocate(fd, 0x3, 0, 4096)  # PUNCH_HOLE | KEEP_SIZE
        assert os.fstat(fd).st_size == 16384
        assert os.pread(fd, 8192, 0) == bytes(4096) + b"x" * 4096
    assert [call[2:] for call in mount.asked("fallocate")] == [[0, 0, 16384], [3, 0, 4096]]


def test_truncating_open_is_one_request_and_strips_set_ids_of_users(mount: Mount) -> None:
    path = mount.mnt / "file"
    path.write_bytes(b"x")
    path.chmod(0o6777)
    mount.asked()
    as_user(lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)))
    assert [call[2] & os.O_TRUNC for call in mount.asked("open")] == [os.O_TRUNC]
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 and path.stat().st_size == 0


def test_truncating_open_strips_capabilities_even_for_root(mount: Mount) -> None:
    need("setcap")
    (mount.mnt / "file").write_bytes(b"x")
    subprocess.run(["setcap", "cap_net_raw+ep", mount.mnt / "file"], check=True)
    assert "security.capability" in os.listxattr(mount.mnt / "file")
    os.close(os.open(mount.mnt / "file", os.O_WRONLY | os.O_TRUNC))
    assert "security.capability" not in os.listxattr(mount.mnt / "file")


# attributes -----------------------------------------------------------------------------------------------------------
def test_times_have_nanoseconds(mount: Mount) -> None:
    (mount.mnt / "file").touch()
    # The second pair is what fusepy's addition makes of UTIME_OMIT and UTIME_NOW.
    for times in ((1_234_567_890_123_456_789, -5_000_000_001), (UTIME_OMIT, UTIME_NOW)):
        os.utime(mount.mnt / "file", ns=times)
        found = (mount.mnt / "file").stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == times
        assert (mount.root / "file").stat().st_mtime_ns == times[1]


def test_one_time_alone_can_be_set(mount: Mount) -> None:
    path = mount.mnt / "file"
    path.touch()
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    utimensat(path, (0, UTIME_OMIT), (3, 3))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_000_000_001, 3_000_000_003)
    utimensat(path, (4, 4), (0, UTIME_OMIT))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (4_000_000_004, 3_000_000_003)
    subprocess.run(["touch", "-m", path], check=True)
    assert path.stat().st_atime_ns == 4_000_000_004 and path.stat().st_mtime_ns > 3_000_000_003


def test_inode_numbers_are_the_file_systems(mount: Mount) -> None:
    (mount.root / "a").touch()
    os.link(mount.root / "a", mount.root / "b")
    numbers = {entry.name: entry.inode() for entry in os.scandir(mount.mnt)}
    assert numbers["a"] == numbers["b"] == os.stat(mount.mnt / "a").st_ino == os.stat(mount.root / "a").st_ino


def test_names_and_targets_that_are_not_utf8(mount: Mount) -> None:
    name, target = b"\xff\xfe \xe4\n", b"\x80\xff/\xc3"
    path = os.path.join(os.fsencode(mount.mnt), name)
    os.mkdir(path)
    os.symlink(target, path + b"/\xfd")
    os.setxattr(path, b"user.\xf0", b"\x00\xff")
    os.rename(path, path + b"\xf1")
    assert os.listdir(os.fsencode(mount.mnt)) == [name + b"\xf1"] == os.listdir(os.fsencode(mount.root))
    assert os.readlink(path + b"\xf1/\xfd") == target
    assert os.getxattr(path + b"\xf1", b"user.\xf0") == b"\x00\xff"


def test_xattrs_of_a_symlink_are_its_own_and_trusted_ones_are_roots(mount: Mount) -> None:
    (mount.mnt / "target").touch()
    (mount.mnt / "link").symlink_to("target")
    os.setxattr(mount.mnt / "link", "trusted.x", b"1", follow_symlinks=False)
    assert os.getxattr(mount.root / "link", "trusted.x", follow_symlinks=False) == b"1"
    assert os.listxattr(mount.mnt / "link", follow_symlinks=False) == ["trusted.x"]
    assert os.listxattr(mount.mnt / "target") == []
    assert as_user(lambda: os.listxattr(mount.mnt / "link", follow_symlinks=False)) == []
    os.removexattr(mount.mnt / "link", "trusted.x", follow_symlinks=False)
    with expect(errno.ENODATA):
        os.getxattr(mount.mnt / "link", "trusted.x", follow_symlinks=False)


def test_umask_holds_and_gives_way_to_a_default_acl(mount: Mount) -> None:
    need("setfacl")
    (mount.mnt / "plain").mkdir()
    (mount.mnt / "acl").mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::rwx", mount.mnt / "acl"], check=True)
    with umask(0o077):
        for directory in ("plain", "acl"):
            (mount.mnt / directory / "file").touch(0o666)
            os.mkfifo(mount.mnt / directory / "fifo", 0o666)
            (mount.mnt / directory / "dir").mkdir(0o777)
    found = {d: {e.name: stat.S_IMODE(e.stat().st_mode) for e in os.scandir(mount.mnt / d)} for d in ("plain", "acl")}
    assert found["plain"] == {"file": 0o600, "fifo": 0o600, "dir": 0o700}
    assert found["acl"] == {"file": 0o666, "fifo": 0o666, "dir": 0o777}


def test_new_files_belong_to_the_caller(mount: Mount) -> None:
    mount.mnt.chmod(0o777)
    as_user(lambda: (mount.mnt / "file").touch(), uid=1234, gid=5678)
    assert ((mount.root / "file").stat().st_uid, (mount.root / "file").stat().st_gid) == (1234, 5678)


# caches and hard links ------------------------------------------------------------------------------------------------
def test_names_are_cached_and_attributes_are_not(mount: Mount) -> None:
    (mount.root / "file").touch()
    for _ in range(2):
        (mount.mnt / "file").stat()
        assert not (mount.mnt / "none").exists()
        seen = mount.asked("lookup", "getattr")
    assert [call[0] for call in seen if call[0] == "lookup"] == []
    assert [call[0] for call in seen if call[0] == "getattr"] != []


def test_read_only_mount_caches_attributes_too(base: Path) -> None:
    mount = Mount(base, read_only=True)
    try:
        mount.await_ready()
        (mount.root / "file").touch()
        (mount.mnt / "file").stat()
        mount.asked()
        (mount.mnt / "file").stat()
        assert mount.asked() == []
        with expect(errno.EROFS):
            (mount.mnt / "new").touch()
    finally:
        mount.clean()


@pytest.fixture
def two_names(mount: Mount) -> tuple[Path, Path]:
    """Two names of one file, both looked up, opened and read before."""
    a, b = mount.mnt / "a", mount.mnt / "b"
    (mount.root / "a").write_bytes(b"0" * 5000)
    os.link(mount.root / "a", mount.root / "b")
    assert a.read_bytes() == b.read_bytes()
    assert a.stat() == b.stat()
    return a, b


def test_change_by_one_name_shows_at_once_by_the_other(two_names: tuple[Path, Path]) -> None:
    a, b = two_names
    with open(a, "ab") as file:
        file.write(b"1")
    assert b.stat().st_size == 5001
    a.chmod(0o640)
    os.utime(a, ns=(5, 6))
    assert stat.S_IMODE(b.stat().st_mode) == 0o640 and b.stat().st_mtime_ns == 6
    os.link(a, a.parent / "c")
    assert b.stat().st_nlink == 3
    a.unlink()
    assert b.stat().st_nlink == 2
    os.truncate(b, 3)
    assert (a.parent / "c").stat().st_size == 3


def test_data_written_by_one_name_is_read_by_the_other_even_when_open(two_names: tuple[Path, Path]) -> None:
    a, b = two_names
    with opened(a, os.O_RDWR) as fd_a, opened(b, os.O_RDONLY) as fd_b:
        assert os.pread(fd_b, 10, 0) == b"0" * 10
        os.pwrite(fd_a, b"1" * 10, 0)
        assert os.pread(fd_b, 10, 0) == b"1" * 10
    a.write_bytes(b"anew")
    assert b.read_bytes() == b"anew"


def test_data_is_right_after_the_second_name_has_come_and_gone(mount: Mount) -> None:
    a, b = mount.mnt / "a", mount.mnt / "b"
    a.write_bytes(b"old")
    assert a.read_bytes() == b"old"  # cached as a file of one name
    os.link(a, b)
    with opened(b, os.O_WRONLY) as fd:
        os.write(fd, b"new")
    b.unlink()
    assert a.stat().st_nlink == 1
    assert a.read_bytes() == b"new"


def test_appends_by_two_names_do_not_overwrite_each_other(two_names: tuple[Path, Path]) -> None:
    a, b = two_names
    with opened(a, os.O_WRONLY | os.O_APPEND) as fd_a, opened(b, os.O_WRONLY | os.O_APPEND) as fd_b:
        for byte in b"123456":
            os.write(fd_a if byte % 2 else fd_b, bytes([byte]))
    assert a.read_bytes() == b.read_bytes() == b"0" * 5000 + b"123456"


def test_program_with_two_names_runs_and_only_a_shared_map_of_it_is_refused(mount: Mount) -> None:
    shutil.copy("/bin/true", mount.root / "a")
    os.link(mount.root / "a", mount.root / "b")
    for name in ("a", "b"):
        assert subprocess.run([mount.mnt / name], check=False).returncode == 0
    with opened(mount.mnt / "a", os.O_RDONLY) as fd:
        with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as private:
            assert private[:4] == b"\x7fELF"
        with expect(errno.ENODEV):
            mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)


# unlinked open files --------------------------------------------------------------------------------------------------
def names(mount: Mount) -> list[str]:
    assert sorted(os.listdir(mount.mnt)) == sorted(os.listdir(mount.root))
    return sorted(os.listdir(mount.root))


def test_unlinked_open_file_is_gone_from_the_storage_and_whole_for_its_holder(mount: Mount) -> None:
    path = mount.mnt / "file"
    path.write_bytes(b"content")
    with opened(path, os.O_RDWR) as fd:
        path.unlink()
        assert names(mount) == []
        assert os.fstat(fd).st_nlink == 0
        os.pwrite(fd, b"more", 7)
        assert os.fstat(fd).st_size == 11 and os.pread(fd, 20, 0) == b"contentmore"
        os.ftruncate(fd, 3)
        os.fchmod(fd, 0o604)
        os.fchown(fd, 7, 8)
        os.utime(fd, ns=(9, 10))
        os.setxattr(fd, "user.x", b"1")
        found = os.fstat(fd)
        assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime_ns) == (3, 0o604, 7, 10)
        assert os.getxattr(fd, "user.x") == b"1"
        path.write_bytes(b"another")
        assert os.pread(fd, 20, 0) == b"con" and path.read_bytes() == b"another"
    assert names(mount) == ["file"]


def test_link_count_of_an_open_file_that_keeps_another_name(mount: Mount) -> None:
    (mount.mnt / "a").touch()
    os.link(mount.mnt / "a", mount.mnt / "b")
    with opened(mount.mnt / "a", os.O_RDONLY) as fd:
        (mount.mnt / "a").unlink()
        assert os.fstat(fd).st_nlink == (mount.mnt / "b").stat().st_nlink == 1


def test_failing_unlink_of_an_open_file_fails(mount: Mount) -> None:
    (mount.mnt / "file").touch()
    subprocess.run(["chattr", "+i", mount.root / "file"], check=True)
    try:
        with opened(mount.mnt / "file", os.O_RDONLY) as fd:
            with expect(errno.EPERM):
                (mount.mnt / "file").unlink()
            assert os.fstat(fd).st_nlink == 1 and names(mount) == ["file"]
    finally:
        subprocess.run(["chattr", "-i", mount.root / "file"], check=True)
    (mount.mnt / "file").unlink()


def test_replacing_an_open_file_is_one_rename(mount: Mount) -> None:
    old, new = mount.mnt / "file", mount.mnt / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with opened(old, os.O_RDONLY) as fd:
        mount.asked()
        new.rename(old)
        # In two steps a crash between them would leave neither file under that name.
        changes = mount.asked("rename", "unlink", "link")
        assert [call[0] for call in changes] == ["rename"]
        assert os.pread(fd, 9, 0) == b"old" and os.fstat(fd).st_nlink == 0
        assert old.read_bytes() == b"new" and names(mount) == ["file"]


def test_failing_replacement_of_an_open_file_leaves_it_for_good(mount: Mount) -> None:
    target, other = mount.mnt / "refused", mount.mnt / "other"
    target.write_bytes(b"target")
    other.touch()
    with opened(target, os.O_RDWR) as fd:
        for _ in range(2):
            with expect(errno.ENOSPC):
                other.rename(target)
        assert os.fstat(fd).st_nlink == 1
        os.pwrite(fd, b"T", 0)
    for _ in range(2):
        assert target.read_bytes() == b"Target" and target.stat().st_nlink == 1
    assert names(mount) == ["other", "refused"]
    target.chmod(0o600)
    target.rename(mount.mnt / "moved")
    assert (mount.mnt / "moved").read_bytes() == b"Target" and not target.exists()
    (mount.mnt / "moved").unlink()
    assert names(mount) == ["other"]


def test_unlinked_open_file_survives_the_rename_of_its_directory(mount: Mount) -> None:
    (mount.mnt / "d" / "sub").mkdir(parents=True)
    path = mount.mnt / "d" / "sub" / "file"
    path.write_bytes(b"content")
    with opened(path, os.O_RDWR) as fd:
        path.unlink()
        (mount.mnt / "d").rename(mount.mnt / "e")
        assert os.fstat(fd).st_size == 7
        os.ftruncate(fd, 2)
        assert os.pread(fd, 9, 0) == b"co"
    assert os.listdir(mount.root / "e" / "sub") == []


def test_directory_of_an_unlinked_open_file_can_be_removed(mount: Mount) -> None:
    (mount.mnt / "d").mkdir()
    with opened(mount.mnt / "d" / "file", os.O_CREAT | os.O_RDWR) as fd:
        (mount.mnt / "d" / "file").unlink()
        (mount.mnt / "d").rmdir()
        os.write(fd, b"content")
        assert os.pread(fd, 9, 0) == b"content"
        os.ftruncate(fd, 1)
        # The known limit: libfuse has no path left to ask by.
        with expect(errno.ENOENT):
            os.fstat(fd)


def test_names_that_only_look_hidden_are_ordinary(mount: Mount) -> None:
    hidden = mount.mnt / ".fuse_hidden0000000200000001"
    (mount.mnt / "file").write_bytes(b"content")
    with opened(mount.mnt / "file", os.O_RDONLY):
        (mount.mnt / "file").rename(hidden)
        assert names(mount) == [hidden.name]
    assert hidden.read_bytes() == b"content"
    hidden.unlink()
    assert names(mount) == []


# paths ----------------------------------------------------------------------------------------------------------------
def test_renamed_directory_takes_everything_below_along(mount: Mount) -> None:
    (mount.mnt / "a" / "b").mkdir(parents=True)
    (mount.mnt / "a" / "b" / "file").write_bytes(b"1")
    (mount.mnt / "a").rename(mount.mnt / "z")
    (mount.mnt / "a" / "b").mkdir(parents=True)
    (mount.mnt / "a" / "b" / "file").write_bytes(b"22")
    assert (mount.mnt / "z" / "b" / "file").read_bytes() == b"1"
    assert (mount.mnt / "a" / "b" / "file").stat().st_size == 2


def test_large_directory_is_listed_once_and_whole(mount: Mount) -> None:
    expected = {f"{number:04d}-{'x' * (number % 200)}" for number in range(3000)}
    for name in expected:
        (mount.root / name).touch()
    listed = os.listdir(mount.mnt)
    assert len(listed) == 3000 and set(listed) == expected


# without root ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def mine(base: Path) -> Iterator[dict[str, str]]:
    """A spec of mounts_program whose directories are nobody's."""
    spec = {"root": str(base / "root"), "mountpoint": str(base / "mnt"), "runtime": str(base / "run")}
    for directory in spec.values():
        os.mkdir(directory, 0o700)
        os.chown(directory, NOBODY, NOBODY)
    libfuse2.load()  # nobody may not be able to read this interpreter's library
    yield spec
    for record in Registry(os.fsencode(spec["runtime"])).records():
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGKILL)
    if any(row.mountpoint == os.fsencode(spec["mountpoint"]) for row in mountinfo()):
        subprocess.run(["umount", "-l", spec["mountpoint"]], check=True)


@pytest.mark.usefixtures("device_for_all")
def test_user_mounts_and_unmounts_with_fusermount(mine: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    need("fusermount3")
    mnt = Path(mine["mountpoint"])

    def as_nobody() -> None:
        assert mounts_program.main(json.dumps(mine)) == 0
        (mnt / "file").write_text("mine")
        registry = Registry(os.fsencode(mine["runtime"]))
        assert [mount.state for mount in registry.list_mounts() if mount.record] == ["live"]
        with opened(mnt / "file", os.O_RDONLY), pytest.raises(MountError, match="is busy"):
            mountpoint.umount(os.fsencode(mnt), registry=registry)
        mountpoint.umount(os.fsencode(mnt), registry=registry)

    run_as_nobody(as_nobody)
    assert (Path(mine["root"]) / "file").stat().st_uid == NOBODY
    assert os.listdir(mine["runtime"]) == [] and os.listdir(mnt) == []
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("device_for_all")
def test_mount_of_a_user_is_not_even_roots(mine: dict[str, str]) -> None:
    need("fusermount3")

    def mount_it() -> None:
        assert mounts_program.main(json.dumps(mine)) == 0

    run_as_nobody(mount_it)
    with expect(errno.EACCES):
        os.stat(mine["mountpoint"])


@pytest.mark.usefixtures("device_for_all")
def test_what_fusermount_refuses_is_said_in_its_words(mine: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    need("fusermount3")
    if "user_allow_other" in Path("/etc/fuse.conf").read_text().splitlines():
        pytest.skip("missing: an /etc/fuse.conf without user_allow_other")

    def mount_it() -> None:
        assert mounts_program.main(json.dumps({**mine, "allow_other": True})) == 1

    run_as_nobody(mount_it)
    said = capfd.readouterr().err
    assert said.startswith(f"error: cannot mount on {mine['mountpoint']}: fusermount") and "user_allow_other" in said
