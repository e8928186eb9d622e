"""The mounts that the suites run on, as context managers.

A `Rig` is one way to get a directory tree: the plain directory (`control`), the kernel's overlayfs (`kernel`), and our
file systems over our transports. A rig is mounted on a `Backing` and yields a `Mounted`, whose `path` is the tree.
What exists before the mount is said by `populate` functions, keyed by a subdirectory: on control and loopback they
run in the directory itself, on unions in a lower layer (`above` ones in a second lower on top of the first).

- Servers are subprocesses, always: a test that is both client and server of a mount dead-locks on its own GIL.
- A rig unmounts whatever happened, and says in `problems()` what the server did wrong: a traceback, a bad exit.
- What a rig cannot have is its `lacks`; a test that needs it is not generated for that rig.
- `DEVIATIONS` are the single tests which the kernel's overlayfs does not pass, with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.requirements import missing
from unionfs import api

PROJECT: Final = Path(__file__).resolve().parent.parent
START_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 10.0

PopulateFn = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Population:
    """What exists before the mount in one subdirectory: `base` in the lowest layer, `above` in the layer over it."""

    base: PopulateFn | None = None
    above: PopulateFn | None = None


#: What a rig may lack, and what that means. Tests ask with `@pytest.mark.needs("tmpfile")`.
CAPABILITIES: Final[Mapping[str, str]] = {
    "union": "it is a union: overlay xattrs are hidden",
    "rename_flags": "renameat2 with RENAME_NOREPLACE, RENAME_EXCHANGE (libfuse 2 has no flags)",
    "rename_whiteout": "renameat2 with RENAME_WHITEOUT",
    "tmpfile": "O_TMPFILE",
    "file_flags": "FS_IOC_GETFLAGS and the like (libfuse 2 through fusepy has no ioctl)",
    "seek_hole": "SEEK_HOLE and SEEK_DATA that see holes (without it: the file is all data)",
    "acl": "POSIX ACLs grant and refuse access, and are kept equal to the mode (needs FUSE_POSIX_ACL)",
    "removed_listing": "a removed directory that is open is listed as empty (libfuse 2 has no path for it)",
    "trusted_hidden": "listxattr leaves out trusted.* for unprivileged callers (fs/fuse lists what the server says)",
}


@dataclass(frozen=True, slots=True)
class Rig:
    """One way to get a tree. `fs` and `transport` are what `unionfs.testing.serve` is asked for; None: no server.

    `options` are further arguments for the server; `modules`, unless empty, are the only test modules for this rig.
    `packed`: the server gets each lower layer as the tar that committing it gives.
    """

    name: str
    requirements: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()
    fs: str | None = None
    transport: str | None = None
    options: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()
    packed: bool = False

    def has(self, capability: str) -> bool:
        if capability not in CAPABILITIES:
            raise KeyError(f"no such capability: {capability}")
        return capability not in self.lacks

    @property
    def missing(self) -> str | None:
        """Why this machine cannot run the rig, or None."""
        return missing(*self.requirements)


_NOT_A_UNION: Final = frozenset({"union"})
_FUSE: Final = frozenset({"trusted_hidden"})
_LIBFUSE2: Final = frozenset(
    {"rename_flags", "rename_whiteout", "tmpfile", "file_flags", "seek_hole", "acl", "removed_listing"}
)

#: Where it matters whether the kernel or the server moves the data.
_DATA: Final = frozenset(
    """test_create test_data_paths test_descriptors test_full test_io test_open test_open_unlinked
    test_setattr test_stress test_time test_waiting
    test_real_compile test_real_git test_real_rsync""".split()
)
_NO_PASSTHROUGH: Final = ("--passthrough", "off")
#: Where it matters what a lower layer is, and what is in it a tar can hold (no sockets).
_LOWERS: Final = frozenset(
    """test_io test_open test_rename test_setattr test_unlink test_xattr
    test_copy_up test_data_paths test_open_again test_open_unlinked
    test_rename_directory test_tar test_whiteout""".split()
)

RIGS: Final[Mapping[str, Rig]] = {
    rig.name: rig
    for rig in (
        Rig("control", lacks=_NOT_A_UNION),
        Rig("kernel", ("root", "overlayfs"), frozenset({"rename_whiteout"})),
        Rig("loopback-fusepy", ("fuse", "libfuse"), _FUSE | _LIBFUSE2 | _NOT_A_UNION, "loopback", "fusepy"),
        Rig("loopback-devfuse", ("fuse",), _FUSE | _NOT_A_UNION, "loopback", "devfuse"),
        Rig("loopback-cached", ("fuse",), _FUSE | _NOT_A_UNION, "loopback", "devfuse", _NO_PASSTHROUGH, _DATA),
        Rig("union-fusepy", ("fuse", "libfuse"), _FUSE | _LIBFUSE2, "union", "fusepy"),
        Rig("union-devfuse", ("fuse",), _FUSE, "union", "devfuse"),
        Rig("union-cached", ("fuse",), _FUSE, "union", "devfuse", _NO_PASSTHROUGH, _DATA),
        Rig("union-tars", ("fuse",), _FUSE, "union", "devfuse", modules=_LOWERS, packed=True),
    )
}

#: (rig, test function) -> why that rig does not do it. The tests are not generated there.
_DENSE: Final = "commit writes zeros where a lower file has holes, and a tar has those that it says"
_CHUNKS: Final = "copy-up keeps holes only where 1 MiB of the chunked copy is hole (ovl_copy_up_file)"
_MKNOD: Final = "nobody makes a whiteout (ovl_mknod)"
DEVIATIONS: Final[Mapping[tuple[str, str], str]] = {
    ("kernel", "test_what_would_protect_nothing_is_refused"): "it obeys both itself (ovl_set_protattr)",
    ("kernel", "test_flags_as_they_are_copy_nothing_up"): "it copies up first (ovl_fileattr_set)",
    ("union-tars", "test_sparse_file_takes_few_blocks"): _DENSE,
    ("union-tars", "test_seek_hole_and_data"): _DENSE,
    ("union-tars", "test_seek_hole_and_data_after_copy_up"): _DENSE,
    ("kernel", "test_char_device_0_0_is_a_device"): _MKNOD,
    ("kernel", "test_mknod_of_a_whiteout_is_seen_and_hides_nothing"): _MKNOD,
    ("kernel", "test_mknod_of_a_whiteout_where_something_was"): _MKNOD,
    ("kernel", "test_sparse_file_takes_few_blocks"): _CHUNKS,
    ("kernel", "test_seek_hole_and_data_after_copy_up"): _CHUNKS,
    ("kernel", "test_its_link_count_is_zero_for_readers"): "fstat of an unlinked lower file still says 1",
    ("kernel", "test_its_mode_changes_through_a_readonly_descriptor"): "fchmod of an unlinked lower file is EEXIST",
}


# Backing -----------------------------------------------------------------------------------------------------------
class Backing:
    """A private file system for the session, and numbered directories on it. Traversable by every user."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.base = Path(tempfile.mkdtemp(prefix="unionfs-tests-"))
        self.base.chmod(0o755)
        self._count = 0
        self._mounted = False
        if missing("root") is None:
            self._mount()

    def _mount(self) -> None:
        if self.kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", "mode=755", "unionfs-tests", str(self.base))
        elif self.kind == "ext4":
            image = Path(f"{self.base}.img")
            with open(image, "wb") as f:
                f.truncate(2 << 30)
            run("mkfs.ext4", "-q", "-F", str(image))
            run("mount", "-o", "loop", str(image), str(self.base))
            image.unlink()  # the loop device holds it
        else:
            raise ValueError(f"no such backing: {self.kind}")
        self._mounted = True

    def directory(self, label: str) -> Path:
        """A fresh directory."""
        self._count += 1
        path = self.base / f"{self._count:03d}-{label}"
        path.mkdir()
        path.chmod(0o755)
        return path

    def close(self) -> None:
        if self._mounted:
            run("umount", "-R", str(self.base))
            self.base.rmdir()
        else:
            shutil.rmtree(self.base, ignore_errors=True)


def run(*argv: str) -> None:
    """Run a command; AssertionError with its output if it fails or takes too long."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"


def python_path() -> str:
    """PYTHONPATH for a subprocess that imports this tree, whether or not it is installed."""
    return os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))


# Mounts ------------------------------------------------------------------------------------------------------------
@dataclass
class Server:
    """A running `unionfs.testing.serve`. `log` is its stderr, `connection` its number below /sys/fs/fuse."""

    process: subprocess.Popen[bytes]
    log: Path
    connection: int
    read: int = 0

    def new_log(self) -> str:
        """What it wrote on stderr since the last call."""
        with open(self.log, "rb") as f:
            f.seek(self.read)
            data = f.read()
        self.read += len(data)
        return data.decode(errors="replace")

    def statistics(self) -> dict[str, int]:
        """What the file system counts. AssertionError where one of its INVARIANTs does not hold."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGUSR2)
        said = b""
        while not said.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], START_TIMEOUT)[0], "no report"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "the server has ended"
            said += data
        answer = json.loads(said)
        assert answer["violated"] is None, answer["violated"]
        return dict(answer["statistics"])


@dataclass
class Mounted:
    """A tree that is there. `layers` are the lower directories, topmost first (unions only)."""

    rig: Rig
    path: Path
    directory: Path
    layers: Sequence[Path] = ()
    upper: Path | None = None
    server: Server | None = None

    def problems(self) -> str | None:
        """What the server has done wrong since the last call, or None."""
        if self.server is None:
            return None
        log = self.server.new_log()
        code = self.server.process.poll()
        if code is not None:
            return f"{self.rig.name}: the server is gone (exit {code})\n{log}"
        return f"{self.rig.name}: the server logged\n{log}" if "Traceback" in log or "ERROR" in log else None


def populate_tree(tree: Path, name: str, fn: PopulateFn | None) -> None:
    """Run `fn` in the subdirectory `name` of `tree` ("" is the tree itself), made if need be."""
    place = tree / name if name else tree
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    if fn is not None:
        fn(place)


@contextlib.contextmanager
def mount(
    rig: Rig, backing: Backing, populate: Mapping[str, Population] | None = None, options: Sequence[str] = ()
) -> Iterator[Mounted]:
    """Make the rig's tree, hold it, take it down. `options` are further arguments for the server.

    AssertionError on leaving if the server did something wrong.
    """
    directory = backing.directory(rig.name)
    mounted = Mounted(rig, directory / "mnt", directory)
    mounted.path.mkdir()
    lower, top = directory / "lower", directory / "top"
    if rig.has("union"):
        for path in (lower, top, directory / "upper", directory / "work"):
            path.mkdir()
            path.chmod(0o755)
        mounted.layers, mounted.upper = (top, lower), directory / "upper"
    else:
        lower = top = mounted.path if rig.fs is None else directory / "root"
        lower.mkdir(exist_ok=True)
        lower.chmod(0o755)
    for name, population in (populate or {}).items():
        populate_tree(lower, name, population.base)
        if population.above is not None:
            populate_tree(top, name, population.above)
    with contextlib.ExitStack() as stack:
        if rig.name == "kernel":
            stack.enter_context(_kernel(mounted))
        elif rig.fs is not None:
            stack.enter_context(_served(mounted, options))
        yield mounted
        problem = mounted.problems()
        assert problem is None, problem


@contextlib.contextmanager
def _kernel(mounted: Mounted) -> Iterator[None]:
    lowers = ":".join(str(layer) for layer in mounted.layers)
    # File handles of a FUSE file system do not outlast its mount: an overlayfs with an index of them would be refused.
    kind = subprocess.run(["stat", "-fc", "%T", str(mounted.upper)], capture_output=True, text=True, check=True).stdout
    options = (
        f"lowerdir={lowers},upperdir={mounted.upper},workdir={mounted.directory / 'work'},"
        f"redirect_dir=on,index={'off' if kind.startswith('fuse') else 'on'},xino=auto,metacopy=off"
    )
    run("mount", "-t", "overlay", "-o", options, "unionfs-tests", str(mounted.path))
    try:
        yield
    finally:
        run("umount", "-l", str(mounted.path))


def _server_arguments(mounted: Mounted) -> list[str]:
    rig = mounted.rig
    assert rig.fs is not None and rig.transport is not None
    argv = ["--fs", rig.fs, "--transport", rig.transport, *rig.options]
    if rig.fs == "loopback":
        return [*argv, "--root", str(mounted.directory / "root")]
    for layer in _packed(mounted) if rig.packed else mounted.layers:
        argv += ["--lower", str(layer)]
    return [*argv, "--upper", str(mounted.upper), "--work", str(mounted.directory / "work")]


def _packed(mounted: Mounted) -> list[Path]:
    """The layers as tars: what each changes of those below it."""
    bottom = mounted.directory / "bottom"
    bottom.mkdir(exist_ok=True)
    bottom.chmod(0o755)
    tars = []
    for number, layer in enumerate(mounted.layers):
        tars.append(mounted.directory / f"layer{number}.tar")
        below = [*mounted.layers[number + 1 :], bottom]
        api.commit(layers=below, upper=layer, output=tars[-1], skip_sockets=True)
    return tars


@contextlib.contextmanager
def _served(mounted: Mounted, options: Sequence[str]) -> Iterator[None]:
    log = Path(f"{mounted.directory}.log")
    argv = [sys.executable, "-m", "unionfs.testing.serve", *_server_arguments(mounted), *options, str(mounted.path)]
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            argv, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            env={
                **os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1",
                "UNIONFS_CACHE": str(mounted.directory / "cache"),
            },
        )  # fmt: skip
    try:
        _await_ready(process, log)
        mounted.server = Server(process, log, connection_of(mounted.path))
        yield
    finally:
        stop(process, mounted)


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server has written "ready" on stdout. AssertionError with its stderr if it does not."""
    assert process.stdout is not None
    said = b""
    deadline = time.monotonic() + START_TIMEOUT
    while b"ready\n" not in said:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise AssertionError(f"the server was not ready after {START_TIMEOUT} s:\n{log.read_text()}")
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            raise AssertionError(f"the server ended (exit {process.wait()}):\n{log.read_text()}")
        said += data


def mount_line(path: Path) -> list[str] | None:
    """The fields of the topmost mount on `path` in mountinfo, or None. Never touches the mount itself."""
    found = None
    with open("/proc/self/mountinfo", errors="surrogateescape") as f:
        for line in f:
            fields = line.split()
            if fields[4] == str(path):
                found = fields
    return found


def connection_of(path: Path) -> int:
    """The number of the FUSE connection mounted on `path`: the minor of its st_dev (fs/fuse/control.c)."""
    fields = mount_line(path)
    assert fields is not None, f"{path} is not mounted"
    return int(fields[2].split(":")[1])


def stop(process: subprocess.Popen[bytes], mounted: Mounted) -> None:
    """SIGTERM; whoever does not end is killed and its connection aborted. AssertionError on any but a clean exit."""
    hung = False
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            hung = True
            kill(process, mounted)
    if process.stdout is not None:
        process.stdout.close()
    if mount_line(mounted.path) is not None:
        unmount = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
        run(*unmount, str(mounted.path))
    log = Path(f"{mounted.directory}.log").read_text(errors="replace")
    assert not hung, f"{mounted.rig.name}: the server did not end within {STOP_TIMEOUT} s of SIGTERM\n{log}"
    assert process.returncode == 0, f"{mounted.rig.name}: the server ended with {process.returncode}\n{log}"


def kill(process: subprocess.Popen[bytes], mounted: Mounted) -> None:
    """End a server that hangs, by its pid, and abort its connection. It is asked for its stacks first."""
    process.send_signal(signal.SIGUSR1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    if mounted.server is not None:
        with contextlib.suppress(OSError):
            Path(f"/sys/fs/fuse/connections/{mounted.server.connection}/abort").write_text("1")
    process.wait()


class Watchdog:
    """The process of watchdog.py, which makes a hanging test an error. See there."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("watchdog.py"))
        self._process = subprocess.Popen([sys.executable, "-S", "-E", script], stdin=subprocess.PIPE)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    @contextlib.contextmanager
    def guard(self, mounted: Mounted, seconds: float) -> Iterator[None]:
        """Break `mounted` when the block takes longer than `seconds`."""
        if mounted.server is None:
            yield
            return
        self._say(f"{mounted.server.process.pid} {mounted.server.connection} {seconds}\n")
        try:
            yield
        finally:
            self._say("\n")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class SharedMount:
    """One mount that several tests use, made anew when a test has broken it."""

    def __init__(self, rig: Rig, backing: Backing, populate: Mapping[str, Population]) -> None:
        self._make = functools.partial(mount, rig, backing, populate)
        self._stack = contextlib.ExitStack()
        self._mounted: Mounted | None = None

    def get(self) -> Mounted:
        if self._mounted is not None and self._mounted.problems() is not None:
            with contextlib.suppress(AssertionError):  # the test that broke it has been told
                self.close()
        if self._mounted is None:
            self._mounted = self._stack.enter_context(self._make())
        return self._mounted

    def close(self) -> None:
        self._mounted = None
        self._stack.close()
