"""Before a mount and after it: may one be made here, and how it is taken away.

    check_mountpoint    is this directory fit to be mounted on
    check_device        may this user open /dev/fuse
    check_dev_fuse      may this user speak FUSE at all
    umount              remove a unionfs mount, live or dead, and wait for its daemon
    detach              the system call alone

Every refusal is a MountError (TransportUnavailable for what concerns the machine) that says what to do.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from typing import Final, NamedTuple

from unionfs.errors import MountError, TransportUnavailable
from unionfs.linux.mount import MNT_DETACH, UMOUNT_NOFOLLOW, MountInfo, mountinfo, parse_mountinfo, umount2
from unionfs.mounts.registry import FSTYPE, Registry, open_process

FUSERMOUNT: Final = (b"fusermount3", b"fusermount")
#: How often who waits for a daemon looks whether another mount namespace keeps it.
_LOOK_SECONDS: Final = 0.5


def check_mountpoint(path: bytes, nonempty_ok: bool = False) -> bytes:
    """The canonical absolute form of `path`, on which a mount may be made.

    Raises MountError: missing, not a directory, a dead mount, a unionfs mount already, not empty (unless
    `nonempty_ok`), not to be looked at.
    """
    shown = os.fsdecode(path)
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unusable(path, error) from None
    if not stat.S_ISDIR(found.st_mode):
        raise MountError(f"mountpoint {shown} is not a directory")
    canonical = os.path.realpath(path)
    on_top = [row for row in mountinfo() if row.mountpoint == canonical]
    if on_top and on_top[-1].fstype == FSTYPE:
        raise MountError(f"mountpoint {shown} is busy: a unionfs is mounted there", hint=f"unionfs umount {shown}")
    try:
        with os.scandir(canonical) as entries:
            empty = next(entries, None) is None
    except PermissionError:
        empty = True  # what cannot be read cannot be hidden from this user
    except OSError as error:
        raise _unusable(path, error) from None
    if not empty and not nonempty_ok:
        raise MountError(
            f"mountpoint {shown} is not empty", hint="take an empty directory, or add -o nonempty to hide what is there"
        )
    return canonical


def _unusable(path: bytes, error: OSError) -> MountError:
    shown = os.fsdecode(path)
    if error.errno == errno.ENOTCONN:
        return MountError(f"a dead mount is on {shown}: its daemon is gone", hint=f"unionfs umount {shown}")
    if error.errno == errno.ENOENT:
        return MountError(f"mountpoint {shown} does not exist", hint=f"mkdir -p {shown}")
    if error.errno == errno.ENOTDIR:
        return MountError(f"mountpoint {shown} is not a directory")
    return MountError(f"mountpoint {shown} cannot be used: {error.strerror}")


def check_device(device: bytes = b"/dev/fuse") -> None:
    """Raises TransportUnavailable where `device` is missing or may not be opened."""
    shown = os.fsdecode(device)
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise TransportUnavailable(
            f"no permission to open {shown}", hint=f"run as root, or let root do: chmod 666 {shown}"
        ) from None
    except OSError as error:
        raise TransportUnavailable(
            f"{shown} cannot be opened: {error.strerror}",
            hint="modprobe fuse; in a container: give it the device (--device /dev/fuse)",
        ) from None


def check_dev_fuse(device: bytes = b"/dev/fuse") -> None:
    """`check_device`, and TransportUnavailable too where a user who is not root has no fusermount."""
    check_device(device)
    if os.geteuid() != 0 and find_fusermount() is None:
        raise TransportUnavailable("fusermount3 not found; only root mounts without it", hint="apt-get install fuse3")


def find_fusermount() -> bytes | None:
    """The path of fusermount3 or fusermount, or None."""
    for name in FUSERMOUNT:
        for directory in os.get_exec_path():
            candidate = os.path.join(os.fsencode(directory), name)
            if os.access(candidate, os.X_OK):
                return candidate
    return None


def umount(
    mountpoint: bytes, lazy: bool = False, *, timeout: float = 10.0, registry: Registry | None = None
) -> tuple[Holder, ...]:
    """Unmount the unionfs on `mountpoint`; returns when its daemon has ended too, having written everything.

    `lazy`: take it out of the tree at once; its daemon goes on until the last file in it is closed, and is not waited
    for. A dead mount is cleared either way. `timeout`: seconds for the daemon to end.

    Where another mount namespace has a copy of the mount (a container that was started meanwhile), the daemon goes on
    for that, and is not waited for either: then the result names processes there.
    Raises MountError: not a unionfs mount, busy, not permitted, or the daemon still runs.
    """
    registry = Registry() if registry is None else registry
    mount = registry.find(mountpoint)
    if mount is None:
        raise MountError(f"{os.fsdecode(mountpoint)} is not a unionfs mount", hint="unionfs mounts lists them")
    process = open_process(mount.record) if mount.state == "live" and mount.record is not None else None
    mounted = next((row for row in reversed(mountinfo()) if row.mountpoint == mount.mountpoint), None)
    held: tuple[Holder, ...] = ()
    try:
        detach(mount.mountpoint, lazy or mount.state == "dead")
        if process is not None and not lazy:
            ended, held = _ended(process, timeout, mounted)
            if not (ended or held):
                assert mount.record is not None
                raise MountError(
                    f"unmounted, but the daemon (pid {mount.record.pid}) has not ended after {timeout:g} seconds",
                    hint="it may still be writing; its log file may say more",
                )
    finally:
        if process is not None:
            os.close(process)
    registry.records()  # sweeps the record of a mount whose daemon died
    return held


class Holder(NamedTuple):
    """A process in whose mount namespace there is a copy of a mount."""

    pid: int
    name: str


def _ended(process: int, timeout: float, mounted: MountInfo | None) -> tuple[bool, tuple[Holder, ...]]:
    """Whether the daemon ends within `timeout` seconds, and else who keeps it."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        if poll.poll(max(0.0, min(left, _LOOK_SECONDS)) * 1000):
            return True, ()
        held = () if mounted is None else _holders(mounted)
        if held or left <= _LOOK_SECONDS:
            return False, held


def _holders(mounted: MountInfo) -> tuple[Holder, ...]:
    """A process of each mount namespace, as far as this user may look, that has the file system in the same place. (Its
    number alone may be another's by now.)"""
    what = (mounted.major, mounted.minor, mounted.mountpoint)
    seen: set[str] = set()
    found: list[Holder] = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            namespace = os.readlink(f"/proc/{name}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            with open(f"/proc/{name}/mountinfo", "rb") as file:
                rows = parse_mountinfo(file)
            with open(f"/proc/{name}/comm", errors="replace") as file:
                command = file.read().strip()
        except OSError:
            continue  # it has ended, or is somebody else's
        if any((row.major, row.minor, row.mountpoint) == what for row in rows):
            found.append(Holder(int(name), command))
    return tuple(found)


def detach(mountpoint: bytes, lazy: bool) -> None:
    """umount2(2), or what fusermount makes of it for a user. MountError: busy (not with `lazy`), or not permitted."""
    shown = os.fsdecode(mountpoint)
    try:
        umount2(mountpoint, UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0))
        return
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(shown) from None
        if error.errno != errno.EPERM:
            raise MountError(f"cannot unmount {shown}: {error.strerror}") from None
    helper = find_fusermount()
    if helper is None:
        raise MountError(f"cannot unmount {shown}: fusermount3 not found", hint="apt-get install fuse3")
    status, said = _run([helper, b"-u", *([b"-z"] if lazy else []), b"--", mountpoint])
    if status == 0:
        return
    if "busy" in said:
        raise _busy(shown)
    raise MountError(f"cannot unmount {shown}: {said or f'fusermount failed with status {status}'}")


def _busy(shown: str) -> MountError:
    return MountError(
        f"{shown} is busy: something in it is open or somebody's working directory",
        hint=f"close it (fuser -vm {shown} tells who), or: unionfs umount --lazy {shown}",
    )


def _run(argv: list[bytes]) -> tuple[int, str]:
    """Run a program; its exit status and what it wrote to stderr (subprocess would cost the daemon its import)."""
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(
            argv[0], argv, {**os.environb, b"LC_ALL": b"C"}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)]
        )
    finally:
        os.close(writer)
    with open(reader, "rb") as file:
        said = file.read(65536)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace").strip()
