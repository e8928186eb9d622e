"""The files of a container's directory that are mounted on its `/etc`: hosts, hostname, resolv.conf.

    network   hosts                          resolv.conf
    host      the host's, and the hostname   the host's
    none      localhost, and the hostname    the host's
    private   the same, with its address     the helper, and those of the host's that are not its loopback

What docker writes (libnetwork etchosts, resolvconf) with the names that it has there.
"""

from __future__ import annotations

import os
from typing import Final

from unionfs.containers.settings import Network

#: Of a private network (`network`): the container's, and who is asked for names.
ADDRESS: Final = "10.0.2.100"
NAMESERVER: Final = "10.0.2.3"

LOCALHOST: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_ADDRESSES: Final = {"private": ADDRESS, "none": "127.0.1.1", "host": "127.0.1.1"}


def write_etc_files(directory: bytes, hostname: str, kind: Network, host_etc: bytes = b"/etc") -> None:
    """Write the three into `directory`. `host_etc`: where the host's are; what is not there is as empty.

    In place, since they may be mounted: a container that is started again sees what its last start has left.
    """
    hosts = _read(host_etc, b"hosts") if kind == "host" else LOCALHOST
    if not any(hostname in line.split("#")[0].split()[1:] for line in hosts.splitlines()):
        hosts += ("" if hosts.endswith("\n") or not hosts else "\n") + f"{_ADDRESSES[kind]}\t{hostname}\n"
    resolv_conf = _read(host_etc, b"resolv.conf")
    _write(directory, b"hosts", hosts)
    _write(directory, b"hostname", hostname + "\n")
    _write(directory, b"resolv.conf", private_resolv_conf(resolv_conf) if kind == "private" else resolv_conf)


def private_resolv_conf(host: str) -> str:
    """The host's, with the helper as the first nameserver, which can ask those on the host's loopback too."""
    lines = [f"nameserver {NAMESERVER}"]
    for line in host.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if words[:1] == ["nameserver"] and (len(words) < 2 or _is_loopback(words[1])):
            continue
        if words:
            lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def _is_loopback(address: str) -> bool:
    import ipaddress  # here, since a network that is not private does without

    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # nobody could use it


def _read(directory: bytes, name: bytes) -> str:
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _write(directory: bytes, name: bytes, text: str) -> None:
    fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o644)  # whatever the umask: any user of the container may read them
        file.write(text.encode("utf-8", "surrogateescape"))
