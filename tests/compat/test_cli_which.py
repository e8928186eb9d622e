"""`unionfs which` on a live mount: its layers are those of the record, and what it says is what the mount reads."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from cli import which_schemas as schemas
from tests.compat.real_mount import RealStack, each_transport
from tests.unit.cli_runner import program, refused
from tests.unit.overlay_rig import tree

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def told(stack: RealStack, path: Path) -> schemas.Which:
    return schemas.Which.model_validate_json(stack.unionfs("which", path, "--json"))


@each_transport("devfuse")
def test_which_of_a_live_mount(stack: RealStack) -> None:
    tree(stack.lower(), etc__motd="base", etc__passwd="root", srv__x="x")
    tree(stack.lower(), etc__motd="top")
    os.symlink("etc", stack.layers[0] / "conf")
    top, base = stack.layers
    with stack.mounted() as mnt:
        (mnt / "etc/passwd").unlink()
        os.rename(mnt / "srv", mnt / "www")
        (mnt / "etc/new").write_text("new")

        found = told(stack, mnt / "etc/motd")
        assert found.data is not None and Path(found.data.file) == top / "etc/motd"
        assert found.layers == [str(stack.upper), str(top), str(base)]
        assert [(part.place.layer, part.role) for part in found.parts] == [(1, "wins"), (2, "hidden")]

        deleted = told(stack, mnt / "etc/passwd")
        assert deleted.kind is None
        assert [(part.place.layer, part.role) for part in deleted.parts] == [(0, "whiteout"), (2, "hidden")]

        # A symbolic link on the way is followed, as the kernel does it; one at the end is what is asked about.
        assert told(stack, mnt / "conf/new").path == "etc/new"
        assert told(stack, mnt / "conf").kind == "symlink"
        moved = told(stack, mnt / "www/x")
        assert [part.redirect for part in moved.redirects] == ["srv"]
        assert moved.data is not None and Path(moved.data.file) == base / "srv/x"

        os.symlink(mnt, stack.directory / "alias")
        assert told(stack, stack.directory / "alias").path == ""
        assert stack.unionfs("which", "--all", mnt / "etc").splitlines()[:2] == [
            "file  1 (2)  motd",
            "file  upper  new",
        ]
        refused(program("which", mnt / "etc/nothing"), 1, "no layer has it", "--all")
        refused(program("which", "-l", base, "-w", stack.upper, "etc"), 1, "a work directory without an upper")


@each_transport("devfuse")
def test_a_mount_without_an_upper_has_layers_too(stack: RealStack) -> None:
    base = tree(stack.lower(), etc__motd="base")
    stack.unionfs("mount", "-l", base, stack.mnt)
    try:
        found = told(stack, stack.mnt / "etc/motd")
        assert (found.layers, found.kind) == ([None, str(base)], "file")
    finally:
        stack.unionfs("umount", stack.mnt)


@pytest.mark.parametrize("options", [(), ("-o", "squash_to_uid=7")], ids=["plain", "squashed"])
@each_transport("devfuse")
def test_the_tars_of_a_live_mount_are_told_apart_though_it_has_merged_them(
    stack: RealStack, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIONFS_CACHE", str(stack.directory / "cache"))
    for name, text in (("base", "the base"), ("top", "the top")):
        directory = tree(stack.directory / name, etc__motd=text, **{name: text})
        with tarfile.open(f"{directory}.tar.gz", "w:gz") as tar:
            tar.add(directory, ".")
        stack.layers.insert(0, Path(f"{directory}.tar.gz"))
    with stack.mounted(*options) as mnt:
        for path, number in (("etc/motd", 1), ("base", 2), ("top", 1)):
            found = told(stack, mnt / path)
            assert [part.place.layer for part in found.parts if part.role == "wins"] == [number]
            assert found.data is not None and found.data.offset is not None
            with open(found.data.file, "rb") as file:
                file.seek(found.data.offset)
                assert file.read(found.data.size) == (mnt / path).read_bytes()
