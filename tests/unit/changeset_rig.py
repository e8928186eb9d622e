"""What the changeset tests share: unions made by the kernel, seen as the two views and the upper that a diff needs.

The kernel's overlayfs is the oracle: what its mount shows is what applying the layer to a copy of the lowers must give.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from unionfs.changeset.change import Change
from unionfs.changeset.diff import diff
from unionfs.changeset.tar_writer import WrittenLayer, write_layer
from unionfs.layers.directory import DirectoryLayer
from unionfs.testing.loopback import LoopbackFilesystem


@dataclass
class Union:
    """Directories of one union. `mnt` is mounted; write there, then look."""

    base: Path
    lowers: list[Path]
    upper: Path
    work: Path
    before: Path
    mnt: Path

    @contextmanager
    def views(self) -> Iterator[tuple[LoopbackFilesystem, LoopbackFilesystem, DirectoryLayer]]:
        with views(self.before, self.mnt, self.upper) as three:
            yield three

    def diff(self) -> list[Change]:
        with self.views() as (before, after, upper):
            return list(diff(before, after, upper))

    def lines(self) -> list[str]:
        return [change.text() for change in self.diff()]

    def commit(self, name: str = "layer.tar", **options: object) -> tuple[Path, WrittenLayer]:
        out = self.base / name
        with self.views() as (before, after, upper):
            return out, write_layer(before, after, upper, str(out), **options)  # type: ignore[arg-type]


@contextmanager
def views(
    before: Path, after: Path, upper: Path
) -> Iterator[tuple[LoopbackFilesystem, LoopbackFilesystem, DirectoryLayer]]:
    """Plain directories as the three arguments of `diff`."""
    old, new, layer = LoopbackFilesystem(str(before)), LoopbackFilesystem(str(after)), DirectoryLayer(str(upper))
    try:
        yield old, new, layer
    finally:
        old.close()
        new.close()
        layer.close()


@dataclass
class Unions:
    """Makes unions below `base` and unmounts them."""

    base: Path
    mounts: list[Path] = field(default_factory=list)

    def mount(self, lowers: list[Path], options: str = "redirect_dir=on,index=on") -> Union:
        """A kernel union of `lowers` (topmost first), each to be filled before. `before` is a view of them alone."""
        number = len(self.mounts)
        upper, work, mnt = (self._new(f"{kind}{number}") for kind in ("upper", "work", "mnt"))
        lowerdir = ":".join(str(lower) for lower in lowers)
        self._mount(mnt, f"{options},lowerdir={lowerdir},upperdir={upper},workdir={work}")
        before = lowers[0]
        if len(lowers) > 1:
            before = self._new(f"before{number}")
            self._mount(before, f"ro,lowerdir={lowerdir}")
        return Union(self.base, lowers, upper, work, before, mnt)

    def _new(self, name: str) -> Path:
        path = self.base / name
        path.mkdir()
        return path

    def _mount(self, at: Path, options: str) -> None:
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)
        self.mounts.append(at)

    def unmount(self, union: Union) -> None:
        """From now on somebody else may have the upper."""
        subprocess.run(["umount", str(union.mnt)], check=True)
        self.mounts.remove(union.mnt)

    def close(self) -> None:
        while self.mounts:
            subprocess.run(["umount", str(self.mounts.pop())], check=True)
        # pytest's own cleaning recurses, and fails on deep trees
        subprocess.run(["rm", "-rf", str(self.base)], check=True)


def copy_tree(source: Path, target: Path) -> Path:
    """`cp -a`: everything a tree has, hard links and xattrs included."""
    subprocess.run(["cp", "-a", "--reflink=never", f"{source}/.", str(target)], check=True)
    return target
