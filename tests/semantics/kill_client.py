"""`python -m tests.semantics.kill_client ROOT SEED FD`: one client of a mount whose server is killed again and again.

Reads commands on stdin, one a line, and answers each by one line of JSON:

    adopt    what is in ROOT now is what is expected from now on
    check    ROOT is as it was before the call that failed, or as that call was to make it: {"wrong": null or what}
    work     random operations until one fails: {"error": its errno, "operations": how many were done, "last": its name}

ROOT is this client's alone, so it knows all of it: names, hard links, modes, contents, xattrs. Before each system call
that changes something a byte is written to FD. Contents are multiples of 64 bytes, so that a write of so many is in one
page and cannot be cut in two; while more is being written, the content of that file counts as unknown.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import stat
import sys
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

NAMES = tuple("abcdefg")
#: Where do_replace builds; no other operation touches it.
TEMPORARY = "temporary"
UNIT = 64
AT_FDCWD, AT_SYMLINK_FOLLOW, RENAME_EXCHANGE = -100, 0x400, 2

_libc = ctypes.CDLL(None, use_errno=True)


class Node(NamedTuple):
    """An object; names of one file have the same `group`. `data`: content or target; None: not known. `extra`: by how
    much the link count exceeds the names: a layer that was an upper shows a group in parts, its work directory gone."""

    kind: int
    mode: int
    group: int
    data: bytes | None = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    extra: int = 0


Tree = dict[str, Node]


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


def inside(path: str, directory: str) -> bool:
    return path.startswith(f"{directory}/") if directory else True


def scan(root: str) -> Tree:
    found: Tree = {}
    counts: Counter[int] = Counter()
    links: dict[int, int] = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            full = f"{directory}/{name}"
            st = os.lstat(full)
            kind, data = stat.S_IFMT(st.st_mode), b""
            if kind == stat.S_IFREG:
                with open(full, "rb") as file:
                    data = file.read()
            elif kind == stat.S_IFLNK:
                data = os.fsencode(os.readlink(full))
            if kind != stat.S_IFDIR:
                counts[st.st_ino] += 1
                links[st.st_ino] = st.st_nlink
            xattrs = tuple(
                (name, os.getxattr(full, name, follow_symlinks=False))
                for name in sorted(os.listxattr(full, follow_symlinks=False))
                if name.startswith("user.")
            )
            found[full[len(root) + 1 :]] = Node(kind, stat.S_IMODE(st.st_mode), st.st_ino, data, xattrs)
    return {
        path: node._replace(extra=links[node.group] - counts[node.group]) if node.group in links else node
        for path, node in found.items()
    }


def differences(found: Tree, expected: Tree) -> list[str]:
    """Empty if they are the same but for the numbers of groups."""
    lines = [f"{path}: {'missing' if path in expected else 'too many'}" for path in found.keys() ^ expected.keys()]
    partners: dict[int, int] = {}
    for path in found.keys() & expected.keys():
        here, there = found[path], expected[path]
        if there.data is None:
            here = here._replace(data=None)
        if here._replace(group=0) != there._replace(group=0):
            lines.append(f"{path}: {str(here)[:150]}, not {str(there)[:150]}")
        elif here.kind != stat.S_IFDIR and partners.setdefault(there.group, here.group) != here.group:
            lines.append(f"{path}: no more a link of the same file")
    return lines


class Client:
    def __init__(self, root: str, seed: int, tokens: int) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._tokens = tokens
        self._last_group = 0
        self.tree: Tree = {}
        self.after: Tree = {}
        self.done = 0

    # commands -----------------------------------------------------------------------------------------------------
    def adopt(self, found: Tree | None = None) -> dict[str, object]:
        self.tree = self.after = scan(self._root) if found is None else found
        self._last_group = max((node.group for node in self.tree.values()), default=0)
        return {}

    def check(self) -> dict[str, object]:
        try:
            found = scan(self._root)
        except OSError as e:
            return {"wrong": [repr(e)]}
        wrong = [differences(found, tree) for tree in (self.tree, self.after)]
        if all(wrong):
            return {"wrong": [["not as before", *wrong[0]], ["not as after", *wrong[1]]]}
        self.adopt(found)
        return {"wrong": None, "done": not wrong[1]}

    def work(self) -> dict[str, object]:
        self.done = 0
        names = [name for name in dir(self) if name.startswith("do_")]
        while True:
            name = self._random.choice(names)
            try:
                getattr(self, name)()
            except OSError as e:
                return {"error": errno.errorcode.get(e.errno or 0), "operations": self.done, "last": name}

    # one system call ----------------------------------------------------------------------------------------------
    def _call(self, call: Callable[[], object], changes: Tree, gone: tuple[str, ...] = ()) -> None:
        """Make a call after which the tree has `changes` and no more `gone`."""
        after = {path: node for path, node in self.tree.items() if path not in gone}
        after.update(changes)
        self.after = after
        os.write(self._tokens, b".")
        call()
        self.tree = after
        self.done += 1

    def _all(self, old: Node, new: Node) -> Tree:
        """`new` under every name of the file `old`."""
        return {path: new for path, node in self.tree.items() if node.group == old.group}

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _group(self) -> int:
        self._last_group += 1
        return self._last_group

    # choices ------------------------------------------------------------------------------------------------------
    def _some(self, *kinds: int) -> str | None:
        paths = sorted(path for path, node in self.tree.items() if node.kind in kinds and path != TEMPORARY)
        return self._random.choice(paths) if paths else None

    def _place(self, free: bool = True) -> str | None:
        """A path in some directory, not too deep, that is free; or that may be."""
        directories = ["", *(path for path, node in self.tree.items() if node.kind == stat.S_IFDIR)]
        directory = self._random.choice(sorted(path for path in directories if path.count("/") < 2))
        path = f"{directory}/{self._random.choice(NAMES)}".lstrip("/")
        return None if free and path in self.tree else path

    def _content(self, size: int) -> bytes:
        """Self-describing: each 64 bytes say which version they are of."""
        unit = b"%d of %d bytes " % (self._group(), size)
        return unit.ljust(UNIT, b".") * (size // UNIT)

    # operations ---------------------------------------------------------------------------------------------------
    def _write_new(self, path: str, mode: int, size: int, flush: bool) -> None:
        node = Node(stat.S_IFREG, mode, self._group())
        fd = -1

        def create() -> None:
            nonlocal fd
            fd = os.open(self._full(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)

        self._call(create, {path: node})
        try:
            data = self._content(size)
            if size > UNIT:
                self.tree = {**self.tree, path: node._replace(data=None)}
            self._call(lambda: os.write(fd, data), {path: node._replace(data=data if size <= UNIT else None)})
            self.tree = self.after = {**self.tree, path: node._replace(data=data)}
            if flush:
                os.fsync(fd)
        finally:
            os.close(fd)

    def do_create(self) -> None:
        path = self._place()
        if path is not None:
            self._write_new(path, 0o640, self._random.choice((UNIT, 4096, 40_960)), False)

    def do_replace(self) -> None:
        """The safe way: a new file, renamed over the old one."""
        path = self._some(stat.S_IFREG)
        if path is None:
            return
        if TEMPORARY in self.tree:
            self._call(lambda: os.unlink(self._full(TEMPORARY)), {}, (TEMPORARY,))
        self._write_new(TEMPORARY, 0o600, self._random.choice((UNIT, 8192)), self._random.random() < 0.5)
        self._call(
            lambda: os.rename(self._full(TEMPORARY), self._full(path)),
            {path: self.tree[TEMPORARY]},
            (TEMPORARY,),
        )

    def do_append(self) -> None:
        path = self._some(stat.S_IFREG)
        if path is None:
            return
        node = self.tree[path]
        if node.data is None or len(node.data) > 1 << 20:
            return
        record = self._content(UNIT)
        fd = os.open(self._full(path), os.O_WRONLY | os.O_APPEND)
        try:
            self._call(lambda: os.write(fd, record), self._all(node, node._replace(data=node.data + record)))
        finally:
            os.close(fd)

    def do_truncate(self) -> None:
        path = self._some(stat.S_IFREG)
        if path is None or not self.tree[path].data:
            return
        node = self.tree[path]
        size = self._random.choice((0, UNIT))
        data = (node.data or b"")[:size]
        self._call(lambda: os.truncate(self._full(path), size), self._all(node, node._replace(data=data)))

    def do_chmod(self) -> None:
        path = self._some(stat.S_IFREG, stat.S_IFDIR)
        if path is None:
            return
        node = self.tree[path]
        new = node._replace(mode=self._random.choice((0o700, 0o750, 0o755)))
        self._call(lambda: os.chmod(self._full(path), new.mode), self._all(node, new))

    def do_setxattr(self) -> None:
        path = self._some(stat.S_IFREG, stat.S_IFDIR)
        if path is None:
            return
        node = self.tree[path]
        value = b"%d" % self._group()
        new = node._replace(xattrs=(("user.version", value),))
        self._call(lambda: os.setxattr(self._full(path), "user.version", value), self._all(node, new))

    def _moved(self, old: str, new: str) -> Tree:
        return {new + path[len(old) :]: node for path, node in self.tree.items() if path == old or inside(path, old)}

    def _below(self, path: str) -> tuple[str, ...]:
        return tuple(one for one in self.tree if one == path or inside(one, path))

    def do_rename(self) -> None:
        old, new = self._some(stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK), self._place(free=False)
        if old is None or new is None or new == old or inside(new, old) or inside(old, new):
            return
        node, victim = self.tree[old], self.tree.get(new)
        if victim is not None:
            is_dir = node.kind == stat.S_IFDIR
            if is_dir != (victim.kind == stat.S_IFDIR) or len(self._below(new)) > 1 or node.group == victim.group:
                return
        self._call(lambda: os.rename(self._full(old), self._full(new)), self._moved(old, new), self._below(old))

    def do_exchange(self) -> None:
        kinds = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
        one, two = self._some(*kinds), self._some(*kinds)
        if one is None or two is None or one == two or inside(one, two) or inside(two, one):
            return
        first, second = os.fsencode(self._full(one)), os.fsencode(self._full(two))
        self._call(
            lambda: _checked(_libc.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)),
            {**self._moved(one, two), **self._moved(two, one)},
            self._below(one) + self._below(two),
        )

    def do_link(self) -> None:
        old, new = self._some(stat.S_IFREG), self._place()
        if old is not None and new is not None:
            self._call(lambda: os.link(self._full(old), self._full(new)), {new: self.tree[old]})

    def do_unlink(self) -> None:
        path = self._some(stat.S_IFREG, stat.S_IFLNK)
        if path is not None:
            self._call(lambda: os.unlink(self._full(path)), {}, (path,))

    def do_mkdir(self) -> None:
        path = self._place()
        if path is not None:
            self._call(lambda: os.mkdir(self._full(path), 0o755), {path: Node(stat.S_IFDIR, 0o755, self._group())})

    def do_rmdir(self) -> None:
        path = self._some(stat.S_IFDIR)
        if path is not None and len(self._below(path)) == 1:
            self._call(lambda: os.rmdir(self._full(path)), {}, (path,))

    def do_symlink(self) -> None:
        path = self._place()
        if path is not None:
            node = Node(stat.S_IFLNK, 0o777, self._group(), b"a")
            self._call(lambda: os.symlink("a", self._full(path)), {path: node})

    def do_tmpfile(self) -> None:
        path = self._place()
        if path is None:
            return
        fd = os.open(os.path.dirname(self._full(path)), os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            data = self._content(4096)
            os.write(fd, data)
            source, target = b"/proc/self/fd/%d" % fd, os.fsencode(self._full(path))
            self._call(
                lambda: _checked(_libc.linkat(AT_FDCWD, source, AT_FDCWD, target, AT_SYMLINK_FOLLOW)),
                {path: Node(stat.S_IFREG, 0o600, self._group(), data)},
            )
        finally:
            os.close(fd)


def main(root: str, seed: str, tokens: str) -> None:
    os.umask(0)
    client = Client(root, int(seed), int(tokens))
    for line in sys.stdin:
        print(json.dumps(getattr(client, line.strip())()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
