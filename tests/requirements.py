"""What a test may need from the machine, in one table, and how a test says that it needs it.

    pytestmark = requires("root", "fuse")            # a whole module
    @requires("skopeo")                              # one test
    need("umoci")                                    # inside a test or fixture

A missing requirement skips with a reason that names exactly what is missing and the Debian package that has it. With
CI set in the environment, `tests/conftest.py` fails the run for every skip whose reason is not in `UNINSTALLABLE`.
"""

from __future__ import annotations

import ctypes.util
import functools
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing a machine may lack. `package` is the Debian package that has it; None where none can."""

    what: str
    package: str | None
    present: Callable[[], bool]

    @property
    def reason(self) -> str:
        return f"missing: {self.what}" + (f" (apt-get install {self.package})" if self.package else "")


def _command(name: str, package: str) -> Requirement:
    return Requirement(f"the command {name}", package, lambda: shutil.which(name) is not None)


def _is_root() -> bool:
    return os.geteuid() == 0


def _fuse_device() -> bool:
    return os.access("/dev/fuse", os.R_OK | os.W_OK)


def _tun_device() -> bool:
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def _fuse_mount() -> bool:
    return _is_root() or shutil.which("fusermount3") is not None


def _overlayfs() -> bool:
    with open("/proc/filesystems") as f:
        return "\toverlay\n" in f.read()


def _kernel_at_least(major: int, minor: int) -> Callable[[], bool]:
    return lambda: tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) >= (major, minor)


REQUIREMENTS: dict[str, Requirement] = {
    "root": Requirement("root's privileges", None, _is_root),
    "fuse-device": Requirement("/dev/fuse, readable and writable", None, _fuse_device),
    "fuse-mount": Requirement("the command fusermount3", "fuse3", _fuse_mount),
    "overlayfs": Requirement("overlayfs in the kernel", None, _overlayfs),
    "passthrough": Requirement("FUSE passthrough in the kernel (Linux 6.9)", None, _kernel_at_least(6, 9)),
    "libfuse2": Requirement("libfuse.so.2", "libfuse2", lambda: ctypes.util.find_library("fuse") is not None),
    "fusepy": Requirement(
        "the Python module fuse", "python3-fusepy, or pip install fusepy",
        lambda: importlib.util.find_spec("fuse") is not None,
    ),
    "textual": Requirement(
        "the Python module textual", "python3-textual, or pip install textual",
        lambda: importlib.util.find_spec("textual") is not None,
    ),
    "isal": Requirement(
        "the Python module isal", "python3-isal, or pip install isal",
        lambda: importlib.util.find_spec("isal") is not None,
    ),
    "fusermount3": _command("fusermount3", "fuse3"),
    "mount.fuse3": _command("mount.fuse3", "fuse3"),
    "chromium": _command("chromium-headless-shell", "chromium-headless-shell"),
    "setfacl": _command("setfacl", "acl"),
    "getfacl": _command("getfacl", "acl"),
    "setfattr": _command("setfattr", "attr"),
    "setcap": _command("setcap", "libcap2-bin"),
    "skopeo": _command("skopeo", "skopeo"),
    "docker-registry": _command("docker-registry", "docker-registry"),
    "redis-server": _command("redis-server", "redis-server"),
    "nginx": _command("nginx", "nginx"),
    "openssl": _command("openssl", "openssl"),
    "umoci": _command("umoci", "umoci"),
    "podman": _command("podman", "podman"),
    "buildah": _command("buildah", "buildah"),
    "crun": _command("crun", "crun"),
    "runc": _command("runc", "runc"),
    "slirp4netns": _command("slirp4netns", "slirp4netns"),
    "tun": Requirement("/dev/net/tun, readable and writable", None, _tun_device),
    "docker": _command("docker", "docker.io, or docker-cli"),
    "dockerd": _command("dockerd", "docker.io"),
    "systemd-analyze": _command("systemd-analyze", "systemd"),
    "busybox": _command("busybox", "busybox-static"),
    "debootstrap": _command("debootstrap", "debootstrap"),
    "bsdtar": _command("bsdtar", "libarchive-tools"),
    "tar": _command("tar", "tar"),
    "bash": _command("bash", "bash"),
    "zsh": _command("zsh", "zsh"),
    "fish": _command("fish", "fish"),
    "mandoc": _command("mandoc", "mandoc"),
    "man": _command("man", "man-db"),
    "zstd": _command("zstd", "zstd"),
    "sqlite3": _command("sqlite3", "sqlite3"),
    "strace": _command("strace", "strace"),
    "fio": _command("fio", "fio"),
    "gcc": _command("gcc", "gcc"),
    "make": _command("make", "make"),
    "git": _command("git", "git"),
    "rsync": _command("rsync", "rsync"),
    "patch": _command("patch", "patch"),
    "mtree": _command("mtree", "mtree-netbsd"),
    "taskset": _command("taskset", "util-linux"),
    "unshare": _command("unshare", "util-linux"),
    "newuidmap": _command("newuidmap", "uidmap"),
    "mkfs.ext4": _command("mkfs.ext4", "e2fsprogs"),
    "mkfs.xfs": _command("mkfs.xfs", "xfsprogs"),
    "mkfs.btrfs": _command("mkfs.btrfs", "btrfs-progs"),
    "fuse-overlayfs": _command("fuse-overlayfs", "fuse-overlayfs"),
    "unionfs-fuse": _command("unionfs", "unionfs-fuse"),
}  # fmt: skip

#: Names that stand for several requirements.
GROUPS: dict[str, tuple[str, ...]] = {
    "fuse": ("fuse-device", "fuse-mount"),
    "libfuse": ("libfuse2", "fusepy"),
    "acl": ("setfacl", "getfacl"),
}

#: The only reasons for which a test may be skipped in CI: no package brings these.
UNINSTALLABLE: frozenset[str] = frozenset(r.reason for r in REQUIREMENTS.values() if r.package is None)


@functools.cache
def _present(name: str) -> bool:
    return REQUIREMENTS[name].present()


def missing(*names: str) -> str | None:
    """The reason of the first of `names` that this machine lacks, or None. An unknown name is a KeyError."""
    flat = [member for name in names for member in GROUPS.get(name, (name,))]
    absent = [REQUIREMENTS[name].reason for name in flat if not _present(name)]
    return absent[0] if absent else None


def requires(*names: str) -> pytest.MarkDecorator:
    """The mark that skips a test, class or module where one of `names` is missing."""
    reason = missing(*names)
    return pytest.mark.skipif(reason is not None, reason=reason or "")


def need(*names: str) -> None:
    """Skip the running test where one of `names` is missing."""
    reason = missing(*names)
    if reason is not None:
        pytest.skip(reason)
