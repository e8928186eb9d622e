"""`unionfs trace` and `unionfs replay` of live mounts, and what files of them say of their layer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.replay_schemas import ReplayStep
from cli.trace_schemas import TraceEvent
from tests.compat.real_mount import RealStack, each_transport
from tests.unit.cli_runner import PROJECT, process_of, program, refused
from tests.unit.overlay_rig import tree
from tests.unit.trace_rig import stored_tree
from unionfs import api

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


class Trace:
    """A running `unionfs trace`. `out` and `err` are there when it has ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.out: list[str] = []
        self.err = ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def events(self) -> list[TraceEvent]:
        return [TraceEvent.model_validate_json(line) for line in self.out]


@contextmanager
def traced(mnt: Path, *options: str) -> Iterator[Trace]:
    """Listening during the block: from when the mount knows of it."""
    before = listening(mnt)
    process = subprocess.Popen(
        [*process_of(), "trace", str(mnt), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    trace = Trace(process)
    try:
        while listening(mnt) == before:
            assert process.poll() is None, process.communicate()
        yield trace
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        trace.kill()
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stderr.close()
    trace.out, trace.err = out.decode().splitlines(), err.decode()
    assert process.returncode == 0, trace.err


def listening(mnt: Path) -> int:
    """How many do, as the mount says."""
    (found,) = [mount for mount in api.mounts() if mount.mountpoint == os.fsencode(mnt)]
    assert found.statistics is not None
    return found.statistics["listeners"]


def filled(stack: RealStack) -> None:
    base = tree(stack.lower(), etc__motd="base", etc__passwd="root", srv__www__index="hello", bin__a="linked")
    os.link(base / "bin/a", base / "bin/b")
    (base / "large").write_bytes(b"x" * 300_000)
    tree(stack.lower(), etc__motd="top", opt__x="x")


def busy(mnt: Path) -> None:
    """A bit of everything."""
    (mnt / "etc/motd").read_text()
    with open(mnt / "etc/passwd", "a") as file:
        file.write("more")
    with open(mnt / "large", "r+b") as file:
        file.seek(1000)
        file.write(b"in the middle")
    (mnt / "etc/motd").unlink()
    (mnt / "etc/new").write_text("new")
    (mnt / "etc/new").rename(mnt / "etc/newer")
    (mnt / "srv").rename(mnt / "www")
    (mnt / "www/www/index").write_text("changed")
    (mnt / "srv").mkdir(0o750)
    (mnt / "bin/a").chmod(0o600)
    (mnt / "bin/b").unlink()
    os.symlink("etc", mnt / "sl")
    os.link(mnt / "etc/newer", mnt / "etc/hard")
    os.setxattr(mnt / "etc/newer", "user.mine", b"yes")
    os.truncate(mnt / "etc/passwd", 2)
    (mnt / "opt/x").unlink()
    (mnt / "opt").rmdir()
    with pytest.raises(FileNotFoundError):
        (mnt / "etc/motd").read_text()


@each_transport("devfuse", "devfuse-cached", "fusepy")
def test_a_trace_shows_each_request_with_what_was_done(stack: RealStack) -> None:
    filled(stack)
    with stack.mounted() as mnt:
        with traced(mnt, "--json") as trace:
            busy(mnt)
        events = trace.events()
        by_op = {event.op: event for event in events}
        assert {"unlink", "rename", "mkdir", "open", "symlink", "link", "setattr", "setxattr"} <= by_op.keys()
        unlinked = next(event for event in events if event.op == "unlink" and event.path == "etc/motd")
        assert "whiteout" in [step.kind for step in unlinked.steps] and unlinked.error is None
        opened = next(event for event in events if event.op == "open" and event.path == "large")
        copied = next(step for step in opened.steps if step.kind == "copied-up")
        assert (copied.layer, copied.size) == (2, 300_000) and opened.found is not None and opened.found.layer == 0
        assert opened.way == ("passthrough" if stack.transport == "devfuse" else "cached")
        moved = next(event for event in events if event.op == "rename" and event.path == "srv")
        assert moved.to_path == "www" and "redirect" in [step.kind for step in moved.steps]
        assert any(step.what == "whiteout" for event in events for step in event.steps if step.kind == "looked")
        assert {event.uid for event in events} == {os.geteuid()} and os.getpid() in {event.pid for event in events}
        assert ("passthrough" in trace.err) is (stack.transport == "devfuse") and f"{len(events)} events" in trace.err
        assert listening(mnt) == 0


@each_transport("devfuse")
def test_a_trace_in_words(stack: RealStack) -> None:
    filled(stack)
    with stack.mounted() as mnt:
        with traced(mnt) as trace:
            with open(mnt / "large", "r+b") as file:
                file.write(b"y")
            (mnt / "etc/passwd").unlink()
        assert any(
            line.startswith("open       /large read+write = file in upper, passthrough: copy-up 293 KiB from layer 2;")
            for line in trace.out
        ), trace.out
        (unlinked,) = [line for line in trace.out if line.startswith("unlink")]
        assert unlinked.startswith("unlink     /etc/passwd = ok") and unlinked.endswith("whiteout in upper")
        assert trace.err.count("reads and writes by itself") == 1


@each_transport("devfuse")
def test_filters_and_several_listeners(stack: RealStack) -> None:
    filled(stack)
    with stack.mounted() as mnt:
        with (
            traced(mnt, "--json", "--path", "etc", "--op", "unlink", "--op", "mkdir") as one,
            traced(mnt, "--json", "--errors") as two,
            traced(mnt, "--json", "--copy-ups") as three,
        ):
            refused(program("trace", mnt), 1, "others listen", "later")
            (mnt / "made").mkdir()
            (mnt / "etc/motd").unlink()
            with pytest.raises(FileExistsError):
                (mnt / "etc/passwd").mkdir()
        assert [(event.op, event.path) for event in one.events()] == [("unlink", "etc/motd")]
        assert {event.error for event in two.events()} >= {"ENOENT"} and None not in {e.error for e in two.events()}
        assert [event.op for event in three.events()] == ["unlink"]


@each_transport("devfuse", "fusepy")
def test_a_recording_is_replayed_to_the_same_end(stack: RealStack) -> None:
    filled(stack)
    recording = stack.directory / "recording"
    with stack.mounted() as mnt:
        (mnt / "etc/before").write_text("before the recording")
        with traced(mnt, "--record", str(recording)):
            busy(mnt)
        steps = [ReplayStep.model_validate(step) for step in json.loads(stack.unionfs("replay", "--json", recording))]
        assert steps and not any(step.differs for step in steps)
        (upper,) = [layer for layer in steps[-1].layers if layer.role == "upper"]
        replayed = {stored.path: stored for stored in upper.stored}
        stored = stored_tree(str(stack.upper))
        assert replayed.keys() == stored.keys() - {"etc/before"}
        for path, found in replayed.items():
            mode, uid, gid, _, what, marks, values = stored[path]
            if found.kind == "whiteout":
                assert os.lstat(stack.upper / path).st_rdev == 0, path
                continue
            assert (found.mode, found.owner) == (mode & 0o7777, f"{uid}:{gid}"), path
            if found.kind == "file":
                assert found.size == len(what), path
                assert found.text == what.decode().replace("\n", " / ") or len(found.text) == 60, path
            redirect = [os.fsdecode(value) for name, value in zip(marks, values, strict=True) if "redirect" in name]
            assert [mark.partition("=")[2] for mark in found.marks if mark.startswith("redirect")] == redirect, path
        text = stack.unionfs("replay", "--brief", recording)
        assert "rename     /srv -> /www" in text


@each_transport("devfuse")
def test_a_recording_is_there_whole_or_not_at_all(stack: RealStack) -> None:
    filled(stack)
    recording = stack.directory / "recording"
    recording.write_text("what was there before")
    with stack.mounted() as mnt:
        with traced(mnt, "--record", str(recording)) as trace:
            os.mkdir(mnt / "made")
            trace.kill()
        assert recording.read_text() == "what was there before"
    refused(program("replay", recording), 1, "no recording", "--record")
    refused(program("trace", stack.mnt), 1, "not a unionfs mount", "unionfs mounts")
    refused(program("trace", stack.mnt, "--op", "nonsense"), 2, "unknown operation", "opcodes")
    refused(program("trace", stack.mnt, "--record", recording, "--json"), 2, "a recording has everything", "--help")


@each_transport("devfuse")
def test_what_is_told_of_a_mount_is_not_written_to_it(stack: RealStack) -> None:
    """Each write would be told of in turn."""
    filled(stack)
    with stack.mounted() as mnt:
        refused(program("trace", mnt, "--record", mnt / "recording"), 1, "lies in the mount", "outside")
        with open(mnt / "out", "wb") as out:
            ran = subprocess.run(
                [*process_of(), "trace", mnt], stdout=out, stderr=subprocess.PIPE, timeout=60, cwd=PROJECT
            )
        assert ran.returncode == 1 and b"standard output lies in the mount" in ran.stderr
        assert not (mnt / "recording").exists() and listening(mnt) == 0
        outside = stack.directory / "recording"
        with traced(mnt, "--record", str(outside)):
            (mnt / "made").mkdir()
        assert outside.stat().st_mode & 0o777 == 0o600


#: Ctrl-C as soon as the mount has heard of who listens.
AT_ONCE = """
import os, signal
from unionfs.api import tracing
def at_once(function):
    def call(*given, **options):
        listening = function(*given, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return listening
    return call
tracing.trace, tracing.record = at_once(tracing.trace), at_once(tracing.record)
from cli.program import program
program()
"""


@each_transport("devfuse")
def test_a_trace_that_is_ended_at_once(stack: RealStack) -> None:
    filled(stack)
    with stack.mounted() as mnt:
        for options in ((), ("--record", stack.directory / "recording")):
            ran = subprocess.run(
                [sys.executable, "-c", AT_ONCE, "trace", mnt, *options], capture_output=True, timeout=60, cwd=PROJECT
            )
            assert (ran.returncode, ran.stdout) == (0, b"") and b" events" in ran.stderr, ran
    assert (stack.directory / "recording").exists()


@each_transport("devfuse", "fusepy")
def test_a_trace_ends_with_the_mount_and_the_mount_not_with_the_trace(stack: RealStack) -> None:
    filled(stack)
    with stack.mounted() as mnt:
        with traced(mnt, "--json") as trace:
            os.kill(trace.process.pid, signal.SIGSTOP)  # one that never reads
            for number in range(300):
                assert not (mnt / f"nothing{number}").exists()
            trace.kill()
            while listening(mnt):
                pass
        with traced(mnt, "--json") as trace:
            stack.unionfs("umount", mnt)
            assert trace.process.wait(60) == 0
        stack.unionfs("mount", *(w for layer in stack.layers for w in ("-l", str(layer))), "-u", stack.upper, mnt)


@each_transport("devfuse", "fusepy")
def test_files_say_which_layer_they_are_from(stack: RealStack) -> None:
    filled(stack)
    top, base = stack.layers
    with stack.mounted() as mnt:

        def told(path: str, name: str) -> str:
            return os.fsdecode(os.getxattr(mnt / path, f"user.unionfs.{name}"))

        assert (told("etc/motd", "layer"), told("etc/motd", "path")) == (str(top), "/etc/motd")
        assert told("etc", "layers").split("\0") == [str(top), str(base)] and told("etc", "rule") == "merged"
        (mnt / "etc/motd").write_text("changed")
        assert told("etc/motd", "layer") == str(stack.upper)
        assert os.listxattr(mnt / "etc/motd") == []
        with pytest.raises(OSError) as caught:
            os.setxattr(mnt / "etc/motd", "user.unionfs.layer", b"x")
        assert caught.value.errno == errno.EPERM
        with pytest.raises(OSError) as caught:
            os.getxattr(mnt / "etc/nothing", "user.unionfs.layer")
        assert caught.value.errno == errno.ENOENT
        os.symlink("motd", mnt / "etc/link")
        with pytest.raises(OSError) as caught:  # fs/xattr.c, xattr_permission()
            os.getxattr(mnt / "etc/link", "user.unionfs.layer", follow_symlinks=False)
        assert caught.value.errno == errno.ENODATA
    with stack.mounted("-o", "layer_xattrs=off") as mnt:
        with pytest.raises(OSError) as caught:
            os.getxattr(mnt / "etc/motd", "user.unionfs.layer")
        assert caught.value.errno == errno.ENODATA
        os.setxattr(mnt / "etc/motd", "user.unionfs.layer", b"mine")
        assert os.listxattr(mnt / "etc/motd") == ["user.unionfs.layer"]
