"""Where layers, uppers and scratch files live: a private tmpfs, or an ext4 image on the real disk.

Both are mounted by the run below its work directory and unmounted at its end. tmpfs keeps the disk's noise out and
is sized against free memory; ext4 (a loop device with direct I/O over a sparse file that is kept between runs, trees
included) shows the same questions with a disk in them. Before a "first" measurement on ext4 the page, dentry and
inode caches are dropped; tmpfs is its own page cache, so there a fresh mount is all that can be cold, for every
engine alike.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mounting import entry_at, mount_entries, unmount


class BackingFailed(Exception):
    """No such backing can be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Backing:
    """A mounted backing. `root` is its top; trees are kept below `root/trees`, the rest is per run."""

    kind: str
    root: Path

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    def cool(self) -> None:
        """Write out and drop what the kernel has cached of the disk. Nothing to do on tmpfs (see the module)."""
        if self.kind == "ext4":
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


@contextlib.contextmanager
def fuse_control(directory: Path) -> Iterator[Path]:
    """fusectl (the connections' abort files), mounted privately: /sys/fs/fuse/connections is often bare."""
    directory.mkdir(parents=True, exist_ok=True)
    _command("mount", "-t", "fusectl", "none", str(directory))
    try:
        yield directory
    finally:
        unmount(directory, directory)


@contextlib.contextmanager
def backing(kind: str, work: Path, size: int, control: Path) -> Iterator[Backing]:
    """The backing `kind` ("tmpfs" or "ext4") with room for `size` bytes. Raises `BackingFailed`."""
    root = work / kind
    root.mkdir(parents=True, exist_ok=True)
    if entry_at(root) is not None:
        raise BackingFailed(f"{root} is mounted: another run is using {work}")
    with contextlib.ExitStack() as stack:
        stack.callback(_release, root, control)
        if kind == "tmpfs":
            _mount_tmpfs(root, size)
        else:
            stack.callback(_detach, _mount_ext4(root, work / f"ext4-{size >> 20}.img", size))
            stack.callback(_release, root, control)
        root.chmod(0o755)
        run = root / "run"
        shutil.rmtree(run, ignore_errors=True)  # what an interrupted run left in the kept image
        run.mkdir(mode=0o755)
        yield Backing(kind, root)
        shutil.rmtree(run, ignore_errors=True)


def _mount_tmpfs(root: Path, size: int) -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    if values["MemAvailable"] < size + (1 << 30):
        raise BackingFailed(f"tmpfs needs {size >> 20} MiB and 1 GiB to spare; {values['MemAvailable'] >> 20} MiB free")
    _command("mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=0,mode=755", "unionfs-benchmark", str(root))


def _mount_ext4(root: Path, image: Path, size: int) -> str:
    """Mount the image, made first if new. Returns the loop device, which the caller detaches."""
    if shutil.which("mkfs.ext4") is None:
        raise BackingFailed("no program mkfs.ext4 (Debian package e2fsprogs)")
    if not image.exists():
        free = shutil.disk_usage(image.parent).free
        if free < size * 1.1:
            raise BackingFailed(f"ext4 needs {size >> 20} MiB below {image.parent}; {free >> 20} MiB free")
        building = image.with_suffix(".new")
        with open(building, "wb") as file:
            file.truncate(size)
        # No lazy initialisation: it would write in the background of the first measurements.
        _command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(building))
        building.rename(image)
    device = _command("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
    try:
        _command("mount", "-t", "ext4", "-o", "noatime", device, str(root))
    except BackingFailed:
        _detach(device)
        raise
    return device


def _release(root: Path, control: Path) -> None:
    """Unmount the backing and, first, whatever of this run is still mounted below it."""
    below = [entry.mountpoint for entry in mount_entries() if entry.mountpoint.startswith(f"{root}/")]
    for mountpoint in reversed(below):
        unmount(Path(mountpoint), control)
    unmount(root, control)


def _detach(device: str) -> None:
    subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)


def _command(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise BackingFailed(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout
