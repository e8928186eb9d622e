"""Patches of texts: patch(1) makes the one of the other, whatever the texts and their names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.requirements import requires
from unionfs.compare.unified import is_text, unified

TEXTS = st.lists(st.sampled_from([b"a", b"b", b"c", b"", b"\r", b"\xff\x0c", b"+", b"--- x"]), max_size=30)


def joined(lines: list[bytes], newline: bool) -> bytes:
    return b"\n".join(lines) + (b"\n" if newline and lines else b"")


def patched(directory: Path, before: bytes | None, patch: Iterable[bytes], name: bytes = b"f") -> bytes | None:
    """What patch(1) makes of a file."""
    file = directory / os.fsdecode(name)
    file.unlink(missing_ok=True)
    if before is not None:
        file.write_bytes(before)
    done = subprocess.run(
        ["patch", "-p1", "--binary"], input=b"".join(patch), cwd=directory, capture_output=True, check=False
    )
    assert done.returncode == 0, done
    return file.read_bytes() if file.exists() else None


@requires("patch")
@given(TEXTS, TEXTS, st.booleans(), st.booleans())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_patch_makes_the_one_text_of_the_other(
    tmp_path: Path, old: list[bytes], new: list[bytes], old_newline: bool, new_newline: bool
) -> None:
    before, after = joined(old, old_newline), joined(new, new_newline)
    lines = list(unified(b"f", before, after))
    if before == after:
        assert lines == []
    else:
        assert patched(tmp_path, before, lines) == after


NAMES = [b"plain", b"with blank", b"tab\tname", b'quote"d\\', b"\xc3\xa9", b"\xff", b"new\nline"]


@requires("patch")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"one\ntwo\n", b"one\n2\n"), (None, b"new\n"), (b"old", None), (b"a\n", b"a"), (b"a", b"a\n"), (b"", b"x\ny")],
)
def test_patch_finds_the_file_by_any_name(
    tmp_path: Path, name: bytes, before: bytes | None, after: bytes | None
) -> None:
    assert patched(tmp_path, before, unified(name, before, after), name) == after


@requires("patch")
def test_hostile_texts_take_time_that_goes_with_their_length(tmp_path: Path) -> None:
    """Lines that all match each other are what difflib is slowest with: this would take it hours."""
    before, after = b"a\nb\n" * 50_000, b"b\na\na\n" * 40_000
    assert patched(tmp_path, before, unified(b"f", before, after)) == after


def test_a_nul_makes_a_file_binary() -> None:
    assert is_text(b"") and is_text(b"\xff\x1b[2J") and not is_text(b"a\0b")
