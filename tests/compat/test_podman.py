"""podman on `unionfs-mount`: what is done in a container is what diff, commit, export and the next container show."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.containers import RUN, Host
from tests.requirements import requires

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer,
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    requires("root", "fuse", "fusermount3", "podman", "crun", "busybox", "unshare", "tar"),
]

BASE, CHANGED = "localhost/bb:1", "localhost/bb:2"

#: Written, appended to, replaced, deleted, renamed (a directory of the image), linked, made anew where one was removed.
CHANGES = """
set -e
echo new > /root/new; ln /root/new /root/hard; ln -s new /root/soft; chown 7:8 /root/new; chmod 4750 /root/new
echo more >> /etc/motd; rm /etc/issue; mv /etc/init.d /etc/rc.d; rm /etc/rc.d/S05
rm -r /usr/share/doc; mkdir -p /usr/share/doc/other; echo x > /usr/share/doc/other/x
mv /home/user /home/moved; mkdir -p /data/sub; mkfifo /data/fifo
cat /etc/motd /root/hard; ls /etc/rc.d | wc -l; stat -c %h /root/new; find /usr/share/doc
"""
SEEN = ["welcome", "more", "new", "20", "2", "/usr/share/doc", "/usr/share/doc/other", "/usr/share/doc/other/x"]
RC_D = [f"/etc/rc.d/S{i:02}" for i in range(20) if i != 5] + ["/etc/rc.d/S01-link"]

#: What a container of the image with these changes says to the same questions.
ASK = """
cat /etc/motd /root/hard; ls /etc/rc.d | wc -l; stat -c %h /root/new; find /usr/share/doc
ls -d /etc/issue /etc/init.d /home/user /etc/rc.d/S05 2>&1 | grep -c 'No such file'
stat -c '%a %u:%g %F' /root/new /root/soft /data/fifo /etc/rc.d/S06 /home/moved
[ /root/new -ef /root/hard ] && echo one file; cat /etc/rc.d/S07
"""
ANSWERS = [
    *SEEN, "4", "4750 7:8 regular file", "777 0:0 symbolic link", "644 0:0 fifo", "644 0:0 regular file",
    "755 1000:1000 directory", "one file", "#!/bin/sh", "exit 7",
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("podman")) as made:
        made.import_busybox(BASE)
        yield made


@pytest.fixture(scope="module")
def changed(host: Host) -> str:
    """The name of a container in which CHANGES were made, of which CHANGED is the image."""
    assert host.podman_run("--name", "changed", BASE, CHANGES).splitlines() == SEEN
    host.podman("commit", "-q", "changed", CHANGED)
    return "changed"


@pytest.fixture(autouse=True)
def nothing_stays_mounted(host: Host) -> Iterator[None]:
    yield
    host.until_unmounted()


def test_a_container_runs_on_our_file_system(host: Host) -> None:
    assert host.podman("info", "--format", "{{.Store.GraphDriverName}}") == "overlay"
    said = host.podman_run("--rm", BASE, "\ngrep ' / ' /proc/mounts\ncat /etc/motd\n").splitlines()
    assert said[0].split()[2] == "fuse.unionfs" and said[1] == "welcome"


def test_diff_says_what_was_changed(host: Host, changed: str) -> None:
    told = json.loads(host.podman("diff", "--format", "json", changed))
    assert set(told["deleted"]) == {"/etc/issue", "/etc/init.d", "/usr/share/doc/busybox", "/home/user"}
    assert set(told["added"]) == {
        "/root/new", "/root/hard", "/root/soft", "/etc/rc.d", *RC_D, "/usr/share/doc/other",
        "/usr/share/doc/other/x", "/home/moved", "/data", "/data/sub", "/data/fifo",
    }  # fmt: skip
    assert set(told["changed"]) == {"/root", "/etc", "/etc/motd", "/usr", "/usr/share", "/usr/share/doc", "/home"}


def test_the_committed_image_has_the_changes(host: Host, changed: str) -> None:
    assert host.podman_run("--rm", CHANGED, ASK).splitlines() == ANSWERS
    # Its layer was extracted again, with the whiteouts of the other kind.
    assert {".wh.issue", ".wh.init.d", ".wh.user"} <= set(host.whiteout_files())


def test_an_image_of_an_image(host: Host, changed: str) -> None:
    again = "\nset -e\nrm -r /usr/share/doc/other; mv /etc/rc.d /etc/init.d; rm /root/new; echo 3 >> /root/hard\n"
    host.podman_run("--name", "again", CHANGED, again)
    host.podman("commit", "-q", "again", "localhost/bb:3")
    ask = (
        "\nfind /usr/share/doc; ls /etc | grep -c -e init.d -e rc.d; cat /root/hard; stat -c %h /root/hard; ls /root\n"
    )
    said = host.podman_run("--rm", "localhost/bb:3", ask).splitlines()
    assert said == ["/usr/share/doc", "1", "new", "3", "1", "hard", "soft"]


def test_a_container_that_is_started_again_goes_on(host: Host) -> None:
    count = "\necho line >> /root/count; mv /root/count /root/c; mv /root/c /root/count; wc -l < /root/count\n"
    assert host.podman_run("--name", "counter", BASE, count) == "1"
    assert [host.podman("start", "-a", "counter") for _ in range(2)] == ["2", "3"]
    host.podman("run", "-d", *RUN, "--name", "server", BASE, "sleep", "1000")
    host.podman("exec", "server", "/bin/sh", "-c", "echo kept > /root/kept; rm /etc/issue")
    host.podman("restart", "-t", "0", "server")
    assert host.podman("exec", "server", "cat", "/root/kept") == "kept"
    host.podman("exec", "server", "cat", "/etc/issue", status=1)
    host.podman("rm", "-f", "-t", "0", "server")


def test_two_containers_of_one_image_at_once(host: Host) -> None:
    for name in ("left", "right"):
        host.podman("run", "-d", *RUN, "--name", name, BASE, "sleep", "1000")
    for name in ("left", "right"):
        host.podman("exec", name, "/bin/sh", "-c", f"echo {name} > /etc/motd")
    assert [host.podman("exec", name, "cat", "/etc/motd") for name in ("left", "right")] == ["left", "right"]
    assert len(host.mounts()) == 2
    host.podman("rm", "-f", "-t", "0", "left", "right")


def test_a_read_only_container(host: Host) -> None:
    script = "\necho x > /root/x && echo written; rm /etc/motd && echo removed; cat /etc/motd\n"
    assert host.podman_run("--rm", "--read-only", BASE, script) == "welcome"


def test_a_mounted_image(host: Host, changed: str) -> None:
    root = host.path(host.podman("image", "mount", CHANGED))
    assert (root / "etc/motd").read_text() == "welcome\nmore\n" and not (root / "etc/issue").exists()
    assert sorted(path.name for path in (root / "home").iterdir()) == ["moved"]
    with pytest.raises(OSError, match="Read-only"):
        (root / "new").touch()
    host.podman("image", "umount", CHANGED)


def test_a_mounted_container(host: Host, changed: str) -> None:
    host.podman("create", *RUN, "--name", "stopped", CHANGED, "/bin/sh", "-c", "cat /etc/outside; ls /etc/motd")
    root = host.path(host.podman("mount", "stopped"))
    assert (root / "root/hard").read_text() == "new\n" and stat.S_ISFIFO((root / "data/fifo").stat().st_mode)
    (root / "etc/outside").write_text("from outside\n")
    (root / "etc/motd").rename(root / "etc/message")
    host.podman("umount", "stopped")
    host.podman("start", "-a", "stopped", status=1)
    assert "from outside" in host.podman("logs", "stopped")
    told = json.loads(host.podman("diff", "--format", "json", "stopped"))
    assert (set(told["added"]), told["deleted"]) == ({"/etc/outside", "/etc/message"}, ["/etc/motd"])


def test_an_overlay_volume_leaves_its_source(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for name in ("kept", "removed", "sub/file"):
        (source / name).write_text(name)
    before = {path: path.lstat() for path in (source, *source.rglob("*"))}
    script = "\nset -e\ncd /v; cat kept; echo changed > kept; rm removed; mv sub moved; echo n > new; cat kept\n"
    said = host.podman_run("--rm", "-v", f"{source}:/v:O", BASE, script + "find . | sort\n")
    assert said.splitlines() == ["keptchanged", ".", "./kept", "./moved", "./moved/file", "./new"]
    assert {path: path.lstat() for path in (source, *source.rglob("*"))} == before
    assert (source / "kept").read_text() == "kept"


def test_cp_in_and_out(host: Host, changed: str, tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    data = os.urandom(300_000)
    (tmp_path / "in/deep/data").write_bytes(data)
    (tmp_path / "in/deep/data").chmod(0o640)
    host.podman("cp", tmp_path / "in", f"{changed}:/data/in")
    host.podman("cp", f"{changed}:/data/in/deep/data", tmp_path / "out")
    assert ((tmp_path / "out").read_bytes(), stat.S_IMODE((tmp_path / "out").stat().st_mode)) == (data, 0o640)
    host.podman("cp", f"{changed}:/etc/rc.d", tmp_path / "rc.d")
    assert sorted(path.name for path in (tmp_path / "rc.d").iterdir()) == sorted(Path(name).name for name in RC_D)


def test_export_holds_the_merged_tree(host: Host, changed: str, tmp_path: Path) -> None:
    host.podman("export", "-o", tmp_path / "tree.tar", changed)
    with tarfile.open(tmp_path / "tree.tar") as tar:
        members = {member.name.rstrip("/"): member for member in tar}
        motd = tar.extractfile(members["etc/motd"])
        assert motd is not None and motd.read() == b"welcome\nmore\n"
    assert {name.lstrip("/") for name in RC_D} <= members.keys()
    assert not {"etc/issue", "etc/init.d", "home/user", "usr/share/doc/busybox"} & members.keys()
    assert not [name for name in members if ".wh." in name]
    links = {members["root/new"].type, members["root/hard"].type}
    assert links == {tarfile.REGTYPE, tarfile.LNKTYPE}
    new = members["root/new"]
    assert (stat.S_IMODE(new.mode), new.uid, new.gid) == (0o4750, 7, 8)


def test_volumes(host: Host) -> None:
    """A new one is filled with what the image has there; it outlives the container."""
    host.podman("volume", "create", "kept")
    volume = ("-v", "kept:/etc/init.d")
    script = "\ncd /etc/init.d; ls | wc -l; echo x > x; rm -f S05\n"
    assert [host.podman_run("--rm", *volume, BASE, script) for _ in range(2)] == ["21", "21"]
    assert host.podman_run("--rm", *volume, BASE, "\ncat /etc/init.d/x; ls /etc/init.d/S05\n", status=1) == "x"
    assert host.podman_run("--rm", BASE, "\nls /etc/init.d | wc -l\n") == "21"


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_save_and_load(host: Host, changed: str, tmp_path: Path, format: str) -> None:
    host.podman("tag", CHANGED, "localhost/saved:1")
    host.podman("save", "-q", "--format", format, "-o", tmp_path / "image.tar", "localhost/saved:1")
    host.podman("rmi", "localhost/saved:1")
    assert "localhost/saved:1" in host.podman("load", "-q", "-i", tmp_path / "image.tar")
    assert host.podman_run("--rm", "localhost/saved:1", ASK).splitlines() == ANSWERS


def test_a_container_is_gone_when_it_is_removed(host: Host) -> None:
    host.podman_run("--name", "short", BASE, "\nmkdir /a; chmod 0 /a; ln /etc/motd /a/b\n")
    before = len(list((host.directory / "storage/overlay").iterdir()))
    host.podman("rm", "short")
    assert len(list((host.directory / "storage/overlay").iterdir())) == before - 1
