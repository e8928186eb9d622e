"""Who listens to a mount: filters, several at once, slow ones, dead ones; and that the union is left alone without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.overlay_rig import tree, union
from tests.unit.trace_rig import Traced, lines
from unionfs.errors import MountError, OptionError, ProtocolError
from unionfs.explain.trace import Event, Filter, choose
from unionfs.mounts import tracing
from unionfs.mounts.control import MAX_STREAMS, ControlServer, Streamed, Streaming, request


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    base = tree(tmp_path / "base", etc__motd="base", etc__passwd="root", srv__x="x")
    with union(tmp_path, [base]) as rig:
        yield Traced(rig)


def test_an_event_says_what_was_asked_and_where_it_is(traced: Traced) -> None:
    with traced.events() as told:
        traced.rig.write("etc/passwd", b"x")
    looked, _, opened, written, released = told
    assert (looked.op, looked.path) == ("lookup", b"etc")
    assert (opened.op, opened.path, opened.error, opened.copied) == ("open", b"etc/passwd", None, True)
    assert opened.found is not None and (opened.found.layer, opened.found.path) == (0, b"etc/passwd")
    assert (written.op, written.amount, written.fields) == ("write", 1, {"offset": 0, "size": 1})
    assert written.data == b""  # of recordings alone
    assert (released.op, released.fh) == ("release", opened.fh)


def test_a_lookup_says_what_each_layer_has(traced: Traced) -> None:
    traced.rig.unlink("etc/motd")
    with traced.events(Filter(ops=("lookup",))) as told:
        assert not traced.rig.exists("etc/motd")
    assert told[-1].error == "ENOENT" and told[-1].path == b"etc/motd"
    assert [(step.layer, step.what) for step in told[-1].steps if step.kind == "looked"] == [(0, "whiteout")]


def test_a_failure_says_why(traced: Traced) -> None:
    with traced.events() as told, pytest.raises(OSError):
        traced.rig.rmdir("etc")
    assert (told[-1].op, told[-1].error, told[-1].path) == ("rmdir", "ENOTEMPTY", b"etc")


def test_events_are_the_same_after_json(traced: Traced) -> None:
    with traced.events() as told:
        traced.rig.rename("srv", "www")
        traced.rig.create(os.fsdecode(b"not-utf8-\xff"))
    for event in told:
        assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event
    assert any(event.path == b"not-utf8-\xff" for event in told)


@pytest.mark.parametrize("told", [{}, {"time": "x"}, {"op": 1}, {"time": 1, "op": "x", "path": 5}])
def test_what_is_no_event(told: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        Event.from_json(told)


@pytest.mark.parametrize(
    ("wanted", "ops"),
    [
        (choose(["/etc"], ()), ["open", "write", "release", "unlink", "mkdir"]),
        (choose(["etc/pass*"], ()), ["open", "write", "release"]),
        (choose(["srv"], ["RENAME"]), ["rename"]),
        (choose(["www"], ()), ["rename"]),
        (choose((), ["unlink", "mkdir"]), ["unlink", "mkdir"]),
        (choose((), (), errors=True), ["mkdir"]),
        (choose((), (), copy_ups=True), ["open", "rename"]),
    ],
)
def test_filters(traced: Traced, wanted: Filter, ops: list[str]) -> None:
    with traced.events(wanted) as told:
        traced.rig.write("etc/passwd", b"x")
        traced.rig.unlink("etc/motd")
        traced.rig.rename("srv", "www")
        with pytest.raises(FileExistsError):
            traced.rig.mkdir("etc")
    assert [event.op for event in told if event.op != "lookup"] == ops


def test_an_unknown_operation_is_a_hint() -> None:
    with pytest.raises(OptionError) as caught:
        choose((), ["opne"])
    assert caught.value.hint


def test_several_listen_and_each_gets_what_he_wants(traced: Traced) -> None:
    one, other = traced.listen(), traced.listen(choose((), ["mkdir"]))
    traced.rig.mkdir("a")
    other.finish()
    traced.rig.mkdir("b")
    one.finish()
    assert [line["event"]["path"] for line in lines(one) if "event" in line] == ["a", "b"]
    assert [line["event"]["path"] for line in lines(other) if "event" in line] == ["a"]
    assert lines(other) == []


def test_without_a_listener_nobody_watches(traced: Traced) -> None:
    assert traced.watched.watcher is None and traced.fs._union.stack.trace is None
    one, other = traced.listen(), traced.listen()
    one.finish()
    assert traced.watched.watcher is not None
    other.finish()
    other.finish()
    assert traced.watched.watcher is None and traced.fs._union.stack.trace is None


def test_a_full_buffer_drops_and_says_how_many(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "BUFFER", 3000)
    listener = traced.listen(choose((), ["mkdir"]))
    for number in range(20):
        traced.rig.mkdir(f"d{number}")
    first = listener.take(0)
    assert first is not None and len(first) <= 3000
    kept = first.count(b"\n")
    traced.rig.mkdir("last")
    listener.finish()
    dropped, event, end = lines(listener)
    assert dropped == {"dropped": 20 - kept} and event["event"]["path"] == "last"
    assert end == {"end": {"events": kept + 1, "dropped": 20 - kept}}


def test_what_goes_wrong_in_tracing_is_logged_and_the_operation_done(
    traced: Traced, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unionfs.explain.trace.found", lambda *_: 1 / 0)
    listener = traced.listen()
    traced.rig.mkdir("made")
    listener.finish()
    assert traced.rig.exists("made") and "could not be traced" in caplog.text


def test_a_mount_whose_transport_tells_nothing(tmp_path: Path) -> None:
    with union(tmp_path, [tree(tmp_path / "base", a="a")]) as rig:
        listeners = tracing.Listeners()
        listeners.attach(rig.fs)
        with pytest.raises(MountError):
            listeners.listen(Filter())
        listeners.end()
        rig.fs.watch = lambda watcher: None
        with pytest.raises(MountError):
            listeners.listen(Filter())


# the socket -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def served(traced: Traced, tmp_path: Path) -> Iterator[tuple[Traced, bytes]]:
    def trace(params: dict[str, object]) -> Streaming:
        return Streaming({"layers": traced.listeners.layers()}, traced.listen(Filter.from_json(params)))

    path = os.fsencode(tmp_path / "socket")
    with ControlServer(path, {"ping": lambda params: {}}, None, {"trace": trace}):
        yield traced, path
        traced.listeners.end()


def test_a_stream_lasts_until_it_is_stopped(served: tuple[Traced, bytes]) -> None:
    traced, path = served
    streamed = Streamed(path, "trace", {"ops": ["mkdir"]})
    assert streamed.answer["layers"][0].endswith("upper")
    told = iter(streamed)
    traced.rig.mkdir("a")
    assert next(told)["event"]["path"] == "a"
    streamed.stop()
    assert list(told) == [{"end": {"events": 1, "dropped": 0}}]
    streamed.close()
    wait_until_unwatched(traced)


def test_a_stream_ends_with_the_mount(served: tuple[Traced, bytes]) -> None:
    traced, path = served
    streamed = Streamed(path, "trace", {})
    traced.listeners.end()
    assert list(streamed) == [{"end": {"events": 0, "dropped": 0}}]
    streamed.close()


def test_a_stream_that_is_refused_leaves_room_for_others(served: tuple[Traced, bytes]) -> None:
    traced, path = served
    for _ in range(MAX_STREAMS + 2):
        with pytest.raises(ProtocolError):
            Streamed(path, "trace", {"paths": 5})
    streams = [Streamed(path, "trace", {}) for _ in range(MAX_STREAMS)]
    with pytest.raises(MountError, match="others listen"):
        Streamed(path, "trace", {})
    assert request(path, "ping") == {}
    for one in streams:
        one.close()
    wait_until_unwatched(traced)
    Streamed(path, "trace", {}).close()


def test_who_does_not_read_delays_nobody(served: tuple[Traced, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket and the buffer are full, and operations go on."""
    monkeypatch.setattr(tracing, "BUFFER", 20_000)
    traced, path = served
    streamed = Streamed(path, "trace", {})
    done = threading.Event()

    def work() -> None:
        for number in range(1500):
            traced.rig.exists(f"nothing{number}")
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(60), "an operation waits for a listener"
    streamed.stop()
    told = list(streamed)
    dropped = sum(line.get("dropped", 0) for line in told)
    assert dropped and told[-1]["end"]["events"] + told[-1]["end"]["dropped"] == 1500
    streamed.close()


_CLIENT = """
import sys
from unionfs.mounts.control import Streamed
streamed = Streamed(sys.argv[1].encode(), "trace", {})
print("listening", flush=True)
for told in streamed:
    pass
"""


def test_who_is_killed_listens_no_more(served: tuple[Traced, bytes]) -> None:
    traced, path = served
    client = subprocess.Popen([sys.executable, "-c", _CLIENT, path.decode()], stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None and client.stdout.readline() == b"listening\n"
        assert traced.watched.watcher is not None
        client.send_signal(signal.SIGKILL)
    finally:
        client.kill()
        client.wait()
        assert client.stdout is not None
        client.stdout.close()
    wait_until_unwatched(traced)
    traced.rig.mkdir("goes-on")


def wait_until_unwatched(traced: Traced) -> None:
    deadline = time.monotonic() + 20
    while traced.watched.watcher is not None:
        assert time.monotonic() < deadline, "somebody who has gone is still told"
        time.sleep(0.005)
