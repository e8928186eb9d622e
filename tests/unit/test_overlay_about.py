"""`user.unionfs.*`: which layer a file is from, asked of the file; the same that `which` says."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path

import pytest

from tests.unit.overlay_rig import tree
from unionfs.api import Stack, UnionOptions, which
from unionfs.api.mounting import union_options_of
from unionfs.errors import OptionError
from unionfs.overlay.xattrs import ABOUT

NAMES = ("layer", "path", "layers", "rule")


def told(stack: Stack, path: str, *, follow: bool = True) -> tuple[str, ...]:
    return tuple(
        os.fsdecode(stack.getxattr(path, f"user.unionfs.{name}", follow_symlinks=follow)).replace("\0", " ")
        for name in NAMES
    )


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, str]:
    top = tree(tmp_path / "top", etc__motd="top", srv__x="x")
    base = tree(tmp_path / "base", etc__motd="base", etc__passwd="root", bin__a="linked")
    os.link(base / "bin/a", base / "bin/b")
    os.symlink("motd", base / "etc/issue")
    return str(top), str(base)


def test_what_a_file_says_of_itself(tmp_path: Path, layers: tuple[str, str]) -> None:
    top, base = layers
    upper = str(tmp_path / "upper")
    with Stack(layers, upper) as stack:
        assert told(stack, "etc/motd") == (top, "/etc/motd", top, "wins")
        assert told(stack, "etc/passwd") == (base, "/etc/passwd", base, "wins")
        assert told(stack, "etc") == (top, "/etc", f"{top} {base}", "merged")
        assert told(stack, "/") == (upper, "/", f"{upper} {top} {base}", "merged")
        assert told(stack, "etc/issue", follow=False) == (base, "/etc/issue", base, "wins")
        stack.write_text("etc/passwd", "changed")
        assert told(stack, "etc/passwd") == (upper, "/etc/passwd", upper, "wins")
        stack.rename("srv", "www")
        assert told(stack, "www") == (upper, "/www", f"{upper} {top}", "merged,redirect")
        assert told(stack, "www/x") == (top, "/srv/x", top, "wins")
        stack.rmtree("etc")
        stack.mkdir("etc")
        assert told(stack, "etc") == (upper, "/etc", upper, "wins,opaque")
        stack.write_text("bin/a", "both")
        layer, path, _, rule = told(stack, "bin/b")
        assert rule == "linked" and Path(layer + path).read_text() == "both"


def test_it_is_what_which_says(tmp_path: Path, layers: tuple[str, str]) -> None:
    upper = str(tmp_path / "upper")
    with Stack(layers, upper) as stack:
        stack.chmod("etc/motd", 0o600)
        for path in ("etc", "etc/motd", "etc/passwd", "srv/x", "bin/a"):
            source = which(path, layers=layers, upper=upper)
            layer = source.layers[source.which.layers[0]]
            assert stack.getxattr(path, "user.unionfs.layer") == layer
            names = [source.layers[number] or b"" for number in source.which.layers]
            assert stack.getxattr(path, "user.unionfs.layers").split(b"\0") == names


def test_a_metacopy_says_that_its_data_is_below(tmp_path: Path, layers: tuple[str, str]) -> None:
    upper = str(tmp_path / "upper")
    with Stack(layers, upper, options=UnionOptions(metacopy=True)) as stack:
        if not stack.filesystem._union.metacopy:  # type: ignore[attr-defined]
            pytest.skip("metacopies take root")
        stack.chmod("etc/passwd", 0o600)
        assert told(stack, "etc/passwd") == (upper, "/etc/passwd", f"{upper} {layers[1]}", "metacopy")


def test_tars_that_are_merged_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))
    tars = []
    for name in ("top", "base"):
        directory = tree(tmp_path / name, **{f"etc__{name}": name})
        with tarfile.open(f"{directory}.tar", "w") as tar:
            tar.add(directory, ".")
        tars.append(f"{directory}.tar")
    with Stack(tars, tmp_path / "upper") as stack:
        stack.write_text("etc/new", "new")
        assert told(stack, "etc/top") == (tars[0], "/etc/top", tars[0], "wins")
        assert told(stack, "etc/base") == (tars[1], "/etc/base", tars[1], "wins")
        assert told(stack, "etc/new")[0] == str(tmp_path / "upper")
        assert told(stack, "etc")[2].split() == [str(tmp_path / "upper"), *tars]


def test_nobody_sees_them_in_a_list_nor_sets_them(layers: tuple[str, str], tmp_path: Path) -> None:
    with Stack(layers, tmp_path / "upper") as stack:
        assert stack.listxattr("etc/motd") == []
        for name in ("user.unionfs.layer", "user.unionfs.anything"):
            with pytest.raises(OSError) as caught:
                stack.setxattr("etc/motd", name, b"x")
            assert caught.value.errno == errno.EPERM
            with pytest.raises(OSError) as caught:
                stack.removexattr("etc/motd", name)
            assert caught.value.errno == errno.EPERM
        with pytest.raises(OSError) as caught:
            stack.getxattr("etc/motd", "user.unionfs.anything")
        assert caught.value.errno == errno.ENODATA
        assert told(stack, "etc/motd")[0] == layers[0]  # nothing was copied up for it


def test_what_has_lost_its_name_has_none(layers: tuple[str, str], tmp_path: Path) -> None:
    with Stack(layers, tmp_path / "upper") as stack:
        fs = stack.filesystem
        parent = fs.lookup(1, b"etc").node
        node = fs.lookup(parent, b"motd").node
        fs.unlink(parent, b"motd")
        with pytest.raises(OSError) as caught:
            fs.getxattr(node, ABOUT + b"layer")
        assert caught.value.errno == errno.ENODATA
        fs.forget(node, 1)
        fs.forget(parent, 1)


def test_a_stored_attribute_of_such_a_name_is_in_the_shade(layers: tuple[str, str], tmp_path: Path) -> None:
    """And stays what it is, also in a copy."""
    motd = Path(layers[0]) / "etc/motd"
    os.setxattr(motd, "user.unionfs.layer", b"forged")
    os.setxattr(motd, "user.mine", b"mine")
    with Stack(layers, tmp_path / "upper") as stack:
        assert told(stack, "etc/motd")[0] == layers[0]
        assert stack.listxattr("etc/motd") == ["user.mine"]
        stack.chmod("etc/motd", 0o600)
        assert told(stack, "etc/motd")[0] == str(tmp_path / "upper")
    assert os.getxattr(tmp_path / "upper/etc/motd", "user.unionfs.layer") == b"forged"


def test_the_option_is_on_or_off() -> None:
    union_options_of({"layer_xattrs": "off"})
    with pytest.raises(OptionError):
        union_options_of({"layer_xattrs": "maybe"})
