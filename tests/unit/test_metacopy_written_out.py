"""Metacopies in what leaves the union: a layer tar, a list of changes, an upper in an encoding that has none."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.requirements import requires
from tests.unit.overlay_rig import tree, union
from unionfs import api
from unionfs.errors import LayerError
from unionfs.overlay import UnionOptions
from unionfs.upkeep.convert import Encoding

pytestmark = [pytest.mark.needs_root, requires("root")]

BIG = "data of the lower layer\n" * 20_000
METACOPY = "trusted.overlay.metacopy"


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """An upper with metacopies: changed in place, moved, linked, of a hard-link group."""
    base = tree(tmp_path / "base", big=BIG, d__f="in d", d__g="in d too", one="linked", same="as it was")
    os.link(base / "one", base / "d/two")
    with union(tmp_path, [base], options=UnionOptions(metacopy=True)) as u:
        for path in ("big", "d/f", "one", "d/g"):
            u.setattr(path, uid=5)
        u.rename("d/f", "moved")
        u.link("d/g", "link")
        assert u.fs.statistics()["copy_up_bytes"] == 0
    return tmp_path / "upper"


def stack(upper: Path) -> dict[str, object]:
    return {"layers": [upper.parent / "base"], "upper": upper, "work": upper.parent / "work"}


def is_metacopy(path: Path) -> bool:
    return METACOPY in os.listxattr(path)


def test_a_layer_tar_has_the_data(upper: Path, tmp_path: Path) -> None:
    api.commit(**stack(upper), output=tmp_path / "layer.tar")  # type: ignore[arg-type]
    found: dict[str, bytes] = {}
    with tarfile.open(tmp_path / "layer.tar") as tar:
        for member in tar:
            assert not any("overlay" in name for name in member.pax_headers), member.name
            file = tar.extractfile(member)
            if file is not None:
                assert member.uid == 5 or ".wh." in member.name, member.name
                found[member.name] = file.read()
    assert found == {
        "big": BIG.encode(), "moved": b"in d", "d/g": b"in d too", "link": b"in d too",
        "d/two": b"linked", "one": b"linked", "d/.wh.f": b"",
    }  # fmt: skip


def test_a_layer_from_a_directory_nobody_marked_has_the_data(tmp_path: Path) -> None:
    """What the kernel's `index=off` leaves where it moves a metacopy of a hard-linked file to."""
    base = tree(tmp_path / "base", one="linked")
    file = tree(tmp_path / "upper", d__moved="") / "d/moved"
    (tmp_path / "work").mkdir()
    os.truncate(file, 6)
    os.setxattr(file, METACOPY, b"")
    os.setxattr(file, "trusted.overlay.redirect", b"/one")
    assert [change.path for change in api.diff(**stack(tmp_path / "upper"))] == [b"d", b"d/moved"]  # type: ignore[arg-type]
    api.commit(**stack(tmp_path / "upper"), output=tmp_path / "layer.tar")  # type: ignore[arg-type]
    with tarfile.open(tmp_path / "layer.tar") as tar:
        data = tar.extractfile("d/moved")
        assert data is not None and data.read() == (base / "one").read_bytes()


@pytest.mark.parametrize("encoding", ["aufs", "fuse-overlayfs"])
@pytest.mark.parametrize("as_layer", [False, True], ids=["upper", "layer"])
def test_a_converted_upper_has_the_data(upper: Path, encoding: Encoding, as_layer: bool) -> None:
    base = upper.parent / "base"
    if as_layer:
        upper = upper.rename(upper.with_name("layer"))
    work = None if as_layer else upper.parent / "work"
    with pytest.raises(LayerError, match=r"/big: overlay.metacopy, which .* has not") as refused:
        api.convert(upper, encoding, work=work)
    assert refused.value.hint is not None and "-l" in refused.value.hint
    assert is_metacopy(upper / "big")
    api.convert(upper, encoding, layers=[base], work=work)
    assert (upper / "big").read_text() == BIG and (upper / "moved").read_text() == "in d"
    assert (upper / "d/g").read_text() == (upper / "link").read_text() == "in d too"
    assert os.stat(upper / "d/g").st_ino == os.stat(upper / "link").st_ino
    assert os.stat(upper / "big").st_uid == 5 and os.stat(upper / "big").st_mtime == os.stat(base / "big").st_mtime
    assert not any(is_metacopy(path) for path in upper.rglob("*") if path.is_file())
    assert sorted(os.listdir(upper.parent)) == sorted([upper.name, "base", "work"])


def test_the_umask_takes_nothing_from_what_a_conversion_writes(tmp_path: Path) -> None:
    base = tree(tmp_path / "base", big=BIG)
    with union(tmp_path, [base], options=UnionOptions(metacopy=True)) as u:
        u.setattr("big", mode=0o666)
    file = tmp_path / "upper/big"
    assert is_metacopy(file)
    umask = os.umask(0o077)
    try:
        api.convert(file.parent, "aufs", layers=[base], work=tmp_path / "work")
    finally:
        os.umask(umask)
    assert file.read_text() == BIG and os.stat(file).st_mode == 0o100666


def test_a_conversion_without_the_right_layers_is_refused(upper: Path, tmp_path: Path) -> None:
    other = tree(tmp_path / "other", big=BIG)
    with pytest.raises(LayerError, match=r"^/.*: a metacopy, whose data no layer given has"):
        api.convert(upper, "aufs", layers=[other], work=tmp_path / "work")
    assert is_metacopy(upper / "moved")


def test_check_knows_metacopies_with_and_without_data(upper: Path, tmp_path: Path) -> None:
    base, work = tmp_path / "base", tmp_path / "work"
    assert api.check(upper, layers=[base], work=work).findings == ()
    os.unlink(base / "d/f")
    assert [(one.path, one.rule) for one in api.check(upper, layers=[base], work=work).findings] == [
        (b"moved", "metacopy-without-data"), (b"d/f", "whiteout-of-nothing"),
    ]  # fmt: skip
    # A chain that ends nowhere, in a layer below.
    middle = tree(tmp_path / "middle", d__f="")
    os.setxattr(middle / "d/f", METACOPY, b"")
    found = api.check(upper, layers=[middle, base], work=work).findings
    assert [(one.path, one.rule) for one in found] == [(b"moved", "metacopy-without-data")]
