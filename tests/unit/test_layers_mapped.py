"""Owners shown as other ids: the arithmetic, and what the engine does with it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from tests.unit.overlay_rig import Rig, tree
from unionfs.api.layers import StackSpec
from unionfs.api.mounting import owners_of
from unionfs.api.owners import Owners
from unionfs.api.union import open_union
from unionfs.errors import OptionError
from unionfs.layers.mapped import OVERFLOW, IdMap, IdMaps, ShownId
from unionfs.vfs import Caller

root_only = requires("root")
SHIFT = IdMap(((0, 100_000, 5000),))


@pytest.mark.parametrize(
    "ranges, stored, shown",
    [
        ((), 7, 7),
        (((0, 100_000, 5000),), 0, 100_000),
        (((0, 100_000, 5000),), 4999, 104_999),
        (((0, 100_000, 5000),), 5000, OVERFLOW),
        (((0, 1000, 1), (1, 1001, 65535)), 0, 1000),
        (((0, 1000, 1), (1, 1001, 65535)), 65_535, 66_535),
        (((1000, 0, 1),), 999, OVERFLOW),
        (((0, 0, 1), (0, 5, 10)), 0, 0),
    ],
)
def test_a_stored_id_is_shown_by_the_first_range_that_has_it(
    ranges: tuple[tuple[int, int, int], ...], stored: int, shown: int
) -> None:
    assert IdMap(ranges).shown(stored) == shown


def test_an_id_given_is_stored_by_the_range_that_shows_it() -> None:
    assert (SHIFT.stored(100_007), SHIFT.stored(7), SHIFT.stored(-1)) == (7, OVERFLOW, -1)
    assert IdMap().stored(7) == 7


ids = st.integers(0, 2**32 - 2)
ranges = st.lists(st.tuples(ids, ids, st.integers(1, 2**20)), max_size=4).map(tuple)


@given(ranges, st.none() | ids, ids)
def test_what_is_shown_leads_back_to_what_is_stored(
    ranges: tuple[tuple[int, int, int], ...], squash: int | None, stored: int
) -> None:
    mapping = IdMap(ranges, squash)
    shown = mapping.shown(stored)
    assert mapping.stored(shown) == stored
    if squash is not None:
        assert shown == squash


@given(ranges, ids)
def test_the_own_id_is_the_only_one_that_means_it(ranges: tuple[tuple[int, int, int], ...], stored: int) -> None:
    mapping = IdMap(ranges)
    own = mapping.own(stored)
    if own != -1:
        assert mapping.stored(own) == stored and not isinstance(mapping.shown(stored), ShownId)


def test_a_squashed_id_is_nobodys_own() -> None:
    assert IdMap(squash=5).own(5) == -1 and IdMap().own(5) == 5 and SHIFT.own(-1) == -1


def test_an_acl_names_users_and_groups_as_shown() -> None:
    def acl(user: int, group: int) -> bytes:
        entries = [(1, 7, 2**32 - 1), (2, 6, user), (4, 5, 2**32 - 1), (8, 4, group), (16, 7, 2**32 - 1)]
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)

    maps = IdMaps(SHIFT, IdMap(((0, 200_000, 10),)))
    assert maps.acl(acl(3, 4), shown=True) == acl(100_003, 200_004)
    assert maps.acl(acl(100_003, 200_004), shown=False) == acl(3, 4)
    assert maps.acl(b"hostile", shown=True) == b"hostile"


# options -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, owners",
    [
        ({"volatile": None}, None),
        ({"xattr_permissions": "0"}, None),
        ({"uidmapping": ":0:100000:5000"}, Owners(IdMaps(SHIFT))),
        ({"squash_to_root": None}, Owners(IdMaps(IdMap(squash=0), IdMap(squash=0)))),
        ({"squash_to_root": None, "squash_to_uid": "7"}, Owners(IdMaps(IdMap(squash=7), IdMap(squash=0)))),
        ({"squash_to_gid": "7", "xattr_permissions": "2"}, Owners(IdMaps(gids=IdMap(squash=7)), 2)),
    ],
)
def test_options(options: dict[str, str | None], owners: Owners | None) -> None:
    assert owners_of(options) == owners


@pytest.mark.parametrize(
    "options",
    [
        {"uidmapping": None}, {"gidmapping": "0:1"}, {"squash_to_uid": None}, {"squash_to_gid": "-1"},
        {"squash_to_uid": "4294967295"}, {"xattr_permissions": "3"}, {"xattr_permissions": None},
    ],
)  # fmt: skip
def test_options_without_meaning_are_refused(options: dict[str, str | None]) -> None:
    with pytest.raises(OptionError):
        owners_of(options)


# in a union ----------------------------------------------------------------------------------------------------------
@contextmanager
def shown_by(base: Path, owners: Owners) -> Iterator[Rig]:
    """A union of base/lower under base/upper, in process."""
    for name in ("lower", "upper", "work"):
        (base / name).mkdir(exist_ok=True)
    old = os.umask(0)
    try:
        paths = [os.fsencode(base / name) for name in ("lower", "upper", "work")]
        fs = open_union(StackSpec((paths[0],), paths[1], paths[2], owners=owners))
        try:
            yield Rig(fs, base / "upper")
        finally:
            fs.close()
    finally:
        os.umask(old)


def caller(uid: int, gid: int) -> Caller:
    return Caller(uid, gid, os.getpid(), 0o022)


def owner_on_disk(path: Path) -> tuple[int, int]:
    st = path.lstat()
    return st.st_uid, st.st_gid


MAPPED = Owners(IdMaps(SHIFT, SHIFT))


@root_only
def test_what_is_made_belongs_to_the_stored_id_of_its_maker(tmp_path: Path) -> None:
    with shown_by(tmp_path, MAPPED) as rig:
        rig.create("root", caller=caller(100_000, 100_000))
        rig.mkdir("other", caller=caller(100_033, 100_044))
        rig.create("nobody", caller=caller(7, 7))
        assert [(rig.stat(name).uid, rig.stat(name).gid) for name in ("root", "other", "nobody")] == [
            (100_000, 100_000), (100_033, 100_044), (OVERFLOW, OVERFLOW),
        ]  # fmt: skip
        assert rig.setattr("root", uid=100_001).uid == 100_001
    stored = [owner_on_disk(tmp_path / "upper" / name) for name in ("root", "other", "nobody")]
    assert stored == [(1, 0), (33, 44), (OVERFLOW, OVERFLOW)]


@root_only
@pytest.mark.parametrize(
    "owners, shown", [(MAPPED, (100_033, OVERFLOW)), (Owners(IdMaps(IdMap(squash=5), IdMap(squash=0))), (5, 0))]
)
def test_copy_up_keeps_the_stored_owner_whatever_is_shown(
    tmp_path: Path, owners: Owners, shown: tuple[int, int]
) -> None:
    tree(tmp_path / "lower", d__f="text")
    os.chown(tmp_path / "lower/d", 33, 70_000)
    os.chown(tmp_path / "lower/d/f", 33, 70_000)
    with shown_by(tmp_path, owners) as rig:
        assert (rig.stat("d/f").uid, rig.stat("d/f").gid) == shown
        rig.write("d/f", b"more")
        assert (rig.stat("d/f").uid, rig.stat("d/f").gid) == shown
        rig.rename("d/f", "d/g")
    for path in ("d", "d/g"):
        assert owner_on_disk(tmp_path / "upper" / path) == (33, 70_000)


@root_only
def test_who_may_not_chown_need_not_where_owners_are_squashed(open_tmp: Path) -> None:
    tree(open_tmp / "lower", f="text")  # root's

    def use() -> None:
        with shown_by(open_tmp, Owners(IdMaps(IdMap(squash=5), IdMap(squash=6)))) as rig:
            rig.create("new", caller=caller(5, 6))
            rig.write("f", b"more")
            changed = rig.setattr("new", uid=12, gid=13)
            assert [(a.uid, a.gid) for a in (rig.stat("new"), rig.stat("f"), changed)] == [(5, 6)] * 3

    run_as_nobody(use)
    assert owner_on_disk(open_tmp / "upper/new") == owner_on_disk(open_tmp / "upper/f") == (65534, 65534)


@root_only
def test_who_may_not_chown_is_told_where_owners_are_mapped(open_tmp: Path) -> None:
    def use() -> None:
        ids = IdMap(((65534, 0, 1), (100, 1, 50)))
        with shown_by(open_tmp, Owners(IdMaps(ids, ids))) as rig:
            rig.create("mine", caller=caller(0, 0))
            with pytest.raises(PermissionError):
                rig.create("other", caller=caller(1, 1))

    run_as_nobody(use)
    assert owner_on_disk(open_tmp / "upper/mine") == (65534, 65534)
    assert os.listdir(open_tmp / "upper") == ["mine"] and os.listdir(open_tmp / "work/work") == []
