"""The mount and its /dev/fuse descriptor: mount(2) as root, fusermount3 as a user; unmount, abort.

    mount(mountpoint, options) -> fd     the descriptor on which the kernel's requests arrive
    unmount(mountpoint, lazy=False)      by whoever may: umount2(2), else fusermount3
    abort(fd's device number)            end a connection whose daemon hangs; the mount answers ENOTCONN from then on

Nothing here knows a request from a reply.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from unionfs.errors import MountError, TransportUnavailable
from unionfs.linux import mount as sys_mount
from unionfs.linux.process import in_user_namespace
from unionfs.transport import MountOptions

DEVICE: Final = "/dev/fuse"
_CONNECTIONS: Final = "/sys/fs/fuse/connections"

#: mount(8) option -> (flags to set, flags to clear). Options that are in neither map go to the file system as data.
_FLAGS: Final = {
    "ro": (sys_mount.MS_RDONLY, 0),
    "rw": (0, sys_mount.MS_RDONLY),
    "nosuid": (sys_mount.MS_NOSUID, 0),
    "suid": (0, sys_mount.MS_NOSUID),
    "nodev": (sys_mount.MS_NODEV, 0),
    "dev": (0, sys_mount.MS_NODEV),
    "noexec": (sys_mount.MS_NOEXEC, 0),
    "exec": (0, sys_mount.MS_NOEXEC),
    "sync": (sys_mount.MS_SYNCHRONOUS, 0),
    "async": (0, sys_mount.MS_SYNCHRONOUS),
    "dirsync": (sys_mount.MS_DIRSYNC, 0),
    "noatime": (sys_mount.MS_NOATIME, 0),
    "atime": (0, sys_mount.MS_NOATIME),
    "nodiratime": (sys_mount.MS_NODIRATIME, 0),
    "diratime": (0, sys_mount.MS_NODIRATIME),
    "relatime": (sys_mount.MS_RELATIME, 0),
    "strictatime": (sys_mount.MS_STRICTATIME, 0),
    "nosymfollow": (sys_mount.MS_NOSYMFOLLOW, 0),
}


def mount(mountpoint: bytes, options: MountOptions) -> int:
    """Mount on the directory `mountpoint`; returns the descriptor of /dev/fuse, which is the caller's to close.

    As root by mount(2), else through fusermount3. MountError where it fails, TransportUnavailable where FUSE is
    missing or may not be used; both with a hint.
    """
    if os.geteuid() == 0:
        return _mount_as_root(mountpoint, options)
    return _mount_as_user(mountpoint, options)


def _mount_as_root(mountpoint: bytes, options: MountOptions) -> int:
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_device(error) from error
    flags, data = mount_arguments(options, fd)
    fstype = f"fuse.{options.subtype}" if options.subtype else "fuse"
    try:
        sys_mount.mount(os.fsencode(options.fsname), mountpoint, fstype.encode(), flags, data)
    except OSError as error:
        os.close(fd)
        raise _mount_error(error, mountpoint) from error
    return fd


def mount_arguments(options: MountOptions, fd: int) -> tuple[int, bytes]:
    """(flags, data) of mount(2) for a FUSE mount over the device descriptor `fd`."""
    flags = sys_mount.MS_RDONLY if options.read_only else 0
    data = [f"fd={fd}", "rootmode=40000", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
    if options.allow_other is not False:
        data.append("allow_other")
    if options.default_permissions:
        data.append("default_permissions")
    for option in options.extra:
        if option in _FLAGS:
            added, removed = _FLAGS[option]
            flags = (flags | added) & ~removed
        else:
            data.append(option)
    return flags, os.fsencode(",".join(data))


def _mount_as_user(mountpoint: bytes, options: MountOptions) -> int:
    import subprocess  # only a user's mount runs fusermount3, and every mount would pay some milliseconds for it

    ours, theirs = socket.socketpair()
    with ours, theirs:
        # fusermount3 opens the device, mounts, and sends the descriptor over this socket.
        process = subprocess.Popen(
            [_fusermount(), "-o", user_options(options), "--", os.fsdecode(mountpoint)],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    _, complaint = process.communicate()
    if fds:
        os.set_inheritable(fds[0], False)
        return fds[0]
    text = complaint.decode(errors="replace").strip() or f"it ended with status {process.returncode}"
    if DEVICE in text:
        raise TransportUnavailable(
            f"fusermount3 cannot use {DEVICE}: {text}", hint=f"the user needs to read and write {DEVICE}"
        )
    raise MountError(f"fusermount3 did not mount on {os.fsdecode(mountpoint)}: {text}", hint=_user_hint(text))


def user_options(options: MountOptions) -> str:
    """The -o argument for fusermount3. Commas and backslashes in names are escaped as it wants them."""
    parts = [f"fsname={_escaped(options.fsname)}"]
    if options.subtype:
        parts.append(f"subtype={_escaped(options.subtype)}")
    if options.read_only:
        parts.append("ro")
    if options.allow_other:
        parts.append("allow_other")
    if options.default_permissions:
        parts.append("default_permissions")
    return ",".join((*parts, *options.extra))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _user_hint(complaint: str) -> str | None:
    if "allow_other" in complaint:
        return "put user_allow_other into /etc/fuse.conf, or mount without allow_other"
    if any(text in complaint for text in ("no write access", "bad mount point", "not permitted")):
        return "the mountpoint must be a directory that the user owns"
    return None


def _fusermount() -> str:
    import shutil  # as subprocess above

    for name in ("fusermount3", "fusermount"):
        path = shutil.which(name)
        if path is not None:
            return path
    raise TransportUnavailable(
        "fusermount3 not found, which mounts for a user who is not root", hint="install the package fuse3"
    )


def _no_device(error: OSError) -> TransportUnavailable:
    if error.errno in (errno.EACCES, errno.EPERM):
        return TransportUnavailable(f"no permission on {DEVICE}", hint="a container needs --device /dev/fuse")
    return TransportUnavailable(f"{DEVICE}: {error.strerror}", hint="load the kernel module fuse (modprobe fuse)")


def _mount_error(error: OSError, mountpoint: bytes) -> MountError:
    where = os.fsdecode(mountpoint)
    if error.errno == errno.EPERM:
        return TransportUnavailable(
            f"{where}: the kernel refuses to mount: {error.strerror}", hint="mounting needs CAP_SYS_ADMIN"
        )
    if error.errno == errno.ENODEV:
        return TransportUnavailable("the kernel has no FUSE", hint="load the kernel module fuse (modprobe fuse)")
    if error.errno == errno.EINVAL:
        return MountError(f"{where}: the kernel refuses the mount options", hint="see dmesg for the option at fault")
    hint = "the mountpoint must be an existing directory" if error.errno in (errno.ENOENT, errno.ENOTDIR) else None
    return MountError(f"cannot mount on {where}: {error.strerror}", hint=hint)


def may_register_backing_files() -> bool:
    """Whether this process has CAP_SYS_ADMIN in the initial user namespace (fuse_backing_open)."""
    if in_user_namespace():
        return False
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> 21 & 1)
    except OSError:
        pass  # no /proc: the kernel decides, file by file
    return os.geteuid() == 0


def unmount(mountpoint: bytes, *, lazy: bool = False) -> None:
    """Unmount. OSError (EBUSY while in use, EINVAL where nothing is mounted) or, through fusermount3, MountError.

    The kernel may ask the daemon to write data back first: never call this from the thread that answers it, except
    lazily. With `lazy` the mount leaves the tree at once and ends with its last user.
    """
    if os.geteuid() == 0:
        flags = sys_mount.UMOUNT_NOFOLLOW | (sys_mount.MNT_DETACH if lazy else 0)
        sys_mount.umount2(mountpoint, flags)
        return
    import subprocess  # as above

    command = [_fusermount(), "-u", *(["-z"] if lazy else []), "--", os.fsdecode(mountpoint)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if result.returncode:
        text = result.stderr.decode(errors="replace").strip()
        if "busy" in text:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(mountpoint))
        raise MountError(f"fusermount3 did not unmount {os.fsdecode(mountpoint)}: {text}")


def connection_of(mountpoint: bytes) -> int | None:
    """The number of the FUSE connection mounted on `mountpoint`, without asking its daemon; None where there is none.

    It is the device number of the mount, whose major is 0, as found in mountinfo."""
    path = os.path.abspath(mountpoint)
    found = None
    for row in sys_mount.mountinfo():
        if row.mountpoint == path and row.fstype.split(b".")[0] == b"fuse":
            found = row.minor
    return found


def abort(connection: int) -> None:
    """Abort a connection (Documentation/filesystems/fuse.rst): all its requests end with ECONNABORTED."""
    with open(f"{_CONNECTIONS}/{connection}/abort", "wb") as file:
        file.write(b"1")
