"""Images of ours for podman, and podman's for us: the same archive, the same ID, the same configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.containers import Host
from tests.compat.image_rig import EPOCH, Images, web_root
from tests.compat.real_mount import pack
from tests.requirements import requires

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "podman", "crun", "unshare", "tar", "busybox"),
]

#: As podman 4 understands them: it takes one variable and one port at a time, and forgets ONBUILD in OCI images.
CHANGES = (
    'CMD ["httpd","-f"]',
    "ENTRYPOINT /bin/sh -e",
    "ENV A=1",
    "ENV=C=3",
    "EXPOSE 80",
    "LABEL one=1",
    "STOPSIGNAL 9",
    "USER=user",
    "VOLUME /data",
    "WORKDIR /srv",
)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    place = tmp_path / "images"
    place.mkdir()
    return Images(place, env={"SOURCE_DATE_EPOCH": EPOCH})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("podman")) as made:
        yield made


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rootfs")
    root = directory / "root"
    root.mkdir()
    web_root(root)
    for name in ("proc", "sys", "run"):
        (root / name).mkdir()
    for file in ("hosts", "hostname", "resolv.conf"):
        (root / "etc" / file).touch()
    pack(root, directory / "rootfs.tar")
    return directory / "rootfs.tar"


def test_podman_loads_and_runs_what_was_committed(images: Images, host: Host, rootfs: Path, tmp_path: Path) -> None:
    images.run("image", "import", rootfs, "localhost/bb:1")
    with images.mounted("--image", "localhost/bb:1", "--ephemeral") as mnt:
        (mnt / "var/www/index.html").write_text("from us\n")
        (mnt / "etc/passwd").unlink()
        id = images.run("commit", mnt, "localhost/bb:2", "-c", 'CMD ["cat","/var/www/index.html"]')
    images.run("image", "save", "-o", tmp_path / "saved.tar", "localhost/bb")
    said = host.podman("load", "-q", "-i", tmp_path / "saved.tar")
    assert sorted(said.split()) == ["Loaded", "Loaded", "image:", "image:", "localhost/bb:1", "localhost/bb:2"]
    assert "sha256:" + host.podman("image", "inspect", "--format", "{{.Id}}", "localhost/bb:2") == id
    assert host.podman_run("--rm", "localhost/bb:2", "cat", "/var/www/index.html") == "from us"
    lines = images.run("image", "diff", "localhost/bb:2").splitlines()
    assert lines == ["C /etc", "D /etc/passwd", "C /var", "C /var/www", "A /var/www/index.html"]
    # podman's shows the whiteout as the file that it is in its layer.
    shown = [
        line.replace("A /etc/.wh.", "D /etc/") for line in host.podman("image", "diff", "localhost/bb:2").splitlines()
    ]
    assert sorted(shown) == sorted(lines)
    ours = json.loads(images.run("image", "inspect", "localhost/bb:2"))[0]
    theirs = json.loads(host.podman("image", "inspect", "localhost/bb:2"))[0]
    for field in ("Created", "Author", "Architecture", "Os", "Config", "RootFS"):
        assert ours[field] == theirs[field], field
    assert set(theirs["RepoTags"]) == set(ours["RepoTags"]) == {"localhost/bb:2"}


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_what_podman_saved_is_loaded_mounted_and_goes_back(
    images: Images, host: Host, rootfs: Path, tmp_path: Path, format: str
) -> None:
    host.podman("import", "-q", rootfs, "localhost/bb:1")
    host.podman_run("--replace", "--name", "c", "localhost/bb:1", "/bin/sh", "-c", "echo theirs > /var/www/index.html")
    host.podman("commit", "-q", "-f", "docker" if format == "docker-archive" else "oci", "c", "localhost/bb:2")
    host.podman("save", "-q", "--format", format, "-o", tmp_path / "theirs.tar", "localhost/bb:2")
    id = "sha256:" + host.podman("image", "inspect", "--format", "{{.Id}}", "localhost/bb:2")
    assert images.run("image", "load", "-i", tmp_path / "theirs.tar") == "Loaded image: localhost/bb:2"
    assert images.run("image", "inspect", "-f", "{{.Id}}", "localhost/bb:2") == id
    assert images.run("image", "verify") == ""
    with images.mounted("-l", f"{format}:{tmp_path}/theirs.tar", "-u", tmp_path / "upper") as mnt:
        assert (mnt / "var/www/index.html").read_text() == "theirs\n"
        (mnt / "new").write_text("ours\n")
        images.run("commit", mnt, "localhost/bb:3")
    images.run("image", "save", "-o", tmp_path / "ours.tar", "localhost/bb:2", "localhost/bb:3")
    host.podman("load", "-q", "-i", tmp_path / "ours.tar")
    assert "sha256:" + host.podman("image", "inspect", "--format", "{{.Id}}", "localhost/bb:2") == id
    assert host.podman_run("--rm", "localhost/bb:3", "cat", "/new", "/var/www/index.html") == "ours\ntheirs"


def test_the_same_instructions_make_the_same_configuration(images: Images, host: Host, rootfs: Path) -> None:
    flags = [word for change in CHANGES for word in ("-c", change)]
    host.podman("import", "-q", *flags, rootfs, "localhost/bb:1")
    images.run("image", "import", *flags, rootfs, "localhost/bb:1")
    ours = json.loads(images.run("image", "inspect", "localhost/bb:1"))[0]["Config"]
    theirs = json.loads(host.podman("image", "inspect", "localhost/bb:1"))[0]["Config"]
    assert ours == theirs
