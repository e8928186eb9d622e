"""Layer tars of any members and any bytes, applied: a tree inside the directory or an error, the canary untouched.

The corpus of what must be refused is tests/golden/hostile_tars.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.canary import Canary
from tests.compat.hostile_client import swap
from tests.golden.hostile_tars import CORPUS, ODD_BUT_GOOD, UNSAFE, archive, entry
from tests.requirements import requires
from tests.rigs import PROJECT, python_path
from unionfs.changeset.apply import apply
from unionfs.changeset.tar_format import BLK, CHR, DIR, FIFO, LINK, REG, SYMLINK, Fields, member
from unionfs.errors import UnionFSError

NAMES = (
    b"d", b"d/f", b"d/e/f", b"f", b"/abs", b"./d", b"d/../f", b"..", b"../canary", b"../canary/file", b"up",
    b"up/canary", b"up/canary/file", b"canary", b"canary/file", b"canary/dir/new", b"fifo", b"fifo/x", b".wh.d",
    b"d/.wh.f", b".wh.up", b".wh.canary", b"canary/.wh.file", b"canary/.wh..wh..opq", b".wh..wh..opq", b".wh..",
    b".wh...", b"up/.wh.canary", b"d" * 255, b"d" * 256, b"deep/" * 300 + b"f", b"\xff", b"d\n", b".wh..wh.plnk/x", b"",
)  # fmt: skip
TARGETS = (
    b"..", b"../canary", b"../canary/dir", b"../canary/file", b"/", b"d", b"f", b"up", b"up/canary/file", b"canary",
    b"loop", b"", b"../" * 50 + b"etc", b"x" * 4097,
)  # fmt: skip

entries = st.builds(
    lambda name, kind, target, mode: entry(name, kind, b"data" if kind == REG else b"", target, mode=mode),
    st.sampled_from(NAMES),
    st.sampled_from([REG, DIR, SYMLINK, LINK, FIFO, CHR, BLK]),
    st.sampled_from(TARGETS),
    st.sampled_from([0, 0o644, 0o755, 0o7777]),
)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory `root` with links to the canary beside it."""
    base = Path(tempfile.mkdtemp(prefix="unionfs-hostile-"))
    try:
        canary = Canary(base, "root")
        root = base / "root"
        (root / "d" / "e").mkdir(parents=True)
        (root / "d" / "f").write_text("f")
        for name, target in (("up", ".."), ("canary", "../canary"), ("loop", "loop"), ("fifo", "../canary/fifo")):
            os.symlink(target, root / name)
        canary.bait(root)
        yield root
        canary.check()
    finally:
        subprocess.run(["rm", "-rf", str(base)], check=True)


def put(root: Path, data: bytes) -> None:
    """Whatever it is: applied, or refused by one of our errors or the file system's."""
    with contextlib.suppress(UnionFSError, OSError):
        apply(io.BytesIO(data), str(root))


@settings(max_examples=200, deadline=None)
@given(st.lists(entries, min_size=1, max_size=8))
def test_any_members_in_any_order(members: list[bytes]) -> None:
    with place() as root:
        put(root, archive(*members))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*ODD_BUT_GOOD.values(), *CORPUS.values()]), st.data())
def test_any_bytes_changed(data: bytes, chance: st.DataObject) -> None:
    changed = bytearray(data[:65536])
    for _ in range(chance.draw(st.integers(0, 6))):
        if changed:
            changed[chance.draw(st.integers(0, len(changed) - 1))] = chance.draw(st.integers(0, 255))
    if chance.draw(st.booleans()):
        del changed[chance.draw(st.integers(0, len(changed))) :]
    with place() as root:
        put(root, bytes(changed))


@pytest.mark.parametrize("name", sorted(UNSAFE))
def test_unsafe_archive_beside_links_to_the_canary(name: str) -> None:
    with place() as root:
        put(root, UNSAFE[name])


@requires("root")
def test_links_swapped_for_directories_during_apply() -> None:
    """Somebody who may write in the directory races with the removal and making of what is in it."""
    with place() as root:
        (root / "d" / "link").symlink_to(root.parent / "canary" / "dir")
        (root / "link").symlink_to(root.parent / "canary" / "dir")
        racer = subprocess.Popen(
            [sys.executable, "-m", swap.__module__, "swap", str(root), "d:link", "d/e:d/link"],
            cwd=PROJECT, env={**os.environ, "PYTHONPATH": python_path()}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
            for i in range(150):
                directory = member(Fields(b"d/e", DIR, 0o700, 0, 0, 0, i), {b"user.x": b"1"})
                put(
                    root,
                    archive(directory, entry(b"d/e/file", data=b"x"), entry(b"d/e/sub/file"), entry(b"d/new", DIR)),
                )
                put(root, archive(entry(b"d/e/.wh..wh..opq"), entry(b"d/.wh.e"), entry(b".wh.d")))
                shutil.rmtree(root / "d", ignore_errors=True)
                with contextlib.suppress(FileExistsError):
                    (root / "link").symlink_to(root.parent / "canary" / "dir")
            racer.communicate("", timeout=20)
            assert racer.returncode == 0
        finally:
            racer.kill()
            racer.communicate()
