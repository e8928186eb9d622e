"""Seccomp filters that crun has compiled are kept for the next container that has the same."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from unionfs.containers.compiled_filters import ANNOTATION, MOST, UNFINISHED_SECONDS, UNUSED_SECONDS, CompiledFilter

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


def keep(root: Path, program: str, kind: int = 0) -> Path:
    """Keep the filter of one kind; the file it is in."""
    before = names(root)
    id = f"container-{kind}-{len(before)}-{os.path.getmtime(program)}"
    made(root, id)
    CompiledFilter(os.fsencode(root), program, RESOLVED | {"kind": kind}).keep(id)
    (added,) = names(root) - before
    return root / ".filters" / added


def names(root: Path) -> set[str]:
    return set(os.listdir(root / ".filters")) if (root / ".filters").exists() else set()


def age(path: Path, seconds: float) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


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


def test_another_version_takes_the_place_of_the_one_before(tmp_path: Path, crun: str) -> None:
    other = tmp_path / "other/crun"
    other.parent.mkdir()
    other.write_text("somebody's own")
    before = {keep(tmp_path, crun).name, keep(tmp_path, crun, 1).name}
    others = keep(tmp_path, str(other)).name
    assert names(tmp_path) == before | {others}
    Path(crun).write_text("another version, which is longer")
    added = keep(tmp_path, crun).name
    assert names(tmp_path) == {added, others}


def test_what_was_not_asked_for_for_long_goes_with_the_next(tmp_path: Path, crun: str) -> None:
    forgotten, asked_for, recent = (keep(tmp_path, crun, kind) for kind in range(3))
    for path in (forgotten, asked_for):
        age(path, UNUSED_SECONDS + 60)
    age(recent, UNUSED_SECONDS - 60)
    assert CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED | {"kind": 1}).annotations()
    added = keep(tmp_path, crun, 3)
    assert names(tmp_path) == {asked_for.name, recent.name, added.name}


def test_of_many_the_longest_unused_go(tmp_path: Path, crun: str) -> None:
    made_before = [keep(tmp_path, crun, kind) for kind in range(MOST)]
    for number, path in enumerate(made_before):
        age(path, 100 * (number + 1))
    assert CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED | {"kind": MOST - 1}).annotations()
    added = keep(tmp_path, crun, MOST)
    gone = made_before[-2]
    assert names(tmp_path) == {added.name, *(path.name for path in made_before)} - {gone.name}
    assert not CompiledFilter(os.fsencode(tmp_path), crun, RESOLVED | {"kind": MOST - 2}).annotations()


def test_what_a_crash_left_half_written_goes_and_what_is_being_written_stays(tmp_path: Path, crun: str) -> None:
    kept = keep(tmp_path, crun)
    left, writing = (kept.with_name(f".{kept.name}.{suffix}") for suffix in ("0123", "4567"))
    for path in (left, writing):
        path.touch()
    age(left, UNFINISHED_SECONDS + 60)
    added = keep(tmp_path, crun, 1)
    assert names(tmp_path) == {kept.name, added.name, writing.name}
