"""unionfs.linux.xattr on real files, by both ways it knows."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.as_user import NOBODY, run_as_nobody
from unionfs.linux import xattr

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture(params=["getxattrat", "proc"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "proc":
        monkeypatch.setattr(xattr, "has_xattrat", lambda: False)
    elif not xattr.has_xattrat():
        pytest.skip("missing: getxattrat (Linux 6.13)")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def errno_of(function: object, *args: object) -> int | None:
    assert callable(function)
    with pytest.raises(OSError) as caught:
        function(*args)
    return caught.value.errno


def test_set_get_list_remove(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    xattr.lsetxattr(root, b"f", b"user.a", b"one")
    xattr.lsetxattr(root, b"f", b"user.empty", b"")
    assert xattr.lgetxattr(root, b"f", b"user.a") == b"one"
    assert xattr.find_xattr(root, b"f", b"user.empty") == b""
    assert sorted(xattr.llistxattr(root, b"f")) == [b"user.a", b"user.empty"]
    assert os.getxattr(tmp_path / "f", "user.a") == b"one"
    xattr.lremovexattr(root, b"f", b"user.a")
    assert xattr.llistxattr(root, b"f") == [b"user.empty"]
    assert errno_of(xattr.lremovexattr, root, b"f", b"user.a") == errno.ENODATA


def test_the_directory_itself(root: int, tmp_path: Path) -> None:
    xattr.lsetxattr(root, b".", b"user.d", b"x")
    assert os.getxattr(tmp_path, "user.d") == b"x"
    assert xattr.llistxattr(root, b".") == [b"user.d"]


def test_absent_attribute_and_namespace(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert xattr.find_xattr(root, b"f", b"user.none") is None
    assert xattr.find_xattr(root, b"f", b"nonsense.none") is None
    assert errno_of(xattr.lgetxattr, root, b"f", b"user.none") == errno.ENODATA
    assert errno_of(xattr.lgetxattr, root, b"f", b"nonsense.none") == errno.EOPNOTSUPP
    assert errno_of(xattr.find_xattr, root, b"none", b"user.a") == errno.ENOENT
    assert errno_of(xattr.llistxattr, root, b"none") == errno.ENOENT


def test_create_and_replace(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert errno_of(xattr.lsetxattr, root, b"f", b"user.a", b"", os.XATTR_REPLACE) == errno.ENODATA
    xattr.lsetxattr(root, b"f", b"user.a", b"1", os.XATTR_CREATE)
    assert errno_of(xattr.lsetxattr, root, b"f", b"user.a", b"", os.XATTR_CREATE) == errno.EEXIST
    xattr.lsetxattr(root, b"f", b"user.a", b"2", os.XATTR_REPLACE)
    assert xattr.lgetxattr(root, b"f", b"user.a") == b"2"


@pytest.mark.parametrize("size", [1023, 1024, 1025, 3000])
def test_value_beyond_the_scratch_buffer(root: int, tmp_path: Path, size: int) -> None:
    (tmp_path / "f").touch()
    value = bytes(i % 251 for i in range(size))
    xattr.lsetxattr(root, b"f", b"user.big", value)
    assert xattr.lgetxattr(root, b"f", b"user.big") == value
    assert xattr.find_xattr(root, b"f", b"user.big") == value


def test_list_beyond_the_scratch_buffer(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    names = [b"user.%03d" % i + b"n" * 100 for i in range(15)]
    for name in names:
        xattr.lsetxattr(root, b"f", name, b"")
    assert sorted(xattr.llistxattr(root, b"f")) == names


def test_names_that_are_not_utf8(root: int, tmp_path: Path) -> None:
    name, attr = b"\xff\xfe", b"user.\xe9"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=root))
    xattr.lsetxattr(root, name, attr, b"\x00\xff")
    assert xattr.llistxattr(root, name) == [attr]
    assert xattr.find_xattr(root, name, attr) == b"\x00\xff"


def test_nul_is_no_name(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ValueError, match="null"):
        xattr.find_xattr(root, b"f\0", b"user.a")
    with pytest.raises(ValueError, match="null"):
        xattr.lsetxattr(root, b"f", b"user.a\0b", b"")


@pytest.mark.needs_root
def test_symlink_has_its_own(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    for link in (b"link", b"dangling"):
        xattr.lsetxattr(root, link, b"trusted.a", b"link")
        assert xattr.find_xattr(root, link, b"trusted.a") == b"link"
        assert xattr.llistxattr(root, link) == [b"trusted.a"]
    assert xattr.find_xattr(root, b"f", b"trusted.a") is None
    xattr.lremovexattr(root, b"link", b"trusted.a")
    assert xattr.llistxattr(root, b"link") == []
    # user.* is for files and directories only (xattr(7)).
    assert errno_of(xattr.lsetxattr, root, b"link", b"user.a", b"") == errno.EPERM


@pytest.mark.needs_root
def test_nobody_sees_no_trusted_attributes(root: int, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.chown(tmp_path / "f", NOBODY, NOBODY)
    xattr.lsetxattr(root, b"f", b"trusted.a", b"")
    xattr.lsetxattr(root, b"f", b"user.a", b"")
    tmp_path.chmod(0o755)

    def attempt() -> None:
        assert xattr.llistxattr(root, b"f") == [b"user.a"]
        assert xattr.find_xattr(root, b"f", b"trusted.a") is None
        assert errno_of(xattr.lsetxattr, root, b"f", b"trusted.b", b"") == errno.EPERM

    run_as_nobody(attempt)


def test_threads_do_not_share_answers(root: int, tmp_path: Path) -> None:
    wrong: list[bytes] = []

    def work(number: int) -> None:
        name, value = b"f%d" % number, b"%d" % number * 200
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=root))
        xattr.lsetxattr(root, name, b"user.v", value)
        for _ in range(300):
            got = xattr.find_xattr(root, name, b"user.v")
            if got != value:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
