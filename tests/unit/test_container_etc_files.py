"""What is mounted on a container's /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unionfs.containers.etc_files import LOCALHOST, private_resolv_conf, write_etc_files


@pytest.fixture
def host(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("127.0.0.1 localhost\n192.0.2.7 printer # not web")
    (etc / "resolv.conf").write_text("search example.org\nnameserver 192.0.2.53\n")
    return etc


def written(tmp_path: Path, kind: str, host: Path, hostname: str = "web") -> dict[str, str]:
    directory = tmp_path / "container"
    directory.mkdir(exist_ok=True)
    write_etc_files(os.fsencode(directory), hostname, kind, os.fsencode(host))  # type: ignore[arg-type]
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_private_network(tmp_path: Path, host: Path) -> None:
    assert written(tmp_path, "private", host) == {
        "hosts": LOCALHOST + "10.0.2.100\tweb\n",
        "hostname": "web\n",
        "resolv.conf": "nameserver 10.0.2.3\nsearch example.org\nnameserver 192.0.2.53\n",
    }


def test_no_network(tmp_path: Path, host: Path) -> None:
    found = written(tmp_path, "none", host)
    assert found["hosts"] == LOCALHOST + "127.0.1.1\tweb\n"
    assert found["resolv.conf"] == (host / "resolv.conf").read_text()


def test_network_of_the_host(tmp_path: Path, host: Path) -> None:
    assert written(tmp_path, "host", host)["hosts"] == (host / "hosts").read_text() + "\n127.0.1.1\tweb\n"
    found = written(tmp_path, "host", host, "printer")
    assert found["hosts"] == (host / "hosts").read_text() and found["hostname"] == "printer\n"
    assert found["resolv.conf"] == (host / "resolv.conf").read_text()


def test_host_without_such_files(tmp_path: Path) -> None:
    assert written(tmp_path, "host", tmp_path / "nowhere") == {
        "hosts": "127.0.1.1\tweb\n",
        "hostname": "web\n",
        "resolv.conf": "",
    }


def test_files_that_are_mounted_stay_the_same_files(tmp_path: Path, host: Path) -> None:
    previous = os.umask(0o077)
    try:
        written(tmp_path, "private", host)
        file = tmp_path / "container/hosts"
        inode = file.stat().st_ino
        assert written(tmp_path, "none", host, "a")["hosts"] == LOCALHOST + "127.0.1.1\ta\n"
    finally:
        os.umask(previous)
    assert (file.stat().st_ino, file.stat().st_mode & 0o777) == (inode, 0o644)


def test_nameservers_on_the_hosts_loopback_are_asked_by_the_helper() -> None:
    host = (
        "# made by systemd\nnameserver 127.0.0.53\nnameserver ::1\n  nameserver\t2001:db8::1  ; a comment\n"
        "nameserver fe80::1%eth0\nnameserver\nnameserver nonsense\noptions edns0 trust-ad\nsearch a  b\n\n"
    )
    assert private_resolv_conf(host).splitlines() == [
        "nameserver 10.0.2.3",
        "nameserver 2001:db8::1",
        "nameserver fe80::1%eth0",
        "options edns0 trust-ad",
        "search a b",
    ]
