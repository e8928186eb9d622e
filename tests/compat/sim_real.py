"""The commands of a simulator's script on real directories below a real mount: what the simulator is held against."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from unionfs.explain.script import Command

#: Commands without a counterpart in a mount; what they need of it is compared anyway.
LEFT_OUT = {"stat", "diff", "commit", "show", "find"}
#: `_open` holds what is open.
_METHODS = {"open": "_open_file"}
MARKS = ("trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy")


class RealWorld:
    """Layers, upper and work directory in `home`. `make` mounts: lowers topmost first, upper, work, mountpoint, -o."""

    def __init__(self, home: Path, make: Callable[[list[Path], Path, Path, Path, list[str]], None]) -> None:
        self.home = home
        self.mnt = home / "mnt"
        self.mnt.mkdir()
        self._make = make
        self.layers: list[str] = []
        self._lowers: list[str] = []
        self._options: list[str] = []
        self.mounted = False
        self._pushed: list[tuple[list[str], str]] = []
        self._open: dict[str, int | mmap.mmap] = {}
        self._root = home

    # mounting -----------------------------------------------------------------------------------------------------
    def close(self) -> None:
        for opened in self._open.values():
            if isinstance(opened, mmap.mmap):
                opened.close()
            else:
                os.close(opened)
        self._open.clear()
        if self.mounted:
            subprocess.run(["umount", self.mnt], check=True)
            self.mounted = False

    def remount(self) -> None:
        self.close()
        for name in ("upper", "work"):
            (self.home / name).mkdir(exist_ok=True)
        lowers = [self.home / name for name in self._lowers]
        self._make(lowers, self.home / "upper", self.home / "work", self.mnt, self._options)
        self.mounted = True
        self._root = self.mnt

    # commands -----------------------------------------------------------------------------------------------------
    def run(self, command: Command) -> list[str] | str | None:
        """Its lines; the name of the errno it fails with; None for what has no counterpart."""
        if not command.words or command.words[0] in LEFT_OUT:
            return None
        name, *words = command.words
        try:
            return list(getattr(self, _METHODS.get(name, "_" + name))(*words) or [])
        except OSError as e:
            return errno.errorcode[e.errno or 0]

    def _at(self, path: str) -> Path:
        name, colon, below = path.partition(":")
        return self.home / name / below.strip("/") if colon else self._root / path.strip("/")

    def _layer(self, name: str) -> None:
        (self.home / name).mkdir()
        self.layers.append(name)
        self._root = self.home / name

    def _mount(self, *words: str) -> None:
        self._lowers = self.layers[::-1]
        self._options = words[1].split(",") if words else []
        self.remount()

    def _push(self, name: str = "pushed-1") -> None:
        self._pushed.append((list(self._lowers), name))
        self.close()
        (self.home / "upper").rename(self.home / name)
        shutil.rmtree(self.home / "work")
        self._lowers.insert(0, name)
        self.remount()

    def _pop(self) -> None:
        self.close()
        shutil.rmtree(self.home / "upper")
        shutil.rmtree(self.home / "work")
        self._lowers, name = self._pushed.pop()
        (self.home / name).rename(self.home / "upper")
        self.remount()

    def _parents(self, path: str) -> None:
        if not self.mounted:
            self._at(path).parent.mkdir(parents=True, exist_ok=True)

    def _write(self, path: str, *text: str) -> None:
        self._parents(path)
        self._at(path).write_text(" ".join(text) + "\n" if text else "")

    def _append(self, path: str, *text: str) -> None:
        with self._at(path).open("a") as file:
            file.write(" ".join(text) + "\n")

    def _mkdir(self, path: str) -> None:
        self._parents(path)
        self._at(path).mkdir()

    def _rmdir(self, path: str) -> None:
        self._at(path).rmdir()

    def _rm(self, *words: str) -> None:
        if words[0] == "-r":
            shutil.rmtree(self._at(words[1]))
        else:
            self._at(words[0]).unlink()

    def _mv(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def _ln(self, old: str, new: str) -> None:
        os.link(self._at(old), self._at(new))

    def _chmod(self, mode: str, path: str) -> None:
        self._at(path).chmod(int(mode, 8))

    def _chown(self, owner: str, path: str) -> None:
        os.chown(self._at(path), *(int(one) for one in owner.split(":")))

    def _ls(self, path: str = "") -> list[str]:
        return sorted(os.listdir(self._at(path)))

    def _cat(self, path: str) -> list[str]:
        return self._at(path).read_text().splitlines()

    def _open_file(self, name: str, path: str) -> None:
        self._open[name] = os.open(self._at(path), os.O_RDONLY)

    def _map(self, name: str, path: str) -> None:
        fd = os.open(self._at(path), os.O_RDONLY)
        self._open[name] = mapped = mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)
        os.close(fd)
        assert mapped[:1]  # so that its page is there

    def _read(self, name: str) -> list[str]:
        opened = self._open[name]
        data = bytes(opened[:]) if isinstance(opened, mmap.mmap) else os.pread(opened, 1 << 20, 0)
        return data.decode().splitlines()

    # what there is ------------------------------------------------------------------------------------------------
    def merged(self) -> dict[str, tuple[object, ...]]:
        return {path: _shown(self.mnt / path) for path in _below(self.mnt)}

    def stored(self) -> dict[str, tuple[object, ...]]:
        return {path: _stored(self.home / "upper" / path) for path in _below(self.home / "upper")}


def _below(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def _kind(st: os.stat_result) -> str:
    if stat.S_ISCHR(st.st_mode) and not st.st_rdev:
        return "whiteout"
    return {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}[stat.S_IFMT(st.st_mode)]


def _shown(path: Path) -> tuple[object, ...]:
    st = path.lstat()
    kind = _kind(st)
    owner = (oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid)
    return (kind, *owner, path.read_bytes(), st.st_nlink) if kind == "file" else (kind, *owner)


def _stored(path: Path) -> tuple[object, ...]:
    st = path.lstat()
    kind = _kind(st)
    marks = {}
    for mark in MARKS if kind in ("dir", "file") else ():
        try:
            marks[mark.rpartition(".")[2]] = os.getxattr(path, mark)
        except OSError as e:
            assert e.errno == errno.ENODATA
    if kind == "whiteout":
        return (kind,)
    data = path.read_bytes() if kind == "file" and "metacopy" not in marks else b""
    return (kind, oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid, data, marks)
