"""A private network between a namespace and its host, by slirp4netns, without a container.

The host of these tests is a network namespace with a loopback device alone, so that no port of the machine is taken.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.cli_runner import PROJECT

pytestmark = [pytest.mark.needs_root, pytest.mark.peer, requires("root", "slirp4netns", "busybox", "unshare", "tun")]

#: Runs in the host's namespace: a container's namespace, a server in it, and the code under test.
PROGRAM = """
import contextlib, os, signal, socket, subprocess, sys
from pathlib import Path
from unionfs.containers import network
from unionfs.containers.settings import Port
from unionfs.errors import ContainerError

directory = Path(sys.argv[1])

def within(namespace, *argv):
    return ["nsenter", f"--net=/proc/{namespace.pid}/ns/net", *argv]

def listening(namespace, port, protocol="tcp"):
    # until somebody listens there: /proc/net has it
    while True:
        files = (f"/proc/net/{protocol}", f"/proc/net/{protocol}6")
        rows = subprocess.run(within(namespace, "cat", *files), capture_output=True, text=True).stdout
        if any(row.split()[1].endswith(f":{port:04X}") for row in rows.splitlines()):
            return

def fetched(port, address="127.0.0.1"):
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(b"GET /page HTTP/1.0\\r\\n\\r\\n")
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return answer.rpartition(b"\\r\\n\\r\\n")[2]

@contextlib.contextmanager
def container():
    with contextlib.ExitStack() as stack:
        ends = os.pipe()
        namespace = subprocess.Popen(
            ["unshare", "-n", sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(namespace.communicate)
        namespace.stdout.readline()
        yield namespace

def started(pid, ports=()):
    helper = network.start(f"/proc/{pid}/ns/net", os.fsencode(directory))
    helper.connect(ports)
    return helper

def serve(namespace, port=80):
    (directory / "page").write_text("served")
    server = subprocess.Popen(within(namespace, "busybox", "httpd", "-f", "-p", str(port), "-h", str(directory)))
    listening(namespace, port)
    return server

def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[object]:
    """Runs a body after PROGRAM on a host of its own; its stdout."""
    started: list[subprocess.Popen[str]] = []

    def _run(body: str, *before: str) -> str:
        setup = "; ".join(("ip link set lo up 2>/dev/null || busybox ip link set lo up", *before, 'exec "$@"'))
        process = subprocess.Popen(
            ["unshare", "-n", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", setup, "sh",
             sys.executable, "-c", PROGRAM + body, str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": str(PROJECT)},
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        return out

    yield _run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_published_port_is_served_and_closed_with_the_helper(run: object, tmp_path: Path) -> None:
    out = run(  # type: ignore[operator]
        """
with container() as namespace:
    server = serve(namespace)
    with network.published([Port("", 8080, 80), Port("127.0.0.1", 0, 80), Port("", 0, 81, "udp")]) as ports:
        pass
    helper = started(namespace.pid, ports)
    print(fetched(8080), fetched(helper.ports[1].host))
    print([port[:1] + port[2:4] for port in helper.ports], helper.ports[0].host, 0 < helper.ports[2].host < 65536)
    pid = helper.pid
    helper.close()
    helper.close()
    print(alive(pid))
    try:
        fetched(8080)
    except ConnectionRefusedError:
        print("refused")
    server.kill()
"""
    )
    assert out.splitlines() == [
        "b'served' b'served'",
        "[('0.0.0.0', 80, 'tcp'), ('127.0.0.1', 80, 'tcp'), ('0.0.0.0', 81, 'udp')] 8080 True",
        "False",
        "refused",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.log", "page"]


def test_helper_ends_with_its_owner_that_was_killed(run: object) -> None:
    """Nothing tells it but the pipe that the kernel closes."""
    out = run(  # type: ignore[operator]
        """
with container() as namespace:
    owner = subprocess.Popen([sys.executable, "-c",
        "import os, sys\\n"
        "from unionfs.containers import network\\n"
        f"helper = network.start('/proc/{namespace.pid}/ns/net', {os.fsencode(directory)!r})\\n"
        "helper.connect()\\n"
        "print(helper.pid, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = int(owner.stdout.readline())
    print(alive(pid))
    watched = os.pidfd_open(pid)
    owner.kill()
    owner.wait()
    import select
    print(bool(select.select([watched], [], [], 20)[0]))
"""
    )
    assert out.splitlines() == ["True", "True"]


def test_udp_port(run: object) -> None:
    """By an address of the host: who asks its loopback is 10.0.2.2 to the container, which is not to reach that."""
    out = run(  # type: ignore[operator]
        """
echo = (
    "import socket\\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53))\\n"
    "data, peer = s.recvfrom(100); s.sendto(b'echo ' + data, peer)"
)
with container() as namespace:
    server = subprocess.Popen(within(namespace, sys.executable, "-c", echo))
    listening(namespace, 53, "udp")
    helper = started(namespace.pid, [Port("", 5353, 53, "udp")])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(b"hello", ("192.0.2.9", 5353))
        print(client.recv(100))
    helper.close()
    server.wait()
""",
        "ip addr add 192.0.2.9/24 dev lo 2>/dev/null || busybox ip addr add 192.0.2.9/24 dev lo",
    )
    assert out == "b'echo hello'\n"


def test_port_that_somebody_listens_on(run: object) -> None:
    """Before the helper, and after it was found free."""
    out = run(  # type: ignore[operator]
        """
def attempt(*ports):
    try:
        with network.published(ports) as found:
            print("free", [port.host if 8000 <= port.host < 9001 or port.host < 6000 else 0 for port in found])
    except ContainerError as error:
        print(error, "|", error.hint)

taken = socket.create_server(("0.0.0.0", 8080))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 5353))
attempt(Port("", 8080, 80))
attempt(Port("127.0.0.1", 8080, 80))
attempt(Port("", 5353, 53, "udp"))
attempt(Port("", 5353, 53))
attempt(Port("", 9000, 80), Port("", 9000, 81))
attempt(Port("", 9000, 80), Port("", 9000, 80, "udp"))
attempt(Port("", 8079, 80, last=8081))
attempt(Port("", 8080, 80, last=8082), Port("", 0, 81), Port("", 8081, 82), Port("", 8080, 83, "udp", 8081))
attempt(Port("", 8080, 80, last=8081), Port("", 8080, 81, last=8081))
attempt(Port("127.0.0.1", 5352, 53, "udp", 5354), Port("127.0.0.1", 5352, 53, "udp", 5353))
attempt(Port("", 5353, 53, "udp", 5353))
attempt(Port("203.0.113.9", 80, 80, last=90))
attempt(Port("203.0.113.9", 80, 80))
attempt(Port("::1", 80, 80))
with container() as namespace:
    for port in (Port("0.0.0.0", 8080, 80), Port("0.0.0.0", 8081, 80), Port("0.0.0.0", 8080, 80, last=8082)):
        try:
            helper = started(namespace.pid, [port])
        except ContainerError as error:
            print(error)
        else:
            print("started", helper.ports[0].host)
            helper.close()
"""
    )
    any_of = "choose another range, or one that is free with: -p "
    elsewhere = "cannot publish port 80: listen tcp4 203.0.113.9:80: bind: cannot assign requested address"
    refused = "cannot publish port {}: listen {}4 {}: bind: address already in use"
    assert out.splitlines() == [
        refused.format(80, "tcp", "0.0.0.0:8080") + " | choose another, or one that is free with: -p 80",
        refused.format(80, "tcp", "127.0.0.1:8080") + " | choose another, or one that is free with: -p 80",
        refused.format(53, "udp", "0.0.0.0:5353") + " | choose another, or one that is free with: -p 53/udp",
        "free [5353]",
        refused.format(81, "tcp", "0.0.0.0:9000") + " | choose another, or one that is free with: -p 81",
        "free [9000, 9000]",
        "free [8079]",
        "free [8082, 0, 8081, 8080]",
        refused.format(81, "tcp", "0.0.0.0:8080-8081") + f" | {any_of}81",
        "free [5354, 5352]",
        refused.format(53, "udp", "0.0.0.0:5353-5353") + f" | {any_of}53/udp",
        elsewhere.replace(":80:", ":80-90:") + " | give an address of this machine, or none",
        elsewhere + " | give an address of this machine, or none",
        "port 80 cannot be published on ::1: slirp4netns forwards IPv4 alone | give an IPv4 address, or none",
        refused.format(80, "tcp", "0.0.0.0:8080"),
        "started 8081",
        "started 8081",
    ]


def test_names_are_asked_where_the_host_asks_also_on_its_loopback(run: object, tmp_path: Path) -> None:
    (tmp_path / "host.conf").write_text("nameserver 127.0.0.1\n")
    out = run(  # type: ignore[operator]
        """
# A nameserver of one answer: whatever is asked is 192.0.2.80.
answerer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
answerer.bind(("127.0.0.1", 53))
answerer.settimeout(20)
from unionfs.containers.etc_files import write_etc_files
write_etc_files(os.fsencode(directory), "web", "private")
with container() as namespace:
    helper = started(namespace.pid, [])
    command = f"mount --bind {directory}/resolv.conf /etc/resolv.conf && exec busybox nslookup -type=a web.example"
    command = within(namespace, "unshare", "-m", "sh", "-c", command)
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    asked, peer = answerer.recvfrom(600)
    header, record = bytes.fromhex("81800001000100000000"), bytes.fromhex("c00c00010001000000100004c0000250")
    answerer.sendto(asked[:2] + header + asked[12:] + record, peer)
    print(client.communicate()[0])
    helper.close()
""",
        f"mount --bind {tmp_path}/host.conf /etc/resolv.conf",
    )
    assert "10.0.2.3" in out and "192.0.2.80" in out


def test_loopback_of_the_host_is_not_the_containers(run: object) -> None:
    out = run(  # type: ignore[operator]
        """
listener = socket.create_server(("127.0.0.1", 7000))
with container() as namespace:
    helper = started(namespace.pid, [])
    for address in ("10.0.2.2", "127.0.0.1"):
        connect = f"import socket; socket.create_connection(({address!r}, 7000), timeout=20)"
        print(subprocess.run(within(namespace, sys.executable, "-c", connect), stderr=subprocess.DEVNULL).returncode)
    helper.close()
"""
    )
    assert out.split() == ["1", "1"]


def test_namespace_that_is_gone(run: object) -> None:
    out = run(  # type: ignore[operator]
        """
try:
    started(4194303, [Port("", 8080, 80)])
except ContainerError as error:
    print(error)
socket.create_server(("0.0.0.0", 8080)).close()
"""
    )
    assert out.startswith("slirp4netns did not connect the network: ")
