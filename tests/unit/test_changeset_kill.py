"""`commit` and `apply`, their process ending before every system call that changes a name, and after the last one.

A commit that died has left the file as it was before: whole, or not there. An apply that died has left part of a layer,
as it says; applying it again gives the tree that it gives at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.trees import describe
from tests.unit.overlay_rig import tree, union
from tests.unit.test_overlay_kill import in_a_process
from unionfs import api

_DIED = 3
#: What changes a name or what it leads to (docs.python.org, "Audit events table"). Each comes before its call.
_EVENTS = frozenset(
    "os.chmod os.chown os.link os.mkdir os.remove os.removexattr os.rename os.rmdir os.setxattr os.symlink os.truncate "
    "os.utime".split()
)


def dies(at: int, work: Callable[[], object], begin: str | None = None) -> bool:
    """Run `work` in a process that dies before its call number `at`, counted from the first `begin` on, an event; False
    where there were fewer."""

    def die(event: str, args: tuple[object, ...]) -> None:
        nonlocal at, begin
        if begin not in (None, event):
            return
        begin = None
        flags = args[2] if event == "open" else 0
        if event in _EVENTS or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            at -= 1
            if at < 0:
                os._exit(_DIED)

    def run() -> None:
        sys.addaudithook(die)
        work()

    return in_a_process(run)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A base, and an upper that changes it: low/, upper/, work/."""
    tree(tmp_path / "low", etc__a="one", etc__b="two", gone__c="three", kept="four")
    with union(tmp_path, [tmp_path / "low"]) as u:
        u.unlink("etc/a")
        u.unlink("gone/c")
        u.rmdir("gone")
        u.mkdir("gone")
        u.create("gone/new", b"new" * 1000)
        u.link("etc/b", "linked")
        u.setattr("kept", mode=0o600)
    return tmp_path


def commit(stack: Path, output: Path) -> None:
    api.commit(layers=[stack / "low"], upper=stack / "upper", work=stack / "work", output=output)


@pytest.mark.parametrize("older", [None, b"an older layer"])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_commit_that_died_has_left_the_old_file_or_the_new(stack: Path, suffix: str, older: bytes | None) -> None:
    good, output = stack / f"good.{suffix}", stack / f"out.{suffix}"
    commit(stack, good)
    upper = describe(stack / "upper")
    found = []
    at, died = 0, True
    while died:
        output.unlink(missing_ok=True)
        if older is not None:
            output.write_bytes(older)
        died = dies(at, lambda: commit(stack, output))
        found.append(output.read_bytes() if output.exists() else None)
        at += 1
    assert found[-1] == good.read_bytes()
    assert set(found[:-1]) == {older} and len(found) > 2
    assert describe(stack / "upper") == upper


def test_an_apply_that_died_is_mended_by_the_next(stack: Path) -> None:
    layer = stack / "layer.tar"
    commit(stack, layer)

    def fresh(name: str) -> Path:
        return tree(stack / name, etc__a="one", etc__b="two", gone__c="three", kept="four")

    def seen(root: Path) -> list[str]:
        return describe(root, times=False)

    good = fresh("good")
    before = seen(good)
    api.apply(layer, good)
    after = seen(good)
    assert after != before
    partly = 0
    at, died = 0, True
    while died:
        target = fresh(f"target{at}")
        died = dies(at, lambda target=target: api.apply(layer, target))  # type: ignore[misc]
        left = seen(target)
        partly += left not in (before, after)
        assert died or left == after
        api.apply(layer, target)
        assert seen(target) == after
        at += 1
    assert partly, "it never died between two changes"
