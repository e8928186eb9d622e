"""Converted layers as others see them: the kernel's overlayfs and fuse-overlayfs show the same tree as before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.golden.trees import describe
from tests.requirements import requires
from tests.rigs import run
from tests.unit.upkeep_rig import store
from unionfs.api import MountError, check, convert
from unionfs.upkeep.convert import Encoding

pytestmark = [pytest.mark.peer, pytest.mark.needs_root, requires("root", "overlayfs")]

BASE = ("data d/x below", "data d/y below", "data d/sub/z below", "data f below", "data e/x below", "data m/x below")
CHANGES = (
    "rm f; rm d/x; echo new > d/new; rm d/sub/z; rm -r e; mkdir e; echo new > e/new; "
    "echo more >> d/y; rm -r m; echo file > m; mkdir n; echo n > n/n"
)


@contextmanager
def mounted(mnt: Path, *options: str) -> Iterator[Path]:
    mnt.mkdir(exist_ok=True)
    run("mount", "-t", "overlay", "overlay", "-o", ",".join(options), str(mnt))
    try:
        yield mnt
    finally:
        run("umount", str(mnt))


@contextmanager
def fuse_overlayfs(mnt: Path, *options: str) -> Iterator[Path]:
    mnt.mkdir(exist_ok=True)
    run("fuse-overlayfs", "-o", ",".join(options), str(mnt))
    try:
        yield mnt
    finally:
        run("umount", str(mnt))


@pytest.fixture(params=["trusted", "user"])
def upper(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An upper that the kernel has written, over `base`, and the same as a read-only layer."""
    store(tmp_path / "base", *BASE)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    with mounted(tmp_path / "mnt", *over(tmp_path), *words(request.param)) as mnt:
        subprocess.run(["sh", "-ec", CHANGES], cwd=mnt, check=True)
    return tmp_path / "upper"


def over(tmp_path: Path) -> tuple[str, ...]:
    return (f"lowerdir={tmp_path / 'base'}", f"upperdir={tmp_path / 'upper'}", f"workdir={tmp_path / 'work'}")


def words(namespace: str) -> tuple[str, ...]:
    return ("userxattr",) if namespace == "user" else ()


def namespace_of(upper: Path) -> str:
    return "user" if any(name.startswith("user.overlay.") for name in os.listxattr(upper / "d")) else "trusted"


def test_the_kernels_own_upper_is_sound(upper: Path) -> None:
    base = upper.parent / "base"
    assert check(upper, work=upper.parent / "work", layers=[base]).findings == ()


def test_the_kernel_shows_xattr_whiteouts_as_it_showed_devices(upper: Path, tmp_path: Path) -> None:
    option = words(namespace_of(upper))
    layers = f"lowerdir={upper}:{tmp_path / 'base'}"
    with mounted(tmp_path / "mnt", layers, *option) as mnt:
        before = describe(mnt)
    assert convert(upper, "xattr").steps > 0
    assert not any(path.is_char_device() for path in upper.rglob("*"))
    with mounted(tmp_path / "mnt", layers, *option) as mnt:
        assert describe(mnt) == before
    convert(upper, "kernel")
    with mounted(tmp_path / "mnt", layers, *option) as mnt:
        assert describe(mnt) == before


@pytest.mark.parametrize("through", ["aufs", "fuse-overlayfs"])
def test_an_upper_comes_back_to_the_kernel(upper: Path, tmp_path: Path, through: Encoding) -> None:
    option = (*over(tmp_path), *words(namespace_of(upper)))
    with mounted(tmp_path / "mnt", *option) as mnt:
        before = describe(mnt)
    assert convert(upper, through, work=tmp_path / "work").steps > 0
    assert convert(upper, "kernel", work=tmp_path / "work").steps > 0
    with mounted(tmp_path / "mnt", *option) as mnt:
        assert describe(mnt) == before


def test_an_upper_with_redirects_and_an_index_changes_its_namespace(tmp_path: Path) -> None:
    store(tmp_path / "base", *BASE, "data one linked", "link one two", "link one d/three")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    option = (*over(tmp_path), "redirect_dir=on", "index=on", "metacopy=on")
    with mounted(tmp_path / "mnt", *option) as mnt:
        subprocess.run(
            ["sh", "-ec", "mv d moved; echo more >> one; chmod 600 f; rm moved/x; rm two"], cwd=mnt, check=True
        )
        before = describe(mnt)
    assert check(tmp_path / "upper", work=tmp_path / "work", layers=[tmp_path / "base"]).findings == ()
    convert(tmp_path / "upper", "kernel", xattrs="user", work=tmp_path / "work")
    named = {name for path in (tmp_path / "upper").rglob("*") for name in os.listxattr(path, follow_symlinks=False)}
    assert "user.overlay.redirect" in named and not any(name.startswith("trusted.overlay.") for name in named)
    convert(tmp_path / "upper", "kernel", xattrs="trusted", work=tmp_path / "work")
    with mounted(tmp_path / "mnt", *option) as mnt:
        assert describe(mnt) == before
    assert check(tmp_path / "upper", work=tmp_path / "work", layers=[tmp_path / "base"]).findings == ()


@pytest.mark.needs_fuse
@requires("fuse", "fuse-overlayfs")
@pytest.mark.parametrize("encoding", ["aufs", "fuse-overlayfs", "kernel"])
def test_fuse_overlayfs_shows_what_the_kernel_showed(upper: Path, tmp_path: Path, encoding: Encoding) -> None:
    layers = f"lowerdir={upper}:{tmp_path / 'base'}"
    with mounted(tmp_path / "mnt", layers, *words(namespace_of(upper))) as mnt:
        before = describe(mnt)
    convert(upper, encoding)
    with fuse_overlayfs(tmp_path / "mnt", layers) as mnt:
        assert describe(mnt) == before


@pytest.mark.needs_fuse
@requires("fuse", "fuse-overlayfs")
def test_what_fuse_overlayfs_wrote_becomes_the_kernels(tmp_path: Path) -> None:
    store(tmp_path / "base", *BASE)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    with fuse_overlayfs(tmp_path / "mnt", *over(tmp_path)) as mnt:
        subprocess.run(["sh", "-ec", CHANGES], cwd=mnt, check=True)
    with fuse_overlayfs(tmp_path / "mnt", *over(tmp_path)) as mnt:  # anew: times that it caches are not those it stores
        before = describe(mnt)
    assert (tmp_path / "upper/e/.wh..opq").is_char_device()  # its debris
    convert(tmp_path / "upper", "kernel")
    with mounted(tmp_path / "mnt", f"lowerdir={tmp_path / 'upper'}:{tmp_path / 'base'}") as mnt:
        assert describe(mnt) == before


def test_the_kernel_lists_xattr_whiteouts_of_an_upper(tmp_path: Path) -> None:
    """Why `convert` refuses them there."""
    store(tmp_path / "base", *BASE)
    store(tmp_path / "upper", "dir d trusted.overlay.opaque=x", "file d/x trusted.overlay.whiteout=")
    (tmp_path / "work").mkdir()
    with mounted(tmp_path / "mnt", *over(tmp_path)) as mnt:
        assert "x" in os.listdir(mnt / "d") and not (mnt / "d/x").exists()


def test_a_mount_of_the_kernel_is_in_use(tmp_path: Path) -> None:
    store(tmp_path / "base", *BASE, "file .wh.")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    with mounted(tmp_path / "mnt", *over(tmp_path)):
        for directory in ("upper", "base"):
            with pytest.raises(MountError, match="is used by another live mount: kernel overlay"):
                check(tmp_path / directory, work=tmp_path / "work" if directory == "upper" else None, repair=True)
    assert check(tmp_path / "base", repair=True).clean
