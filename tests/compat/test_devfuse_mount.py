"""Real mounts over a loopback: mounting, unmounting, aborting, both data paths, the user's way, and latency."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.tools import as_user
from tests.requirements import missing
from unionfs.errors import MountError, TransportUnavailable
from unionfs.linux import mount as sys_mount
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.transport import MountOptions, devfuse
from unionfs.transport.devfuse import channel

pytestmark = [pytest.mark.needs_fuse]
root_only = pytest.mark.needs_root

SOURCE = Path(__file__).resolve().parents[2]
NOBODY = 65534
MODES = ["auto", "off"]


class Server:
    """`unionfs.testing.serve` over a loopback of `root`, mounted on `mnt`."""

    def __init__(self, base: Path, *options: str, fs: tuple[str, ...] = ()) -> None:
        self.root, self.mnt, self.log = base / "root", base / "mnt", base / "log"
        for directory in (self.root, self.mnt):
            directory.mkdir()
        what = fs or ("--fs", "loopback", "--root", str(self.root))
        command = [
            sys.executable,
            "-m",
            "unionfs.testing.serve",
            "--transport",
            "devfuse",
            *what,
            *options,
            str(self.mnt),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, cwd=base, env={**os.environ, "PYTHONPATH": str(SOURCE)}
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 20)
        assert readable and self.process.stdout.readline() == b"ready\n", self.log.read_text()
        self.connection = devfuse.connection_of(os.fsencode(self.mnt))

    def wait(self) -> int:
        return self.process.wait(timeout=20)

    def problems(self) -> str:
        text = self.log.read_text()
        return text if "ERROR" in text or "Traceback" in text else ""

    def stop(self) -> None:
        if devfuse.connection_of(os.fsencode(self.mnt)) is not None:
            subprocess.run(["umount", "-l", str(self.mnt)], stderr=subprocess.DEVNULL, timeout=20)
        if self.process.poll() is None:
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(base: Path, *options: str, fs: tuple[str, ...] = ()) -> Iterator[Server]:
    server = Server(base, *options, fs=fs)
    try:
        yield server
        assert not server.problems()
    finally:
        server.stop()


def serving_union(
    base: Path, lower: Path, upper: Path, work: Path, *options: str
) -> contextlib.AbstractContextManager[Server]:
    """The same over a union of three directories."""
    fs = ("--fs", "union", "--lower", str(lower), "--upper", str(upper), "--work", str(work))
    return serving(base, *options, fs=fs)


@pytest.fixture(params=MODES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Mounted as root with passthrough and without."""
    if (reason := missing("root")) is not None:
        pytest.skip(reason)
    with serving(tmp_path, "--passthrough", request.param) as server:
        yield server


# life and death ----------------------------------------------------------------------------------------------------
def test_unmounted_by_anyone_the_server_returns(server: Server) -> None:
    subprocess.run(["umount", str(server.mnt)], check=True, timeout=20)
    assert server.wait() == 0


def test_sigterm_unmounts(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not os.path.ismount(server.mnt)


def test_lazy_unmount_serves_the_files_that_are_open(server: Server) -> None:
    (server.root / "f").write_bytes(b"content")
    with (server.mnt / "f").open("rb", buffering=0) as file:
        devfuse.unmount(os.fsencode(server.mnt), lazy=True)
        assert file.read() == b"content"
        assert server.process.poll() is None
    assert server.wait() == 0


def test_abort_ends_the_server_and_leaves_no_dead_mount(server: Server) -> None:
    assert server.connection is not None
    with fusectl():
        devfuse.abort(server.connection)
    assert server.wait() == 0
    assert devfuse.connection_of(os.fsencode(server.mnt)) is None


@contextlib.contextmanager
def fusectl() -> Iterator[None]:
    """The control file system where it belongs; a bare machine has not mounted it."""
    place = "/sys/fs/fuse/connections"
    if os.path.ismount(place):
        yield
        return
    subprocess.run(["mount", "-t", "fusectl", "none", place], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True, timeout=20)


def test_killed_server_leaves_enotconn_and_can_be_unmounted(server: Server) -> None:
    server.process.kill()
    server.wait()
    with pytest.raises(OSError) as caught:
        os.listdir(server.mnt)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    devfuse.unmount(os.fsencode(server.mnt))
    assert os.listdir(server.mnt) == []


def test_idle_mount_takes_no_cpu_time(server: Server) -> None:
    for _ in range(500):
        os.stat(server.mnt / "nothing") if os.path.exists(server.mnt / "nothing") else None
    before = cpu_ticks(server.process.pid)
    # The server sleeps in poll or read; a second of wall time is the thing measured here, not a wait for an event.
    threading.Event().wait(1.0)
    assert cpu_ticks(server.process.pid) - before <= 1


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@root_only
def test_mountpoint_errors_are_mount_errors_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(MountError) as caught:
            channel.mount(os.fsencode(tmp_path / name), MountOptions())
        assert caught.value.hint is not None and "directory" in caught.value.hint


# options -----------------------------------------------------------------------------------------------------------
@root_only
def test_as_root_dev_suid_and_exec_are_as_on_a_plain_mount(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        row = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(server.mnt) in line)
        assert "nodev" not in row and "nosuid" not in row
        assert " fuse.unionfs unionfs " in row
        assert "allow_other" in row and "default_permissions" in row


@root_only
def test_read_only_mount(tmp_path: Path) -> None:
    with serving(tmp_path, "--ro") as server:
        with pytest.raises(OSError) as caught:
            (server.mnt / "f").touch()
        assert caught.value.errno == errno.EROFS


def test_mount_arguments_split_flags_and_data() -> None:
    options = MountOptions(
        read_only=True, allow_other=False, default_permissions=False, extra=("nosuid", "rw", "max_read=9")
    )
    flags, data = channel.mount_arguments(options, 7)
    assert flags == sys_mount.MS_NOSUID
    assert data.split(b",")[:2] == [b"fd=7", b"rootmode=40000"]
    assert data.endswith(b",max_read=9") and b"allow_other" not in data and b"default_permissions" not in data


def test_user_options_escape_commas() -> None:
    text = channel.user_options(MountOptions(fsname="a,b\\c", extra=("nosuid",)))
    assert text == "fsname=a\\,b\\\\c,subtype=unionfs,default_permissions,nosuid"


# data --------------------------------------------------------------------------------------------------------------
def pattern(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(size))


def test_size_and_times_follow_writes(server: Server) -> None:
    with (server.mnt / "f").open("wb", buffering=0) as file:
        for size in (1, 2, 5000):
            file.write(pattern(size))
            assert os.fstat(file.fileno()).st_size == file.tell() == os.stat(server.mnt / "f").st_size
    inside, stored = os.stat(server.mnt / "f"), os.stat(server.root / "f")
    assert (inside.st_size, inside.st_mtime_ns) == (stored.st_size, stored.st_mtime_ns)


def test_large_reads_and_writes_arrive_whole(server: Server) -> None:
    content = pattern(1 << 20) * 5 + b"tail"
    (server.mnt / "f").write_bytes(content)
    assert (server.root / "f").read_bytes() == content
    assert (server.mnt / "f").read_bytes() == content


def test_reads_at_odd_places(server: Server) -> None:
    content = pattern(300_001)
    (server.root / "f").write_bytes(content)
    with (server.mnt / "f").open("rb", buffering=0) as file:
        for offset, size in ((0, 1), (299_999, 10), (300_001, 10), (400_000, 10), (4095, 8194), (1, 300_000)):
            assert os.pread(file.fileno(), size, offset) == content[offset : offset + size]


def test_file_that_is_cut_while_it_is_read(server: Server) -> None:
    """Nobody gets an error or foreign bytes, whatever length the reply was begun with."""
    path = server.mnt / "f"
    content = pattern(1 << 20)
    for _ in range(20):
        path.write_bytes(content)
        cutter = threading.Thread(target=os.truncate, args=(path, 100_000))
        cutter.start()
        seen = path.read_bytes()
        cutter.join()
        assert len(seen) <= len(content)
        assert all(a == b or a == 0 for a, b in zip(seen[::997], content[::997], strict=False))
    assert path.read_bytes() == content[:100_000]


def test_append_from_several_processes_loses_nothing(server: Server) -> None:
    (server.mnt / "f").touch()
    script = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for _ in range(200): os.write(fd, sys.argv[2].encode() * 100)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(server.mnt / "f"), letter]) for letter in "abc"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    content = (server.mnt / "f").read_bytes()
    assert len(content) == 3 * 200 * 100
    blocks = {content[i : i + 100] for i in range(0, len(content), 100)}
    assert blocks == {b"a" * 100, b"b" * 100, b"c" * 100}


def test_mmap_shared_and_private(server: Server) -> None:
    (server.mnt / "f").write_bytes(pattern(10_000))
    with (server.mnt / "f").open("r+b") as file:
        with mmap.mmap(file.fileno(), 0) as shared:
            shared[5000:5004] = b"here"
            shared.flush()
            assert os.pread(file.fileno(), 4, 5000) == b"here"
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as private:
            private[0:4] = b"mine"
        os.fsync(file.fileno())
    stored = (server.root / "f").read_bytes()
    assert stored[5000:5004] == b"here" and stored[:4] == pattern(4)


def test_programs_run_from_the_mount(server: Server) -> None:
    target = server.mnt / "true"
    target.write_bytes(Path("/bin/true").read_bytes())
    target.chmod(0o755)
    assert subprocess.run([str(target)], timeout=20).returncode == 0
    with pytest.raises(OSError) as caught, subprocess.Popen([str(server.mnt / "true")]) as process:
        process.wait()
        target.chmod(0o644)
        subprocess.run([str(target)])
    assert caught.value.errno == errno.EACCES


def test_direct_io(tmp_path: Path) -> None:
    if (reason := missing("root")) is not None:
        pytest.skip(reason)
    for mode in MODES:
        base = tmp_path / mode
        base.mkdir()
        with serving(base, "--passthrough", mode) as server, mmap.mmap(-1, 8192) as page:
            page[:8192] = pattern(8192)
            try:
                fd = os.open(server.mnt / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
            except OSError as error:
                assert error.errno == errno.EINVAL  # the backing file system has no direct I/O
                pytest.skip("the backing file system refuses O_DIRECT")
            try:
                assert os.pwrite(fd, page, 0) == 8192
                page[:8192] = bytes(8192)
                assert os.preadv(fd, [page], 0) == 8192
                assert page[:8192] == pattern(8192)
            finally:
                os.close(fd)
            assert (server.mnt / "f").read_bytes() == pattern(8192)


def test_sendfile_and_splice(server: Server) -> None:
    content = pattern(200_000)
    (server.mnt / "f").write_bytes(content)
    with (server.mnt / "f").open("rb") as source, (server.mnt / "copy").open("wb") as target:
        sent = 0
        while sent < len(content):
            sent += os.sendfile(target.fileno(), source.fileno(), sent, len(content) - sent)
    assert (server.root / "copy").read_bytes() == content
    read_end, write_end = os.pipe()
    with (server.mnt / "f").open("rb") as source, (server.mnt / "spliced").open("wb") as target:
        moved = os.splice(source.fileno(), write_end, 10_000)
        assert os.splice(read_end, target.fileno(), moved) == moved
    os.close(read_end)
    os.close(write_end)
    assert (server.root / "spliced").read_bytes() == content[:moved]


def test_locks_are_kept_by_the_kernel(server: Server) -> None:
    (server.mnt / "f").touch()
    with (server.mnt / "f").open("rb") as first, (server.mnt / "f").open("rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


@root_only
@pytest.mark.parametrize("mode", MODES)
def test_unprivileged_write_clears_set_user_id(open_tmp: Path, mode: str) -> None:
    with serving(open_tmp, "--passthrough", mode) as server:
        target = server.mnt / "f"
        target.touch()
        target.chmod(0o4777)

        def write() -> None:
            with target.open("r+b", buffering=0) as file:
                file.write(b"x")

        as_user(write)
        assert target.stat().st_mode & 0o7777 == 0o777
        target.chmod(0o4777)
        as_user(lambda: os.truncate(target, 0))
        assert target.stat().st_mode & 0o7777 == 0o777


def test_names_of_any_bytes(server: Server) -> None:
    name = b"\xff\x01 \n" + b"n" * 251
    path = os.path.join(os.fsencode(server.mnt), name)
    with open(path, "wb"):
        pass
    assert os.listdir(os.fsencode(server.mnt)) == [name]
    with pytest.raises(OSError) as caught:
        os.close(os.open(path + b"n", os.O_CREAT | os.O_WRONLY))
    assert caught.value.errno == errno.ENAMETOOLONG


def test_listing_of_many_names_is_complete(server: Server) -> None:
    names = {f"file-{i:05}" for i in range(3000)}
    for name in names:
        (server.root / name).touch()
    for _ in range(2):
        assert {entry.name for entry in os.scandir(server.mnt)} == names
    assert all(entry.stat().st_ino == entry.inode() for entry in os.scandir(server.mnt))


# slow requests -----------------------------------------------------------------------------------------------------
def test_allocating_a_large_file_does_not_keep_others_waiting(server: Server) -> None:
    """SETATTR of a size, FALLOCATE and FSYNC run in workers: stat goes on beside them."""
    with (server.mnt / "big").open("wb") as file:
        done = threading.Event()

        def allocate() -> None:
            os.posix_fallocate(file.fileno(), 0, 64 << 20)
            os.fsync(file.fileno())
            os.ftruncate(file.fileno(), 0)
            done.set()

        thread = threading.Thread(target=allocate)
        thread.start()
        count, worst = 0, 0.0
        while not done.is_set():
            started = time.perf_counter()
            with contextlib.suppress(FileNotFoundError):
                os.stat(server.mnt / f"other-{count}")
            worst = max(worst, time.perf_counter() - started)
            count += 1
        thread.join()
    assert count > 0
    assert worst < 1.0


# as a user ---------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def served_by_nobody(base: Path) -> Iterator[tuple[Path, Path]]:
    """(root, mountpoint) of a loopback that a fork of this process serves as an ordinary user."""
    root, mnt = base / "root", base / "mnt"
    for directory in (root, mnt):
        directory.mkdir()
        os.chown(directory, NOBODY, NOBODY)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            fs = LoopbackFilesystem(str(root))

            def ready() -> None:
                os.write(writer, b"ready")

            devfuse.serve(fs, str(mnt), MountOptions(), ready)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    try:
        assert os.read(reader, 10) == b"ready"
        yield root, mnt
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        child = 0
    finally:
        os.close(reader)
        if child:
            subprocess.run(["umount", "-l", str(mnt)], stderr=subprocess.DEVNULL, timeout=20)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@root_only
def test_user_mounts_through_fusermount(device_for_all: None, open_tmp: Path) -> None:
    with served_by_nobody(open_tmp) as (root, mnt):
        row = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mnt) in line)
        assert f"user_id={NOBODY}" in row and "nosuid" in row and "allow_other" not in row

        def use() -> None:
            content = pattern(300_000)
            (mnt / "f").write_bytes(content)
            assert (mnt / "f").read_bytes() == content
            (mnt / "f").rename(mnt / "g")
            assert os.listdir(mnt) == ["g"]
            with (mnt / "g").open("ab") as file:
                file.write(b"y")
            assert (mnt / "g").stat().st_size == 300_001

        as_user(use)
        assert (root / "g").stat().st_size == 300_001
        as_user(lambda: devfuse.unmount(os.fsencode(mnt)), uid=NOBODY)


@root_only
def test_user_may_not_mount_on_what_is_not_theirs(device_for_all: None, open_tmp: Path) -> None:
    mountpoint = open_tmp / "roots"
    mountpoint.mkdir(mode=0o755)

    def mount() -> str | None:
        try:
            channel.mount(os.fsencode(mountpoint), MountOptions())
        except MountError as error:
            return error.hint
        return "mounted"

    assert as_user(mount) == "the mountpoint must be a directory that the user owns"


def test_without_fusermount_a_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TransportUnavailable) as caught:
        channel._mount_as_user(b"/mnt", MountOptions())
    assert caught.value.hint == "install the package fuse3"
