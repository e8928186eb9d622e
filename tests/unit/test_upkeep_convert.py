"""Conversion between the encodings of whiteouts: the same tree before, after and in between, and back again."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from tests.unit.overlay_rig import union
from tests.unit.upkeep_rig import Dying, shown, shown_over, store, stored
from unionfs.api import LayerError, MountError, check, convert
from unionfs.layers.upper import WritableDirectory
from unionfs.mounts.registry import MountRecord, Registry
from unionfs.overlay import UnionOptions
from unionfs.upkeep.convert import ENCODINGS, Encoding
from unionfs.upkeep.convert import convert as convert_layer

BASE = ("data d/x below", "data d/y below", "data d/sub/z below", "data f below", "data e/x below", "data g/x below")
#: A layer in the kernel's encoding.
LAYER = (
    "dev f",
    "dev d/x",
    "dir d impure=y",
    "data d/new new",
    "dev d/sub/z",
    "dir e opaque=y",
    "data e/new new",
    "dir g",
)
NAMED = {
    "kernel": LAYER,
    "xattr": (
        "dir . opaque=x", "file f whiteout=", "dir d opaque=x impure=y", "file d/x whiteout=", "data d/new new",
        "dir d/sub opaque=x", "file d/sub/z whiteout=", "dir e opaque=y", "data e/new new", "dir g",
    ),
    "aufs": (
        "file .wh..wh.aufs", "file .wh.f", "dir d impure=y", "file d/.wh.x", "data d/new new", "file d/sub/.wh.z",
        "file e/.wh..wh..opq", "data e/new new", "dir g",
    ),
    "fuse-overlayfs": (
        "dev f", "dir d impure=y", "dev d/x", "data d/new new", "dev d/sub/z", "dir e user.fuseoverlayfs.opaque=y",
        "file e/.wh..wh..opq", "data e/new new", "dir g",
    ),
}  # fmt: skip
PAIRS = [(one, other) for one in ENCODINGS for other in ENCODINGS]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return store(tmp_path / "base", *BASE)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_each_encoding_becomes_each_other(source: Encoding, target: Encoding, tmp_path: Path, base: Path) -> None:
    layer = store(tmp_path / "layer", *NAMED[source])
    wanted = store(tmp_path / "wanted", *NAMED[target])
    before = shown(layer, base)
    result = convert(layer, target)
    assert (result.encoding, result.xattrs, bool(result.steps)) == (target, "user", source != target)
    assert stored(layer) == stored(wanted)
    assert shown(layer, base) == before
    assert convert(layer, target).steps == 0
    assert check(layer, layers=[base]).clean


@pytest.mark.parametrize(("source", "target"), [pair for pair in PAIRS if pair[0] != pair[1]])
def test_a_crash_at_any_instant_shows_the_same_tree_and_is_completed(
    source: Encoding, target: Encoding, tmp_path: Path, base: Path
) -> None:
    wanted = stored(store(tmp_path / "wanted", *NAMED[target]))
    for budget in range(100):
        layer = store(tmp_path / f"layer{budget}", *NAMED[source])
        before = shown(layer, base)
        dying = Dying(layer, budget)
        try:
            convert_layer(dying, target)
        except KeyboardInterrupt:
            died = True
        else:
            died = False
        finally:
            dying.close()
        assert shown(layer, base) == before
        convert(layer, target)
        assert without_times(stored(layer)) == without_times(wanted)
        if not died:
            break
    else:
        pytest.fail("it never came to its end")
    assert budget > 2


def without_times(view: dict[str, str]) -> dict[str, str]:
    """A crash leaves the time of the directory it was at."""
    return {
        path: " ".join(word for word in line.split() if not (line.startswith("d") and word.isdigit()))
        for path, line in view.items()
    }


def test_whiteouts_of_a_mixture_become_those_of_one_kind(tmp_path: Path, base: Path) -> None:
    mixture = (
        "file .wh.f", "dev f",  # both
        "dir d opaque=x", "dev d/x", "file d/y whiteout=", "file d/.wh.sub",
        "file .wh.e", "data e/new new",  # thereby opaque
        "dev g/x",
        "dir h opaque=y", "file h/.wh..wh..opq", "dev h/x", "file h/.wh.y",
        "file .wh.k", "data k new",
    )  # fmt: skip
    for target in ENCODINGS:
        layer = store(tmp_path / target, *mixture)
        before = shown(layer, base)
        for encoding in (target, "kernel", target):
            convert(layer, encoding)
            assert shown(layer, base) == before, (target, encoding)
            rules = {finding.rule for finding in check(layer, layers=[base]).findings}
            assert rules <= {"whiteout-in-opaque", "whiteout-beside-name", "whiteout-of-nothing"}


kinds = st.sampled_from(["dev", "data", "opaque", "dir", None])


@st.composite
def layers(draw: st.DrawFn) -> list[str]:
    """A layer in the kernel's encoding, two directories deep."""
    lines: list[str] = []
    todo = [""]
    while todo:
        parent = todo.pop()
        for name in ("a", "b", "c"):
            path, kind = f"{parent}{name}", draw(kinds)
            if kind == "dev":
                lines.append(f"dev {path}")
            elif kind == "data":
                lines.append(f"data {path} new")
            elif kind is not None:
                lines.append(f"dir {path}" + " opaque=y" * (kind == "opaque"))
                if path.count("/") < 2:
                    todo.append(f"{path}/")
    return lines


@settings(max_examples=60, deadline=None)
@given(lines=layers(), route=st.lists(st.sampled_from(ENCODINGS), min_size=1, max_size=4))
def test_any_route_leads_back(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], route: list[Encoding]
) -> None:
    tmp_path = tmp_path_factory.mktemp("route")
    base = store(tmp_path / "base", *(f"data {a}/{b}/{c} below" for a in "abc" for b in "abc" for c in "abc"))
    layer = store(tmp_path / "layer", *lines)
    before, bytes_before = shown(layer, base), stored(layer)
    for encoding in route:
        convert(layer, encoding, xattrs="user")
        assert shown(layer, base) == before, encoding
    convert(layer, "kernel", xattrs="user")
    after = stored(layer)
    dropped = {path for path in bytes_before if path not in after}
    # Whiteouts in an opaque directory hide nothing, and not every encoding has them.
    assert not dropped or route != ["kernel"]
    assert all("opaque" in bytes_before[path.rpartition("/")[0]] for path in dropped)
    assert after == {path: line for path, line in bytes_before.items() if path not in dropped}
    assert all(bytes_before[path].startswith("c") for path in dropped)
    shutil.rmtree(tmp_path)


# what is refused -----------------------------------------------------------------------------------------------------
REFUSED: dict[str, tuple[Encoding, tuple[str, ...], str]] = {
    "a redirect": ("aufs", ("dir d redirect=/e",), "/d: overlay.redirect, which aufs has not"),
    "a redirect for fuse-overlayfs": ("fuse-overlayfs", ("dir d redirect=/e",), "/d: overlay.redirect"),
    "a metacopy": ("aufs", ("file m metacopy=",), "/m: overlay.metacopy"),
    "a visible whiteout": ("aufs", ("file m unionfs.whiteout=y",), "/m: overlay.unionfs.whiteout"),
    "a whiteout with a long name": ("aufs", ("dev " + "n" * 252,), "too long for .wh.NAME"),
    "an unannounced xattr whiteout": ("xattr", ("file d/x whiteout=",), "/d/x: an empty file that would become"),
    "a whiteout with data": ("kernel", ("data d/.wh.x data",), "/d/.wh.x: a whiteout that is no empty file"),
    "a whiteout that is a directory": ("xattr", ("dir d/.wh.x",), "/d/.wh.x: a whiteout that is no empty file"),
    "AUFS's own": ("kernel", ("dir .wh..wh.plnk",), "/.wh..wh.plnk: AUFS's own; unionfs check --repair removes it"),
    "a whiteout of no name": ("kernel", ("file .wh.",), "/.wh.: AUFS's own"),
    "a whiteout of the directory above": ("kernel", ("file .wh...",), "/.wh...: AUFS's own"),
    "xattr whiteouts in an opaque directory": (
        "kernel", ("file .wh.d", "dir d opaque=x", "file d/x whiteout="), "/.wh.d: a whiteout beside a directory"
    ),
    "a directory opaque for some": (
        "kernel", ("dir d opaque=x user.fuseoverlayfs.opaque=y",), "/d: opaque for some readers"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_target_cannot_hold_is_named_and_nothing_is_changed(name: str, tmp_path: Path) -> None:
    encoding, lines, message = REFUSED[name]
    # Something that could be converted comes first, and last.
    layer = store(tmp_path / "layer", "dev aaa", "dir abc opaque=y", *lines, "file zzz/.wh.x")
    before = stored(layer)
    with pytest.raises(LayerError) as caught:
        convert(layer, encoding)
    assert message in str(caught.value) and (caught.value.hint or "").startswith("nothing was changed")
    assert stored(layer) == before


def test_many_refusals_are_counted(tmp_path: Path) -> None:
    layer = store(tmp_path / "layer", *(f"dir d{number} redirect=/e" for number in range(8)))
    with pytest.raises(LayerError, match=r"/d0: .*; and 3 more$"):
        convert(layer, "aufs")


# uppers --------------------------------------------------------------------------------------------------------------
def upper_of(tmp_path: Path, base: Path) -> tuple[Path, Path]:
    """An upper that has been worked in, without a rename of a directory."""
    with union(tmp_path, [base], options=UnionOptions(xattr_prefix=b"user.")) as u:
        u.unlink("f")
        u.unlink("d/x")
        u.write("d/y", b"BELOW")
        for path in ("e/x", "d/sub/z"):
            u.unlink(path)
        u.rmdir("e")
        u.mkdir("e")
        u.create("e/new", b"new")
    return tmp_path / "upper", tmp_path / "work"


def test_an_upper_in_aufs_names_says_so_and_goes_on(tmp_path: Path, base: Path) -> None:
    upper, work = upper_of(tmp_path, base)
    before, kernel = shown_over(upper, work, base), stored(upper)
    convert(upper, "aufs", work=work)
    assert (upper / ".wh..wh.aufs").exists() and (upper / "d/.wh.x").exists()
    assert shown_over(upper, work, base) == before
    with union(tmp_path, [base], options=UnionOptions(xattr_prefix=b"user.")) as u:
        u.create("d/x", b"anew")
        u.unlink("d/x")
    convert(upper, "kernel", work=work)
    assert shown_over(upper, work, base) == before
    assert without_times(stored(upper)) == without_times(kernel)


def test_an_upper_of_fuse_overlayfs_is_read_by_us(tmp_path: Path, base: Path) -> None:
    upper, work = upper_of(tmp_path, base)
    before, kernel = shown_over(upper, work, base), stored(upper)
    convert(upper, "fuse-overlayfs", work=work)
    assert (upper / "e/.wh..wh..opq").exists()
    assert shown_over(upper, work, base) == before
    convert(upper, "kernel", work=work)
    assert stored(upper) == kernel


def test_a_crash_of_an_uppers_conversion_shows_the_same_tree(tmp_path: Path, base: Path) -> None:
    original, work = upper_of(tmp_path, base)
    before = shown_over(original, work, base)
    encodings: tuple[Encoding, ...] = ("aufs", "fuse-overlayfs")
    for there in encodings:
        for budget in range(60):
            upper = tmp_path / f"{there}{budget}"
            shutil.copytree(original, upper, symlinks=True, copy_function=copy_object)
            assert shown_over(upper, work, base) == before
            dying = Dying(upper, budget)
            try:
                convert_layer(dying, there, upper=True)
                died = False
            except KeyboardInterrupt:
                died = True
            finally:
                dying.close()
            assert shown_over(upper, work, base) == before, budget
            convert(upper, "kernel", work=work)
            assert shown_over(upper, work, base) == before, budget
            if not died:
                break
        else:
            pytest.fail("it never came to its end")


def copy_object(source: str, target: str) -> None:
    """A file or a whiteout, with its attributes."""
    if stat.S_ISCHR(os.lstat(source).st_mode):
        os.mknod(target, stat.S_IFCHR, 0)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def test_an_upper_has_no_xattr_whiteouts(tmp_path: Path, base: Path) -> None:
    upper, work = upper_of(tmp_path, base)
    with pytest.raises(LayerError, match="whiteouts in an upper, where the kernel would list xattr ones"):
        convert(upper, "xattr", work=work)


def test_names_of_a_user_in_an_upper_stay_names(tmp_path: Path) -> None:
    upper = store(tmp_path / "u", "file .wh.f", "data .wh.g data", "dev d/x")
    store(tmp_path / "u.work", "dir work")
    before = stored(upper)
    assert convert(upper, "kernel").steps == 0
    for encoding in ("aufs", "fuse-overlayfs"):
        with pytest.raises(LayerError, match=r"/\.wh\.f: a name that"):
            convert(upper, encoding)
    assert stored(upper) == before


def test_an_upper_in_use_is_refused(tmp_path: Path) -> None:
    upper, work = store(tmp_path / "u", "dev f"), store(tmp_path / "u.work", "dir work")
    record = MountRecord.for_this_process(
        os.fsencode(tmp_path / "m"), [], os.fsencode(upper), os.fsencode(work), "devfuse"
    )
    with Registry().claim(record), pytest.raises(MountError, match="is used by another live mount"):
        convert(upper, "aufs")
    assert os.listdir(upper) == ["f"]


# namespaces ----------------------------------------------------------------------------------------------------------
TRUSTED = (
    "dir d trusted.overlay.redirect=/g trusted.overlay.origin= trusted.overlay.impure=y",
    "data d/f text trusted.overlay.metacopy=",
    "dev d/x",
    "dir e trusted.overlay.opaque=y",
)
IN_USER = tuple(line.replace("trusted.", "user.") for line in TRUSTED)


@pytest.mark.needs_root
@requires("root")
class TestNamespaces:
    def test_attributes_move_there_and_back(self, tmp_path: Path) -> None:
        layer = store(tmp_path / "layer", *TRUSTED)
        before = stored(layer)
        assert convert(layer, "kernel").steps == 0
        assert convert(layer, "kernel", xattrs="user").xattrs == "user"
        assert stored(layer) == stored(store(tmp_path / "wanted", *IN_USER))
        assert convert(layer, "kernel", xattrs="user").steps == 0
        assert convert(layer, "kernel", xattrs="trusted").steps > 0
        assert stored(layer) == before

    def test_encoding_and_namespace_at_once(self, tmp_path: Path, base: Path) -> None:
        layer = store(
            tmp_path / "layer", *(line.replace("opaque", "trusted.overlay.opaque") for line in NAMED["xattr"])
        )
        for name in ("f", "d/x", "d/sub/z"):
            os.removexattr(layer / name, "user.overlay.whiteout")
            os.setxattr(layer / name, "trusted.overlay.whiteout", b"")
        os.removexattr(layer / "d", "user.overlay.impure")
        os.setxattr(layer / "d", "trusted.overlay.impure", b"y")
        before = shown(layer, base)
        convert(layer, "kernel", xattrs="user")
        assert stored(layer) == stored(store(tmp_path / "wanted", *NAMED["kernel"]))
        assert shown(layer, base) == before

    def test_a_crash_is_completed_in_either_direction(self, tmp_path: Path) -> None:
        wanted = {"user": stored(store(tmp_path / "u", *IN_USER)), "trusted": stored(store(tmp_path / "t", *TRUSTED))}
        directions: tuple[Literal["trusted", "user"], ...] = ("trusted", "user")
        for towards in directions:
            for budget in range(100):
                layer = store(tmp_path / f"{towards}{budget}", *TRUSTED)
                dying = Dying(layer, budget)
                try:
                    convert_layer(dying, "kernel", xattrs="user")
                    died = False
                except KeyboardInterrupt:
                    died = True
                finally:
                    dying.close()
                convert(layer, "kernel", xattrs=towards)
                assert stored(layer) == wanted[towards]
                if not died:
                    break
            else:
                pytest.fail("it never came to its end")

    def test_a_crash_is_told_by_check(self, tmp_path: Path) -> None:
        layer = store(tmp_path / "layer", *TRUSTED)
        dying = Dying(layer, 8)
        with pytest.raises(KeyboardInterrupt):
            convert_layer(dying, "kernel", xattrs="user")
        dying.close()
        assert "unfinished-conversion" in {finding.rule for finding in check(layer).findings}
        convert(layer, "kernel")
        assert check(layer).findings == ()

    def test_a_link_cannot_have_user_attributes(self, tmp_path: Path) -> None:
        layer = store(tmp_path / "layer", "symlink l f trusted.overlay.origin=")
        with pytest.raises(LayerError, match="/l: neither file nor directory"):
            convert(layer, "kernel", xattrs="user")

    def test_both_at_once_are_refused(self, tmp_path: Path) -> None:
        layer = store(tmp_path / "layer", "dir d trusted.overlay.opaque=y", "dir e opaque=y")
        with pytest.raises(LayerError, match="of both namespaces: /d and /e"):
            convert(layer, "kernel", xattrs="user")

    def test_attributes_of_an_overlay_inside_are_refused(self, tmp_path: Path) -> None:
        layer = store(tmp_path / "layer", "dir d trusted.overlay.opaque=y trusted.overlay.overlay.opaque=y")
        with pytest.raises(LayerError, match="/d: the attribute of an overlay inside"):
            convert(layer, "kernel", xattrs="user")

    def test_the_index_moves_too(self, tmp_path: Path) -> None:
        base = store(tmp_path / "base", "data one linked", "link one two", "link one three")
        trusted, user = UnionOptions(xattr_prefix=b"trusted."), UnionOptions(xattr_prefix=b"user.")
        with union(tmp_path, [base], options=trusted) as u:
            u.write("one", b"LINKED")
        with pytest.raises(LayerError, match="/one: in the hard-link index of a work directory"):
            convert(tmp_path / "upper", "kernel", xattrs="user")
        convert(tmp_path / "upper", "kernel", xattrs="user", work=tmp_path / "work")
        with union(tmp_path, [base], options=user) as u:
            assert [u.read(name) for name in ("one", "two", "three")] == [b"LINKED"] * 3
            assert len({u.stat(name).ino for name in ("one", "two", "three")}) == 1
        assert check(tmp_path / "upper", work=tmp_path / "work", layers=[base]).findings == ()


# where things cannot be made -----------------------------------------------------------------------------------------
class NoDevices(WritableDirectory):
    """A file system without device nodes."""

    def mknod(self, path: bytes, mode: int, rdev: int) -> None:
        raise PermissionError(1, "Operation not permitted")


def test_without_devices_fuse_overlayfs_has_dotted_whiteouts_and_the_kernel_none(tmp_path: Path, base: Path) -> None:
    store(tmp_path / "layer", *NAMED["xattr"])
    before, bytes_before = shown(tmp_path / "layer", base), stored(tmp_path / "layer")
    layer = NoDevices(str(tmp_path / "layer"))
    try:
        with pytest.raises(LayerError, match="whiteout devices cannot be made here"):
            convert_layer(layer, "kernel")
        assert stored(tmp_path / "layer") == bytes_before
        convert_layer(layer, "fuse-overlayfs")
        assert (tmp_path / "layer/d/.wh.x").exists() and (tmp_path / "layer/e/.wh..wh..opq").exists()
        assert shown(tmp_path / "layer", base) == before
        assert convert_layer(layer, "fuse-overlayfs").steps == 0
    finally:
        layer.close()


def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    canary = store(tmp_path / "canary", *NAMED["kernel"], "file .wh.f2")
    before = stored(canary)
    for encoding in ENCODINGS:
        layer = store(tmp_path / encoding, f"symlink d {canary}", f"symlink f {canary}/f", "file .wh.d2", "dev x")
        convert(layer, encoding)
        assert (stored(canary), os.readlink(layer / "d")) == (before, str(canary))


def test_a_name_that_just_fits(tmp_path: Path) -> None:
    name = "n" * 251
    layer = store(tmp_path / "layer", f"dev {name}")
    convert(layer, "aufs")
    assert sorted(os.listdir(layer)) == [".wh..wh.aufs", f".wh.{name}"]
    convert(layer, "kernel")
    assert os.listdir(layer) == [name]


@pytest.mark.needs_root
@requires("root")
def test_a_user_without_privileges_converts_there_and_back() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's directories are root's alone
        os.chmod(place, 0o777)

        def work() -> None:
            os.environ["XDG_RUNTIME_DIR"] = place
            base = store(Path(place) / "base", *BASE)
            layer = store(Path(place) / "layer", *NAMED["kernel"])
            before, bytes_before = shown(layer, base), stored(layer)
            for encoding in (*ENCODINGS, ENCODINGS[0]):
                assert convert(layer, encoding).xattrs == "user"
                assert shown(layer, base) == before
            assert stored(layer) == bytes_before
            with pytest.raises(LayerError, match=r"trusted\.overlay\.\* cannot be set here"):
                convert(layer, "kernel", xattrs="trusted")
            assert stored(layer) == bytes_before
            assert check(layer, layers=[base]).clean

        run_as_nobody(work)
