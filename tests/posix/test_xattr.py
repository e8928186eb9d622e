"""Extended attributes: names, flags, sizes, symbolic links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.tools import as_user, expect, opened
from tests.rigs import Mounted


def lower_tree(d: Path) -> None:
    (d / "file").write_bytes(b"data")
    (d / "dir").mkdir()
    for name in ("file", "dir"):
        os.setxattr(d / name, "user.old", b"lower value")
        os.setxattr(d / name, "user.other", b"")
    (d / "link").symlink_to("file")


def user_names(path: Path) -> set[str]:
    """The user.* names; a file system under test may have others of its own (security.selinux)."""
    return {name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")}


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("name", ["file", "dir"])
def test_old_attributes_are_read_and_listed(mnt: Path, name: str) -> None:
    assert user_names(mnt / name) == {"user.old", "user.other"}
    assert os.getxattr(mnt / name, "user.old") == b"lower value"
    assert os.getxattr(mnt / name, "user.other") == b""


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("name", ["file", "dir"])
def test_set_replace_and_remove(mnt: Path, name: str) -> None:
    path = mnt / name
    os.setxattr(path, "user.new", b"1")
    os.setxattr(path, "user.old", b"2")
    os.removexattr(path, "user.other")
    assert user_names(path) == {"user.new", "user.old"}
    assert os.getxattr(path, "user.new") == b"1"
    assert os.getxattr(path, "user.old") == b"2"
    with expect(errno.ENODATA):
        os.getxattr(path, "user.other")
    with expect(errno.ENODATA):
        os.removexattr(path, "user.other")


@pytest.mark.populate(base=lower_tree)
def test_attributes_survive_other_changes(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"changed")
    os.chmod(mnt / "dir", 0o700)
    os.rename(mnt / "file", mnt / "dir" / "moved")
    assert os.getxattr(mnt / "dir" / "moved", "user.old") == b"lower value"
    assert user_names(mnt / "dir") == {"user.old", "user.other"}


@pytest.mark.populate(base=lower_tree)
def test_flags_create_and_replace(mnt: Path) -> None:
    with expect(errno.EEXIST):
        os.setxattr(mnt / "file", "user.old", b"x", os.XATTR_CREATE)
    with expect(errno.ENODATA):
        os.setxattr(mnt / "file", "user.no", b"x", os.XATTR_REPLACE)
    os.setxattr(mnt / "file", "user.no", b"x", os.XATTR_CREATE)
    os.setxattr(mnt / "file", "user.old", b"y", os.XATTR_REPLACE)
    assert os.getxattr(mnt / "file", "user.no") == b"x"
    assert os.getxattr(mnt / "file", "user.old") == b"y"


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("size", [0, 1, 255, 2000])
def test_values_are_bytes_of_any_size(mnt: Path, size: int) -> None:
    value = bytes(i % 256 for i in range(size))
    os.setxattr(mnt / "file", "user.big", value)
    assert os.getxattr(mnt / "file", "user.big") == value


def test_value_of_64_kib_where_the_storage_can(mnt: Path, mounted: Mounted) -> None:
    (mnt / "f").write_bytes(b"")
    value = os.urandom(65536)
    probe = mounted.directory / "probe"
    probe.write_bytes(b"")
    try:
        os.setxattr(probe, "user.big", value)
    except OSError as e:  # ext4 holds one block: the mount must say the same
        with expect(e.errno or 0):
            os.setxattr(mnt / "f", "user.big", value)
        return
    os.setxattr(mnt / "f", "user.big", value)
    assert os.getxattr(mnt / "f", "user.big") == value
    assert "user.big" in os.listxattr(mnt / "f")


def test_value_over_64_kib_is_e2big_and_name_over_255_erange(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"")
    with expect(errno.E2BIG):
        os.setxattr(mnt / "f", "user.big", bytes(65537))
    with expect(errno.ERANGE):
        os.setxattr(mnt / "f", "user." + "n" * 251, b"x")
    os.setxattr(mnt / "f", "user." + "n" * 250, b"x")
    assert os.getxattr(mnt / "f", "user." + "n" * 250) == b"x"


def test_many_names_are_all_listed(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"")
    wanted = {f"user.name{i:03d}" for i in range(50)}
    for name in wanted:
        os.setxattr(mnt / "f", name, name.encode())
    assert user_names(mnt / "f") == wanted
    assert all(os.getxattr(mnt / "f", name) == name.encode() for name in wanted)


@pytest.mark.populate(base=lower_tree)
def test_unknown_namespace_is_eopnotsupp(mnt: Path) -> None:
    for name in ("nonsense.x", "user"):
        with expect(errno.EOPNOTSUPP):
            os.setxattr(mnt / "file", name, b"x")
        with expect(errno.EOPNOTSUPP):
            os.getxattr(mnt / "file", name)


@pytest.mark.populate(base=lower_tree)
def test_user_attribute_on_a_symlink_is_eperm(mnt: Path) -> None:
    with expect(errno.EPERM):
        os.setxattr(mnt / "link", "user.x", b"1", follow_symlinks=False)
    assert user_names(mnt / "link") == set()


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_trusted_attribute_on_a_symlink_is_the_link_s_own(mnt: Path) -> None:
    os.setxattr(mnt / "link", "trusted.x", b"1", follow_symlinks=False)
    assert os.getxattr(mnt / "link", "trusted.x", follow_symlinks=False) == b"1"
    assert "trusted.x" in os.listxattr(mnt / "link", follow_symlinks=False)
    with expect(errno.ENODATA):
        os.getxattr(mnt / "file", "trusted.x")
    assert os.readlink(mnt / "link") == "file"
    os.removexattr(mnt / "link", "trusted.x", follow_symlinks=False)
    with expect(errno.ENODATA):
        os.getxattr(mnt / "link", "trusted.x", follow_symlinks=False)


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_trusted_attributes_are_root_s(mnt: Path) -> None:
    os.setxattr(mnt / "file", "trusted.x", b"1")
    os.chmod(mnt / "file", 0o666)
    assert "trusted.x" in os.listxattr(mnt / "file")
    with expect(errno.ENODATA):
        as_user(lambda: os.getxattr(mnt / "file", "trusted.x"))
    with expect(errno.EPERM):
        as_user(lambda: os.setxattr(mnt / "file", "trusted.x", b"2"))


@pytest.mark.needs_root
@pytest.mark.needs("trusted_hidden")
@pytest.mark.populate(base=lower_tree)
def test_names_of_trusted_attributes_are_hidden_from_users(mnt: Path) -> None:
    os.setxattr(mnt / "file", "trusted.x", b"1")
    assert "trusted.x" not in as_user(lambda: os.listxattr(mnt / "file"))


@pytest.mark.needs_root
@pytest.mark.populate(base=lower_tree)
def test_user_attributes_need_the_file_s_permissions(mnt: Path) -> None:
    os.chmod(mnt / "file", 0o600)
    for act in (
        lambda: os.setxattr(mnt / "file", "user.x", b"1"),
        lambda: os.removexattr(mnt / "file", "user.old"),
    ):
        with expect(errno.EACCES):
            as_user(act)
    with expect(errno.EACCES):
        as_user(lambda: os.getxattr(mnt / "file", "user.old"))


def test_absolute_symlink_into_the_mount_does_not_hang_attribute_calls(mnt: Path) -> None:
    # A server that followed the link would wait for itself for ever.
    (mnt / "f").write_bytes(b"x")
    os.symlink(mnt / "f", mnt / "link")
    assert user_names(mnt / "link") == set()
    with expect(errno.ENODATA):
        os.getxattr(mnt / "link", "trusted.none" if os.geteuid() == 0 else "user.none", follow_symlinks=False)
    os.setxattr(mnt / "link", "user.x", b"followed by the client")
    assert os.getxattr(mnt / "f", "user.x") == b"followed by the client"
    os.utime(mnt / "link", ns=(1, 2), follow_symlinks=False)
    assert os.lstat(mnt / "link").st_mtime_ns == 2


@pytest.mark.populate(base=lower_tree)
def test_attributes_through_descriptors(mnt: Path) -> None:
    for name in ("file", "dir"):
        with opened(mnt / name, os.O_RDONLY) as fd:
            os.setxattr(fd, "user.fd", b"1")
            assert os.getxattr(fd, "user.fd") == b"1"
            os.removexattr(fd, "user.old")
            assert "user.old" not in os.listxattr(fd)
        assert os.getxattr(mnt / name, "user.fd") == b"1"


@pytest.mark.needs_root
@pytest.mark.needs("union")
@pytest.mark.populate(base=lower_tree)
def test_overlay_attributes_are_nested_not_confused(mnt: Path) -> None:
    # A nested overlay's own marks must neither be taken for ours nor be lost (ovl_own_xattr_handler's escape).
    os.setxattr(mnt / "dir", "trusted.overlay.opaque", b"y")
    assert os.getxattr(mnt / "dir", "trusted.overlay.opaque") == b"y"
    assert [name for name in os.listxattr(mnt / "dir") if "overlay" in name] == ["trusted.overlay.opaque"]
    os.removexattr(mnt / "dir", "trusted.overlay.opaque")
    assert [name for name in os.listxattr(mnt / "dir") if "overlay" in name] == []


@pytest.mark.needs("union")
@pytest.mark.populate(base=lower_tree)
def test_own_marks_are_hidden(mnt: Path) -> None:
    os.rename(mnt / "dir", mnt / "moved")
    os.mkdir(mnt / "dir")
    (mnt / "file").write_bytes(b"copied up")
    for name in ("moved", "dir", "file", "."):
        assert [attribute for attribute in os.listxattr(mnt / name) if "overlay" in attribute] == []
