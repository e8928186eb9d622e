"""`info`: where things are, and what unionfs can do here, as `docker info` and `podman info` tell it.

Unlike `doctor`, it judges nothing: what cannot be had is a value that says why. Nothing is changed but for a moment: a
directory for trials, and a mount that is never served. No registry is asked unless it is named.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from unionfs import __version__
from unionfs.api.abilities import abilities, kernel_overlay
from unionfs.api.mounting import choose_transport
from unionfs.containers import cgroups, network, runtime
from unionfs.errors import RegistryError, UnionFSError
from unionfs.image.cache_directory import cache_directory
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.login import registry_of
from unionfs.image.registry.retry import Retry
from unionfs.image.store import Store
from unionfs.linux.mount import mountinfo
from unionfs.mounts.registry import Registry, runtime_directory
from unionfs.transport.devfuse import negotiate, probe
from unionfs.transport.devfuse.channel import may_register_backing_files

#: Seconds that a registry has to answer, and a program to tell its version.
_PATIENCE: Final = 5.0


class FileSystem(NamedTuple):
    """What a directory lies on. `abilities` by name (d_type, xattrs, whiteouts, tmpfile, rename-whiteout, reflink,
    kernel-overlay): what there is, or None. `lacks`: of the others, what the kernel said. `free`: bytes."""

    type: str
    free: int
    abilities: dict[str, str | None]
    lacks: dict[str, str]


class StoreInfo(NamedTuple):
    """`size`, `cache_size` in bytes on disk. `file_system`: of the store, or of what it would be made in."""

    directory: bytes
    images: int
    size: int
    cache: bytes
    cache_size: int
    file_system: FileSystem


class TransportInfo(NamedTuple):
    """`name`: what `--transport auto` is here, None where there is none. `fuse`: the kernel's protocol, as "7.45".
    `features` that a mount negotiates; `missing`: each with how it does without. `problem`: why not all is known."""

    name: str | None
    fuse: str | None
    passthrough: bool
    features: tuple[str, ...]
    missing: dict[str, str]
    problem: str | None = None


class ContainersInfo(NamedTuple):
    """`runtime`: the program, with its version, or a `problem`. `control_groups`: unified, legacy, hybrid or none, and
    whether this user may make any. `no_private_network`: None where there can be one, else why not."""

    runtime: str | None
    version: str | None
    problem: str | None
    control_groups: str
    control_groups_writable: bool
    no_private_network: str | None


class RegistryInfo(NamedTuple):
    """`logged_in`: as whom, None where no credentials are kept. `reachable`: None where it was not asked; `problem`:
    why it cannot be reached."""

    name: str
    logged_in: str | None
    reachable: bool | None = None
    problem: str | None = None


class Information(NamedTuple):
    """`mounts`: how many there are, by state. `user`: the number of who asks."""

    version: str
    python: str
    kernel: str
    user: int
    store: StoreInfo
    transport: TransportInfo
    containers: ContainersInfo
    registries: tuple[RegistryInfo, ...]
    mounts: dict[str, int]


def info(store: Store, registries: Iterable[str] = (), *, options: RegistryOptions | None = None) -> Information:
    """Look at this machine, as this user. `registries`: to be reached, within seconds each. OptionError for what is no
    registry."""
    asked = [registry_of(name) for name in registries]
    return Information(
        version=__version__,
        python=platform.python_version(),
        kernel=f"{platform.system()} {platform.release()}",
        user=os.geteuid(),
        store=_store(store),
        transport=_transport(),
        containers=_containers(),
        registries=tuple(_registries(asked, options or RegistryOptions())),
        mounts=_mounts(),
    )


# the store ------------------------------------------------------------------------------------------------------------
def _store(store: Store) -> StoreInfo:
    try:
        images = len(store.images())
    except UnionFSError:
        images = 0  # `image verify` says what is wrong
    cache = cache_directory()
    return StoreInfo(
        store.directory, images, _size(store.directory), cache, _size(cache), _file_system(_existing(store.directory))
    )


def _existing(path: bytes) -> bytes:
    """The directory, or the nearest above it that there is."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _size(directory: bytes) -> int:
    """Bytes on disk of all that lies there. What goes meanwhile is left out."""
    total, waiting, seen = 0, [directory], set[tuple[int, int]]()
    while waiting:
        try:
            with os.scandir(waiting.pop()) as listing:
                entries = [(entry, entry.stat(follow_symlinks=False)) for entry in listing]
        except OSError:
            continue
        for entry, st in entries:
            if entry.is_dir(follow_symlinks=False):
                if not os.path.ismount(entry.path):  # the root of a container that runs
                    waiting.append(entry.path)
            elif st.st_nlink == 1 or (st.st_dev, st.st_ino) not in seen:
                seen.add((st.st_dev, st.st_ino))
                total += st.st_blocks * 512
    return total


def _file_system(directory: bytes) -> FileSystem:
    status = os.statvfs(directory)
    found: dict[str, str | None] = {}
    lacks: dict[str, str] = {}
    try:
        for one in (*abilities(directory), kernel_overlay(directory)):
            found[one.name] = one.found if one.there else None
            if not one.there:
                lacks[one.name] = one.found
    except OSError as error:
        lacks["write"] = error.strerror or str(error)
    return FileSystem(_type(directory), status.f_bavail * status.f_frsize, found, lacks)


def _type(directory: bytes) -> str:
    """As /proc/self/mountinfo has it."""
    device = os.stat(directory).st_dev
    rows = [row for row in mountinfo() if os.makedev(row.major, row.minor) == device]
    if not rows:  # btrfs shows other numbers than its mount's
        place = os.path.realpath(directory) + b"/"
        rows = [row for row in mountinfo() if place.startswith(row.mountpoint.rstrip(b"/") + b"/")]
        rows.sort(key=lambda row: len(row.mountpoint))
    return os.fsdecode(rows[-1].fstype) if rows else "unknown"


# what there is to work with -------------------------------------------------------------------------------------------
def _transport() -> TransportInfo:
    try:
        name, _ = choose_transport()
    except UnionFSError as error:
        return TransportInfo(None, None, False, (), {}, str(error))
    if sys.platform != "linux":
        return TransportInfo(name, None, False, (), {})
    directory = tempfile.mkdtemp(prefix=b"unionfs-probe-")
    try:
        offer = probe.offer(directory)
        wishes = negotiate.Wishes(passthrough=may_register_backing_files(), stable_cookies=True)
        agreed = negotiate.agree(offer, wishes)
    except UnionFSError as error:
        return TransportInfo(name, None, False, (), {}, str(error))
    finally:
        os.rmdir(directory)
    missing = {row.name: row.without for row in negotiate.FEATURES if row.name not in agreed.features}
    features = tuple(row.name for row in negotiate.FEATURES if row.name in agreed.features)
    return TransportInfo(name, f"{offer.major}.{offer.minor}", "passthrough" in agreed.features, features, missing)


def _containers() -> ContainersInfo:
    groups = cgroups.look()
    program = version = None
    try:
        program = runtime.choose(groups, os.environ)
        version = _said(program, "--version")
        problem = None
    except UnionFSError as error:
        problem = str(error)
    return ContainersInfo(program, version, problem, groups.mode, groups.writable, _problem(network.check))


def _said(*argv: str) -> str | None:
    """The first line that a program says."""
    try:
        ran = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(ran.stdout.splitlines()), None)


def _problem(check: Callable[[], None]) -> str | None:
    try:
        check()
    except UnionFSError as error:
        return str(error)
    return None


# registries and mounts ------------------------------------------------------------------------------------------------
def _registries(asked: Iterable[str], options: RegistryOptions) -> Iterator[RegistryInfo]:
    files = options.auth_files()
    for name in dict.fromkeys((*asked, *files.registries())):
        try:
            credentials = files.find(name)
            logged_in = None if credentials is None else credentials.username or "a token"
        except RegistryError as error:
            yield RegistryInfo(name, None, problem=str(error))
            continue
        problem = _unreachable(name, options) if name in asked else None
        yield RegistryInfo(name, logged_in, None if name not in asked else problem is None, problem)


def _unreachable(name: str, options: RegistryOptions) -> str | None:
    patient = replace(options, retry=Retry(attempts=1), patience=_PATIENCE)
    try:
        with Client(name, patient) as client:
            client.meet()
    except RegistryError as error:
        return str(error)
    return None


def _mounts() -> dict[str, int]:
    try:
        mounts = Registry(runtime_directory()).list_mounts()
    except (UnionFSError, OSError):
        return {}
    states = [str(mount.state) for mount in mounts]
    return {state: states.count(state) for state in dict.fromkeys(states)}
