"""One stack, one list of operations, a model and the drivers that must agree with it after every step.

`Trial` knows nothing of Hypothesis: the state machines feed it, and so do the regressions. A disagreement raises
`Disagreement`, whose text is the Python of a regression (stack and operations) with what was expected and got.

What is compared: the errno or the value of each operation; then the whole tree by names, type, mode, owner, nlink of
non-directories, size, content, target, xattrs, mtime where it was set explicitly, and identity: one st_ino for one
inode for as long as it lives, and two for two.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from .drivers import Driver, Op, Tree
from .layers import Inode, Stack, merge
from .model import Model

Check = Callable[[str, Driver], None]


class Arena(Protocol):
    """The drivers made for one stack. `finish` hands `check` further views of the same layers, under their names.
    `forgets`: what a new mount does not know any more (rigs.STORES)."""

    drivers: dict[str, Driver]
    forgets: frozenset[str]

    def finish(self, check: Check) -> None: ...
    def close(self) -> None: ...


class Disagreement(AssertionError):
    """A driver that differs from the model; str() is the script that shows it, and what is wrong."""

    def __init__(self, stack: Stack, ops: list[Op], text: str) -> None:
        steps = "".join(f"        {op!r},\n" for op in ops)
        super().__init__(f"\nreplay(\n    {stack!r},\n    [\n{steps}    ],\n)\n{text}")
        self.stack, self.ops = stack, ops


class Trial:
    """Operations on a model of `stack` and on the drivers of the arena that `make` builds for it."""

    def __init__(self, stack: Stack, make: Callable[[Stack], Arena]) -> None:
        self.stack, self.ops = stack, list[Op]()
        self.model = Model(merge(stack))
        self.identities: dict[str, dict[int, int]] = {}
        self.failed = True  # until the first comparison has passed, and again while anything raises
        self.arena = make(stack)
        try:
            self.compare()
        except BaseException:
            self.arena.close()
            raise
        self.failed = False

    def apply(self, op: Op) -> None:
        if not self.possible(op[0]):
            return
        self.failed = True
        self.ops.append(op)
        expected = outcome(lambda: getattr(self.model, op[0])(*op[1:]))
        for name, driver in self.arena.drivers.items():
            got = self._guarded(name, lambda driver=driver: outcome(lambda: driver.run(op)))  # type: ignore[misc]
            if got != expected:
                self._disagree(name, f"{op}\n  expected {expected}\n  got      {got}")
        if op[0] == "rotate" or (op[0] == "remount" and "numbers" in self.arena.forgets):
            self.identities.clear()  # after rotate, what was the upper's own has the numbers of a lower
        self.compare()
        self.failed = False

    def possible(self, name: str) -> bool:
        """Does the model know what comes of it? Where there has ever been a file with several names, it does not know
        of rotate, nor of remount on a store that forgets links."""
        if name == "rotate" or (name == "remount" and "links" in self.arena.forgets):
            return not (self.stack.has_links or any(op[0] in ("link", "hlink") for op in self.ops))
        return True

    def compare(self) -> None:
        for name, driver in self.arena.drivers.items():
            self.check(name, driver)

    def check(self, name: str, driver: Driver) -> None:
        """The driver's tree is the model's. A `name` (up to a comma) seen before must show the same st_ino."""
        expected = model_tree(self.model.root)
        got = self._guarded(name, driver.tree)
        identity = self.identities.setdefault(name.partition(",")[0], {})
        found = differences(expected, got, identity)
        if found:
            self._disagree(name, "\n  ".join(["the tree", *found]))
        alive = {seen["ino"] for seen in expected.values()} | {inode.serial for inode, _ in self.model.handles.values()}
        for serial in set(identity) - alive:
            del identity[serial]

    def finish(self) -> None:
        """The last comparisons, after an orderly end; nothing if a step has failed."""
        if not self.failed and self.possible("remount"):
            self.failed = True
            self.model.remount()
            if "numbers" in self.arena.forgets:
                self.identities.clear()
            self._guarded("the end", lambda: self.arena.finish(self.check))
            self.failed = False

    def close(self) -> None:
        self.arena.close()

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            if isinstance(error, Disagreement):
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{name} raised {type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
            raise Disagreement(self.stack, list(self.ops), text) from error

    def _disagree(self, name: str, text: str) -> NoReturn:
        raise Disagreement(self.stack, list(self.ops), f"{name} differs from the model: {text}")


def replay(stack: Stack, ops: list[Op], make: Callable[[Stack], Arena]) -> None:
    """Run a script; raises Disagreement at the first step that shows one."""
    umask = os.umask(0)  # each driver sets the one it needs
    try:
        trial = Trial(stack, make)
        try:
            for op in ops:
                trial.apply(op)
            trial.finish()
        finally:
            trial.close()
    finally:
        os.umask(umask)


def outcome(call: Callable[[], Any]) -> Any:
    """What the call returned, or the name of its errno."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def model_tree(root: Inode) -> Tree:
    found: Tree = {}
    model = Model(root)

    def add(inode: Inode, path: str) -> None:
        seen = {**model.view(inode), "ino": inode.serial, "mtime": inode.mtime, "xattrs": dict(inode.xattrs)}
        if inode.kind == "file":
            seen["data"] = inode.data
        elif inode.kind == "symlink":
            seen["target"] = inode.target
        found[path] = seen
        for name, child in sorted(inode.children.items()):
            add(child, f"{path}/{name}".lstrip("/"))

    add(root, "")
    return found


def differences(expected: Tree, got: Tree, identity: dict[int, int]) -> list[str]:
    """One line each. `identity` (the model's serial: st_ino) is completed with what is seen for the first time."""
    found = [f"{path!r}: missing" for path in sorted(expected.keys() - got.keys())]
    found += [f"{path!r}: should not exist" for path in sorted(got.keys() - expected.keys())]
    for path in sorted(expected.keys() & got.keys()):
        want, have = expected[path], got[path]
        for key in sorted(want.keys() | have.keys()):
            if key == "ino":
                known = identity.setdefault(want["ino"], have["ino"])
                if known != have["ino"]:
                    found.append(f"{path!r}: st_ino was {known}, is {have['ino']}")
            elif want.get(key) != have.get(key) and not (key == "mtime" and want["mtime"] is None):
                found.append(f"{path!r}: {key} should be {_shown(key, want)}, is {_shown(key, have)}")
    owners: dict[int, int] = {}
    for path, seen in expected.items():
        ino = identity.get(seen["ino"])
        if ino is not None and owners.setdefault(ino, seen["ino"]) != seen["ino"]:
            found.append(f"{path!r}: st_ino {ino} belongs to another inode too")
    return found


def _shown(key: str, seen: dict[str, Any]) -> str:
    return oct(seen[key]) if key == "mode" and key in seen else repr(seen.get(key))
