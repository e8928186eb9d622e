"""The guided tour: three layers become one tree, it is changed, and the changes become a layer that others can read.

`demo` does it for real on throw-away directories and yields what it did as `DemoStep`s. It mounts where it can, and
else works in process through a `Stack`, and says so. Everything is unmounted and removed when the generator ends or
is closed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unionfs.api.changes import CommitResult, apply, commit, diff
from unionfs.api.mounting import mount, umount
from unionfs.api.stack import Stack
from unionfs.errors import MountError

#: layer -> file -> content. Topmost first.
LAYERS: Mapping[str, Mapping[str, str]] = {
    "settings": {"etc/site.conf": "colour = green\n"},
    "program": {"etc/site.conf": "colour = grey\n", "srv/site/index.html": "<h1>Hello</h1>\n"},
    "base": {"etc/motd": "Welcome.\n", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "usr/share/doc/README": "Base.\n"},
}


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step of the tour: what is done, in words, and what can then be seen, line by line."""

    title: str
    lines: tuple[str, ...]


class _Tree(Protocol):
    """What the tour needs of a tree, mounted or not."""

    def files(self) -> list[str]: ...
    def read(self, path: str) -> str: ...
    def write(self, path: str, text: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...


class _Mounted:
    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> list[str]:
        return _files(os.walk(self._root), str(self._root))

    def read(self, path: str) -> str:
        return (self._root / path).read_text()

    def write(self, path: str, text: str) -> None:
        (self._root / path).write_text(text)

    def remove(self, path: str) -> None:
        (self._root / path).unlink()

    def rename(self, source: str, target: str) -> None:
        (self._root / source).rename(self._root / target)


class _InProcess:
    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def files(self) -> list[str]:
        return _files(self._stack.walk("/"), "/")

    def read(self, path: str) -> str:
        return self._stack.read_text(path)

    def write(self, path: str, text: str) -> None:
        self._stack.write_text(path, text)

    def remove(self, path: str) -> None:
        self._stack.unlink(path)

    def rename(self, source: str, target: str) -> None:
        self._stack.rename(source, target)


def _files(walk: Iterable[tuple[str, list[str], list[str]]], root: str) -> list[str]:
    return sorted(os.path.relpath(os.path.join(top, name), root) for top, _, names in walk for name in names)


def demo(*, mounted: bool = True) -> Iterator[DemoStep]:
    """Take the tour. `mounted` False: work in process from the start.

    Raises what `mount`, `commit` and `apply` raise, but for a mount that this machine cannot make.
    """
    with ExitStack() as cleanup:
        home = Path(tempfile.mkdtemp(prefix="unionfs-demo-"))
        cleanup.callback(shutil.rmtree, home)
        for layer, files in LAYERS.items():
            for name, text in files.items():
                path = home / layer / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        yield DemoStep(
            "Three layers, topmost first; each is a plain directory",
            tuple(f"{layer + '/':<10} {'  '.join(sorted(files))}" for layer, files in LAYERS.items()),
        )
        with ExitStack() as live:
            tree, how = _open(home, mounted, live)
            content = tree.read("etc/site.conf").strip()
            yield DemoStep(how, ("  ".join(tree.files()), f"etc/site.conf is the topmost one, of settings: {content}"))
            yield _change(tree)
            yield _on_disk(home)
            yield _show_diff(home)
        yield from _layer(home)


def _open(home: Path, mounted: bool, live: ExitStack) -> tuple[_Tree, str]:
    """The layers as one tree, and a title that says how; undone when `live` is left."""
    layers = [home / layer for layer in LAYERS]
    reason = "as asked"
    if mounted:
        (home / "tree").mkdir()
        try:
            result = mount(home / "tree", layers, home / "upper")
        except (MountError, PermissionError) as e:
            reason = str(e)
        else:
            live.callback(umount, home / "tree")
            return _Mounted(home / "tree"), f"One tree, mounted by {result.transport} (daemon {result.pid})"
    stack = live.enter_context(Stack(layers, home / "upper"))
    return _InProcess(stack), f"One tree, in process and not mounted ({reason})"


def _change(tree: _Tree) -> DemoStep:
    tree.write("etc/motd", tree.read("etc/motd") + "Changed.\n")
    tree.remove("etc/passwd")
    tree.rename("srv/site", "srv/www")
    tree.write("etc/new", "new\n")
    commands = ("echo Changed. >> etc/motd", "rm etc/passwd", "mv srv/site srv/www", "echo new > etc/new")
    return DemoStep("The tree is changed", ("; ".join(commands), "  ".join(tree.files())))


def _on_disk(home: Path) -> DemoStep:
    """The upper as it is stored."""
    lines = []
    for top, directories, names in os.walk(home / "upper"):
        for name in sorted(directories + names):
            path = Path(top, name)
            shown = str(path.relative_to(home))
            st = path.lstat()
            if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                lines.append(f"{shown:<16} a whiteout (character device 0:0): no such name, whatever lies below")
            elif stat.S_ISDIR(st.st_mode):
                redirect = _redirect(path)
                if redirect is not None:
                    lines.append(f"{shown:<16} a directory with {redirect}: renamed, its files stay where they are")
            else:
                lines.append(f"{shown:<16} a file: {'; '.join(path.read_text().splitlines())}")
    intact = all((home / layer / name).read_text() == text for layer in LAYERS for name, text in LAYERS[layer].items())
    lines.append(f"the layers themselves: {'untouched' if intact else 'CHANGED'}")
    return DemoStep("On disk, the changes lie in upper/ as the kernel's overlayfs would write them", tuple(lines))


def _redirect(path: Path) -> str | None:
    for prefix in ("trusted", "user"):
        name = f"{prefix}.overlay.redirect"
        try:
            return f"{name} = {os.fsdecode(os.getxattr(path, name))}"
        except OSError as e:
            if e.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):
                raise
    return None


def _show_diff(home: Path) -> DemoStep:
    changes = diff(layers=[home / layer for layer in LAYERS], upper=home / "upper")
    return DemoStep("unionfs diff: added, changed, deleted", ("   ".join(change.text() for change in changes),))


def _layer(home: Path) -> Iterator[DemoStep]:
    """Commit, look at the tar with another program, and apply it to what the layers alone show."""
    layers = [home / layer for layer in LAYERS]

    def write(name: str) -> CommitResult:
        return commit(layers=layers, upper=home / "upper", output=home / name)

    first, again = write("changes.tar.gz"), write("again.tar.gz")
    same = "the same bytes" if first.digest == again.digest else "OTHER BYTES"
    yield DemoStep(
        "unionfs commit -o changes.tar.gz: the changes as an OCI layer",
        (f"diff_id {first.diff_id}", f"{first.entries} members, {first.size} bytes; committed once more: {same}"),
    )
    tar = shutil.which("bsdtar") or shutil.which("tar")
    if tar is not None:
        listing = subprocess.run([tar, "-tf", home / "changes.tar.gz"], capture_output=True, text=True, check=True)
        yield DemoStep(f"{os.path.basename(tar)} -tf changes.tar.gz", ("  ".join(listing.stdout.split()),))
    with Stack(layers) as lower:
        lower.copy_out("/", home / "copy")
    apply(home / "changes.tar.gz", home / "copy")
    with Stack(layers, home / "upper", read_only=True) as merged:
        wanted = {name: merged.read_bytes(name) for name in _files(merged.walk("/"), "/")}
    names = _files(os.walk(home / "copy"), str(home / "copy"))
    got = {name: (home / "copy" / name).read_bytes() for name in names}
    yield DemoStep(
        "unionfs apply changes.tar.gz, on a copy of the three layers",
        ("the copy is now " + ("equal to the tree above" if got == wanted else "NOT EQUAL"),),
    )
