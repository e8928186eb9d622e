"""Sources of volumes: made where they are missing, or filled with what the image has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import requires
from unionfs.containers.settings import Volume
from unionfs.containers.volumes import misfit, prepare
from unionfs.errors import ContainerError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "data/sub").mkdir(parents=True)
    (root / "data/file").write_text("of the image")
    os.link(root / "data/file", root / "data/sub/other")
    (root / "data/link").symlink_to("/etc/passwd")
    (root / "data/.hidden").touch()
    (root / "data").chmod(0o1777)
    os.utime(root / "data/file", ns=(1, 2))
    (root / "plain").write_text("no directory")
    (root / "var").symlink_to("/data")
    return root


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def directory(tmp_path: Path) -> bytes:
    path = tmp_path / "container"
    path.mkdir()
    return os.fsencode(path)


def test_volume_has_what_the_image_has(root_fd: int, directory: bytes) -> None:
    found = prepare([Volume("", "/data")], root_fd, directory)
    source = Path(found["/data"])
    assert sorted(os.listdir(source)) == [".hidden", "file", "link", "sub"]
    assert (source / "file").read_text() == "of the image" and (source / "file").stat().st_mtime_ns == 2
    assert (source / "sub/other").samefile(source / "file")
    assert os.readlink(source / "link") == "/etc/passwd"
    assert source.stat().st_mode & 0o7777 == 0o1777


@requires("root")
def test_volume_has_the_owners_of_the_image(root: Path, root_fd: int, directory: bytes) -> None:
    os.chown(root / "data", 101, 102)
    os.lchown(root / "data/link", 103, 104)
    source = Path(prepare([Volume("", "/data")], root_fd, directory)["/data"])
    assert (source.stat().st_uid, source.stat().st_gid) == (101, 102)
    assert ((source / "link").lstat().st_uid, (source / "link").lstat().st_gid) == (103, 104)


def test_volume_is_filled_once(root: Path, root_fd: int, directory: bytes) -> None:
    source = Path(prepare([Volume("", "/data")], root_fd, directory)["/data"])
    (source / "file").write_text("changed")
    (root / "data/more").touch()
    assert prepare([Volume("", "/data")], root_fd, directory) == {"/data": str(source)}
    assert (source / "file").read_text() == "changed" and not (source / "more").exists()


def test_volume_half_filled_at_a_crash_is_made_anew(root_fd: int, directory: bytes) -> None:
    half = Path(os.fsdecode(directory)) / "volumes/0.new"
    half.mkdir(parents=True)
    (half / "left").touch()
    source = Path(prepare([Volume("", "/data")], root_fd, directory)["/data"])
    assert not (source / "left").exists() and (source / "file").exists() and not half.exists()


def test_volume_where_the_image_has_nothing(root_fd: int, directory: bytes) -> None:
    found = prepare([Volume("", "/new"), Volume("", "/a/b/c"), Volume("", "/plain/x")], root_fd, directory)
    assert {target: os.listdir(source) for target, source in found.items()} == {
        "/new": [],
        "/a/b/c": [],
        "/plain/x": [],
    }


def test_volume_behind_a_link_of_the_image(root_fd: int, directory: bytes) -> None:
    found = prepare([Volume("", "/var/sub")], root_fd, directory)
    assert os.listdir(found["/var/sub"]) == ["other"]


def test_volume_on_a_file_of_the_image(root_fd: int, directory: bytes) -> None:
    with pytest.raises(ContainerError, match="a volume cannot be on /plain"):
        prepare([Volume("", "/plain")], root_fd, directory)


def test_source_is_made_as_docker_does(tmp_path: Path, root_fd: int, directory: bytes) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    volumes = [Volume(str(tmp_path / "new/deep"), "/a"), Volume(str(file), "/b"), Volume(str(tmp_path), "/c")]
    assert prepare(volumes, root_fd, directory) == {}
    assert (tmp_path / "new/deep").is_dir() and file.read_text() == "kept"


@pytest.mark.parametrize("source", ["file/x", "dangling"])
def test_source_that_cannot_be_made(tmp_path: Path, root_fd: int, directory: bytes, source: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ContainerError, match="error while creating mount source path"):
        prepare([Volume(str(tmp_path / source), "/a")], root_fd, directory)


def mounting(source: str, target: str) -> str:
    """What runc says."""
    return f'error mounting "{source}" to rootfs at "{target}": mount {source}:{target}, flags: 0x5000: not a directory'


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("dir", "/plain", "cannot mount the directory {} on /plain, which is a file in the container"),
        ("dir", "/plainly", "cannot mount the directory {} on /plainly, which is a file in the container"),
        ("dir", "/plain/x/y", "cannot mount the directory {} on /plain/x/y, which is below a file in the container"),
        ("file", "/plain/x", "cannot mount the file {} on /plain/x, which is below a file in the container"),
        ("file", "/data", "cannot mount the file {} on /data, which is a directory in the container"),
        ("file", "/var", "cannot mount the file {} on /var, which is a directory in the container"),
        ("file", "/outer/sub", "cannot mount the file {} on /outer/sub, which is a directory in the container"),
        ("dir", "/outer/file", "cannot mount the directory {} on /outer/file, which is a file in the container"),
        ("file", "/plain", None),
        ("dir", "/data", None),
        ("dir", "/outer/sub", None),
        ("dir", "/new/x", None),
        ("dir", "/loop", None),
    ],
)
def test_volume_that_does_not_fit(
    tmp_path: Path, root: Path, root_fd: int, source: str, target: str, expected: str | None
) -> None:
    (root / "plainly").symlink_to("plain")
    (root / "loop").symlink_to("loop")
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/file").touch()
    (tmp_path / "file").touch()
    path = str(tmp_path / source)
    others = [Volume("", "/own"), Volume(str(tmp_path / "dir"), "/outer")]
    volumes = [*others, Volume(path, target)]
    found = misfit(volumes, root_fd, mounting(path, target))
    assert (found and found.message) == (expected and expected.format(path))
    assert found == misfit(volumes, root_fd, f"mount `{path}` to `{target[1:]}`: Not a directory")  # crun's words
    assert misfit(volumes, root_fd, mounting("/else", "/elsewhere")) is None
    assert misfit(volumes, root_fd, f"mount {path}:{target}: permission denied") is None


def test_what_to_do_about_a_volume_that_does_not_fit(tmp_path: Path, root_fd: int) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    found = misfit([Volume(f"{tmp_path}/empty", "/plain")], root_fd, mounting("x", "/plain"))
    made = f"{tmp_path}/empty is empty: a source that is not there is made as a directory"
    assert found is not None and found.hint == f"mount a file there, or the directory elsewhere; {made}"
    found = misfit([Volume(f"{tmp_path}/file", "/data")], root_fd, mounting("x", "/data"))
    assert found is not None
    assert found.hint == f"mount a directory there, or name the file too: -v {tmp_path}/file:/data/file"
