"""A tree that nothing may touch: it lies beside and above the layer roots, and links inside the layers lead to it.

    canary = Canary(tmp_path)            makes `tmp_path/canary`
    canary.bait(layer)                   symbolic links in a layer, by every way a link can say where it lies
    canary.check()                       AssertionError with what has changed

What is compared: content, names, inode numbers, link counts, modes, owners, sizes, mtimes, ctimes and xattrs. An atime
is not: whoever reads a file through a link, as people do, moves it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: The names of the links of `bait`.
BAITS = ("to_canary", "to_canary_file", "to_canary_up", "to_parent", "to_fifo")
_SECRET = b"nothing of this may be seen through a union\n"


class Canary:
    """`root` is the tree; the directory that holds it is watched too, but for the names in `mine` (or that begin with
    one of them, where it ends in "*")."""

    def __init__(self, above: Path, *mine: str) -> None:
        self.above, self._mine = above, mine
        self.root = above / "canary"
        (self.root / "dir" / "deep").mkdir(parents=True)
        for name in ("file", "dir/file", "dir/deep/file"):
            (self.root / name).write_bytes(_SECRET + name.encode())
            os.utime(self.root / name, ns=(10**18 + len(name), 10**18 + len(name)))
        os.link(self.root / "file", self.root / "link")
        os.symlink("file", self.root / "symlink")
        os.mkfifo(self.root / "fifo")  # who opens it waits, or wakes who waits
        (self.root / "file").chmod(0o640)
        self._before = self._state()

    def bait(self, layer: Path) -> None:
        up = "../" * (len(layer.relative_to(self.above).parts) + 2)
        targets: tuple[str | Path, ...] = (
            self.root / "dir",
            self.root / "file",
            f"{up}{self.root}/dir",
            "..",
            self.root / "fifo",
        )
        for name, target in zip(BAITS, targets, strict=True):
            os.symlink(target, layer / name)

    def _state(self) -> dict[str, object]:
        found: dict[str, object] = {}
        todo = [self.root]
        while todo:
            path = todo.pop()
            st = path.lstat()
            content: object = None
            if stat.S_ISDIR(st.st_mode):
                content = sorted(os.listdir(path))
                todo.extend(path.iterdir())
            elif stat.S_ISREG(st.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in _xattrs(path)}
            found[str(path.relative_to(self.above))] = (
                *(st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns),
                content,
                xattrs,
            )
        return found

    def expect(self, *names: str) -> None:
        """These names in the directory above are the test's own."""
        self._mine = (*self._mine, *names)

    def check(self) -> None:
        after = self._state()
        changed = [f"{path}: {self._before.get(path)} -> {after.get(path)}" for path in {*self._before, *after}
                   if self._before.get(path) != after.get(path)]  # fmt: skip
        assert not changed, "the canary was touched\n" + "\n".join(sorted(changed))
        strange = [name for name in os.listdir(self.above) if name != "canary" and not self._is_mine(name)]
        assert not strange, f"beside the layers appeared {strange}"

    def _is_mine(self, name: str) -> bool:
        return any(name == mine or (mine.endswith("*") and name.startswith(mine[:-1])) for mine in self._mine)


def _xattrs(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def is_secret(data: bytes) -> bool:
    """Does it hold anything of the canary's?"""
    return _SECRET[:20] in data
