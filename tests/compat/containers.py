"""podman and buildah with `unionfs-mount` as their mount program, in a mount namespace of their own.

    with Host(directory) as host:
        host.podman("import", "-q", tar, "localhost/bb:1")     stdout, or AssertionError with what was said
        host.path(host.podman("mount", name))                  a path in the namespace, as we can read it

The namespace has an empty /run, /dev/shm and /var/lib/containers, and cgroup2 alone on /sys/fs/cgroup, since crun
refuses a hybrid tree. At the end nothing is mounted in it and no process is left, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.compat.namespace import Namespace
from tests.compat.real_mount import pack
from tests.compat.test_real_busybox import busybox_root
from tests.unit.cli_runner import PROJECT

SETUP = """
mkdir -p /var/lib/containers
for place in /run /dev/shm /var/lib/containers; do mount -t tmpfs unionfs-tests $place; done
if mountpoint -q /sys/fs/cgroup; then umount -R -l /sys/fs/cgroup; fi
mount -t cgroup2 unionfs-tests /sys/fs/cgroup
"""

STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "{directory}/run"
[storage.options.overlay]
mount_program = "{directory}/unionfs-mount"
"""

PODMAN = ("podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none")
#: Without a network, without cgroups of its own, and with limits that need no privilege to be set.
RUN = ("--network", "none", "--cgroups", "disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
BUILD = ("--isolation", "chroot", "--network", "host", "--ulimit", "nofile=1024:1024")


class Host(Namespace):
    def __init__(self, directory: Path) -> None:
        program = directory / "unionfs-mount"
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
            "from unionfs.api.mount_helper import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)
        (directory / "storage.conf").write_text(STORAGE_CONF.format(directory=directory))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "LC_ALL": "C.UTF-8",
        }
        super().__init__(directory, SETUP, env)

    def __enter__(self) -> Host:
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for arguments in (("rm", "-af", "-t", "0"), ("image", "umount", "-a", "-f"), ("umount", "-a", "-f")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.call(*PODMAN, *arguments, timeout=30)
        super().__exit__()

    def podman(self, *argv: str | Path, status: int = 0) -> str:
        return self.run(*PODMAN, *argv, status=status)

    def podman_run(self, *argv: str | Path, status: int = 0) -> str:
        """`podman run` with what it needs here; a last word of several lines is for /bin/sh."""
        *words, last = map(str, argv)
        return self.podman("run", *RUN, *words, *(("/bin/sh", "-c", last) if "\n" in last else (last,)), status=status)

    def buildah(self, *argv: str | Path, status: int = 0) -> str:
        return self.run("buildah", *argv, status=status)

    def import_busybox(self, name: str) -> None:
        """An image of a small root, from a tar. Containers want some places to exist, which they mount on."""
        root = self.directory / "root"
        root.mkdir()
        busybox_root(root)
        for directory in ("proc", "sys", "run"):
            (root / directory).mkdir()
        for file in ("hosts", "hostname", "resolv.conf"):
            (root / "etc" / file).touch()
        pack(root, self.directory / "root.tar")
        self.podman("import", "-q", self.directory / "root.tar", name)

    def whiteout_files(self) -> list[str]:
        """The whiteouts of the AUFS kind in the layers that the storage has extracted, by name."""
        return sorted(path.name for path in (self.directory / "storage/overlay").glob("*/diff/**/.wh.*"))
