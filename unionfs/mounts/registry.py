"""Which unionfs mounts live on this machine, whose they are, and which directories they write to.

    runtime_directory    where that is written down, per user
    MountRecord          one mount, as one JSON file there
    Registry             claim (a daemon's own record and locks), records, list_mounts, find, user_of

Truth is threefold and compared each time: the records, the processes they name (pid and start time: pids are reused),
and /proc/self/mountinfo. A record whose process is gone and which is mounted no more is stale; whoever comes by
sweeps it.

Two daemons on one upper would destroy it. A claim therefore holds flock(2) on the upper and the work directory for
as long as its process lives, whatever runtime directory the other uses, and looks (by st_dev and st_ino, not by name)
at the records and at the kernel's overlay mounts.

Writes: a record is written under another name and renamed: a reader sees all of it or nothing. A crash leaves at most
that temporary file, which the next sweep removes.

Needs neither a transport nor the engine.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import select
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from unionfs.errors import MountError, ProtocolError
from unionfs.linux.mount import MountInfo, mountinfo
from unionfs.linux.process import flock_exclusive

FSTYPE: Final = b"fuse.unionfs"
PROBE_SECONDS: Final = 1.0
#: How long a new mount waits for a daemon that is unmounted and about to end.
LEAVING_SECONDS: Final = 5.0

State = Literal["live", "dead", "foreign", "detached"]
DirectoryId = tuple[int, int]


def runtime_directory(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> bytes:
    """The directory for records and sockets of user `uid` (default: the effective one), made (0700) if missing.

    $UNIONFS_RUNTIME_DIR, else /run/unionfs (root), else $XDG_RUNTIME_DIR/unionfs, else /tmp/unionfs-UID.
    Raises MountError where none can be had, or the one in /tmp belongs to somebody else.
    """
    uid = os.geteuid() if uid is None else uid
    candidates: list[str] = []
    if explicit := environ.get("UNIONFS_RUNTIME_DIR"):
        candidates = [explicit]
    else:
        if uid == 0:
            candidates.append("/run/unionfs")
        if xdg := environ.get("XDG_RUNTIME_DIR"):
            candidates.append(os.path.join(xdg, "unionfs"))
        candidates.append(f"/tmp/unionfs-{uid}")
    for candidate in candidates:
        directory = os.fsencode(candidate)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        except OSError:
            # A container's root may not write to /run; a stale XDG_RUNTIME_DIR may not exist.
            continue
        found = os.lstat(directory)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022:
            return directory
    raise MountError(
        f"no runtime directory: {candidates[-1]} is not a directory of this user's own",
        hint="set XDG_RUNTIME_DIR to a directory that only you can write to",
    )


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks after boot (proc(5), stat field 22); None if there is none, or only
    a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name in parentheses, may hold anything, ")" too.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def directory_id(path: bytes | None) -> DirectoryId | None:
    """(st_dev, st_ino), or None where `path` is None or cannot be looked at."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class MountRecord(NamedTuple):
    """One mount as its daemon wrote it down. `mountpoint` is canonical; `layers` are as people named them, topmost
    first; `start_time` in ticks as `start_time()`; `started` in seconds since the epoch; `control` the socket;
    `namespace` the number of the mount namespace, 0 if unknown."""

    mountpoint: bytes
    pid: int
    start_time: int
    layers: tuple[bytes, ...]
    upper: bytes | None
    work: bytes | None
    transport: str
    options: Mapping[str, str | None]
    control: bytes | None
    started: float
    upper_id: DirectoryId | None
    work_id: DirectoryId | None
    namespace: int = 0

    @classmethod
    def for_this_process(
        cls,
        mountpoint: bytes,
        layers: Sequence[bytes],
        upper: bytes | None,
        work: bytes | None,
        transport: str,
        options: Mapping[str, str | None] | None = None,
        started: float | None = None,
    ) -> MountRecord:
        """The record of a mount that this process serves (or is about to); to be made after the fork."""
        pid = os.getpid()
        return cls(
            mountpoint, pid, start_time(pid) or 0, tuple(layers), upper, work, transport, dict(options or {}), None,
            time.time() if started is None else started, directory_id(upper), directory_id(work), mount_namespace(),
        )  # fmt: skip

    @property
    def elsewhere(self) -> bool:
        """Made in another mount namespace, so that our /proc/self/mountinfo cannot tell whether it is still there."""
        return self.namespace not in (0, mount_namespace())

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start_time

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; bytes as text with surrogate escapes."""
        return {key: _to_text(value) for key, value in self._asdict().items()}

    @classmethod
    def from_json(cls, told: Any) -> MountRecord:
        """The record `to_json` made. ProtocolError for anything else."""
        try:
            return cls(
                mountpoint=_path(told["mountpoint"]),
                pid=_number(told["pid"]),
                start_time=_number(told["start_time"]),
                layers=tuple(_path(layer) for layer in told["layers"]),
                upper=_optional_path(told["upper"]),
                work=_optional_path(told["work"]),
                transport=str(told["transport"]),
                options={str(k): None if v is None else str(v) for k, v in told["options"].items()},
                control=_optional_path(told["control"]),
                started=float(told["started"]),
                upper_id=_id(told["upper_id"]),
                work_id=_id(told["work_id"]),
                namespace=_number(told.get("namespace", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProtocolError(f"not the record of a mount: {type(error).__name__}: {error}") from None


def mount_namespace() -> int:
    """The number of this process's mount namespace (namespaces(7)); 0 where /proc does not say."""
    try:
        return os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return 0


def _to_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return [_to_text(item) for item in value] if isinstance(value, tuple) else value


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"not a number: {value!r}")
    return value


def _path(value: Any) -> bytes:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(f"not a path: {value!r}")
    return os.fsencode(value)


def _optional_path(value: Any) -> bytes | None:
    return None if value is None else _path(value)


def _id(value: Any) -> DirectoryId | None:
    if value is None:
        return None
    device, inode = value
    return _number(device), _number(inode)


class Mounted(NamedTuple):
    """A mount as `list_mounts` sees it. "live": its daemon runs; "dead": mounted without one (ENOTCONN); "foreign":
    somebody else's, about whom nothing is known; "detached": its daemon runs, but it is not (or not yet, or no more,
    or elsewhere) mounted here, as after `umount --lazy` while files are open."""

    mountpoint: bytes
    state: State
    record: MountRecord | None
    source: bytes = b""
    read_only: bool = False


class Entry:
    """A claimed record. `control_path`: where this mount's control socket belongs."""

    def __init__(self, record: MountRecord, control_path: bytes) -> None:
        self.record = record
        self.control_path = control_path


class Registry:
    """The records in one runtime directory (default: this user's)."""

    def __init__(self, directory: bytes | None = None) -> None:
        self._directory = runtime_directory() if directory is None else directory

    # a daemon's own ---------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def claim(self, record: MountRecord) -> Iterator[Entry]:
        """Write `record` down for as long as the context lasts, with `control` filled in.

        Raises MountError where its upper or work directory is used by another live mount.
        """
        with contextlib.ExitStack() as stack:
            written = [(d, role) for d, role in ((record.upper, "upper"), (record.work, "work")) if d is not None]
            for directory, role in written:
                stack.enter_context(_locked_directory(directory, role, functools.partial(self.user_of, directory)))
            stem = os.path.join(self._directory, b"%d-%08x" % (record.pid, zlib.crc32(record.mountpoint)))
            entry = Entry(record._replace(control=stem + b".sock"), stem + b".sock")
            with self._locked():
                for directory, role in written:
                    if (user := self._user_of_locked(directory)) is not None:
                        raise _in_use(directory, role, user)
                self._write_locked(stem + b".json", entry.record)
            try:
                yield entry
            finally:
                for suffix in (b".json", b".sock"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(stem + suffix)

    @contextlib.contextmanager
    def hold(self, *directories: tuple[bytes, str]) -> Iterator[None]:
        """Keep our mounts from writing to directories, each with its role ("upper"), for as long as the context lasts.

        Raises MountError where a live mount, ours or the kernel's overlay, writes to one or has it as a layer.
        """
        with contextlib.ExitStack() as stack:
            for directory, role in directories:
                stack.enter_context(_locked_directory(directory, role, functools.partial(self.user_of, directory)))
                user = self.user_of(directory) or self.reader_of(directory)
                if user is not None:
                    raise _in_use(directory, role, user)
            yield

    def _write_locked(self, path: bytes, record: MountRecord) -> None:
        temporary = path + b".tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(record.to_json(), file)
        os.rename(temporary, path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flock_exclusive(fd, blocking=True)
            yield
        finally:
            os.close(fd)

    # everybody's ------------------------------------------------------------------------------------------------
    def records(self) -> list[MountRecord]:
        """Those whose process lives, or whose mount is still there without it; by time of start. Sweeps the rest."""
        with self._locked():
            return self._records_locked()

    def _records_locked(self) -> list[MountRecord]:
        mounted = {row.mountpoint for row in mountinfo() if _is_fuse(row)}
        kept: list[MountRecord] = []
        stems: set[bytes] = set()
        names = os.listdir(self._directory)
        for name in names:
            if not name.endswith(b".json"):
                continue
            record = self._read(name)
            if record is not None and (record.alive or record.mountpoint in mounted):
                kept.append(record)
                stems.add(name.removesuffix(b".json"))
            elif record is not None and record.elsewhere:
                stems.add(name.removesuffix(b".json"))  # not ours to judge, nor to show
        for name in names:
            stem, _, suffix = name.partition(b".")
            # Writing and unlinking a .json.tmp happens under this lock, so one that is seen here was left behind.
            if suffix in (b"json", b"sock", b"json.tmp") and stem not in stems:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._directory, name))
        return sorted(kept, key=lambda record: record.started)

    def _read(self, name: bytes) -> MountRecord | None:
        try:
            with open(os.path.join(self._directory, name), "rb") as file:
                return MountRecord.from_json(json.loads(file.read(1 << 20)))
        except (OSError, ValueError, RecursionError, ProtocolError):
            return None  # gone meanwhile, or not ours to understand: swept

    def list_mounts(self) -> list[Mounted]:
        """All unionfs mounts of this mount namespace, in mount order, then the detached ones."""
        records = self.records()
        newest = {record.mountpoint: record for record in records}  # a detached one may have been there before
        seen: list[Mounted] = []
        for row in mountinfo():
            record = newest.get(row.mountpoint) if _is_fuse(row) else None
            if record is None and row.fstype != FSTYPE:
                continue
            state: State = "live" if record is not None and record.alive else "dead"
            if record is None and not is_dead(row.mountpoint):
                state = "foreign"
            seen.append(Mounted(row.mountpoint, state, record, row.source, b"ro" in row.options))
        there = {mount.record.pid for mount in seen if mount.record is not None}
        return seen + [Mounted(r.mountpoint, "detached", r) for r in records if r.pid not in there]

    def find(self, path: bytes, inside: bool = False) -> Mounted | None:
        """The unionfs mount on `path` (the topmost of several), or with `inside` also the one that `path` lies in."""
        mounts = {mount.mountpoint: mount for mount in self.list_mounts() if mount.state != "detached"}
        for canonical in _canonical_forms(path):
            while True:
                if canonical in mounts:
                    return mounts[canonical]
                if not inside or canonical in (b"/", b""):
                    break
                canonical = os.path.dirname(canonical)
        return None

    def user_of(self, directory: bytes) -> str | None:
        """The live mount, ours or the kernel's overlay, that has `directory` as upper or work: "unionfs mount on /m".
        None if there is none (or none that can be seen: other users' uppers are only locked).

        A daemon whose mount is gone is on its way out, and waited for: umount(2) returns before a FUSE server has
        heard of it (fs/fuse: fuse_send_destroy is for fuseblk alone), and `umount M && mount … M` has to work."""
        with self._locked():
            if (user := self._user_of_locked(directory)) is None:
                return None
        wanted = directory_id(directory)
        leaving = [record for record in self.records() if wanted in (record.upper_id, record.work_id)]
        for record in leaving:
            _await_leaving(record)
        if not leaving:
            return user
        with self._locked():
            return self._user_of_locked(directory)

    def _user_of_locked(self, directory: bytes) -> str | None:
        wanted = directory_id(directory)
        if wanted is None:
            return None
        for record in self._records_locked():
            if not record.alive:
                continue
            # The numbers as they were at the mount; the directory may have been renamed since.
            if wanted in (record.upper_id, record.work_id):
                return f"unionfs mount on {os.fsdecode(record.mountpoint)}"
        for row in mountinfo():
            if row.fstype != b"overlay":
                continue
            for option in row.super_options:
                key, _, value = option.partition(b"=")
                if key in (b"upperdir", b"workdir") and directory_id(value) == wanted:
                    return f"kernel overlay on {os.fsdecode(row.mountpoint)}"
        return None

    def reader_of(self, directory: bytes) -> str | None:
        """The live mount, ours or the kernel's overlay, that has `directory` as a layer; None if none can be seen."""
        wanted = directory_id(directory)
        for record in self.records():
            if record.alive and wanted is not None and wanted in map(directory_id, record.layers):
                return f"unionfs mount on {os.fsdecode(record.mountpoint)}"
        for row in mountinfo():
            if row.fstype == b"overlay" and wanted is not None and wanted in map(directory_id, _kernel_layers(row)):
                return f"kernel overlay on {os.fsdecode(row.mountpoint)}"
        return None


def _kernel_layers(row: MountInfo) -> Iterator[bytes]:
    """The lower directories that an overlay mount shows (ovl_show_options())."""
    for option in row.super_options:
        key, _, value = option.partition(b"=")
        if key in (b"lowerdir", b"lowerdir+", b"datadir+"):
            for path in re.split(rb"(?<!\\):+", value):
                yield re.sub(rb"\\(.)", rb"\1", path)


def _await_leaving(record: MountRecord) -> None:
    """If nothing is mounted where `record` says, wait until its process ends, for LEAVING_SECONDS at most."""
    if record.elsewhere or any(_is_fuse(row) and row.mountpoint == record.mountpoint for row in mountinfo()):
        return
    process = open_process(record)
    if process is None:
        return
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(LEAVING_SECONDS * 1000)
    finally:
        os.close(process)


def open_process(record: MountRecord) -> int | None:
    """A pidfd of the daemon, which becomes readable when it ends; None if it is this process, or gone."""
    if record.pid == os.getpid():
        return None
    try:
        fd = os.pidfd_open(record.pid)
    except OSError:
        return None
    if record.alive:  # asked after the open: that process is pinned now
        return fd
    os.close(fd)
    return None


def list_mounts() -> list[Mounted]:
    """`Registry().list_mounts()`."""
    return Registry().list_mounts()


def find(path: bytes, inside: bool = False) -> Mounted | None:
    """`Registry().find(path, inside)`."""
    return Registry().find(path, inside)


@contextlib.contextmanager
def _locked_directory(path: bytes, role: str, user: Callable[[], str | None]) -> Iterator[None]:
    """flock `path` for as long as the context lasts; MountError, naming `user()`, where somebody else has."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            flock_exclusive(fd)
        except BlockingIOError:
            raise _in_use(path, role, user() or "one of another user") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            # A file system without locks (some network ones): the records have to do.
        yield
    finally:
        os.close(fd)


def _in_use(directory: bytes, role: str, user: str) -> MountError:
    return MountError(
        f"{role} {os.fsdecode(directory)} is used by another live mount: {user}",
        hint="unmount that first, or take another directory (unionfs mounts lists the mounts)",
    )


def _is_fuse(row: MountInfo) -> bool:
    return row.fstype == b"fuse" or row.fstype.startswith(b"fuse.")


def _canonical_forms(path: bytes) -> Iterator[bytes]:
    """`path` made absolute, first without looking at its last component: that may be a dead or a stuck mount."""
    absolute = os.path.abspath(path)
    parent, name = os.path.split(absolute)
    yield os.path.join(os.path.realpath(parent), name) if name else absolute
    yield os.path.realpath(path)


def is_dead(mountpoint: bytes, timeout: float = PROBE_SECONDS) -> bool:
    """Whether a FUSE mount has lost its daemon (ENOTCONN). One that does not answer in time is not dead, but stuck:
    the question is put by a thread that is left behind then."""
    answer: list[bool] = []

    def probe() -> None:
        try:
            os.stat(mountpoint)
        except OSError as error:
            answer.append(error.errno == errno.ENOTCONN)

    prober = threading.Thread(target=probe, name="probe", daemon=True)
    prober.start()
    prober.join(timeout)
    return bool(answer and answer[0])
