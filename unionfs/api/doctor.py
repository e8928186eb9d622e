"""`doctor`: what this machine has and lacks for unionfs, and what mounts left behind on it.

Whatever can be tried is tried, not concluded from a version. Nothing is changed: what is tried on a file system
happens in a directory that is removed again.

A *problem* keeps unionfs from working for this user, or is broken now; a *warning* is something that is done without,
or that lies around; everything else is ok. Each has the one command or edit that changes it, if there is one.
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import shlex
import stat
import time
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from unionfs.api.abilities import abilities
from unionfs.api.layers import TEMPORARY_PREFIX, LayerSpec, temporary_places
from unionfs.api.mounting import TEMPORARY_OPTION
from unionfs.changeset.compression import compressor
from unionfs.errors import LayerError, TransportUnavailable, UnionFSError
from unionfs.linux import fuse_dev, libfuse2
from unionfs.linux.process import flock_exclusive, in_user_namespace
from unionfs.linux.xattr import has_xattrat
from unionfs.mounts.control import request
from unionfs.mounts.mountpoint import check_device, find_fusermount
from unionfs.mounts.registry import Mounted, Registry, runtime_directory
from unionfs.transport.devfuse.channel import may_register_backing_files

State = Literal["ok", "warning", "problem"]

FUSE_CONF: Final = "/etc/fuse.conf"
#: A daemon holds a descriptor per open file, and up to some hundred directories of each layer.
ENOUGH_FILES: Final = 4096
#: A directory younger than this may be that of a mount in the making.
MAKING_SECONDS: Final = 10.0
INSTALL_FUSE3: Final = "apt-get install fuse3"


class Diagnosis(NamedTuple):
    """One thing looked at. `name` says which, and stays the same; `found` what there is; `hint` what to do about it;
    `path` the mountpoint or directory that it is about."""

    name: str
    state: State
    found: str
    hint: str | None = None
    path: bytes | None = None


def doctor(directory: LayerSpec | None = None) -> list[Diagnosis]:
    """Look at the machine, at `directory` as a place for uppers (default: where ephemeral ones go), and at the mounts
    of this mount namespace. LayerError where `directory` is none."""
    if directory is not None and not os.path.isdir(directory):
        raise LayerError(f"{os.fsdecode(directory)} is not a directory", hint="name the directory that uppers are in")
    places = temporary_places()
    place = os.path.abspath(os.fsencode(directory)) if directory is not None else next(iter(places), None)
    return [
        _python(),
        _kernel(),
        _dev_fuse(),
        _fusermount(),
        _allow_other(),
        _passthrough(),
        _xattrat(),
        _overlayfs(),
        _libfuse2(),
        _open_files(),
        *_upper(place),
        *_mounts(places),
    ]


# the machine ----------------------------------------------------------------------------------------------------------
def _python() -> Diagnosis:
    """Older ones than it runs on cannot come here."""
    found = f"Python {platform.python_version()}"
    try:
        compressor("zstd")
    except UnionFSError as error:
        return Diagnosis("python", "warning", f"{found} without zstd: no such layers", error.hint)
    return Diagnosis("python", "ok", f"{found}, with zstd")


def _release() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    numbers = os.uname().release.replace("-", ".").split(".")
    return int(numbers[0]), int(numbers[1])


def _kernel() -> Diagnosis:
    found = f"Linux {os.uname().release}"
    # FUSE 7.31, and what devfuse takes for granted of system calls.
    if _release() >= (5, 4):
        return Diagnosis("kernel", "ok", found)
    return Diagnosis("kernel", "warning", f"{found} is older than what this is tried on", "run Linux 5.4 or newer")


def _dev_fuse() -> Diagnosis:
    try:
        check_device()
    except TransportUnavailable as error:
        return Diagnosis("dev-fuse", "problem", str(error), error.hint, b"/dev/fuse")
    return Diagnosis("dev-fuse", "ok", "/dev/fuse can be opened", path=b"/dev/fuse")


def _fusermount() -> Diagnosis:
    """Root mounts without it; to everybody else it is the only way."""
    if _is_namespace_root():
        return Diagnosis("fusermount3", "ok", "not needed: root of a user namespace mounts by itself, for those in it")
    worst: State = "warning" if os.geteuid() == 0 else "problem"
    path = find_fusermount()
    if path is None:
        return Diagnosis("fusermount3", worst, "not found: only root can mount", INSTALL_FUSE3)
    shown = os.fsdecode(path)
    status = os.stat(path)
    if not (status.st_mode & stat.S_ISUID and status.st_uid == 0):
        hint = f"chown root {shlex.quote(shown)} && chmod u+s {shlex.quote(shown)}"
        return Diagnosis("fusermount3", worst, f"{shown} is not set-user-ID root: only root can mount", hint, path)
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        hint = "remount that file system with suid"
        return Diagnosis("fusermount3", worst, f"{shown} is on a file system mounted nosuid", hint, path)
    if _no_new_privileges():
        hint = "start it without no_new_privs (NoNewPrivileges= in systemd, security options of a container)"
        return Diagnosis("fusermount3", worst, f"{shown} may gain no privileges in this process", hint, path)
    return Diagnosis("fusermount3", "ok", f"{shown}, set-user-ID root", path=path)


def _is_namespace_root() -> bool:
    """Root of another user namespace than the initial one: the host's set-user-ID programs and their settings mean
    nothing to it (fs/fuse/dir.c, fuse_allow_current_process(), lets everybody in the namespace in)."""
    return os.geteuid() == 0 and in_user_namespace()


def _no_new_privileges() -> bool:
    with open("/proc/self/status") as file:
        return any(line.split() == ["NoNewPrivs:", "1"] for line in file)


def _allow_other() -> Diagnosis:
    if _is_namespace_root():
        return Diagnosis("user-allow-other", "ok", "not needed: a user namespace's mounts are for all who are in it")
    try:
        with open(FUSE_CONF, errors="replace") as file:
            allowed = any(line.partition("#")[0].strip() == "user_allow_other" for line in file)
    except OSError:
        allowed = False
    if allowed:
        return Diagnosis("user-allow-other", "ok", f"{FUSE_CONF} lets users mount with allow_other")
    hint = f"to let them, put the line user_allow_other into {FUSE_CONF}"
    return Diagnosis("user-allow-other", "warning", "users' mounts are theirs alone: no allow_other", hint)


def _passthrough() -> Diagnosis:
    """Asked of a device that serves no mount: EPERM where the kernel knows the question, ENOTTY where not."""
    name = "passthrough"
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return Diagnosis(name, "warning", "cannot be told without /dev/fuse")
    known = True
    try:
        fuse_dev.passthrough_open(device, device)
    except OSError as error:
        known = error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP)
    finally:
        os.close(device)
    if not known:
        return Diagnosis(name, "warning", "file data goes through the daemon", "Linux 6.9 has FUSE passthrough")
    if not may_register_backing_files():
        return Diagnosis(name, "ok", "in the kernel, for mounts of root outside of user namespaces")
    return Diagnosis(name, "ok", "the kernel can read and write the files of layers itself")


def _xattrat() -> Diagnosis:
    if has_xattrat():
        return Diagnosis("getxattrat", "ok", "in the kernel")
    return Diagnosis("getxattrat", "warning", "not to be had: xattrs are read by way of /proc", "Linux 6.13 has it")


def _overlayfs() -> Diagnosis:
    """What the kernel mounts an upper with, in turn with us."""
    with open("/proc/filesystems") as file:
        there = any(line.split()[-1] == "overlay" for line in file)
    if not there:
        return Diagnosis("overlayfs", "warning", "the kernel cannot mount uppers itself", "modprobe overlay")
    by_users = "with userxattr" if _release() >= (5, 11) else "without userxattr (Linux 5.11)"
    return Diagnosis("overlayfs", "ok", f"in the kernel, {by_users}")


def _libfuse2() -> Diagnosis:
    try:
        libfuse2.load()
    except TransportUnavailable as error:
        return Diagnosis("libfuse2", "warning", f"{error}: no transport fusepy", error.hint)
    return Diagnosis("libfuse2", "ok", "for the transport fusepy")


def _open_files() -> Diagnosis:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES:
        return Diagnosis("open-files", "ok", f"{'any number' if hard == resource.RLIM_INFINITY else hard} per process")
    hint = "raise the hard limit: ulimit -Hn, LimitNOFILE= in systemd, nofile in limits.conf"
    return Diagnosis("open-files", "warning", f"a mount can hold no more than {hard} open", hint)


# the place of uppers --------------------------------------------------------------------------------------------------
#: What is said of a missing ability, and how bad that is.
_WITHOUT: Final[dict[str, tuple[State, str]]] = {
    "d_type": ("ok", "listings do not tell types, which are asked for one by one"),
    "xattrs": ("warning", "none: marks become .wh. files, which the kernel's overlayfs ignores"),
    "whiteouts": ("warning", "no devices: .wh. files, which the kernel's overlayfs ignores"),
    "tmpfile": ("warning", "no O_TMPFILE, so none in the mount"),
    "rename-whiteout": ("ok", "no RENAME_WHITEOUT: done in two steps"),
    "reflink": ("ok", "no reflinks: a copy-up copies the data"),
}


def _upper(place: bytes | None) -> Iterator[Diagnosis]:
    """What the file system of `place` is able to hold."""
    if place is None:
        yield Diagnosis("upper", "warning", "no temporary directory for --ephemeral", "set TMPDIR")
        return
    shown = os.fsdecode(place)
    hint = "choose another directory for uppers, e.g. on ext4, xfs or btrfs"
    try:
        found = abilities(place)
    except OSError as error:
        yield Diagnosis("upper", "problem", f"{shown}: nothing can be made there: {error.strerror}", hint, place)
        return
    for one in found:
        name = f"upper-{one.name}"
        if one.there:
            yield Diagnosis(name, "ok", f"{shown}: {one.found}", path=place)
            continue
        state, lacks = _WITHOUT[one.name]
        yield Diagnosis(name, state, f"{shown}: {lacks} ({one.found})", None if state == "ok" else hint, place)


# what is mounted, and what was ----------------------------------------------------------------------------------------
def _mounts(places: list[bytes]) -> Iterator[Diagnosis]:
    try:
        directory = runtime_directory()
        mounts = Registry(directory).list_mounts()
    except (UnionFSError, OSError) as error:
        hint = error.hint if isinstance(error, UnionFSError) else None
        yield Diagnosis("runtime-directory", "problem", str(error), hint)
        return
    yield Diagnosis("runtime-directory", "ok", os.fsdecode(directory), path=directory)
    wrong = [diagnosis for diagnosis in map(_mount, mounts) if diagnosis is not None]
    live = sum(mount.state == "live" for mount in mounts)
    yield Diagnosis("mounts", "ok", f"{live} live" + ("" if wrong else ", nothing wrong with them"))
    yield from wrong
    known = {mount.record.options.get(TEMPORARY_OPTION) for mount in mounts if mount.record is not None}
    for place in places:
        yield from _leftovers(place, known)


def _mount(mount: Mounted) -> Diagnosis | None:
    """What is wrong with a mount, and the command that ends it."""
    shown = os.fsdecode(mount.mountpoint)
    clear = f"unionfs umount {shlex.quote(shown)}"
    record = mount.record
    if mount.state == "dead":
        kept = ""
        if record is not None and record.upper is not None and TEMPORARY_OPTION not in record.options:
            kept = f"; {os.fsdecode(record.upper)} keeps its changes"
        return Diagnosis("dead-mount", "problem", f"{shown}: its daemon is gone{kept}", clear, mount.mountpoint)
    if record is None or record.elsewhere:
        return None
    if mount.state == "detached":
        used = "" if record.upper is None else f", and {os.fsdecode(record.upper)} in use"
        said = f"{shown}: unmounted while files were open; process {record.pid} still serves them{used}"
        return Diagnosis("detached-mount", "warning", said, f"close them, or: kill {record.pid}", mount.mountpoint)
    try:
        if record.control is not None:
            request(record.control, "statistics")
    except (UnionFSError, OSError) as error:
        hint = f"kill -9 {record.pid}; {clear}"
        return Diagnosis("stuck-mount", "problem", f"{shown}: {error}", hint, mount.mountpoint)
    return None


def _leftovers(place: bytes, known: set[str | None]) -> Iterator[Diagnosis]:
    """Directories of ephemeral mounts whose daemon was killed, and which something else than `umount` cleared."""
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return
    for name in names:
        path = os.path.join(place, name)
        if (
            name.startswith(TEMPORARY_PREFIX)
            and len(name) == len(TEMPORARY_PREFIX) + 8
            and os.fsdecode(path) not in known
            and _is_left(path)
        ):
            hint = f"rm -r {shlex.quote(os.fsdecode(path))}"
            yield Diagnosis("leftover", "warning", f"{os.fsdecode(path)}: an ephemeral mount is gone", hint, path)


def _is_left(path: bytes) -> bool:
    """Is this an ephemeral stack of this user's that nobody has? A daemon locks its upper (Registry.claim)."""
    try:
        status = os.lstat(path)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < MAKING_SECONDS:
            return False
        if sorted(os.listdir(path)) != [b"upper", b"work"]:
            return False
        upper = os.open(os.path.join(path, b"upper"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flock_exclusive(upper)
    except OSError:
        return False
    finally:
        os.close(upper)
    return True
