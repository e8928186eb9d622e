"""Recordings: what is recorded of a union on disk, and done once more in memory, leaves the same upper and tree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.overlay_rig import ME, Rig, tree, union
from tests.unit.trace_rig import MARKS, Traced, stored_tree
from unionfs.changeset.tree import Tree
from unionfs.errors import ScriptError
from unionfs.explain.replay import Recording, Replay, load
from unionfs.layers.memory import MemoryLayer
from unionfs.vfs import ROOT, Attr

Made = tuple[Traced, Path]
Objects = dict[str, tuple[Any, ...]]


def layers(base: Path) -> list[Path]:
    top = tree(base / "top", etc__motd="top", srv__www__style="css")
    low = tree(
        base / "base", etc__motd="base", etc__passwd="root", srv__www__index="hello", bin__a="linked", opt__x="x"
    )
    os.link(low / "bin/a", low / "bin/b")
    os.symlink("motd", low / "etc/issue")
    (top / "opt").mkdir(exist_ok=True)
    (top / "opt/.wh.x").write_text("")
    return [top, low]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with union(tmp_path, layers(tmp_path)) as rig:
        yield Traced(rig), tmp_path / "upper"


def memory_tree(layer: MemoryLayer, path: bytes = b"") -> Objects:
    found: Objects = {}
    for entry in layer.scan(path):
        below = path + b"/" + entry.name if path else entry.name
        stat = layer.lstat(below)
        what: object = None
        if entry.type == 10:
            what = os.fsdecode(layer.readlink(below))
        elif entry.type == 8:
            what = layer.open(below).pread(stat.st_size, 0)
        marks = tuple(sorted(os.fsdecode(name) for name in layer.listxattr(below) if os.fsdecode(name).endswith(MARKS)))
        values = tuple(layer.getxattr(below, os.fsencode(mark)) for mark in marks)
        key = os.fsdecode(below)
        found[key] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, what, marks, values)
        if entry.type == 4:
            found.update(memory_tree(layer, below))
    return found


def seen(fs: object) -> dict[str, tuple[object, ...]]:
    """What people see of a union: type, mode, owner, links and data of each path."""
    found: dict[str, tuple[object, ...]] = {}
    with Tree(fs) as opened:  # type: ignore[arg-type]
        todo = [("", ROOT)]
        while todo:
            prefix, node = todo.pop()
            for name, child in opened.children(node):
                attr, path = child.attr, prefix + os.fsdecode(name)
                data: object = None
                if attr.mode & 0o170000 == 0o100000:
                    fh = opened.fs.open(child.node, os.O_RDONLY).fh
                    data = opened.fs.read(fh, 0, attr.size)
                    opened.fs.release(fh)
                links = 0 if attr.is_dir else attr.nlink
                found[path] = (attr.mode, attr.uid, attr.gid, links, data)
                if attr.is_dir:
                    todo.append((path + "/", child.node))
    return found


def same(made: Made, recording: list[bytes], before: Objects) -> Replay:
    """Done once more, all that the replay knows of has become what it became, and that is all that was changed.
    `before`: what was in the upper when the recording began."""
    traced, upper = made
    replay = Replay(load(recording))
    wrong = [step for step in replay.run() if step.differs]
    assert not wrong, wrong
    assert replay._world.upper is not None
    after, replayed = stored_tree(str(upper)), memory_tree(replay._world.upper)
    assert {path for path in after if path in replayed or before.get(path) != after[path]} == replayed.keys()
    for path, what in replayed.items():
        if path in before and what[4] is not None and what[4] != after[path][4]:
            assert not what[4].strip(b"\0"), path  # merely listed
            what = (*what[:4], after[path][4], *what[5:])
        assert after[path] == what, path
    expected = seen(traced.fs)
    for path, what in seen(replay.fs).items():
        if what[4] is not None and expected[path][4] != what[4]:
            assert isinstance(what[4], bytes) and not what[4].strip(b"\0"), path  # merely listed
            what = (*what[:4], expected[path][4])
        assert expected[path] == what, path
    return replay


OPERATIONS: dict[str, Callable[[Rig], None]] = {
    "write": lambda u: u.write("etc/passwd", b"x", 2),
    "truncate": lambda u: u.write("etc/motd", b"short", flags=os.O_TRUNC),
    "unlink": lambda u: u.unlink("etc/motd"),
    "unlink again": lambda u: u.unlink("etc/passwd"),
    "create": lambda u: u.create("etc/new", b"data", 0o640),
    "mkdir": lambda u: u.mkdir("etc/dir", 0o750),
    "rename directory": lambda u: u.rename("srv", "www"),
    "rename inside": lambda u: u.rename("www/www", "etc/site"),
    "write moved": lambda u: u.write("etc/site/index", b"y"),
    "again in the old place": lambda u: u.mkdir("srv"),
    "rename file": lambda u: u.rename("etc/new", "srv/renamed"),
    "over": lambda u: u.rename("etc/issue", "etc/new"),
    "exchange": lambda u: u.rename("etc/passwd", "opt", 2),
    "link": lambda u: u.link("etc/motd", "etc/hard"),
    "write a group": lambda u: u.write("bin/a", b"z"),
    "unlink of a group": lambda u: u.unlink("bin/b"),
    "rmdir": lambda u: u.rmdir("opt"),
    "whited out": lambda u: u.create("opt/x", b"back"),
    "mode": lambda u: void(u.setattr("bin/a", mode=0o600)),
    "owner": lambda u: void(u.setattr("etc", uid=os.geteuid(), gid=os.getegid())),
    "size": lambda u: void(u.setattr("etc/passwd", size=2)),
    "symlink": lambda u: u.fs.forget(u.fs.symlink(ROOT, b"sl", b"etc/motd", ME).node, 1),
    "unlink symlink": lambda u: u.unlink("sl"),
    "xattr": lambda u: mark(u, "etc/passwd"),
    "unnamed": lambda u: unnamed(u, "etc/passwd"),
    "look": lambda u: void(u.list("etc")),
}


def void(_: object) -> None:
    pass


def mark(u: Rig, path: str) -> None:
    with u.node(path) as node:
        u.fs.setxattr(node, b"user.mine", b"yes", 0)


def unnamed(u: Rig, path: str) -> None:
    """A file that is written after it lost its name."""
    with u.node(path) as node:
        fh = u.fs.open(node, os.O_RDWR).fh
        try:
            u.unlink(path)
            u.fs.write(fh, 0, b"nobody")
        finally:
            u.fs.release(fh)


def attempt(u: Rig, name: str) -> None:
    try:
        OPERATIONS[name](u)
    except OSError:
        pass  # what fails is recorded as that


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    before=st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=6),
    after=st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=10),
)
def test_a_replay_ends_as_the_mount_did(
    before: list[str], after: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever was done before the recording began, and in it. A hard-link group that was copied up before parts."""
    base = tmp_path_factory.mktemp("replay")
    before = [name for name in before if "group" not in name and name not in ("mode", "link")]
    with union(base, layers(base)) as rig:
        traced = Traced(rig)
        for name in before:
            attempt(rig, name)
        was = stored_tree(str(base / "upper"))
        with traced.recorded() as recording:
            for name in after:
                attempt(rig, name)
        same((traced, base / "upper"), recording, was).close()


def test_all_operations_one_after_the_other(made: Made) -> None:
    traced, upper = made
    was = stored_tree(str(upper))
    with traced.recorded() as recording:
        for name in OPERATIONS:
            attempt(traced.rig, name)
    replay = same(made, recording, was)
    assert len(replay.events) >= 30
    replay.close()


def test_a_file_that_was_opened_before_the_recording(made: Made) -> None:
    traced, upper = made
    was = stored_tree(str(upper))
    u = traced.rig
    with u.node("etc/passwd") as node:
        fh = u.fs.open(node, os.O_RDWR).fh
        u.fs.write(fh, 0, b"before")
        was = stored_tree(str(upper))
        with traced.recorded() as recording:
            u.fs.write(fh, 6, b" and after")
            u.fs.release(fh)
    same(made, recording, was).close()


def test_a_file_that_is_open_still_at_the_end(made: Made) -> None:
    """As the kernel writes it by itself: no request says what."""
    traced, upper = made
    was = stored_tree(str(upper))
    u = traced.rig
    with u.node("etc/passwd") as node, traced.recorded() as recording:
        opened = traced.fs.open(node, os.O_RDWR)  # unseen, as is what follows
        traced.fs.write(opened.fh, 0, b"by itself")
        u.mkdir("made")
    replay = same(made, recording, was)
    assert [event.op for event in replay.events] == ["mkdir", "contents"]
    traced.fs.release(opened.fh)
    replay.close()


def test_only_what_was_touched_is_recorded(made: Made) -> None:
    traced, _ = made
    with traced.recorded() as recording:
        traced.rig.unlink("etc/passwd")
    paths = {json.loads(line)["scene"]["path"] for line in recording if b'"scene"' in line[:10]}
    assert paths == {"", "etc", "etc/passwd"}


def test_steps_backwards_and_forwards(made: Made) -> None:
    traced, _ = made
    with traced.recorded() as recording:
        for name in ("unlink", "mkdir", "rename directory"):
            attempt(traced.rig, name)
    replay = Replay(load(recording))
    start = replay.picture
    first = replay.step()
    assert first is not None and (first.number, first.now.op) == (1, "unlink")
    assert [(change.layer, change.sign, change.path) for change in first.changes] == [
        ("upper", "+", "etc"),
        ("upper", "+", "etc/motd"),
    ]
    assert [step.kind for step in first.now.steps if step.kind != "listed"] == [
        "impure", "copied-up", "placed", "whiteout",
    ]  # fmt: skip
    after_one = replay.picture
    assert len(list(replay.run())) == 2 and replay.next is None and replay.step() is None
    end = replay.picture
    assert replay.undo() and replay.done == 2
    replay.go_to(1)
    assert replay.picture == after_one
    replay.go_to(99)
    assert replay.picture == end and replay.done == 3
    replay.go_to(0)
    assert replay.picture == start and not replay.undo()
    replay.close()


def test_a_replay_that_comes_out_otherwise_says_so(made: Made) -> None:
    traced, _ = made
    with traced.recorded() as recording:
        traced.rig.mkdir("made")
    changed = [line.replace(b'"error":null', b'"error":"EEXIST"') for line in recording]
    replay = Replay(load(changed))
    assert [step.differs for step in replay.run()] == [True]
    replay.close()


def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(made: Made) -> None:
    traced, _ = made
    with traced.recorded() as recording:
        traced.rig.mkdir("one")
        traced.rig.mkdir("two")
    whole = b"".join(recording)
    assert load(recording).complete
    cut = load(whole[: whole.rindex(b'{"event"') + 30].splitlines(keepends=True))
    assert not cut.complete and [event.path for event in cut.changing] == [b"one"]


HEADER = {"recording": 1, "layers": ["/u", "/a"], "namespace": "trusted", "options": {
    "metacopy": False, "index": True, "redirect_dir": True}}  # fmt: skip
OBJECT = {"layer": 1, "path": "a", "mode": 0o100644, "uid": 0, "gid": 0, "size": 1, "rdev": 0, "links": 1, "id": "1:1",
    "atime_ns": 0, "mtime_ns": 0, "xattrs": {}, "target": None, "data": None}  # fmt: skip


WRONG_LINES: list[dict[str, object]] = [
    {"what": 1},
    {"scene": {}},
    {"scene": {**OBJECT, "path": "../x"}},
    {"scene": {**OBJECT, "path": "/x"}},
    {"scene": {**OBJECT, "layer": 2}},
    {"scene": {**OBJECT, "size": -1}},
    {"scene": {**OBJECT, "mode": "x"}},
    {"scene": {**OBJECT, "data": "?"}},
    {"event": {}},
    {"event": 1},
]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\x7fELF\n",
        b"[]\n",
        b'{"recording": 2}\n',
        b'{"recording": 1, "layers": []}\n',
        json.dumps({**HEADER, "layers": ["x"] * 5000}).encode() + b"\n",
        *(json.dumps(HEADER).encode() + b"\n" + json.dumps(line).encode() + b"\n" for line in WRONG_LINES),
    ],
)
def test_what_is_no_recording(document: bytes) -> None:
    with pytest.raises(ScriptError) as caught:
        load(document.splitlines(keepends=True))
    assert "no recording" in str(caught.value) and caught.value.hint


HOSTILE: list[list[object]] = [
    [{"scene": {**OBJECT, "path": "a/b"}}],  # in a directory that is not there
    [{"scene": OBJECT}, {"scene": {**OBJECT, "path": "a/b", "id": "1:2"}}],  # in a file
    [{"scene": {**OBJECT, "path": "x" * 300}}],
    [{"scene": {**OBJECT, "mode": 0}}],
    [{"scene": {**OBJECT, "size": 1 << 62, "links": 1 << 40}}],
    [{"scene": {**OBJECT, "xattrs": {"nonsense": "", "user.a": ""}}}],
]


@pytest.mark.parametrize("lines", HOSTILE)
def test_a_scene_that_cannot_be_is_refused_or_staged(lines: list[object]) -> None:
    document = [json.dumps(line).encode() + b"\n" for line in (HEADER, *lines)]
    recording = load(document)
    assert isinstance(recording, Recording)
    try:
        Replay(recording).close()
    except ScriptError as e:
        assert "cannot be" in str(e)


def test_times_that_were_set_are_set_again(made: Made) -> None:
    traced, upper = made
    was = stored_tree(str(upper))
    with traced.recorded() as recording:
        traced.rig.setattr("etc/passwd", mtime_ns=5_000_000_000, atime_ns=6_000_000_000)
    replay = same(made, recording, was)
    with Tree(replay.fs) as opened:
        node = opened.resolve(b"etc/passwd")
        assert node is not None and isinstance(node.attr, Attr)
        assert (node.attr.mtime_ns, node.attr.atime_ns) == (5_000_000_000, 6_000_000_000)
    replay.close()
