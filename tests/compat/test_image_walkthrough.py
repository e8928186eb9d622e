"""An image made, changed, named, saved, removed and loaded, from the first command to the page it serves.

The way is docker's tutorial of commit and save: a busybox image, a page written into it, tags, a second image with a
command, both in one archive. umoci and skopeo say whether what is in the store is what the mount showed.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.image_rig import EPOCH, Images, page, web_tar
from tests.compat.real_mount import run
from tests.requirements import requires
from tests.semantics.unions import same_tree
from tests.unit.as_user import NOBODY

pytestmark = [pytest.mark.needs_fuse, pytest.mark.peer, requires("fuse", "busybox", "tar")]

ID = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path, env={"SOURCE_DATE_EPOCH": EPOCH})


def write_page(mnt: Path, text: str) -> None:
    (mnt / "var/www/index.html").write_text(text)


@pytest.mark.needs_root
@requires("root", "umoci", "skopeo")
def test_from_a_root_to_the_page_that_its_image_serves(images: Images, tmp_path: Path) -> None:
    base = images.run("image", "import", web_tar(tmp_path), "busybox:base")
    assert ID.fullmatch(base)

    with images.mounted("--image", "busybox:base") as mnt:
        write_page(mnt, "<h1>one</h1>\n")
        one = images.run("commit", mnt, "busybox:v1", "-m", "a page", "-a", "somebody")
        images.run("image", "tag", "busybox:v1", "busybox")
        images.run("image", "tag", "busybox:v1", "busybox:temporary")
        assert images.run("image", "rm", "busybox:temporary") == "Untagged: busybox:temporary"
        two = images.run("commit", mnt, "busybox:v2", "-c", 'CMD ["httpd","-f","-h","/var/www/"]')
        images.env = {}  # times as they are
        images.run("commit", mnt, "busybox:now")
        same_tree(mnt, unpacked(images, "busybox:now"))
        images.run("image", "rm", "busybox:now")
    assert len({base, one, two}) == 3

    rows = sorted(line.split() for line in images.run("image", "ls").splitlines()[1:])
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("busybox", "base", base[7:19]),
        ("busybox", "latest", one[7:19]),
        ("busybox", "v1", one[7:19]),
        ("busybox", "v2", two[7:19]),
    ]
    inspected = json.loads(images.run("image", "inspect", "busybox:v1", "busybox:v2"))
    assert [image["Id"] for image in inspected] == [one, two]
    assert sorted(inspected[0]["RepoTags"]) == ["busybox:latest", "busybox:v1"]
    assert (inspected[0]["Author"], inspected[0]["Comment"]) == ("somebody", "a page")
    assert inspected[1]["Config"]["Cmd"] == ["httpd", "-f", "-h", "/var/www/"]
    assert "Cmd" not in inspected[0]["Config"]
    # The same changes were committed twice: one layer, two configurations.
    assert inspected[0]["RootFS"] == inspected[1]["RootFS"] and len(inspected[0]["RootFS"]["Layers"]) == 2
    template = "{{.ID}} {{.CreatedBy}}|{{.Comment}}"
    steps = images.run("image", "history", "--no-trunc", "--format", template, "busybox:v1")
    assert steps.splitlines() == [f"{one} unionfs commit|a page", f"<missing> |Imported from {tmp_path}/rootfs.tar"]

    archive = tmp_path / "busybox.tar"
    images.run("image", "save", "-o", archive, "busybox:v1", "busybox:v2")
    with tarfile.open(archive) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert {"oci-layout", "index.json", "manifest.json"} <= set(tar.getnames())
    assert sorted(tag for image in manifest for tag in image["RepoTags"]) == ["busybox:v1", "busybox:v2"]
    assert images.call("image", "save", "busybox:v1", "busybox:v2").out == archive.read_bytes()
    packed = tmp_path / "busybox.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))

    images.run("image", "changes", "--rm", images.run("image", "changes").split("\t")[0])
    for name in ("busybox:v1", "busybox:latest", "busybox:v2", "busybox:base"):
        images.run("image", "rm", name)
    assert images.names() == []
    assert list((images.store / "blobs/sha256").iterdir()) == []

    loaded = images.call("image", "load", stdin=packed.read_bytes())
    assert sorted(loaded.lines) == ["Loaded image: busybox:v1", "Loaded image: busybox:v2"]
    assert sorted(images.names()) == [f"busybox:v1 {one[7:19]}", f"busybox:v2 {two[7:19]}"]
    assert images.run("image", "verify") == ""
    with images.mounted("--image", "busybox:v2") as mnt:
        assert page(mnt) == "<h1>one</h1>\n"
        write_page(mnt, "<h1>two</h1>\n")
        assert page(mnt) == "<h1>two</h1>\n"
    with images.mounted("--image", "busybox:v1", "--ephemeral") as mnt:
        assert page(mnt) == "<h1>one</h1>\n"


def unpacked(images: Images, name: str) -> Path:
    """What umoci makes of an image of ours, in place in the store, where skopeo sees it too."""
    seen = run("skopeo", "inspect", "--config", f"oci:{images.store}:{name}")
    assert json.loads(seen)["rootfs"]["type"] == "layers"
    bundle = images.directory / "bundle"
    run("umoci", "unpack", "--image", f"{images.store}:{name}", str(bundle))
    return bundle / "rootfs"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user can get into, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="unionfs-test-", dir="/var/tmp") as directory:
        yield Path(directory)


@requires("root", "fusermount3")
@pytest.mark.needs_root
@pytest.mark.usefixtures("device_for_all")
def test_all_of_it_as_an_ordinary_user(tmp_path: Path, place: Path) -> None:
    tar = shutil.copy(web_tar(tmp_path, NOBODY), place)
    images = Images(place, user=NOBODY, env={"SOURCE_DATE_EPOCH": EPOCH})
    images.run("image", "import", tar, "busybox:base")
    with images.mounted("--image", "busybox:base") as mnt:
        as_user(NOBODY, f"echo '<h1>mine</h1>' > {mnt}/var/www/index.html && rm {mnt}/etc/passwd")
        one = images.run("commit", mnt, "busybox:v1", "-c", 'CMD ["httpd","-f","-h","/var/www/"]')
    images.run("image", "save", "-o", place / "saved.tar", "busybox:v1")
    images.run("image", "changes", "--rm", images.run("image", "changes").split("\t")[0])
    assert images.run("image", "rm", "busybox:v1").splitlines()[:2] == ["Untagged: busybox:v1", f"Deleted: {one}"]
    assert images.run("image", "load", "-i", place / "saved.tar") == "Loaded image: busybox:v1"
    assert images.run("image", "inspect", "--format", "{{.Id}}", "busybox:v1") == one
    with images.mounted("--image", "busybox:v1") as mnt:
        assert as_user(NOBODY, f"ls {mnt}/etc; cat {mnt}/var/www/index.html") == "<h1>mine</h1>\n"


def as_user(user: int, script: str) -> str:
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return subprocess.run([*who, "sh", "-c", script], check=True, capture_output=True, text=True, timeout=30).stdout


def test_a_mount_of_directories_has_an_image_too(images: Images, tmp_path: Path) -> None:
    for name, file in (("base", "etc/motd"), ("base", "etc/old"), ("top", "srv/page")):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with images.mounted("-l", tmp_path / "top", "-l", tmp_path / "base", "-u", tmp_path / "upper") as mnt:
        (mnt / "etc/old").unlink()
        (mnt / "srv/new").write_text("new")
        images.run("commit", mnt, "stack")
    (image,) = json.loads(images.run("image", "inspect", "stack"))
    assert len(image["RootFS"]["Layers"]) == 3
    assert image["Architecture"] and image["Os"] == "linux"
    with images.mounted("--image", "stack", "--ephemeral") as mnt:
        assert sorted(str(path.relative_to(mnt)) for path in mnt.rglob("*")) == [
            "etc",
            "etc/motd",
            "srv",
            "srv/new",
            "srv/page",
        ]
    lines = images.run("image", "diff", "stack").splitlines()
    assert lines == ["C /etc", "D /etc/old", "C /srv", "A /srv/new"]
