"""What a user without privileges may not do."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, as_user, expect, names

pytestmark = pytest.mark.needs_root


def lower_tree(d: Path) -> None:
    for name, bits in (("private", 0o600), ("readable", 0o644), ("group", 0o640), ("script", 0o744)):
        (d / name).write_bytes(b"data")
        os.chmod(d / name, bits)
    (d / "closed").mkdir()
    (d / "closed" / "file").write_bytes(b"data")
    os.chmod(d / "closed", 0o700)
    (d / "nolist").mkdir()
    (d / "nolist" / "file").write_bytes(b"data")
    os.chmod(d / "nolist", 0o711)
    (d / "sticky").mkdir()
    os.chmod(d / "sticky", 0o1777)
    for name, owner in (("root", 0), ("mine", NOBODY), ("theirs", 1000)):
        (d / "sticky" / name).write_bytes(b"data")
        os.chown(d / "sticky" / name, owner, owner)


@pytest.mark.populate(base=lower_tree)
def test_reading_needs_r(mnt: Path) -> None:
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "private").read_bytes())
    assert as_user(lambda: (mnt / "readable").read_bytes()) == b"data"
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "group").read_bytes())
    assert as_user(lambda: (mnt / "group").read_bytes(), groups=(0,)) == b"data"


@pytest.mark.populate(base=lower_tree)
def test_writing_needs_w(mnt: Path) -> None:
    with expect(errno.EACCES):
        as_user(lambda: os.open(mnt / "readable", os.O_WRONLY))
    os.chmod(mnt / "readable", 0o666)
    as_user(lambda: (mnt / "readable").write_bytes(b"mine"))
    assert (mnt / "readable").read_bytes() == b"mine"


@pytest.mark.populate(base=lower_tree)
def test_execution_needs_x(mnt: Path) -> None:
    with expect(errno.EACCES):
        as_user(lambda: os.execv(mnt / "script", ["script"]))
    assert not as_user(lambda: os.access(mnt / "script", os.X_OK))
    assert os.access(mnt / "script", os.X_OK)


@pytest.mark.populate(base=lower_tree)
def test_closed_directory_hides_what_is_in_it(mnt: Path) -> None:
    for act in (
        lambda: os.stat(mnt / "closed" / "file"),
        lambda: os.stat(mnt / "closed" / "no"),
        lambda: os.listdir(mnt / "closed"),
    ):
        with expect(errno.EACCES):
            as_user(act)


@pytest.mark.populate(base=lower_tree)
def test_closed_directory_stays_closed_after_root_looked(mnt: Path) -> None:
    assert os.listdir(mnt / "closed") == ["file"]
    assert os.stat(mnt / "closed" / "file").st_size == 4
    with expect(errno.EACCES):
        as_user(lambda: os.stat(mnt / "closed" / "file"))


@pytest.mark.populate(base=lower_tree)
def test_searchable_directory_gives_known_names_only(mnt: Path) -> None:
    assert as_user(lambda: (mnt / "nolist" / "file").read_bytes()) == b"data"
    with expect(errno.EACCES):
        as_user(lambda: os.listdir(mnt / "nolist"))


@pytest.mark.populate(base=lower_tree)
def test_entries_need_w_on_the_directory(mnt: Path) -> None:
    for act in (
        lambda: os.mkdir(mnt / "d"),
        lambda: os.unlink(mnt / "readable"),
        lambda: os.rmdir(mnt / "nolist"),
        lambda: os.symlink("x", mnt / "l"),
        lambda: os.rename(mnt / "readable", mnt / "x"),
        lambda: os.close(os.open(mnt / "f", os.O_CREAT | os.O_WRONLY)),
        lambda: os.mkfifo(mnt / "p"),
    ):
        with expect(errno.EACCES):
            as_user(act)
    assert names(mnt) == {"private", "readable", "group", "script", "closed", "nolist", "sticky"}


@pytest.mark.populate(base=lower_tree)
def test_sticky_directory_protects_from_others(mnt: Path) -> None:
    sticky = mnt / "sticky"
    for name in ("root", "theirs"):
        with expect(errno.EPERM):
            as_user(partial(os.unlink, sticky / name))
        with expect(errno.EPERM):
            as_user(partial(os.rename, sticky / name, sticky / "x"))
        with expect(errno.EPERM):
            as_user(partial(os.rename, sticky / "mine", sticky / name))
    as_user(lambda: os.rename(sticky / "mine", sticky / "still-mine"))
    as_user(lambda: os.unlink(sticky / "still-mine"))
    assert names(sticky) == {"root", "theirs"}


@pytest.mark.populate(base=lower_tree)
def test_owner_without_permission_has_none(mnt: Path) -> None:
    os.chown(mnt / "readable", NOBODY, NOBODY)
    os.chmod(mnt / "readable", 0o077)
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "readable").read_bytes())
    as_user(lambda: os.chmod(mnt / "readable", 0o400))
    assert as_user(lambda: (mnt / "readable").read_bytes()) == b"data"


@pytest.mark.populate(base=lower_tree)
def test_changes_of_permission_hold_at_once(mnt: Path) -> None:
    assert as_user(lambda: (mnt / "readable").read_bytes()) == b"data"
    os.chmod(mnt / "readable", 0o600)
    with expect(errno.EACCES):
        as_user(lambda: (mnt / "readable").read_bytes())
    os.chmod(mnt / "readable", 0o604)
    assert as_user(lambda: (mnt / "readable").read_bytes()) == b"data"


@pytest.mark.populate(base=lower_tree)
def test_directory_of_another_moves_only_with_write_permission_on_itself(mnt: Path) -> None:
    # A directory that changes its parent has its ".." rewritten (vfs_rename).
    os.chmod(mnt, 0o777)
    os.mkdir(mnt / "target", 0o777)
    os.chmod(mnt / "target", 0o777)
    with expect(errno.EACCES):
        as_user(lambda: os.rename(mnt / "nolist", mnt / "target" / "nolist"))
    as_user(lambda: os.rename(mnt / "readable", mnt / "target" / "readable"))
    assert names(mnt / "target") == {"readable"}
