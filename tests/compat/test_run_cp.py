"""Files into a container and out of it, and what a container has changed: diff, commit, export, as docker has them."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.compat import hold_client
from tests.compat.run_rig import Box, box, filled
from tests.requirements import requires
from tests.unit.cli_runner import refused

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "busybox", "runc"),
]

__all__ = ["box", "filled"]  # fixtures

TREE = (
    "mkdir -p /data/sub; echo file > /data/file; echo deep > /data/sub/deep; ln -s file /data/link;"
    "ln -s /etc/passwd /data/out; ln /data/file /data/sub/hard; chown 7:8 /data/file; chmod 4711 /data/file"
)


@pytest.fixture(params=["running", "ended"])
def container(box: Box, request: pytest.FixtureRequest) -> str:
    if request.param == "running":
        box.detached("it", f"{TREE}; echo made; sleep 1000")
        box.until_said("it", "made")
    else:
        box.run("run", "--network", "none", "--name", "it", "box", "sh", "-c", TREE)
    return "it"


@pytest.fixture
def running(box: Box) -> str:
    box.detached("it", f"{TREE}; echo made; sleep 1000")
    box.until_said("it", "made")
    return "it"


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_out_of_a_container(box: Box, container: str, tmp_path: Path) -> None:
    box.run("cp", "it:/data/file", tmp_path / "new")  # to nothing: by that name
    assert (tmp_path / "new").read_text() == "file\n" and (tmp_path / "new").stat().st_mode & 0o7777 == 0o4711
    assert (tmp_path / "new").stat().st_uid == 0
    box.run("cp", "it:data/sub/deep", tmp_path / "new")  # over a file; a path begins at the root
    assert (tmp_path / "new").read_text() == "deep\n"
    box.run("cp", "-a", "it:/data/file", tmp_path)  # into a directory, with its owner
    assert ((tmp_path / "file").stat().st_uid, (tmp_path / "file").stat().st_gid) == (7, 8)
    box.run("cp", "it:/data", tmp_path / "tree")
    assert names(tmp_path / "tree") == ["file", "link", "out", "sub", "sub/deep", "sub/hard"]
    assert (tmp_path / "tree/file").samefile(tmp_path / "tree/sub/hard")
    box.run("cp", "it:/data", tmp_path / "tree")
    assert "data/sub/deep" in names(tmp_path / "tree")
    (tmp_path / "contents").mkdir()
    box.run("cp", "it:/data/.", tmp_path / "contents")
    assert names(tmp_path / "contents") == ["file", "link", "out", "sub", "sub/deep", "sub/hard"]
    box.run("cp", "it:/data/sub/.", tmp_path / "made")
    assert names(tmp_path / "made") == ["deep", "hard"]


def test_links_of_a_container_lead_into_the_container(
    box: Box, running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.run("cp", "it:/data/out", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "/etc/passwd"
    box.run("cp", "-L", "it:/data/out", tmp_path / "passwd")
    assert (tmp_path / "passwd").read_text().endswith("daemon:x:7:8::/srv:/bin/sh\n")  # the image's
    (tmp_path / "secret").write_text("of the host")
    box.run("cp", tmp_path / "secret", "it:/data/out")  # over what the link leads to, in the container
    assert "of the host" not in Path("/etc/passwd").read_text()
    assert box.run("cp", "it:/etc/passwd", tmp_path / "now") == "" and (tmp_path / "now").read_text() == "of the host"
    # docker's archive.GetRebaseName: a link that was followed gives what it leads to, and its own name
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_text("f")
    (source / "ld").symlink_to("d")
    (source / "lf").symlink_to("d/f")
    (tmp_path / "out").mkdir()
    box.run("cp", f"{source}/ld/", "it:/srv")
    box.run("cp", f"{source}/ld/.", "it:/srv")
    box.run("cp", "-L", source / "lf", "it:/srv")
    box.run("cp", "-L", source / "ld", "it:/srv/new")
    monkeypatch.chdir(source / "d")
    box.run("cp", ".", "it:/data/sub")
    refused(box.call("cp", f"{source}/lf/", "it:/srv"), 1, "lf/: Not a directory")
    refused(box.call("cp", source / "lf", "it:/none/."), 1, "destination directory must exist")
    box.run("exec", "it", "sh", "-c", "ln -s sub /data/ls; chmod 710 /data/sub")
    box.run("cp", "it:/srv/.", tmp_path / "srv")
    assert names(tmp_path / "srv") == ["f", "ld", "ld/f", "lf", "new", "new/f"]
    assert not any(path.is_symlink() for path in (tmp_path / "srv").iterdir())
    box.run("cp", "it:/data/ls/", tmp_path / "out")
    box.run("cp", "-L", "it:/data/link", tmp_path / "out")
    assert names(tmp_path / "out") == ["link", "ls", "ls/deep", "ls/f", "ls/hard"]
    assert (tmp_path / "out/link").read_text() == "file\n" and not (tmp_path / "out/link").is_symlink()
    box.run("cp", "it:/data/sub/.", tmp_path / "made")  # as that directory, where nothing was
    assert (tmp_path / "made").stat().st_mode & 0o7777 == 0o710
    with tarfile.open(fileobj=io.BytesIO(box.call("cp", "it:/data/ls/", "-").out)) as tar:
        assert tar.getnames()[0] == "ls"


def test_into_a_container(box: Box, container: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("a")
    (source / "sub/b").write_text("b")
    (source / "link").symlink_to("a")
    os.chown(source / "a", 1000, 1000)
    os.utime(source / "a", ns=(0, 10**18))
    box.run("cp", source / "a", "it:/srv")
    box.run("cp", source / "a", "it:/srv/renamed")
    box.run("cp", "-a", source / "a", "it:/srv/owned")
    box.run("cp", source, "it:/srv")
    box.run("cp", f"{source}/.", "it:/srv")
    box.run("cp", source, "it:/other")
    box.run("cp", f"{source}/.", "it:/third")
    out = tmp_path / "out"
    box.run("cp", "-a", "it:/srv", out)
    tree = ["a", "link", "sub", "sub/b"]
    assert names(out) == sorted([*tree, "owned", "renamed", "source", *(f"source/{name}" for name in tree)])
    assert (out / "renamed").stat().st_uid == 0 and (out / "owned").stat().st_uid == 1000
    assert (out / "a").stat().st_mtime_ns == 10**18 and os.readlink(out / "link") == "a"
    for place in ("other", "third"):
        box.run("cp", f"it:/{place}", tmp_path)
        assert names(tmp_path / place) == tree


def test_tar_streams(box: Box, running: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(box.call("cp", "it:/data", "-").out)) as tar:
        found = {entry.name: entry for entry in tar}
    assert sorted(found) == ["data", "data/file", "data/link", "data/out", "data/sub", "data/sub/deep", "data/sub/hard"]
    assert (found["data/file"].uid, found["data/file"].mode) == (7, 0o4711)
    assert found["data/sub/hard"].islnk() and found["data/sub/hard"].linkname == "data/file"
    with tarfile.open(fileobj=io.BytesIO(box.call("cp", "it:/data/sub/.", "-").out)) as tar:
        assert sorted(tar.getnames()) == [".", "./deep", "./hard"]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, kind, link in (("./d", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, ""),
                                 ("../up", tarfile.REGTYPE, ""), ("l", tarfile.SYMTYPE, "/data"),
                                 ("l/through", tarfile.REGTYPE, ""), ("h", tarfile.LNKTYPE, "d/f")):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.uid, entry.mode = kind, link, 7, 0o755
            tar.addfile(entry)
    assert box.call("cp", "-a", "-", "it:/srv", stdin=made.getvalue()).status == 0
    with tarfile.open(fileobj=io.BytesIO(box.call("cp", "it:/srv", "-").out)) as tar:
        assert {"srv/d/f", "srv/up", "srv/l", "srv/h"} <= set(tar.getnames())
        assert tar.getmember("srv/d/f").uid == 7
    with tarfile.open(fileobj=io.BytesIO(box.call("cp", "it:/data", "-").out)) as tar:
        assert "data/through" in tar.getnames()  # by a link of the container's root


def test_what_cannot_be_copied(box: Box, running: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "d").mkdir()
    (tmp_path / "have/file").mkdir(parents=True)
    refused(box.call("cp", "it:/nothing", tmp_path), 1, "Could not find the file /nothing in container it")
    refused(box.call("cp", "it:/nothing/x", tmp_path), 1, "/nothing/x: No such file")
    refused(box.call("cp", tmp_path / "none", "it:/"), 1, "none: No such file")
    refused(box.call("cp", "it:/data", tmp_path / "f"), 1, "cannot copy directory")
    refused(box.call("cp", tmp_path / "d", "it:/data/file"), 1, "cannot copy directory")
    refused(box.call("cp", tmp_path / "f", "it:/new/"), 1, "destination directory must exist")
    refused(box.call("cp", "it:/data/file", f"{tmp_path}/new/"), 1, "destination directory must exist")
    refused(box.call("cp", "it:/data/file", tmp_path / "have"), 1, "cannot overwrite directory with non-directory")
    refused(box.call("cp", "it:/data/file", tmp_path / "no/such"), 1, "does not exist")
    os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for here, there in ((tmp_path / "f", "it:/dev/null"), ("it:/data/file", tmp_path / "null")):
        refused(box.call("cp", here, there), 1, "null is a device")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)
    refused(box.call("cp", "it:/", "it:/"), 2, "copying between containers is not supported")
    refused(box.call("cp", tmp_path / "f", tmp_path / "d"), 2, "must specify at least one container source")
    refused(box.call("cp", "nobody:/", tmp_path), 1, "No such container: nobody")
    refused(box.call("cp", "-", "it:/data/file", stdin=b""), 1, "must be a directory")
    refused(box.call("cp", "-", "it:/data", stdin=b"no tar"), 1, "standard input is no tar")


def test_path_of_the_host_with_a_colon(box: Box, running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").write_text("colon")
    box.run("cp", "./a:b", "it:/srv/x")
    box.run("cp", "it:/srv/x", tmp_path / "c:d")
    assert (tmp_path / "c:d").read_text() == "colon"


def test_volumes_of_a_running_container_are_seen(box: Box, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    box.detached("it", "sleep 1000", "-v", f"{tmp_path}/v:/v")
    (tmp_path / "f").write_text("f")
    box.run("cp", tmp_path / "f", "it:/v")
    assert (tmp_path / "v/f").read_text() == "f"


def test_volume_of_a_container_that_does_not_run_is_not_there(box: Box, tmp_path: Path) -> None:
    """What went to its place in the root would not be seen once it runs."""
    box.created("it", "true", volumes=("/srv", f"{tmp_path}:/bin"))
    (tmp_path / "f").write_text("f")
    (tmp_path / "link").symlink_to("/srv/new")
    box.run("cp", tmp_path / "link", "it:/link")
    for path in ("/srv/below", "/link"):
        refused(box.call("cp", tmp_path / "f", f"it:{path}"), 1, "/srv is a volume", "unionfs start it")
    refused(box.call("cp", "it:/bin/sh", tmp_path / "g"), 1, "/bin is a volume", "unionfs start it")


def test_changes_of_a_container(box: Box, container: str) -> None:
    assert box.run("diff", "it").splitlines() == [
        "A /data", "A /data/file", "A /data/link", "A /data/out", "A /data/sub", "A /data/sub/deep", "A /data/sub/hard",
        "C /etc",
    ]  # fmt: skip
    refused(box.call("diff", "nobody"), 1, "nobody is neither a directory nor a container")


def test_image_of_a_container(box: Box, container: str) -> None:
    id = box.run("commit", "-m", "made", "-c", "ENV MORE=1", "it", "made:v1").strip()
    assert box.run("run", "--rm", "--network", "none", "made:v1", "sh", "-c", "cat /data/file; echo $FROM $MORE") == (
        "file\nimage 1"
    )
    config = json.loads(box.run("image", "inspect", "made:v1"))[0]["Config"]  # what the container was told, too
    assert config["Cmd"][:2] == ["sh", "-c"] and config["Env"] == ["FROM=image", "MORE=1"]
    shown = box.run("image", "history", "--no-trunc", "made:v1").splitlines()[1]
    assert id in shown and "made" in shown and "sh -c" in shown
    box.run("rm", "-f", "it")
    box.run("image", "rm", "made:v1")


def test_export_of_a_container(box: Box, running: str, tmp_path: Path) -> None:
    box.run("export", "-o", tmp_path / "root.tar", "it")
    with tarfile.open(tmp_path / "root.tar") as tar:
        found = set(tar.getnames())
    assert {"data/file", "etc/motd", "bin/busybox"} <= found
    refused(box.call("export", "-o", tmp_path / "no/root.tar", "it"), 1, "/no/root.tar: No such file or directory")
    assert box.call("export", "it").out == (tmp_path / "root.tar").read_bytes()


def test_image_of_a_container_that_goes_on_writing_is_one_moment(box: Box, tmp_path: Path) -> None:
    """Two files in lockstep, one by a shared mapping, one by write(2), from a process namespace of their own."""
    host = [word for path in ("/usr", "/lib", "/lib64") for word in ("-v", f"{path}:{path}:ro")]
    client = Path(hold_client.__file__)
    box.run("run", "-d", "--network", "none", "--name", "it", *host, "-v", f"{client}:/client.py:ro",
            "box", "/usr/bin/python3", "/client.py", "mixed", "/srv")  # fmt: skip
    box.until_said("it", "go")
    seen = []
    for number in range(4):
        layer = tmp_path / f"{number}.tar"
        told = box.call("commit", "it", "--json", "-o", layer)
        assert (told.status, told.err) == (0, b"") and json.loads(told.out)["held_seconds"] > 0
        with tarfile.open(layer) as tar:
            read = [tar.extractfile(f"srv/{name}") for name in hold_client.NAMES]
            a, b = (int(file.read(10) or b"0") for file in read if file is not None)
        assert a in (b, b + 1)
        seen.append(a)
    assert seen[-1] > seen[0] > 0, "it did not go on between the commits"
