"""The control socket: real sockets, honest and hostile peers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.requirements import requires
from tests.unit.as_user import NOBODY, run_as_nobody
from unionfs.errors import LayerError, MountError, ProtocolError
from unionfs.mounts import control
from unionfs.mounts.control import ControlServer, Lease, Leased, error_from_json, error_to_json, request


def _refuse(params: dict[str, Any]) -> dict[str, Any]:
    raise LayerError("no such layer", hint="look again")


def _fail(params: dict[str, Any]) -> dict[str, Any]:
    raise OSError(errno.ENOSPC, "No space left on device", b"/u\xff")


def _bug(params: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("a bug")


#: What became of leases, in order: ("had", pid), ("released", params).
LEASES: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()


def _lease(params: dict[str, Any], pid: int) -> Leased:
    if not params:
        raise MountError("nothing to have")
    LEASES.put(("had", pid))

    def release() -> dict[str, Any]:
        LEASES.put(("released", params))
        return {"was": params}

    return Leased({"yours": True}, params["seconds"], release)


HANDLERS = {
    "echo": lambda params: {"params": params},
    "refuse": _refuse,
    "fail": _fail,
    "bug": _bug,
    "exit": lambda params: (_ for _ in ()).throw(SystemExit(3)),
    "not-json": lambda params: {"value": {1, 2}},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    directory = tmp_path_factory.mktemp("control")
    directory.chmod(0o755)
    socket_path = os.fsencode(directory / "s")
    old = os.umask(0)  # as in a daemon
    try:
        with ControlServer(socket_path, HANDLERS, {"lease": _lease}):
            yield socket_path
    finally:
        os.umask(old)
    assert not os.path.exists(socket_path)


def raw(path: bytes, data: bytes) -> bytes:
    """Everything the server answers to `data`, after which nothing more is sent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has had enough
        answer = b""
        try:
            while received := connection.recv(65536):
                answer += received
        except ConnectionResetError:
            pass
        return answer


# questions and answers ----------------------------------------------------------------------------------------------
def test_answer_is_the_handlers(path: bytes) -> None:
    assert request(path, "echo", {"a": [1, "ü", None]}) == {"params": {"a": [1, "ü", None]}}
    assert request(path, "echo") == {"params": {}}


def test_wire_form(path: bytes) -> None:
    assert raw(path, b'{"method": "echo"}\n\n{"method": "echo", "params": {"n": 1}}\n').splitlines() == [
        b'{"result": {"params": {}}}',
        b'{"result": {"params": {"n": 1}}}',
    ]


def test_errors_arrive_as_what_they_were(path: bytes) -> None:
    with pytest.raises(LayerError, match="no such layer") as refused:
        request(path, "refuse")
    assert refused.value.hint == "look again"
    with pytest.raises(OSError) as failed:
        request(path, "fail")
    assert (failed.value.errno, failed.value.filename) == (errno.ENOSPC, "/u\udcff")


@pytest.mark.parametrize("method", ["bug", "exit", "not-json"])
def test_bug_in_a_handler_is_an_error_and_logged(path: bytes, method: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MountError) as caught:
        request(path, method)
    assert caught.value.hint == "this is a bug in unionfs"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert request(path, "echo") == {"params": {}}


def test_unknown_method_names_the_known(path: bytes) -> None:
    with pytest.raises(ProtocolError, match="unknown method 'frob'") as caught:
        request(path, "frob")
    assert "echo" in str(caught.value.hint)


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"[]", b"1", b'{"method": 3}', b'{"params": {}}', b'{"method": "echo", "params": []}', b"\xff\xfe",
     b'{"method": "echo"', b"[" * 50000, b'{"method": "echo", "params": {"a": 1e999999}} x'],
)  # fmt: skip
def test_malformed_line_is_a_protocol_error_and_the_connection_goes_on(path: bytes, line: bytes) -> None:
    first, second = raw(path, line + b'\n{"method": "echo"}\n').splitlines()
    assert json.loads(first)["error"]["type"] == "ProtocolError"
    assert json.loads(second) == {"result": {"params": {}}}


def test_line_without_end_is_refused_at_the_limit(path: bytes) -> None:
    (answer,) = raw(path, b"x" * (control.REQUEST_LIMIT + 1)).splitlines()
    assert json.loads(answer)["error"]["message"] == "a request is at most 65536 bytes"
    with pytest.raises(ProtocolError, match="at most"):
        request(path, "echo", {"a": "x" * control.REQUEST_LIMIT})


@pytest.mark.parametrize("data", [b"x" * (8 << 20), b"\n" * (1 << 20), b"\0" * (1 << 20), b"[" * (1 << 20) + b"\n"])
def test_flood_is_cut_or_swallowed(path: bytes, data: bytes) -> None:
    for line in raw(path, data).splitlines():
        assert json.loads(line)["error"]["type"] == "ProtocolError"
    assert request(path, "echo") == {"params": {}}


def test_half_a_line_is_not_answered(path: bytes) -> None:
    assert raw(path, b'{"method": "echo"}') == b""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=50).map(lambda s: json.dumps({"method": s}).encode() + b"\n"))
)
def test_any_bytes_leave_the_server_serving(path: bytes, data: bytes) -> None:
    for line in raw(path, data).splitlines():
        told = json.loads(line)
        assert told.keys() <= {"result", "error"}
        if "error" in told:
            assert isinstance(error_from_json(told["error"]), (ProtocolError, MountError, LayerError, OSError))
    assert request(path, "echo") == {"params": {}}


# leases ---------------------------------------------------------------------------------------------------------------
def _next_event() -> tuple[str, Any]:
    return LEASES.get(timeout=20)


def test_lease_is_given_back_and_the_connection_goes_on(path: bytes) -> None:
    lines = b'{"method": "lease", "params": {"seconds": 60}}\n{"method": "release"}\n{"method": "echo"}\n'
    assert raw(path, lines).splitlines() == [
        b'{"result": {"yours": true}}',
        b'{"result": {"was": {"seconds": 60}}}',
        b'{"result": {"params": {}}}',
    ]
    assert (_next_event(), _next_event()) == (("had", os.getpid()), ("released", {"seconds": 60}))
    lease = Lease(path, "lease", {"seconds": 60}, timeout=20)
    assert lease.answer == {"yours": True} and _next_event()[0] == "had"
    assert lease.release() == {"was": {"seconds": 60}} and _next_event()[0] == "released"


def test_lease_ends_with_its_connection(path: bytes) -> None:
    lease = Lease(path, "lease", {"seconds": 60}, timeout=20)
    assert _next_event()[0] == "had"
    lease.close()
    assert _next_event()[0] == "released"


def test_lease_ends_at_its_time_limit_with_its_connection(path: bytes) -> None:
    lease = Lease(path, "lease", {"seconds": 0.01}, timeout=20)
    assert (_next_event()[0], _next_event()[0]) == ("had", "released")
    with pytest.raises((ProtocolError, MountError)):
        lease.release()


def test_lease_that_is_refused(path: bytes) -> None:
    with pytest.raises(MountError, match="nothing to have"):
        Lease(path, "lease", {}, timeout=20)
    assert LEASES.empty()


# who may ask, and how many ------------------------------------------------------------------------------------------
def test_socket_is_private(path: bytes) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@requires("root")
def test_another_user_is_not_answered_even_if_the_mode_lets_him(tmp_path: Path) -> None:
    # pytest's directories are root's alone; the socket is passed as a descriptor of its directory instead.
    directory = os.open(tmp_path, os.O_PATH)
    with ControlServer(os.fsencode(tmp_path / "s"), HANDLERS):
        (tmp_path / "s").chmod(0o666)
        tmp_path.chmod(0o777)

        def ask() -> None:
            assert os.geteuid() == NOBODY
            assert raw(b"/proc/self/fd/%d/s" % directory, b'{"method": "echo"}\n') == b""

        run_as_nobody(ask)
    os.close(directory)


@pytest.mark.parametrize("begun", [b"", b'{"method": "ec', b'{"method": "echo"}\n{"met'])
def test_peers_that_never_finish_do_not_keep_others_out(path: bytes, begun: bytes) -> None:
    """Twice as many as are served at a time; whoever has been waited for longest goes."""
    idle = [socket.socket(socket.AF_UNIX) for _ in range(2 * control.MAX_CONNECTIONS)]
    try:
        for connection in idle:
            connection.settimeout(10)
            connection.connect(path)
            connection.sendall(begun)
        for _ in range(3):
            assert request(path, "echo", timeout=4) == {"params": {}}
        while idle[0].recv(65536):
            pass  # the answer to what it did finish
    finally:
        for connection in idle:
            connection.close()


def test_peers_that_never_read_do_not_keep_others_out(tmp_path: Path) -> None:
    path, large = os.fsencode(tmp_path / "s"), "x" * (8 << 20)
    with ControlServer(path, {"large": lambda params: {"x": large}, "echo": lambda params: {}}):
        deaf = [socket.socket(socket.AF_UNIX) for _ in range(control.MAX_CONNECTIONS)]
        try:
            for connection in deaf:
                connection.connect(path)
                connection.sendall(b'{"method": "large"}\n')
            assert request(path, "echo", timeout=4) == {}
        finally:
            for connection in deaf:
                connection.close()


def test_request_that_comes_byte_by_byte_has_to_end_in_time(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(0.05)
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 200:
                connection.sendall(b" ")
                sent += 1
                with contextlib.suppress(TimeoutError):
                    assert connection.recv(1) == b""
                    break
        assert sent < 200
    assert request(path, "echo") == {"params": {}}


def test_many_at_once_are_all_answered(path: bytes) -> None:
    """As many as are served at a time: none of them loses its place to the next."""
    peers = [socket.socket(socket.AF_UNIX) for _ in range(control.MAX_CONNECTIONS)]
    try:
        for connection in peers:
            connection.settimeout(10)
            connection.connect(path)
        for connection in peers:
            connection.sendall(b'{"method": "echo"}\n')
        for connection in peers:
            assert connection.recv(65536) == b'{"result": {"params": {}}}\n'
    finally:
        for connection in peers:
            connection.close()


def test_handlers_run_beside_each_other(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(params: dict[str, Any]) -> dict[str, Any]:
        entered.set()
        assert leave.wait(10)
        return {}

    path = os.fsencode(tmp_path / "s")
    with ControlServer(path, {"slow": slow, "quick": lambda params: {"quick": True}}):
        answers: list[dict[str, Any]] = []
        asker = threading.Thread(target=lambda: answers.append(request(path, "slow", timeout=10)))
        asker.start()
        assert entered.wait(10)
        assert request(path, "quick") == {"quick": True}
        leave.set()
        asker.join()
    assert answers == [{}]


# the socket itself --------------------------------------------------------------------------------------------------
def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="cannot be asked: No such file"):
        request(os.fsencode(tmp_path / "none"), "echo")


def test_server_that_says_nothing_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(MountError, match=r"did not answer within 0\.1 seconds"):
            request(os.fsencode(tmp_path / "s"), "echo", timeout=0.1)


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"{}\n", b'{"error": 1}\n', b'{"result": 3}\n', b'{"half'])
def test_answers_of_no_known_form_are_protocol_errors(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(ProtocolError):
            request(os.fsencode(tmp_path / "s"), "echo")
        server.join()


def test_path_longer_than_sockaddr_un(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    path = os.fsencode(deep / "socket")
    assert len(path) > 108
    with ControlServer(path, HANDLERS):
        assert request(path, "echo") == {"params": {}}
    assert os.listdir(deep) == []


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "s"))
    with ControlServer(os.fsencode(tmp_path / "s"), HANDLERS):
        assert request(os.fsencode(tmp_path / "s"), "echo") == {"params": {}}


def test_close_is_idempotent_and_start_may_follow(tmp_path: Path) -> None:
    server = ControlServer(os.fsencode(tmp_path / "s"), HANDLERS)
    for _ in range(2):
        server.start()
        assert request(os.fsencode(tmp_path / "s"), "echo") == {"params": {}}
        server.close()
        server.close()


@pytest.mark.parametrize(
    "error", [LayerError("x", hint="y"), MountError("x"), OSError(errno.EIO, "x"), OSError(errno.EIO, "x", b"/p")]
)
def test_errors_survive_the_way_through_json(error: Exception) -> None:
    back = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(back) is type(error)
    assert getattr(back, "hint", None) == getattr(error, "hint", None)
    assert getattr(back, "errno", None) == getattr(error, "errno", None)
