"""A union that a test takes up and down as it likes: remounted, or with its upper become a layer (rotated).

The fixtures `mnt` and `own_mnt` give a mount that just is there; `union` (conftest.py) gives one of these:

    base = union.lower()          a directory to fill; each further one lies on top of the last
    mnt = union.mount()           the tree. The path is known before: `union.mnt`
    union.remount()               down and up again: what was in memory only is gone
    union.rotate()                the upper becomes the topmost layer, below a new and empty upper
    union.flattened(directory)    what committing each layer and applying them in turn comes to; unmounts
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import rigs
from tests.golden.trees import describe
from tests.rigs import Mounted, Rig, Server, Watchdog
from unionfs import api


class Union:
    """Layers, an upper, and the mount of them. `layers` are topmost first, without the upper."""

    def __init__(self, rig: Rig, directory: Path, watchdog: Watchdog, seconds: float) -> None:
        self.rig = rig
        self.directory = directory
        self.mnt = directory / "mnt"
        self.mnt.mkdir(parents=True)
        self._others: list[Union] = []
        self.layers: list[Path] = []
        self._watchdog = watchdog
        self._seconds = seconds
        self._generation = 0
        self._held: contextlib.ExitStack | None = None
        self._mounted: Mounted | None = None
        self._new_upper(directory / "generation0")

    def _new_upper(self, private: Path) -> None:
        self.private = private
        self.upper = private / "upper"
        for path in (self.upper, self.private / "work"):
            path.mkdir(parents=True)
            path.chmod(0o755)

    def use(self, private: Path) -> None:
        """Keep the upper and the work directory in `private`, an empty directory anywhere."""
        self._new_upper(private)

    def lower(self, path: Path | None = None) -> Path:
        """A new layer on top of the present ones, to be filled before the mount; or the directory `path` as one."""
        if path is None:
            path = self.directory / f"layer{len(self.layers)}"
            path.mkdir()
            path.chmod(0o755)
        self.layers.insert(0, path)
        return path

    def mount(self, *options: str) -> Path:
        """Mount, and return the path. `options` are further arguments of the server."""
        assert self._held is None, "already mounted"
        mounted = Mounted(self.rig, self.mnt, self.private, tuple(self.layers), self.upper)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_hold(mounted, options))
            stack.enter_context(self._watchdog.guard(mounted, self._seconds))
            self._held = stack.pop_all()
        self._mounted = mounted
        return self.mnt

    @property
    def server(self) -> int:
        """The process id of the server. AssertionError where the kernel serves."""
        return self._served().process.pid

    def statistics(self) -> dict[str, int]:
        """What the server counts. AssertionError where an INVARIANT of the engine does not hold."""
        return self._served().statistics()

    def _served(self) -> Server:
        assert self._mounted is not None and self._mounted.server is not None
        return self._mounted.server

    @contextlib.contextmanager
    def kernel(self) -> Iterator[Path]:
        """The kernel's overlayfs on the same layers, upper and work directory; ours is not mounted meanwhile."""
        assert self._held is None, "still mounted"
        with rigs._kernel(Mounted(rigs.RIGS["kernel"], self.mnt, self.private, tuple(self.layers), self.upper)):
            yield self.mnt

    def debris(self) -> list[str]:
        """What is in the work directory's own place for temporary objects."""
        return os.listdir(self.private / "work" / "work")

    def unmount(self) -> None:
        """Take it down, if it is up. AssertionError if the server did something wrong."""
        held, self._held, self._mounted = self._held, None, None
        if held is not None:
            held.close()

    def remount(self) -> Path:
        self.unmount()
        return self.mount()

    def rotate(self) -> Path:
        self.unmount()
        self.lower(self.upper)
        self._generation += 1
        self._new_upper(self.directory / f"generation{self._generation}")
        return self.mount()

    def flattened(self, target: Path) -> Path:
        """Each layer but the lowest committed, and applied in turn on a copy of the lowest, in `target`."""
        self.unmount()
        stack = [self.upper, *self.layers]
        copy_tree(stack[-1], target)
        for i in range(len(stack) - 2, -1, -1):
            tar = self.directory / f"commit{i}.tar"
            api.commit(layers=stack[i + 1 :], upper=stack[i], work=None if i else self.private / "work", output=tar)
            api.apply(tar, target)
        return target

    def another(self) -> Union:
        """One more union on the same rig, with layers, upper and mount of its own; closed with this one, and before."""
        other = Union(self.rig, self.directory / f"another{len(self._others)}", self._watchdog, self._seconds)
        self._others.append(other)
        return other

    def close(self) -> None:
        try:
            while self._others:
                self._others.pop().close()
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self.unmount()
        finally:
            # Backing.close would do, but the directories of 10,000 files add up.
            shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def _hold(mounted: Mounted, options: tuple[str, ...]) -> Iterator[None]:
    # What rigs.mount does behind the making of the directories.
    with rigs._kernel(mounted) if mounted.rig.fs is None else rigs._served(mounted, options):
        yield
        problem = mounted.problems()
        assert problem is None, problem


def copy_tree(source: Path, target: Path) -> Path:
    """`cp -a`: everything a tree has, hard links, xattrs and nanoseconds included."""
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=never", f"{source}/.", str(target)], check=True, timeout=120)
    return target


def contents(root: Path) -> dict[str, str | bytes | None]:
    """What a person sees: files with their content, links with their target, None for all else. Sorted by path."""
    found: dict[str, str | bytes | None] = {}
    for directory, dirs, files in os.walk(root):
        for name in [*dirs, *files]:
            path = Path(directory, name)
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            else:
                found[key] = path.read_bytes() if path.is_file() else None
    return dict(sorted(found.items()))


def same_tree(left: Path, right: Path) -> None:
    """AssertionError with the lines that differ, unless the two trees agree in everything (tests/golden/trees.py)."""
    same_text(describe(left), describe(right), str(left), str(right))


def same_text(left: list[str], right: list[str], left_name: str, right_name: str) -> None:
    """The same for descriptions made before."""
    differences = difflib.unified_diff(left, right, left_name, right_name, "", "", 0, "")
    text = "\n".join(differences)
    if text:
        raise AssertionError(text[:10_000])
