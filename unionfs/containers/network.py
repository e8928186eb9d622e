"""A private network: slirp4netns between the host and the container's own namespace, and ports published through it.

    check()                        can this machine do it? else ContainerError, with what to install
    with published(ports) as held  host ports chosen, and found free, as docker reports it when they are not
    helper = start(namespace, directory)   slirp4netns, on its way
    helper.connect(held)           it is there, with all ports forwarded, as `helper.ports` says

The container is 10.0.2.100, the host 10.0.2.2 (its loopback cannot be reached), names are asked of 10.0.2.3, which asks
whom the host asks. It needs no privilege, no bridge and no packet filter, so root has the same. (passt's pasta does as
much, but that of Debian 12 fails for root and ends neither with its owner nor with the container.)

INVARIANT: the helper lives as long as whoever started it holds `Helper.exit_fd`: it ends when that is closed, also by
the end of its owner, however that came (slirp4netns(1), --exit-fd). Nothing of it is on disk but a log.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from unionfs.containers.etc_files import ADDRESS
from unionfs.containers.settings import Port
from unionfs.errors import ContainerError

PROGRAM: Final = "slirp4netns"
#: In the container's directory.
LOG: Final = b"network.log"
_SOCKET: Final = b"network.sock"
_TUN: Final = "/dev/net/tun"
#: It takes some 40 ms.
_READY_SECONDS: Final = 30.0


def check() -> None:
    """ContainerError where there can be no private network."""
    if shutil.which(PROGRAM) is None:
        raise ContainerError(
            f"a private network needs the program {PROGRAM}",
            hint=f"apt-get install {PROGRAM}, or run with --network host or --network none",
        )
    if not os.access(_TUN, os.R_OK | os.W_OK):
        what = f"{_TUN} may not be opened" if os.path.exists(_TUN) else f"there is no {_TUN}"
        raise ContainerError(
            f"a private network needs a tun device: {what}",
            hint=f"as root: modprobe tun; chmod 666 {_TUN}; or run with --network host or --network none",
        )


# ports ----------------------------------------------------------------------------------------------------------------
@contextmanager
def published(ports: Iterable[Port]) -> Iterator[tuple[Port, ...]]:
    """`ports` with a host port each, all found free at once. For the block no other `published` finds them so. One of a
    range begins with that then, in case that somebody else is quicker when the block has ended.

    ContainerError for one that is taken, or may not be had.
    """
    wanted = list(ports)
    found: dict[int, Port] = {}
    sockets: list[socket.socket] = []
    try:
        # Those that have least to choose from first: none takes what another cannot do without.
        for number in sorted(range(len(wanted)), key=lambda number: _freedom(wanted[number])):
            found[number] = _reserve(wanted[number], sockets)
        yield tuple(found[number] for number in range(len(wanted)))
    finally:
        for each in sockets:
            each.close()


def _choices(port: Port) -> range:
    """Ports of the host that may be it; 0 is any."""
    return range(port.host, max(port.host, port.last) + 1)


def _freedom(port: Port) -> tuple[bool, int]:
    return port.host == 0, len(_choices(port))


def _reserve(port: Port, sockets: list[socket.socket]) -> Port:
    address = port.address or "0.0.0.0"
    if ":" in address:
        raise ContainerError(
            f"port {port.container} cannot be published on {address}: {PROGRAM} forwards IPv4 alone",
            hint="give an IPv4 address, or none",
        )
    refused: OSError | None = None
    for host in _choices(port):
        probe = socket.socket(socket.AF_INET, _kind(port) | socket.SOCK_CLOEXEC)
        try:
            _bind(probe, port, (address, host))
        except OSError as error:
            probe.close()
            refused = error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break  # it is the address, which another port does not mend
        else:
            sockets.append(probe)
            return port._replace(address=address, host=probe.getsockname()[1])
    assert refused is not None
    raise _cannot_publish(port, address, refused)


def _kind(port: Port) -> socket.SocketKind:
    return socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM


def _bind(probe: socket.socket, port: Port, place: tuple[str, int]) -> None:
    if port.protocol == "tcp":
        # As slirp4netns listens: connections that have ended do not keep the port. Who listens there still does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(place)
    if port.protocol == "tcp":
        probe.listen(1)


def _cannot_publish(port: Port, address: str, error: OSError) -> ContainerError:
    suffix = "" if port.protocol == "tcp" else f"/{port.protocol}"
    range_too = " range" if port.last else ""
    hints = {
        errno.EADDRINUSE: f"choose another{range_too}, or one that is free with: -p {port.container}{suffix}",
        errno.EACCES: "ports below 1024 are root's; choose another, or lower net.ipv4.ip_unprivileged_port_start",
        errno.EADDRNOTAVAIL: "give an address of this machine, or none",
    }
    # docker's words are Go's: lower case.
    why = (error.strerror or str(error)).lower()
    numbers = f"{port.host}-{port.last}" if port.last else str(port.host)
    return ContainerError(
        f"cannot publish port {port.container}: listen {port.protocol}4 {address}:{numbers}: bind: {why}",
        hint=hints.get(error.errno or 0),
    )


# the helper -----------------------------------------------------------------------------------------------------------
class Helper:
    """slirp4netns, running. `ports` as forwarded. To be closed, or left to the end of the process."""

    def __init__(self, process: subprocess.Popen[bytes], exit_fd: int, ready: int, directory: bytes) -> None:
        self.ports: tuple[Port, ...] = ()
        self.exit_fd = exit_fd
        self._ready = ready
        self._process = process
        self._directory = directory

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it and wait for that. Idempotent."""
        if self.exit_fd >= 0:
            os.close(self.exit_fd)
            self.exit_fd = -1
            self._process.wait()
            self._close_ready()
            _unlink_socket(self._directory)

    def connect(self, ports: Iterable[Port] = ()) -> None:
        """Wait until the network is there, and forward `ports`. ContainerError, and it is closed, where it does not
        come, with what slirp4netns said, or where the host refuses a port."""
        try:
            self._wait_ready()
            for port in ports:
                self._forward(port)
        except BaseException:
            self.close()
            raise
        finally:
            self._close_ready()
            _unlink_socket(self._directory)

    def _wait_ready(self) -> None:
        """It writes a byte when the interface is up, or ends."""
        readable, _, _ = select.select([self._ready], [], [], _READY_SECONDS)
        if readable and os.read(self._ready, 1):
            return
        said = _first_words(self._directory)
        raise ContainerError(f"{PROGRAM} did not connect the network: {said}", hint="unionfs doctor")

    def _close_ready(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _forward(self, port: Port) -> None:
        for host in _choices(port):
            told = self._request(
                "add_hostfwd",
                proto=port.protocol,
                host_addr=port.address or "0.0.0.0",
                host_port=host,
                guest_addr=ADDRESS,
                guest_port=port.container,
            )
            if "return" in told:
                self.ports = (*self.ports, port._replace(host=host, last=0))
                return
        # Of why slirp4netns says nothing. That the port was free a moment ago leaves this.
        raise _cannot_publish(port, port.address, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))

    def _request(self, name: str, **arguments: Any) -> dict[str, Any]:
        """One request by the API socket, which takes one a connection (slirp4netns(1), API SOCKET)."""
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_READY_SECONDS)
                # By way of a descriptor, since the name of a socket has 107 bytes at most (unix(7)).
                connection.connect(b"/proc/self/fd/%d/" % directory + _SOCKET)
                connection.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            told = json.loads(answer)
        except (OSError, ValueError) as error:
            raise ContainerError(f"{PROGRAM} does not answer: {error}") from None
        finally:
            os.close(directory)
        return told if isinstance(told, dict) else {}


def start(namespace: str, directory: bytes) -> Helper:
    """Have the network namespace (the path of one, which this process's user namespace owns) connected: see `connect`.

    `directory`: the container's, for the log. ContainerError where slirp4netns cannot be run.
    """
    _unlink_socket(directory)  # of a crash
    exit_end, exit_fd = os.pipe()
    ready, ready_end = os.pipe()
    options = (
        "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
        f"--ready-fd={ready_end}", f"--exit-fd={exit_end}", f"--api-socket={os.fsdecode(_SOCKET)}", "--netns-type=path",
    )  # fmt: skip
    try:
        with open(os.path.join(directory, LOG), "wb") as log:
            process = subprocess.Popen(
                [PROGRAM, *options, namespace, "tap0"],
                cwd=directory,
                pass_fds=(ready_end, exit_end),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the container
            )
    except OSError as error:
        os.close(ready)
        os.close(exit_fd)
        raise ContainerError(f"{PROGRAM} cannot be run: {error.strerror}", hint=f"apt-get install {PROGRAM}") from None
    finally:
        os.close(exit_end)
        os.close(ready_end)
    return Helper(process, exit_fd, ready, directory)


def _first_words(directory: bytes) -> str:
    try:
        with open(os.path.join(directory, LOG), "rb") as log:
            lines = [line for line in log.read().splitlines() if line and not line.startswith(b"WARNING: Support")]
    except OSError:
        lines = []
    return os.fsdecode(b"; ".join(lines[:2])) or "it said nothing"


def _unlink_socket(directory: bytes) -> None:
    try:
        os.unlink(os.path.join(directory, _SOCKET))
    except FileNotFoundError:
        pass
