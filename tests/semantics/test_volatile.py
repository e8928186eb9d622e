"""A volatile mount marks its upper. Nobody uses it again without a word from a person: neither we nor the kernel."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.overlay_rig import tree, union
from unionfs.errors import LayerError
from unionfs.linux.mount import MNT_DETACH, mount, umount2
from unionfs.overlay import UnionOptions

VOLATILE = UnionOptions(volatile=True)
MARK = "work/work/incompat/volatile"


def used(base: Path, options: UnionOptions | None = None) -> list[str]:
    """What the union shows, once used with these options."""
    with union(base, [base / "low"], options=options) as u:
        u.create(f"new{len(u.list())}")
        return u.list()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tree(tmp_path / "low", file="data")
    return tmp_path


def test_it_leaves_the_kernels_mark(base: Path) -> None:
    used(base, VOLATILE)
    assert os.listdir(base / MARK) == ["dirty"]


def test_another_mount_leaves_none(base: Path) -> None:
    used(base)
    assert os.listdir(base / "work/work") == []
    assert used(base) == ["file", "new1", "new2"]


@pytest.mark.parametrize("options", [UnionOptions(), VOLATILE], ids=["plain", "volatile"])
def test_its_upper_is_refused_and_stays_as_it_was(base: Path, options: UnionOptions) -> None:
    used(base, VOLATILE)
    (base / "work/work/#1").touch()
    with pytest.raises(LayerError, match=r"last used by a volatile mount") as refused:
        used(base, options)
    assert refused.value.hint is not None
    assert "--force" in refused.value.hint and str(base / MARK) in refused.value.hint
    assert sorted(os.listdir(base / "work/work")) == ["#1", "incompat"]
    assert os.listdir(base / "upper") == ["new1"]


def test_force_uses_it_and_takes_the_mark_away(base: Path) -> None:
    used(base, VOLATILE)
    assert used(base, UnionOptions(force=True)) == ["file", "new1", "new2"]
    assert not (base / MARK).exists()
    used(base)


def test_forced_and_volatile_again_it_is_marked_again(base: Path) -> None:
    used(base, VOLATILE)
    used(base, UnionOptions(volatile=True, force=True))
    with pytest.raises(LayerError):
        used(base)


def test_without_the_mark_it_is_an_upper_like_any_other(base: Path) -> None:
    """containers/storage removes this very directory before each mount."""
    for _ in range(2):
        used(base, VOLATILE)
        shutil.rmtree(base / MARK)
    used(base)
    assert os.listdir(base / "work/work") == []


def test_it_can_be_looked_at(base: Path) -> None:
    """A volatile container is committed after it was unmounted."""
    used(base, VOLATILE)
    with union(base, [base / "low"], options=UnionOptions(read_only=True)) as u:
        assert u.list() == ["file", "new1"]
    assert (base / MARK).exists()


def test_a_feature_of_the_future_is_refused_with_force_too(base: Path) -> None:
    used(base, VOLATILE)
    (base / "work/work/incompat/gravity").mkdir()
    for force in (False, True):
        with pytest.raises(LayerError, match="needs 'gravity'"):
            used(base, UnionOptions(force=force))
    assert (base / MARK).exists()


def test_what_is_no_directory_is_debris(base: Path) -> None:
    used(base)
    (base / "work/work/incompat").touch()
    used(base, VOLATILE)
    assert (base / MARK / "dirty").exists()


# the kernel -----------------------------------------------------------------------------------------------------------
@contextmanager
def kernel(base: Path, options: str = "") -> Iterator[Path]:
    mnt = base / "mnt"
    mnt.mkdir(exist_ok=True)
    data = f"lowerdir={base}/low,upperdir={base}/upper,workdir={base}/work{options}"
    mount(b"overlay", os.fsencode(mnt), b"overlay", 0, data.encode())
    try:
        yield mnt
    finally:
        umount2(os.fsencode(mnt), MNT_DETACH)


@pytest.fixture
def on_tmpfs(base: Path) -> Iterator[Path]:
    """The same on a file system of which the kernel's overlayfs takes an upper."""
    place = base / "place"
    place.mkdir()
    mount(b"unionfs-tests", os.fsencode(place), b"tmpfs", 0, None)
    try:
        tree(place / "low", file="data")
        yield place
    finally:
        umount2(os.fsencode(place), MNT_DETACH)


@requires("root", "overlayfs")
def test_the_kernel_refuses_what_we_have_marked(on_tmpfs: Path) -> None:
    used(on_tmpfs, VOLATILE)
    with pytest.raises(OSError) as refused, kernel(on_tmpfs):
        pass
    assert refused.value.errno == errno.EINVAL
    shutil.rmtree(on_tmpfs / MARK)
    with kernel(on_tmpfs) as mnt:
        assert sorted(os.listdir(mnt)) == ["file", "new1"]


@requires("root", "overlayfs")
def test_we_refuse_what_the_kernel_has_marked(on_tmpfs: Path) -> None:
    for name in ("upper", "work"):
        (on_tmpfs / name).mkdir()
    with kernel(on_tmpfs, ",volatile") as mnt:
        (mnt / "made").touch()
    with pytest.raises(LayerError, match="volatile"):
        used(on_tmpfs)
    assert used(on_tmpfs, UnionOptions(force=True)) == ["file", "made", "new2"]
    with kernel(on_tmpfs) as mnt:
        assert sorted(os.listdir(mnt)) == ["file", "made", "new2"]
