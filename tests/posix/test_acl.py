"""POSIX ACLs with the real setfacl and getfacl: access, mask, inheritance."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.posix.tools import as_user, expect, mode, opened, umask
from tests.requirements import requires

pytestmark = requires("acl", "root")


def setfacl(*argv: object) -> None:
    done = subprocess.run(["setfacl", *map(str, argv)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def getfacl(path: Path) -> set[str]:
    done = subprocess.run(["getfacl", "-cpnE", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def lower_tree(d: Path) -> None:
    (d / "file").write_bytes(b"data")
    os.chmod(d / "file", 0o640)
    (d / "dir").mkdir()
    (d / "acl").write_bytes(b"data")
    setfacl("-m", "u:1000:rw,g:2000:r,m::rw", d / "acl")
    (d / "default").mkdir()
    setfacl("-d", "-m", "u:1000:rwx,g::rx,o::-", d / "default")


@pytest.mark.needs("acl")
@pytest.mark.populate(base=lower_tree)
def test_old_acl_is_shown_and_counts(mnt: Path) -> None:
    assert {"user:1000:rw-", "group:2000:r--", "mask::rw-"} <= getfacl(mnt / "acl")
    assert as_user(lambda: (mnt / "acl").write_bytes(b"new"), 1000, 1) == 3
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "acl").write_bytes(b"no"), 1001, 2000)


@pytest.mark.populate(base=lower_tree)
def test_old_acl_survives_a_change_of_data(mnt: Path) -> None:
    before = getfacl(mnt / "acl")
    (mnt / "acl").write_bytes(b"changed")
    assert getfacl(mnt / "acl") == before


@pytest.mark.needs("acl")
@pytest.mark.populate(base=lower_tree)
def test_new_acl_on_an_old_file_grants(mnt: Path) -> None:
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "file").read_bytes(), 1000, 1)
    setfacl("-m", "u:1000:r", mnt / "file")
    assert as_user(lambda: (mnt / "file").read_bytes(), 1000, 1) == b"data"
    assert {"user::rw-", "user:1000:r--", "group::r--", "mask::r--", "other::---"} == getfacl(mnt / "file")


@pytest.mark.needs("acl")
@pytest.mark.populate(base=lower_tree)
def test_mask_is_the_mode_s_group_bits(mnt: Path) -> None:
    setfacl("-m", "u:1000:rw", mnt / "file")
    assert mode(mnt / "file") == 0o660
    os.chmod(mnt / "file", 0o640)
    assert "mask::r--" in getfacl(mnt / "file")
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "file").write_bytes(b"no"), 1000, 1)
    os.chmod(mnt / "file", 0o600)
    assert "mask::---" in getfacl(mnt / "file")
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "file").read_bytes(), 1000, 1)


@pytest.mark.needs("acl")
@pytest.mark.populate(base=lower_tree)
def test_acl_that_a_mode_can_say_becomes_the_mode(mnt: Path) -> None:
    # user::rwx group::rx other::- (struct posix_acl_xattr_header, version 2; entries tag, perm, id)
    entries = [(0x01, 7), (0x04, 5), (0x20, 0)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, 0xFFFFFFFF) for tag, perm in entries)
    os.setxattr(mnt / "file", "system.posix_acl_access", value)
    assert mode(mnt / "file") == 0o750
    with expect(errno.ENODATA):
        os.getxattr(mnt / "file", "system.posix_acl_access")


@pytest.mark.needs("acl")
@pytest.mark.populate(base=lower_tree)
def test_removal_of_an_acl(mnt: Path) -> None:
    setfacl("-b", mnt / "acl")
    assert len(getfacl(mnt / "acl")) == 3
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "acl").write_bytes(b"no"), 1000, 1)


@pytest.mark.populate(base=lower_tree)
def test_malformed_acl_is_einval(mnt: Path) -> None:
    with expect(errno.EINVAL):
        os.setxattr(mnt / "file", "system.posix_acl_access", struct.pack("<I", 2) + b"\1\0\7\0")


@pytest.mark.populate(base=lower_tree)
def test_acl_of_another_s_file_is_eperm(mnt: Path) -> None:
    os.chmod(mnt / "file", 0o666)
    value = os.getxattr(mnt / "acl", "system.posix_acl_access")
    with expect(errno.EPERM):
        as_user(lambda: os.setxattr(mnt / "file", "system.posix_acl_access", value))


@pytest.mark.populate(base=lower_tree)
def test_default_acl_on_a_file_is_refused(mnt: Path) -> None:
    value = os.getxattr(mnt / "default", "system.posix_acl_default")
    with expect(errno.EACCES):
        os.setxattr(mnt / "file", "system.posix_acl_default", value)


# Inheritance. Each in an old directory with an old ACL, and in a new directory with a new one.
@pytest.fixture(params=["old", "new"])
def parent(request: pytest.FixtureRequest, mnt: Path) -> Path:
    """A directory with a default ACL user:1000:rwx group::r-x other::---."""
    if request.param == "old":
        return mnt / "default"
    os.mkdir(mnt / "new")
    setfacl("-d", "-m", "u:1000:rwx,g::rx,o::-", mnt / "new")
    return mnt / "new"


@pytest.mark.populate(base=lower_tree)
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_new_file_inherits_whatever_the_umask(parent: Path, mask: int) -> None:
    with umask(mask), opened(parent / "f", os.O_CREAT | os.O_WRONLY, 0o666):
        pass
    assert getfacl(parent / "f") == {
        "user::rw-", "user:1000:rwx", "group::r-x", "mask::rw-", "other::---",
    }  # fmt: skip
    assert mode(parent / "f") == 0o660


@pytest.mark.needs("acl")
@pytest.mark.populate(base=lower_tree)
def test_inherited_acl_grants(parent: Path) -> None:
    with umask(0o077), opened(parent / "f", os.O_CREAT | os.O_WRONLY, 0o666):
        pass
    assert as_user(lambda: (parent / "f").write_bytes(b"granted"), 1000, 1) == 7
    with expect(errno.EACCES):
        as_user(lambda: (parent / "f").read_bytes(), 1001, 1)


@pytest.mark.populate(base=lower_tree)
def test_creation_mode_limits_the_inherited_acl(parent: Path) -> None:
    with umask(0o022), opened(parent / "f", os.O_CREAT | os.O_WRONLY, 0o600):
        pass
    assert "mask::---" in getfacl(parent / "f")
    assert mode(parent / "f") == 0o600


@pytest.mark.populate(base=lower_tree)
def test_new_directory_inherits_both_acls(parent: Path) -> None:
    with umask(0o077):
        os.mkdir(parent / "d", 0o777)
    assert getfacl(parent / "d") == {
        "user::rwx", "user:1000:rwx", "group::r-x", "mask::rwx", "other::---",
        "default:user::rwx", "default:user:1000:rwx", "default:group::r-x", "default:mask::rwx", "default:other::---",
    }  # fmt: skip
    os.mkdir(parent / "d" / "e", 0o777)
    assert "default:user:1000:rwx" in getfacl(parent / "d" / "e")


@pytest.mark.populate(base=lower_tree)
def test_special_files_inherit_too(parent: Path) -> None:
    with umask(0o077):
        os.mkfifo(parent / "fifo", 0o666)
    assert "user:1000:rwx" in getfacl(parent / "fifo")
    assert mode(parent / "fifo") == 0o660


@pytest.mark.needs("tmpfile")
@pytest.mark.populate(base=lower_tree)
def test_tmpfile_inherits_too(parent: Path) -> None:
    with umask(0o077), opened(parent, os.O_TMPFILE | os.O_RDWR, 0o666) as fd:
        os.link(f"/proc/self/fd/{fd}", parent / "named", src_dir_fd=fd, follow_symlinks=True)
    assert "user:1000:rwx" in getfacl(parent / "named")


@pytest.mark.populate(base=lower_tree)
def test_symlinks_and_renamed_files_do_not_inherit(parent: Path) -> None:
    os.symlink("x", parent / "link")
    assert mode(parent / "link") == 0o777
    (parent.parent / "plain").write_bytes(b"x")
    os.rename(parent.parent / "plain", parent / "plain")
    assert len(getfacl(parent / "plain")) == 3


@pytest.mark.populate(base=lower_tree)
def test_directory_without_default_acl_obeys_the_umask(mnt: Path) -> None:
    setfacl("-k", mnt / "default")
    with umask(0o027):
        os.mkdir(mnt / "default" / "d", 0o777)
    assert mode(mnt / "default" / "d") == 0o750
    assert len(getfacl(mnt / "default" / "d")) == 3
