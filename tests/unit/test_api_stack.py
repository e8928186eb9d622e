"""`Stack`: what it makes, keeps and removes around the tree; copies in and out; diff and commit in process."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from pathlib import Path

import pytest

from unionfs import api
from unionfs.api import LayerError, Stack
from unionfs.vfs import Caller


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    for name, text in (("top", "top"), ("base", "base")):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc/conf").write_text(text)
    (tmp_path / "base/etc/motd").write_text("welcome\n")
    return [tmp_path / "top", tmp_path / "base"]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_topmost_layer_wins(layers: list[Path]) -> None:
    with Stack(layers) as stack:
        assert stack.read_text("etc/conf") == "top" and sorted(stack.listdir("etc")) == ["conf", "motd"]
    with Stack(reversed(layers)) as stack:
        assert stack.read_text("etc/conf") == "base"


def test_without_an_upper_changes_are_erofs(layers: list[Path]) -> None:
    with Stack(layers) as stack:
        for change in (lambda: stack.write_text("new", ""), lambda: stack.unlink("etc/conf"), lambda: stack.mkdir("d")):
            with pytest.raises(OSError) as caught:
                change()
            assert caught.value.errno == errno.EROFS


def test_upper_and_work_are_made_and_the_changes_stay(layers: list[Path], tmp_path: Path) -> None:
    with Stack(layers, tmp_path / "upper") as stack:
        stack.write_text("new", "new")
    assert stat.S_IMODE((tmp_path / "upper").stat().st_mode) & 0o777 == 0o755
    assert (tmp_path / "upper/new").read_text() == "new" and (tmp_path / "upper.work").is_dir()
    with Stack(layers, tmp_path / "upper") as stack:
        assert stack.read_text("new") == "new"


def test_read_only_shows_the_upper_and_makes_nothing(layers: list[Path], tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="does not exist"):
        Stack(layers, tmp_path / "upper", read_only=True)
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/new").touch()
    with Stack(layers, tmp_path / "upper", read_only=True) as stack:
        assert stack.exists("new")
        with pytest.raises(OSError, match="Read-only"):
            stack.unlink("new")
    assert not (tmp_path / "upper.work").exists()


def test_ephemeral_changes_are_gone_with_the_stack(layers: list[Path]) -> None:
    with Stack(layers, ephemeral=True) as stack:
        stack.makedirs("a/b")
        stack.chmod("a/b", 0)
        stack.write_text("etc/conf", "changed")
        temporary = stack.spec.temporary
        assert temporary is not None and stack.read_text("etc/conf") == "changed"
    assert not os.path.exists(temporary)
    assert (layers[0] / "etc/conf").read_text() == "top"


def test_the_temporary_directory_lies_outside_of_the_layers(
    layers: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(layers[0]))
    with Stack(layers, ephemeral=True) as stack:
        assert stack.spec.temporary is not None and not stack.spec.temporary.startswith(os.fsencode(layers[0]))


def test_close_is_idempotent_and_gives_everything_back(layers: list[Path], tmp_path: Path) -> None:
    before = descriptors()
    stack = Stack(layers, tmp_path / "upper")
    stack.write_text("a", "b")
    list(stack.walk())
    stack.close()
    stack.close()
    assert descriptors() == before


def test_a_stack_that_cannot_be_opened_leaves_nothing_open(layers: list[Path], tmp_path: Path) -> None:
    (tmp_path / "upper.work").mkdir()
    (tmp_path / "upper.work/work").write_text("a file where the engine wants a directory")
    before = descriptors()
    with pytest.raises((OSError, api.UnionFSError)):
        Stack(layers, tmp_path / "upper")
    assert descriptors() == before


def test_two_hundred_layers(tmp_path: Path) -> None:
    layers = []
    for n in range(200):
        layers.append(tmp_path / f"layer{n}")
        layers[-1].mkdir()
        (layers[-1] / f"file{n}").touch()
        (layers[-1] / "shared").write_text(str(n))
    with Stack(layers, tmp_path / "upper") as stack:
        assert len(stack.listdir()) == 201 and stack.read_text("shared") == "0"


@pytest.mark.needs_root
def test_what_is_created_belongs_to_the_caller(layers: list[Path], tmp_path: Path) -> None:
    with Stack(layers, tmp_path / "upper", caller=Caller(1234, 5678, 0, 0o077)) as stack:
        stack.write_text("new", "")
        st = stack.stat("new")
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1234, 5678, 0o600)


def test_diff_sees_what_was_just_written_and_commit_holds_it(layers: list[Path], tmp_path: Path) -> None:
    with Stack(layers, tmp_path / "upper") as stack:
        stack.unlink("etc/motd")
        stack.write_text("etc/conf", "changed")
        assert [change.text() for change in stack.diff()] == ["C /etc", "C /etc/conf", "D /etc/motd"]
        result = stack.commit(tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as tar:
        assert tar.getnames() == [".", "etc", "etc/.wh.motd", "etc/conf"]
    again = api.commit(layers=layers, upper=tmp_path / "upper", output=tmp_path / "again.tar")
    assert (again.digest, again.entries) == (result.digest, 4)


def test_diff_without_an_upper_is_refused(layers: list[Path]) -> None:
    with Stack(layers) as stack, pytest.raises(LayerError, match="no upper"):
        stack.diff()


# copies ---------------------------------------------------------------------------------------------------------------
def grove(root: Path) -> None:
    """A tree with something of everything that an ordinary user may make."""
    (root / "dir").mkdir(parents=True)
    (root / "dir/file").write_bytes(os.urandom(70_000))
    (root / "dir/link").symlink_to("/nowhere")
    os.mkfifo(root / "pipe", 0o640)
    (root / "suid").touch()
    (root / "suid").chmod(0o4755)
    os.setxattr(root / "suid", "user.colour", b"green")
    for path in (root / "dir/file", root / "dir", root):
        os.utime(path, ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))


def described(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([root, *root.rglob("*")]):
        st = path.lstat()
        content: object = None
        if stat.S_ISREG(st.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(st.st_mode):
            content = os.readlink(path)
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        mtime = None if stat.S_ISLNK(st.st_mode) else st.st_mtime_ns
        found[str(path.relative_to(root))] = (st.st_mode, st.st_uid, st.st_gid, mtime, content, xattrs)
    return found


def test_a_tree_copied_in_and_out_again_is_the_same(layers: list[Path], tmp_path: Path) -> None:
    grove(tmp_path / "grove")
    with Stack(layers, tmp_path / "upper") as stack:
        stack.copy_in(tmp_path / "grove", "copy")
        stack.copy_out("copy", tmp_path / "back")
        with pytest.raises(FileExistsError):
            stack.copy_in(tmp_path / "grove", "copy")
        with pytest.raises(FileExistsError):
            stack.copy_out("copy", tmp_path / "back")
    assert described(tmp_path / "back") == described(tmp_path / "grove")


@pytest.mark.needs_root
def test_owners_and_devices_are_copied(layers: list[Path], tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(tmp_path / "null", 12, 34)
    with Stack(layers, tmp_path / "upper") as stack:
        stack.copy_in(tmp_path / "null", "null")
        stack.copy_out("null", tmp_path / "back")
    st = (tmp_path / "back").stat()
    assert (st.st_uid, st.st_gid, st.st_rdev) == (12, 34, os.makedev(1, 3)) and stat.S_ISCHR(st.st_mode)


# names ----------------------------------------------------------------------------------------------------------------
def test_every_public_name_of_the_api_is_there() -> None:
    assert [name for name in api.__all__ if getattr(api, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = api.nonsense


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_of_what_is_copied_up_are_those_below_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    base = tmp_path / "base"
    (base / "tmp").mkdir(parents=True)
    (base / "tmp/file").write_text("one")
    (base / "tmp").chmod(0o1777)
    (base / "tmp/file").chmod(0o666)
    before = os.umask(umask)
    try:
        with Stack([base], upper=tmp_path / "upper") as stack:
            stack.write_text("tmp/file", "two")
            stack.write_text("tmp/new", "new")
            stack.mkdir("tmp/below")
            modes = [stat.S_IMODE(stack.stat(name).st_mode) for name in ("tmp", "tmp/file", "tmp/new", "tmp/below")]
    finally:
        os.umask(before)
    assert modes == [0o1777, 0o666, 0o666 & ~umask, 0o777 & ~umask]
    assert stat.S_IMODE((tmp_path / "upper/tmp").stat().st_mode) == 0o1777
