"""What a workload sees: mount this stack with the engine under test, run that client, check what came out.

An `Arena` belongs to one repetition of one workload with one peer. Every mount gets a fresh upper and work directory,
is unmounted at the end of its block, and its lower layers are then proved unchanged. All looks into a mount are
child processes (see `processes`); the layers' own directories are looked at directly.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.backing import Backing
from benchmarks.mounting import Mount, mounted
from benchmarks.peers import Peer, Stack, command_line
from benchmarks.processes import USER_ID, Runner, WrongResult
from benchmarks.trees import Trees

#: One line per entry: type and size. `%s` makes find(1) stat each; its formatting costs about 1 µs an entry.
WALK = ("-printf", "%y %s\\n")


@dataclass(slots=True)
class Arena:
    """See the module. `runner` is for clients that touch no mount; `Mount.runner` for those that do."""

    peer: Peer
    trees: Trees
    backing: Backing
    runner: Runner
    control: Path
    _mounts: int = field(default=0, init=False)

    @property
    def scratch(self) -> Path:
        """A directory of this repetition's, on the backing, outside every layer."""
        path = self.backing.root / "run"
        path.mkdir(exist_ok=True)
        return path

    def stack(self, lowers: Sequence[Path], prefill: Callable[[Path], None] | None = None) -> Stack:
        """Fresh upper and work over `lowers` (topmost first). `prefill(upper)` fills the upper before the mount."""
        self._mounts += 1
        place = self.scratch / f"mount-{self._mounts}"
        for name in ("upper", "work", "mnt"):
            (place / name).mkdir(parents=True)
            if self.peer.user:
                os.chown(place / name, USER_ID, USER_ID)
        if prefill is not None:
            prefill(place / "upper")
        return Stack(lowers[0].parent, lowers, place / "upper", place / "work")

    @contextlib.contextmanager
    def mount(self, lowers: Sequence[Path], prefill: Callable[[Path], None] | None = None) -> Iterator[Mount]:
        """A fresh mount, cold caches where the backing can have them. Raises `WrongResult` if a lower changed."""
        stack = self.stack(lowers, prefill)
        before = [listing_digest(lower) for lower in lowers]
        try:
            with mounted(self.peer, stack, stack.upper.with_name("mnt"), self.runner, self.control) as mount:
                self.backing.cool()
                yield mount
            if [listing_digest(lower) for lower in lowers] != before:
                raise WrongResult("a lower layer was changed")
        finally:
            discard(stack)


def discard(stack: Stack) -> None:
    """Remove a stack's upper, work and mountpoint. An overlay's work directory has mode 000; root does not mind."""
    shutil.rmtree(stack.upper.parent)


def listing_digest(top: Path) -> bytes:
    """A digest of every name, type, mode, owner, size and mtime below `top`. Of the backing, never of a mount."""
    lines = []
    for directory, _, names in os.walk(top):
        for name in (".", *names):
            found = os.lstat(os.path.join(directory, name))
            lines.append(
                f"{directory}/{name} {found.st_mode} {found.st_uid} {found.st_gid} {found.st_size} {found.st_mtime_ns}"
            )
    return hashlib.sha256("\n".join(sorted(lines)).encode()).digest()


# --- checks ----------------------------------------------------------------------------------------------------------


def expect(what: str, found: object, wanted: object) -> None:
    """Raise `WrongResult` unless `found == wanted`."""
    if found != wanted:
        raise WrongResult(f"{what}: {found!r} instead of {wanted!r}")


def expect_walk(output: bytes, files: int, directories: int, size: int) -> None:
    """A walk's output names so many files and directories (the top not counted) with so many bytes in all."""
    entries = [line.split() for line in output.splitlines()]
    expect("files in the walk", sum(kind == b"f" for kind, _ in entries), files)
    expect("directories in the walk", sum(kind == b"d" for kind, _ in entries), directories + 1)
    expect("bytes in the walk", sum(int(length) for kind, length in entries if kind == b"f"), size)


def count(mount: Mount, path: Path, *tests: str) -> int:
    """How many entries at and below `path` pass find(1)'s `tests`."""
    return len(mount.runner.run(["find", str(path), *tests, "-printf", "x"]).stdout)


def content(mount: Mount, path: Path) -> bytes:
    """A small file's content, read through the mount."""
    return mount.runner.run(["cat", str(path)]).stdout


def piece(mount: Mount, path: Path, index: int) -> bytes:
    """The 1 MiB at `index` MiB of a file, read through the mount."""
    argv = ["dd", f"if={path}", "bs=1M", f"skip={index}", "count=1", "status=none"]
    return mount.runner.run(argv).stdout


def copied(output: bytes, wanted: int) -> None:
    """dd's summary on standard error says that `wanted` bytes went through it."""
    words = output.split(b"\n")[-2].split() if output.count(b"\n") else []
    expect("bytes copied by dd", int(words[0]) if words and words[0].isdigit() else output, wanted)


def server_memory(mount: Mount) -> int:
    """Resident bytes of the mount's server and of what it started."""
    return processes.resident_bytes(mount.pids())


def live_inodes(mount: Mount) -> int | None:
    """How many inodes the mount's server knows now: the kernel may have dropped some of those looked up. None where
    it does not tell; ours does, by `unionfs mounts --json`."""
    command = command_line()
    if command is None or mount.server is None:
        return None
    for listed in json.loads(mount.runner.run([*command, "mounts", "--json"]).stdout):
        if listed["mountpoint"] == str(mount.path) and listed.get("statistics"):
            return int(listed["statistics"]["inodes"])
    return None
