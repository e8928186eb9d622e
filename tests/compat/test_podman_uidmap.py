"""podman's containers in a user namespace: root of the host maps the layers by the kernel, the mount program its upper.

The layers come as id-mapped mounts, and `uidmapping=:0:100000:5000` besides: what was mapped already must not be mapped
again, while what is written must be stored as its owner in the container, for the image that is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.compat.containers import Host
from tests.requirements import requires

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer,
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    requires("root", "fuse", "fusermount3", "podman", "crun", "busybox", "unshare", "tar"),
]

BASE, CHANGED = "localhost/bb:1", "localhost/mapped:1"
MAPPED = ("--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000")
ELSEWHERE = ("--uidmap", "0:300000:2000", "--gidmap", "0:300000:2000")

CHANGES = """
set -e
cat /proc/self/uid_map
echo x > /root/new; mkdir /root/dir; chown 1000:7 /root/dir; ln -s x /root/link; chown -h 5:6 /root/link
echo more >> /etc/motd; chown 9:9 /etc/init.d/S03; mv /etc/init.d /etc/rc.d; rm /etc/issue; chmod 4755 /bin/busybox
"""
OWNERS = """
stat -c '%u:%g %n' /etc/passwd /home/user /root/new /root/dir /root/link /etc/motd /etc/rc.d /etc/rc.d/S03 /etc/rc.d/S04
cat /etc/motd; ls /etc/issue 2>/dev/null; stat -c '%a %u' /bin/busybox
"""
OWNED = [
    "0:0 /etc/passwd", "1000:1000 /home/user", "0:0 /root/new", "1000:7 /root/dir", "5:6 /root/link", "0:0 /etc/motd",
    "0:0 /etc/rc.d", "9:9 /etc/rc.d/S03", "0:0 /etc/rc.d/S04", "welcome", "more", "4755 0",
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("uidmap")) as made:
        made.import_busybox(BASE)
        made.podman_run(*MAPPED, "--name", "mapped", BASE, CHANGES)
        made.podman("commit", "-q", "mapped", CHANGED)
        yield made
        made.until_unmounted()


def test_it_runs_as_another_user_of_the_host(host: Host) -> None:
    assert host.podman("logs", "mapped").split() == ["0", "100000", "5000"]
    root = host.path(host.podman("mount", "mapped"))
    owners = [(root / name).lstat().st_uid for name in ("root/new", "root/dir", "etc/rc.d/S03")]
    assert owners == [100_000, 101_000, 100_009]
    host.podman("umount", "mapped")


def test_diff_names_what_was_changed_and_nothing_else(host: Host) -> None:
    told = json.loads(host.podman("diff", "--format", "json", "mapped"))
    assert set(told["deleted"]) == {"/etc/issue", "/etc/init.d"}
    moved = {f"/etc/rc.d/S{i:02}" for i in range(20)} | {"/etc/rc.d", "/etc/rc.d/S01-link"}
    assert set(told["added"]) == moved | {"/root/new", "/root/dir", "/root/link"}
    assert set(told["changed"]) == {"/etc", "/etc/motd", "/root", "/bin", "/bin/busybox"}


@pytest.mark.parametrize("mapping", [(), MAPPED, ELSEWHERE], ids=["unmapped", "mapped", "elsewhere"])
def test_the_image_has_the_owners_of_the_container(host: Host, mapping: tuple[str, ...]) -> None:
    assert host.podman_run(*mapping, "--rm", CHANGED, OWNERS).splitlines() == OWNED


def test_it_goes_on_when_started_again(host: Host) -> None:
    count = "\necho line >> /root/count; stat -c %u:%g /root/count; wc -l < /root/count\n"
    assert host.podman_run(*MAPPED, "--name", "counter", BASE, count) == "0:0\n1"
    assert [host.podman("start", "-a", "counter") for _ in range(2)] == ["0:0\n2", "0:0\n3"]


def test_root_of_the_container_cannot_write_what_is_anothers(host: Host) -> None:
    """Ids that the mapping does not have are nobody's."""
    said = host.podman_run(
        *ELSEWHERE, "--rm", BASE, "\nchown 2000 /etc/motd 2>/dev/null || echo refused\nls -n /etc/motd\n"
    )
    assert said.splitlines()[0] == "refused" and said.splitlines()[1].split()[2:4] == ["0", "0"]
