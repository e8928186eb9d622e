"""`unionfs mount --image`, and images as layers of mounts: what is kept, what is in use, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli import schemas
from tests.compat.image_rig import EPOCH, Images
from tests.requirements import requires
from tests.unit.cli_images import tar_of
from tests.unit.cli_runner import Ran, refused
from unionfs import api

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    made = Images(tmp_path, env={"SOURCE_DATE_EPOCH": EPOCH})
    made.run("image", "import", "-", "base:1", stdin=tar_of({"etc/motd": b"hello", "base": b""}))
    return made


def kept(images: Images) -> list[schemas.Kept]:
    return [schemas.Kept.model_validate(one) for one in json.loads(images.run("image", "changes", "--json"))]


def id_of(images: Images, name: str) -> str:
    return images.run("image", "inspect", "-f", "{{.Id}}", name)


def test_changes_are_kept_for_the_next_mount_of_the_image(images: Images) -> None:
    with images.mounted("--image", "base:1") as mnt:
        (mnt / "etc/motd").write_text("changed")
        (one,) = kept(images)
        assert (one.image, one.mountpoint) == (id_of(images, "base:1"), str(mnt))
        assert Path(one.upper) == images.store / "mounts" / one.name / "upper"
        assert images.run("image", "changes") == f"{one.name}\t{one.image}\t{mnt}"
        (status,) = json.loads(images.run("mounts", "--json"))
        assert status["upper"] == one.upper and status["options"] == {}
    assert [one.mountpoint for one in kept(images)] == [None]
    with images.mounted("--image", "base:1") as mnt:
        assert (mnt / "etc/motd").read_text() == "changed"
    images.run("image", "changes", "--rm", one.name)
    assert kept(images) == [] and not Path(one.upper).exists()
    with images.mounted("--image", "base:1") as mnt:
        assert (mnt / "etc/motd").read_text() == "hello"


def test_nobody_waits_for_a_commit_of_a_mount_which_keeps_its_image(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.run("image", "import", "-", "other:1", stdin=tar_of({"other": b"other"}))
    for name in ("UNIONFS_STORE", "UNIONFS_CACHE", "UNIONFS_RUNTIME_DIR"):
        monkeypatch.setenv(name, images.environment[name])
    meanwhile: list[Ran] = []

    def remove_others(done: int) -> None:
        if not meanwhile:
            meanwhile.extend(images.call("image", "rm", name) for name in ("other:1", "base:1"))
            images.run("image", "prune", "-af")

    with images.mounted("--image", "base:1") as mnt:
        (mnt / "etc/motd").write_text("changed")
        api.commit_image(api.image_store(), "new:1", mnt, progress=remove_others)
    assert meanwhile[0].out.startswith(b"Untagged: other:1\n")
    refused(meanwhile[1], 1, "is using its referenced image", "unmount it first")
    assert [line.partition(" ")[0] for line in images.names()] == ["new:1", "base:1"]
    assert images.run("image", "verify") == ""


def test_names_tell_changes_of_one_image_apart(images: Images) -> None:
    for name in ("one", "two"):
        with images.mounted("--image", "base:1", "--name", name) as mnt:
            assert (mnt / "etc/motd").read_text() == "hello"
            (mnt / "etc/motd").write_text(name)
    assert [one.name for one in kept(images)] == ["one", "two"]
    with images.mounted("--image", "base:1", "--name", "two") as mnt:
        assert (mnt / "etc/motd").read_text() == "two"


def test_nothing_is_kept_of_what_need_not_be(images: Images, tmp_path: Path) -> None:
    with images.mounted("--image", "base:1", "--ephemeral") as mnt:
        (mnt / "etc/motd").write_text("changed")
    with images.mounted("--image", "base:1", "--read-only") as mnt, pytest.raises(OSError, match="Read-only"):
        (mnt / "etc/motd").write_text("changed")
    with images.mounted("--image", "base:1", "-u", tmp_path / "upper") as mnt:
        (mnt / "etc/motd").write_text("changed")
    assert (tmp_path / "upper/etc/motd").read_text() == "changed"
    assert kept(images) == []


def test_prune_removes_what_was_unpacked_of_archives_but_what_a_mount_uses(images: Images, tmp_path: Path) -> None:
    images.run("image", "save", "-o", tmp_path / "a.tar", "base:1")
    with images.mounted("-l", f"docker-archive:{tmp_path}/a.tar", "--ephemeral") as mnt:
        images.run("image", "prune", "-f")
        assert (mnt / "etc/motd").read_text() == "hello"
        assert images.run("image", "prune", "-f") == "Total reclaimed space: 0B"
    assert images.run("image", "prune", "-f") != "Total reclaimed space: 0B"
    assert images.run("image", "prune", "-f") == "Total reclaimed space: 0B"
    with images.mounted("-l", f"docker-archive:{tmp_path}/a.tar", "--ephemeral") as mnt:
        assert (mnt / "etc/motd").read_text() == "hello"


@pytest.mark.needs_root  # who may not freeze others is warned
@requires("root")
def test_the_image_is_of_one_moment_unless_told_otherwise(images: Images) -> None:
    with images.mounted("--image", "base:1", "--ephemeral") as mnt:
        (mnt / "new").touch()
        paused, going = (
            schemas.CommittedImage.model_validate_json(images.run("commit", mnt, "app", "--json", pause))
            for pause in ("--pause", "--no-pause")
        )
    assert paused.held_seconds is not None and going.held_seconds is None
    assert paused.id == going.id


def test_an_image_below_other_layers(images: Images, tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top/top").touch()
    (tmp_path / "app.tar").write_bytes(tar_of({"app": b""}))
    names = ["app", "base", "etc", "top"]
    with images.mounted("-l", tmp_path / "top", "-l", tmp_path / "app.tar", "--image", "base:1", "--ephemeral") as mnt:
        assert sorted(path.name for path in mnt.iterdir()) == names
    images.run("image", "save", "--format", "oci-dir", "-o", tmp_path / "layout", "base:1")
    layers = ("-l", tmp_path / "top", "-l", tmp_path / "app.tar", "-l", f"oci:{tmp_path}/layout")
    with images.mounted(*layers, "-u", tmp_path / "upper") as mnt:
        assert sorted(path.name for path in mnt.iterdir()) == names
        (mnt / "new").touch()
        assert images.run("diff", mnt) == "A /new"
        images.run("commit", mnt, "all")
    assert images.run("image", "verify") == ""
    with images.mounted("--image", "all", "--read-only") as mnt:
        assert sorted(path.name for path in mnt.iterdir()) == sorted([*names, "new"])


def test_an_image_in_use_is_not_removed(images: Images) -> None:
    id = id_of(images, "base:1")
    with images.mounted("--image", "base:1") as mnt:
        for name in ("base:1", id):
            refused(images.call("image", "rm", name), 1, f"the mount on {mnt}", "unmount it first")
        assert images.run("image", "prune", "-a", "-f") == "Total reclaimed space: 0B"
        assert (mnt / "etc/motd").read_text() == "hello"
        rm = images.call("image", "changes", "--rm", kept(images)[0].name)
        refused(rm, 1, f"are of the mount on {mnt}", f"unionfs umount {mnt}")
    (one,) = kept(images)
    refused(images.call("image", "rm", "base:1"), 1, f"what is kept as {one.name}", f"--rm {one.name}")
    images.run("image", "changes", "--rm", one.name)
    assert images.run("image", "rm", "base:1").splitlines()[:2] == ["Untagged: base:1", f"Deleted: {id}"]


def test_a_layer_of_a_mount_is_in_use_too(images: Images, tmp_path: Path) -> None:
    with images.mounted("-l", "base:1", "-u", tmp_path / "upper") as mnt:
        refused(images.call("image", "rm", "base:1"), 1, f"the mount on {mnt}", "unmount it first")


def test_by_force_the_name_goes_and_the_mount_goes_on(images: Images) -> None:
    id = id_of(images, "base:1")
    with images.mounted("--image", "base:1", "--ephemeral") as mnt:
        assert images.run("image", "rm", "-f", "base:1") == "Untagged: base:1"
        (mnt / "new").write_text("new")
        images.run("commit", mnt, "app")
        assert (mnt / "etc/motd").read_text() == "hello"
    assert images.run("image", "prune", "-f").splitlines()[:2] == ["Deleted Images:", f"deleted: {id}"]
    assert images.names() == [f"app:latest {id_of(images, 'app')[7:19]}"]
    assert images.run("image", "verify") == ""


def test_a_base_that_was_lost_is_named_and_the_layer_can_be_had(images: Images, tmp_path: Path) -> None:
    id = id_of(images, "base:1")
    with images.mounted("-l", "base:1", "-u", tmp_path / "upper") as mnt:
        shutil.rmtree(images.store)
        (mnt / "new").write_text((mnt / "etc/motd").read_text())
        refused(
            images.call("commit", mnt, "app"), 1, f"{id}, the image that this is made of, is not in", "load it again"
        )
        assert images.names() == []


def test_a_crash_before_the_record_leaves_a_place_that_is_begun_anew(images: Images) -> None:
    with images.mounted("--image", "base:1", "--name", "it"):
        pass
    record = images.store / "mounts/it/mount.json"
    record.unlink()
    assert kept(images) == []
    images.run("image", "tag", "base:1", "app")
    with images.mounted("--image", "base:1", "--name", "it"):
        assert [one.name for one in kept(images)] == ["it"]


def test_what_cannot_be_mounted_is_refused(images: Images, tmp_path: Path) -> None:
    mnt = tmp_path / "mnt"
    mnt.mkdir()

    def mount(*argv: str | Path, status: int = 1, error: str, hint: str) -> None:
        refused(images.call("mount", *argv, mnt), status, error, hint)

    mount("--image", "nonsuch", error="No such image: nonsuch:latest", hint="unionfs image ls")
    mount("--image", "base:1", "--name", "../x", error="'../x' is no name for changes", hint="letters")
    mount("--image", "base:1", "--name", "x", "--ephemeral", status=2, error="a name is for changes", hint="--name")
    mount(
        "--image",
        "base:1",
        "--platform",
        "linux/s390x",
        error="does not provide the specified platform",
        hint="there is",
    )
    images.run("image", "import", "-", "other", stdin=tar_of({"other": b""}))
    with images.mounted("--image", "base:1"):
        pass
    name = kept(images)[0].name
    mount("--image", "other", error=f"the changes kept as {name} are of another image", hint=f"--rm {name}")
    with images.mounted("--image", "base:1", "--name", "mine"):
        pass
    mount("--image", "other", "--name", "mine", error="the changes kept as mine are of another image", hint="--rm mine")
