"""Containers of ordinary users: with the subordinate IDs of /etc/subuid, and without any."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.run_rig import Box
from tests.compat.run_services import fetched, page, port
from tests.requirements import requires
from tests.unit.cli_runner import refused

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "runc", "unshare", "newuidmap"),
    pytest.mark.usefixtures("device_for_all"),
]

#: A user whom nobody else here is.
USER = 4100
WAIT = "while :; do sleep 0.1; done"


class UserBox(Box):
    """A box of USER, who has the subordinate IDs that `subids` says, in a mount namespace where those are in /etc."""

    def command(self) -> list[str]:
        inner = super().command()
        script = """
            for name in passwd subuid subgid; do mount --bind "$0/$name" /etc/$name; done
            if test -e "$0/tun"; then mount --bind "$0/tun" /dev/net/tun; fi
            exec "$@"
        """
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(self.directory / "etc"), *inner]


def made(directory: Path, subids: str) -> UserBox:
    box = UserBox(directory, user=USER)
    (directory / "etc").mkdir()
    for name in ("subuid", "subgid"):
        (directory / "etc" / name).write_text(subids)
    user = f"tester:x:{USER}:{USER}::/:/bin/sh\n"  # newuidmap serves those who have a name
    (directory / "etc/passwd").write_text(Path("/etc/passwd").read_text() + user)
    box.fill()
    return box


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that USER can get into, as pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="unionfs-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def with_ids(place: Path) -> UserBox:
    for path in ("/etc/subuid", "/etc/subgid"):  # to be mounted on
        Path(path).touch()
    directory = place / "with"
    directory.mkdir()
    return made(directory, f"{USER}:300000:65536\n")


@pytest.fixture(scope="module")
def without_ids(place: Path) -> UserBox:
    directory = place / "without"
    directory.mkdir()
    return made(directory, "somebody:300000:65536\n")


def test_with_subordinate_ids_everybody_of_the_image_is_there(with_ids: UserBox) -> None:
    box = with_ids
    script = "touch /srv/mine; chown daemon:daemon /srv/mine; chmod 700 /srv; id -u"
    assert box.run("run", "--network", "none", "--name", "main", "box", "sh", "-c", script) == "0"
    upper = Path(box.inspect("main")["GraphDriver"]["Data"]["UpperDir"])
    assert (upper / "srv").stat().st_uid == USER
    mine = (upper / "srv/mine").stat()
    assert (mine.st_uid, mine.st_gid) == (300000 + 6, 300000 + 7)
    box.run("start", "main")
    box.run("wait", "main")
    assert box.run("run", "--rm", "--network", "none", "-u", "daemon", "box", "id", "-u") == "7"
    box.clear()


def test_without_them_there_is_root_alone(without_ids: UserBox) -> None:
    box = without_ids
    script = "id -u; echo changed > /etc/motd; cat /etc/motd; cat /proc/self/uid_map"
    first, second, ids = box.run("run", "--network", "none", "--name", "main", "box", "sh", "-c", script).splitlines()
    assert (first, second, ids.split()) == ("0", "changed", ["0", str(USER), "1"])
    assert box.call("run", "--rm", "--network", "none", "-u", "daemon", "box", "id").status == 125
    box.clear()


def test_it_is_seen_entered_and_ended_from_outside(with_ids: UserBox) -> None:
    box = with_ids
    box.detached("main", f"trap 'exit 7' TERM; {WAIT}", "-u", "daemon")
    assert box.status("main") == "running"
    assert box.run("exec", "-u", "root", "main", "sh", "-c", "echo from exec > /tmp/x; id -u") == "0"
    assert box.call("exec", "main", "sh", "-c", "id -u; exit 4").status == 4
    assert box.run("stop", "main") == "main"
    assert box.inspect("main")["State"]["ExitCode"] == 7
    assert box.run("start", "main") == "main"
    assert box.run("exec", "main", "cat", "/tmp/x") == "from exec"
    box.clear()


def test_what_is_left_when_its_monitor_is_killed_is_removed(with_ids: UserBox) -> None:
    box = with_ids
    box.detached("main", WAIT, "-u", "daemon")
    box.kill(box.monitor("main"))
    assert box.status("main") == "running"
    assert box.run("rm", "-f", "main") == "main"
    box.nothing_left()


def test_memory_is_for_root_to_limit(without_ids: UserBox) -> None:
    ran = without_ids.call("run", "--rm", "--network", "none", "-m", "64m", "box", "true")
    refused(ran, 125, "memory cannot be limited", "without --memory")


SECRET = "echo s > /srv/secret; chmod 600 /srv/secret; chown daemon:daemon /srv/secret; rm /etc/group"


@pytest.mark.parametrize("state", ["running", "ended"])
def test_changes_are_the_containers_own_ids(with_ids: UserBox, state: str, place: Path) -> None:
    """Listed, in an image, in a layer, in a tar of the root and copied out: what only a subordinate ID may read."""
    box = with_ids
    if state == "running":
        box.detached("it", f"{SECRET}; echo made; {WAIT}")
        box.until_said("it", "made")
    else:
        box.run("run", "--network", "none", "--name", "it", "box", "sh", "-c", SECRET)
    assert {"A /srv/secret", "D /etc/group"} <= set(box.run("diff", "it").splitlines())
    box.run("commit", "it", f"made-{state}")
    shown = box.run(
        "run", "--rm", "--network", "none", f"made-{state}", "sh", "-c", "cat /srv/secret; ls -ln /srv/secret"
    )
    assert shown.split()[0] == "s" and shown.split()[3:5] == ["7", "8"]
    layer = box.directory / f"{state}.tar"
    told = json.loads(box.run("commit", "it", "--json", "-o", layer.name))  # where this is
    assert (told["held_seconds"] is None) is (state == "ended")
    root = box.directory / f"{state}-root.tar"
    box.run("export", "-o", root.name, "it")
    with open(box.directory / "out.tar", "wb") as file:
        file.write(box.call("cp", "it:/srv/secret", "-").out)
    for path, name in ((layer, "srv/secret"), (root, "srv/secret"), (box.directory / "out.tar", "secret")):
        with tarfile.open(path) as tar:
            entry = tar.getmember(name)
            assert (entry.uid, entry.gid, entry.mode) == (7, 8, 0o600)
    box.run("cp", root, "it:/srv")
    box.run("rm", "-f", "it")
    box.run("image", "rm", f"made-{state}")


@requires("slirp4netns", "tun")
@pytest.mark.parametrize("who", ["with_ids", "without_ids"])
def test_web_server_on_a_network_of_its_own(request: pytest.FixtureRequest, who: str) -> None:
    box: UserBox = request.getfixturevalue(who)
    tun = box.directory / "etc/tun"  # as distributions have it: for all
    os.mknod(tun, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    tun.chmod(0o666)
    www = page(box.directory / "www", "of a user")
    box.run(
        "run", "-d", "--name", "web", "-p", "127.0.0.1::80", "-v", f"{www}:/www:ro", "box", "httpd", "-f", "-h", "/www"
    )
    assert fetched(port(box, "web")) == "of a user"
    tun.chmod(0o600)
    refused(box.call("run", "box", "true"), 125, "/dev/net/tun may not be opened", "chmod 666 /dev/net/tun")
    below = box.call("run", "--network", "host", "-p", "127.0.0.1::80", "box", "true")
    assert below.status in (2, 125) and b"conflicting options" in below.err
    box.run("rm", "-f", "web")
