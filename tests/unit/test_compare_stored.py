"""Layers and uppers as changesets: one whiteout is as good as another, whoever wrote it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.golden.hostile_tars import archive, entry
from tests.unit.compare_rig import Fill, Plot, lines, plot
from tests.unit.tar_rig import layer_of
from unionfs.changeset.tar_format import REG
from unionfs.compare.stored import ChangesetView
from unionfs.compare.view import LayerView
from unionfs.compare.walk import Side, differences
from unionfs.layers.layer import Layer


def changeset(layer: Layer, *, upper: bool = False) -> Side:
    return Side(ChangesetView(layer, upper=upper))


def device(tree: Plot) -> None:
    tree.dir(b"d")
    tree.device(b"d/gone", 0, 0)


def dotted(tree: Plot) -> None:
    tree.file(b"d/.wh.gone")


def marked(tree: Plot) -> None:
    tree.file(b"d/gone")
    tree.setxattr(b"d", b"trusted.overlay.opaque", b"x")
    tree.setxattr(b"d/gone", b"trusted.overlay.whiteout", b"")


def opaque_by_xattr(tree: Plot) -> None:
    tree.dir(b"d")
    tree.setxattr(b"d", b"user.overlay.opaque", b"y")


def opaque_by_fuse_overlayfs(tree: Plot) -> None:
    tree.dir(b"d")
    tree.setxattr(b"d", b"user.fuseoverlayfs.opaque", b"y")
    tree.file(b"d/.wh..wh..opq")


def opaque_by_name(tree: Plot) -> None:
    tree.file(b"d/.wh..wh..opq")


def opaque_by_a_whiteout_beside_it(tree: Plot) -> None:
    tree.dir(b"d")
    tree.file(b".wh.d")


@pytest.mark.parametrize("one", [device, dotted, marked])
@pytest.mark.parametrize("other", [device, dotted, marked])
def test_a_whiteout_is_the_same_in_all_encodings(one: Fill, other: Fill) -> None:
    assert list(differences(changeset(plot(one)), changeset(plot(other)))) == []
    empty = changeset(plot(lambda t: t.dir(b"d")))
    assert lines(differences(empty, changeset(plot(other)))) == ["A /d/gone"]


OPAQUE = [opaque_by_xattr, opaque_by_fuse_overlayfs, opaque_by_name, opaque_by_a_whiteout_beside_it]


@pytest.mark.parametrize("one", OPAQUE)
@pytest.mark.parametrize("other", OPAQUE)
def test_an_opaque_directory_is_the_same_in_all_encodings(one: Fill, other: Fill) -> None:
    assert list(differences(changeset(plot(one)), changeset(plot(other)))) == []
    assert lines(differences(changeset(plot(lambda t: t.dir(b"d"))), changeset(plot(other)))) == ["C /d xattr"]


def test_a_whiteout_where_a_file_was_is_another_type() -> None:
    assert lines(differences(changeset(plot(lambda t: t.file(b"d/gone"))), changeset(plot(device)))) == [
        "C /d/gone type"
    ]


def test_dotted_names_in_an_upper_are_files_unless_aufs_wrote_it() -> None:
    assert lines(differences(changeset(plot(device), upper=True), changeset(plot(dotted), upper=True))) == [
        "A /d/.wh.gone", "D /d/gone",
    ]  # fmt: skip
    aufs = plot(dotted, lambda t: t.file(b".wh..wh.aufs"))
    assert list(differences(changeset(plot(device), upper=True), changeset(aufs, upper=True))) == []


def test_a_whiteout_beside_a_file_of_its_name_says_nothing() -> None:
    both = plot(lambda t: t.file(b"f", b"1"), lambda t: t.file(b".wh.f"))
    assert list(differences(changeset(both), changeset(plot(lambda t: t.file(b"f", b"1"))))) == []


def test_a_redirect_and_a_metacopy_are_told_of_and_no_data_is_read_of_the_second() -> None:
    def fill(tree: Plot) -> None:
        tree.file(b"f", b"\0\0\0\0")
        tree.setxattr(b"f", b"trusted.overlay.metacopy", b"")
        tree.dir(b"d")
        tree.setxattr(b"d", b"trusted.overlay.redirect", b"/old")

    plain = plot(lambda t: t.file(b"f", b"data"), lambda t: t.dir(b"d"))
    assert lines(differences(changeset(plain), changeset(plot(fill)))) == ["C /d xattr", "C /f xattr"]
    assert list(differences(changeset(plot(fill)), changeset(plot(fill)))) == []


def test_a_tree_as_it_lies_there_shows_whiteouts_as_what_they_are() -> None:
    sides = [Side(LayerView(plot(fill))) for fill in (device, dotted)]
    assert lines(differences(*sides)) == ["A /d/.wh.gone", "D /d/gone"]


def test_a_directory_that_a_tar_does_not_describe_has_no_attributes(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, archive(entry(b"d/f", REG, b"data")))
    try:
        st = layer.lstat(b"d/f")
        tree = plot(lambda t: t.file(b"d/f", b"data", stat.S_IMODE(st.st_mode), st.st_mtime_ns))
        tree.chown(b"d/f", st.st_uid, st.st_gid)
        tree.chmod(b"d", 0o1700)
        tree.chown(b"d", 5, 5)
        assert list(differences(Side(LayerView(layer)), Side(LayerView(tree)), exact=True)) == []
    finally:
        layer.close()
