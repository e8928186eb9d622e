"""Seccomp filters that crun has compiled are kept for the next container that has the same."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from unionfs.containers.compiled_filters import ANNOTATION, CompiledFilter

RESOLVED = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
PROGRAM = bytes(range(16))


@pytest.fixture
def crun(tmp_path: Path) -> str:
    path = tmp_path / "bin/crun"
    path.parent.mkdir()
    path.write_text("a version")
    return str(path)


def made(root: Path, id: str, data: bytes = PROGRAM) -> None:
    (root / id).mkdir()
    (root / id / "seccomp.bpf").write_bytes(data)


def test_filter_is_kept_for_the_next(tmp_path: Path, crun: str) -> None:
    first = CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED)
    assert first.annotations() == {}
    made(tmp_path, "a")
    first.keep("a")
    assert CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED).annotations() == {
        ANNOTATION: base64.b64encode(PROGRAM).decode()
    }
    assert [path.stat().st_size for path in (tmp_path / ".filters").iterdir()] == [16]


def test_another_filter_and_another_crun_have_their_own(tmp_path: Path, crun: str) -> None:
    made(tmp_path, "a")
    CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED).keep("a")
    other = {**RESOLVED, "defaultAction": "SCMP_ACT_ERRNO"}
    assert CompiledFilter(os.fsencode(tmp_path), crun, other).annotations() == {}
    Path(crun).write_text("another version")
    assert CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED).annotations() == {}


def test_runc_has_none(tmp_path: Path, crun: str) -> None:
    made(tmp_path, "a")
    runc = CompiledFilter(os.fsencode(tmp_path), os.path.join(os.path.dirname(crun), "runc"), RESOLVED)
    runc.keep("a")
    assert runc.annotations() == {} and not (tmp_path / ".filters").exists()


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(8 * 4096 + 8)])
def test_what_is_no_program_is_not_kept_nor_used(tmp_path: Path, crun: str, data: bytes) -> None:
    made(tmp_path, "a", data)
    compiled = CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED)
    compiled.keep("a")
    compiled.keep("gone")
    assert compiled.annotations() == {}
    made(tmp_path, "b")
    compiled.keep("b")
    (kept,) = (tmp_path / ".filters").iterdir()
    kept.write_bytes(data)
    assert compiled.annotations() == {}
