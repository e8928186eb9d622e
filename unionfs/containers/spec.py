"""The runtime's `config.json` (runtime-spec 1.0.2): of what an image says, what was asked for, and what the host gives.

Pure: nothing is looked up. What is in the root (its users) and on the host is found before, by `users` and
`surroundings`, and given. The defaults are docker's (moby daemon/pkg/oci/defaults.go, caps/defaults.go), so that an
image sees here what it sees there.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from unionfs.containers.configuration import configuration, merged_environment
from unionfs.containers.settings import Settings, Volume
from unionfs.containers.users import User
from unionfs.errors import ContainerError

VERSION: Final = "1.0.2"
DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES: Final = tuple(
    "CAP_" + name
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip

MASKED_PATHS: Final = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

#: Files of the container's directory, and where they are in it.
ETC_FILES: Final = ("hosts", "hostname", "resolv.conf")
#: The group tty, which devpts gives its terminals.
_TTY_GROUP: Final = 5


class Surroundings(NamedTuple):
    """What the host gives to one container.

    `root` absolute, the mountpoint. `directory`: of the container, with ETC_FILES in it. `volumes` sources for those
    that have none: the container's own directories. `rootless`: the runtime is root in a user namespace alone, in which
    the IDs 0 to `ids` - 1 exist (None: all). `network_namespace`: a path, to join; None: the runtime makes one.
    `cgroup` its path, None where there may be none. `swap_limits`: the kernel counts swap. `seccomp`: resolved.
    `console_size`: rows and columns of its terminal, if they are known. `annotations`: for the runtime.
    """

    root: bytes
    directory: bytes
    container_id: str
    hostname: str
    user: User = User()
    volumes: Mapping[str, str] = {}
    rootless: bool = False
    ids: int | None = None
    network_namespace: str | None = None
    cgroup: str | None = None
    swap_limits: bool = False
    seccomp: Mapping[str, Any] | None = None
    console_size: tuple[int, int] | None = None
    annotations: Mapping[str, str] = {}


def runtime_spec(settings: Settings, config: Mapping[str, Any], given: Surroundings) -> dict[str, Any]:
    """`config` is the object of that name in an image's configuration (image-spec config.md).

    ContainerError for an image without a command, when none was given.
    """
    return {
        "ociVersion": VERSION,
        "process": _process(settings, config, given),
        "root": {"path": _text(given.root), "readonly": settings.read_only},
        "hostname": given.hostname,
        "mounts": _mounts(settings, config, given),
        "annotations": {
            "org.opencontainers.image.stopSignal": config.get("StopSignal") or "SIGTERM",
            **given.annotations,
        },
        "linux": _linux(settings, given),
    }


def encode(spec: Mapping[str, Any]) -> bytes:
    """The bytes of a `config.json`: names that are not UTF-8 stay the bytes they are."""
    return json.dumps(spec, ensure_ascii=False).encode("utf-8", "surrogateescape")


def arguments(settings: Settings, config: Mapping[str, Any]) -> list[str]:
    """What is executed. An entrypoint that was given takes the image's command with it, as docker has it."""
    merged = configuration(settings, config)
    found = [*(merged.get("Entrypoint") or ()), *(merged.get("Cmd") or ())]
    if not found:
        raise ContainerError("no command specified, and the image has none", hint="unionfs run IMAGE COMMAND")
    return found


def environment(settings: Settings, config: Mapping[str, Any], hostname: str, home: str) -> list[str]:
    """PATH, HOSTNAME and TERM as docker begins; the image's; what was asked for; HOME, unless one of them has it."""
    own = [DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if settings.terminal else [])]
    found = merged_environment(own, config.get("Env") or (), settings.environment)
    found.setdefault("HOME", f"HOME={home}")
    return list(found.values())


def working_directory(settings: Settings, config: Mapping[str, Any]) -> str:
    """Absolute, and without `..`: one that is relative is so to the root."""
    wanted = settings.working_directory or config.get("WorkingDir") or "/"
    return "/" + posixpath.normpath("/" + wanted).lstrip("/")


def volumes(settings: Settings, config: Mapping[str, Any]) -> tuple[Volume, ...]:
    """Those that were asked for, and the image's (VOLUME) where none of them is; parents before what is below them."""
    found = {}
    for target in config.get("Volumes") or {}:
        path = "/" + posixpath.normpath("/" + target).lstrip("/")
        if path != "/":
            found[path] = Volume("", path)
    found |= {volume.target: volume for volume in settings.volumes}
    return tuple(sorted(found.values(), key=lambda volume: _components(volume.target)))


def console_size(size: tuple[int, int]) -> dict[str, int]:
    """Of `process`. To be there from the beginning, since some programs ask but once."""
    return {"height": size[0], "width": size[1]}


def _process(settings: Settings, config: Mapping[str, Any], given: Surroundings) -> dict[str, Any]:
    user = given.user
    process: dict[str, Any] = {
        "terminal": settings.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": arguments(settings, config),
        "env": environment(settings, config, given.hostname, user.home),
        "cwd": working_directory(settings, config),
        "capabilities": capabilities(user),
        "noNewPrivileges": settings.no_new_privileges,
    }
    if settings.terminal and given.console_size is not None:
        process["consoleSize"] = console_size(given.console_size)
    if given.rootless:
        # setgroups(2) of an ID that is not mapped is EINVAL.
        process["user"]["additionalGids"] = [gid for gid in user.groups if given.ids is None or gid < given.ids]
    return process


def capabilities(user: User) -> dict[str, list[str]]:
    """Who is not root has none, and may gain those by set-user-ID programs (moby daemon/pkg/oci SetCapabilities).
    None is inheritable (CVE-2022-24769)."""
    sets = ("bounding", "effective", "permitted") if user.uid == 0 else ("bounding",)
    return {name: list(CAPABILITIES) for name in sets}


def _mount(target: str, kind: str, *options: str, source: str | None = None) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def _mounts(settings: Settings, config: Mapping[str, Any], given: Surroundings) -> list[dict[str, Any]]:
    tty_group = [f"gid={_TTY_GROUP}"] if given.ids is None or given.ids > _TTY_GROUP else []
    mounts = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty_group),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k", source="shm"),
    ]
    if given.rootless and settings.network == "host":
        # sysfs is for who owns the network namespace (fs/sysfs/mount.c, sysfs_init_fs_context).
        mounts[3] = _mount("/sys", "bind", "rbind", "rprivate", "nosuid", "noexec", "nodev", "ro", source="/sys")
    if given.cgroup is not None:
        mounts.insert(4, _mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"))
    chosen = volumes(settings, config)
    taken = {volume.target for volume in chosen}
    # docker lets a volume take the place of any of these: -v /dev/shm:/dev/shm. In that of /dev it is all there is.
    if "/dev" in taken:
        mounts = [one for one in mounts if not one["destination"].startswith("/dev/")]
    mounts = [one for one in mounts if one["destination"] not in taken]
    access = "ro" if settings.read_only else "rw"
    above = []
    for name in ETC_FILES:
        if (target := f"/etc/{name}") not in taken:
            source = posixpath.join(_text(given.directory), name)
            above.append(_mount(target, "bind", "rbind", "rprivate", access, source=source))
    for volume in chosen:
        # `--read-only` is about the root: volumes are as they were asked for.
        access = "ro" if volume.read_only else "rw"
        source = volume.source or given.volumes[volume.target]
        above.append(_mount(volume.target, "bind", "rbind", volume.propagation, access, source=source))
    # All together, as docker has them: the files of /etc are seen in a volume that is /etc, too.
    return mounts + sorted(above, key=lambda mount: _components(mount["destination"]))


def _components(path: str) -> list[str]:
    """To sort by: what lies below comes after what it lies in."""
    return path.split("/")


def _linux(settings: Settings, given: Surroundings) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": _namespaces(settings, given),
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
    }
    if settings.network != "host":
        # As docker: its own network is nobody else's, so ports below 1024 need no privilege there, and ping none.
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
        last = (1 << 31) - 1 if given.ids is None else given.ids - 1
        linux["sysctl"]["net.ipv4.ping_group_range"] = f"0 {last}"
    if given.cgroup is not None:
        linux["cgroupsPath"] = given.cgroup
        linux["resources"] = _resources(settings, given.swap_limits)
    if given.seccomp is not None:
        linux["seccomp"] = given.seccomp
    kinds = {volume.propagation.removeprefix("r") for volume in settings.volumes}
    if kinds & {"shared", "slave"}:
        # Else the runtime makes the root private, and the volumes with it (moby daemon/oci_linux.go, withMounts).
        linux["rootfsPropagation"] = "shared" if "shared" in kinds else "rslave"
    return linux


def _namespaces(settings: Settings, given: Surroundings) -> Sequence[dict[str, str]]:
    found = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if given.cgroup is not None:
        found.append({"type": "cgroup"})
    if settings.network != "host":
        path = given.network_namespace
        found.append({"type": "network"} if path is None else {"type": "network", "path": path})
    return found


def _resources(settings: Settings, swap_limits: bool) -> dict[str, Any]:
    # No device but the usual ones, which the runtime adds (runtime-spec config-linux.md, Default Devices).
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if settings.memory is not None:
        resources["memory"] = {"limit": settings.memory}
        if swap_limits:
            # As docker: as much swap as memory, in the sum that cgroup v1 counts.
            resources["memory"]["swap"] = 2 * settings.memory
    return resources


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
