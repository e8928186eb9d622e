"""Attributes of layers are not trusted: whatever bytes stand in them, operations end with a result or an OSError.

Every attribute that means anything to a union, on every object of upper, lowers and index, in both namespaces. After
each operation the engine's invariants are checked (overlay_rig.py), at the end the canary beside the layers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.canary import Canary
from tests.requirements import requires
from tests.unit.overlay_rig import Rig, tree, union
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.override import ATTRIBUTES, CONTAINERS, OverrideLayer, OverrideUpper
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.hardlink import _FB, encode_origin

pytestmark = requires("root")  # trusted.*

NAMES = (
    "opaque redirect origin impure nlink metacopy whiteout whiteouts protattr upper uuid verity "
    "unionfs.slot unionfs.number unionfs.whiteout overlay.opaque overlay.redirect"
).split()
OBJECTS = ("", "d", "d/e", "d/e/f", "f", "h1", "h2", "empty")


def _origin(handle: bytes, kind: int = 1, length: int | None = None) -> bytes:
    size = _FB.size + len(handle) if length is None else length
    return _FB.pack(0, 0xFB, size & 0xFF, 0, kind, bytes(16)) + handle


#: What is nearly right is worse than noise.
NEARLY = (
    b"", b"y", b"x", b"yy", b"\0", b"n",
    b"9" * 5000, b"9" * 20, b"18446744073709551616", b"1+", b"1++", b"+", b"-1", b"0", b" 1", b"1_0", "²".encode(),
    b"U+1", b"L-5", b"U-1", b"U+99999999999999999999", b"L+4294967296", b"U-2147483648", b"U", b"L+", b"U+1\n",
    b"..", b".", b"/..", b"/.", b"/", b"//", b"/d/..", b"/../canary", b"../canary", b"/canary", b"a/b", b"/a//b",
    b"d", b"/d", b"/d/e", b"/d/e/f", b"/f", b"f", b"x" * 255, b"x" * 300, b"/" + b"x" * 300, b"/" + b"d/" * 200 + b"e",
    b"/d\0", b"\0/d", b"/" + b"/".join([b"d"] * 1000), b".wh.d", b"/.wh.d", b".wh..wh..opq", b"\xff" * 50,
    _origin(b""), _origin(b"\1" * 8), _origin(b"\1" * 200), _origin(b"\1" * 128, 255), _origin(b"", length=255),
    b"0:0:4755:file", b"0:0:0755:dir", b"0:0:0777:symlink", b"0:0:0600:char-1-3", b"0:0:0:char-0-0", b"0:0:0755:pipe",
    b"-1:-1:0", b"4294967295:0:0644", b"0:0:77777777777", b"0:0:0644:char-99999999-1", b"0:0:0644:file-" + b"x" * 3000,
)  # fmt: skip

values = st.one_of(
    st.sampled_from(NEARLY),
    st.binary(max_size=60),
    st.text("UL+-0123456789", max_size=25).map(str.encode),
    st.text("/.ad\0", max_size=12).map(str.encode),
    st.binary(max_size=40).map(_origin),
    st.text("0123456789:-abcdefilrs", max_size=30).map(str.encode),
)
namespaces = st.sampled_from(["trusted", "user"])


def layers(base: Path) -> list[Path]:
    """Two lowers below an upper that has copies of some of their files, one of them a hard-link group with an index."""
    top = tree(base / "top", d__e__f="top", f="top", h1="links", empty="")
    os.link(top / "h1", top / "h2")
    low = tree(base / "low", d__e__g="low", d__f="low", x="low")
    upper = tree(base / "upper", d__e__h="upper", f="upper", h1="links", empty="")
    os.link(upper / "h1", upper / "h2")
    layer = DirectoryLayer(str(top))
    handle = layer.handle(b"h1")
    layer.close()
    assert handle is not None
    for namespace in ("trusted", "user"):
        for path in (upper, upper / "d", upper / "d/e"):
            os.setxattr(path, f"{namespace}.overlay.impure", b"y")
        os.setxattr(upper / "h1", f"{namespace}.overlay.origin", encode_origin(handle))
    index = base / "work" / "index"
    index.mkdir(parents=True)
    os.link(upper / "h1", index / encode_origin(handle).hex())
    return [top, low]


def refused(operation: Callable[..., object], *arguments: object) -> None:
    """Whatever it does: a result, or an OSError."""
    with contextlib.suppress(OSError):
        operation(*arguments)


def use(u: Rig, path: str) -> None:
    """Everything that reads what a layer says about an object, or writes anew what it said."""
    for there in ("", "d", "d/e"):
        refused(u.list, there)
    for operation in (u.stat, u.list, u.read):
        refused(operation, path)
    refused(u.write, path, b"written")
    refused(lambda: u.setattr(path, mode=0o750))
    refused(lambda: _xattrs(u, path))
    refused(u.link, path, "linked")
    refused(u.rename, path, "moved")
    refused(u.list, "moved")
    refused(u.create, "moved/new", b"new")
    refused(u.rename, "moved", path or "back")
    refused(u.unlink, "linked")
    refused(u.unlink, path)
    refused(u.rmdir, path)
    refused(u.mkdir, path)
    refused(u.fs.refresh)
    refused(u.list)


def _xattrs(u: Rig, path: str) -> None:
    with u.node(path) as node:
        for name in u.fs.listxattr(node):
            u.fs.getxattr(node, name)
        u.fs.setxattr(node, b"user.overlay.redirect", b"/d", 0)


@contextlib.contextmanager
def place() -> Iterator[tuple[Path, Canary]]:
    base = Path(tempfile.mkdtemp(prefix="unionfs-hostile-"))
    try:
        canary = Canary(base, "top", "low", "upper", "work")
        yield base, canary
        canary.check()
    finally:
        shutil.rmtree(base)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            namespaces, st.sampled_from(NAMES), values, st.sampled_from(["upper", "top", "low"]),
            st.sampled_from(OBJECTS),
        ),
        min_size=1, max_size=4,
    ),
    namespaces, st.sampled_from(OBJECTS),
)  # fmt: skip
def test_any_bytes_in_an_overlay_attribute(
    attributes: list[tuple[str, str, bytes, str, str]], namespace: str, path: str
) -> None:
    with place() as (base, canary):
        lowers = layers(base)
        for layer in (*lowers, base / "upper"):
            canary.bait(layer)
        for ns, name, value, layer_name, there in attributes:
            with contextlib.suppress(OSError):  # not there, or larger than the file system takes
                os.setxattr(base / layer_name / there, f"{ns}.overlay.{name}", value)
        with union(base, lowers, options=UnionOptions(xattr_prefix=f"{namespace}.".encode())) as u:
            use(u, path)
            for _, _, _, _, there in attributes:
                use(u, there)


@pytest.mark.parametrize("name", ["nlink", "unionfs.number", "unionfs.slot", "origin", "redirect", "opaque"])
def test_nearly_right_values_where_they_are_read(name: str) -> None:
    """The corpus without chance: each value, on the object and the upper that heed it."""
    with place() as (base, _):
        lowers = layers(base)
        for value, path in itertools.product(NEARLY, ("h1", "d")):
            with contextlib.suppress(OSError):
                os.setxattr(base / "upper" / path, f"trusted.overlay.{name}", value)
            with union(base, lowers) as u:
                for operation in (u.stat, u.list, u.read):
                    refused(operation, path)
                refused(u.link, path, "linked")
                refused(u.unlink, "linked")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, st.sampled_from(["upper", "top"]), st.sampled_from(OBJECTS)), max_size=4))
def test_any_bytes_in_an_override(attribute: bytes, overrides: list[tuple[bytes, str, str]]) -> None:
    with place() as (base, canary):
        lowers = layers(base)
        for layer in (*lowers, base / "upper"):
            canary.bait(layer)
        for value, layer_name, there in overrides:
            with contextlib.suppress(OSError):
                os.setxattr(base / layer_name / there, attribute, value)
        old = os.umask(0)
        fs = UnionFilesystem(
            [OverrideLayer(DirectoryLayer(str(path)), attribute) for path in lowers],
            OverrideUpper(WritableDirectory(str(base / "upper")), attribute),
            OverrideUpper(WritableDirectory(str(base / "work")), attribute),
        )
        try:
            u = Rig(fs, base / "upper")
            for path in {"d", "f", *(there for _, _, there in overrides)}:
                use(u, path)
                refused(lambda path=path: _readlink(u, path))
        finally:
            fs.close()
            os.umask(old)


def _readlink(u: Rig, path: str) -> None:
    with u.node(path) as node:
        u.fs.readlink(node)


@pytest.mark.parametrize("target", ["canary/file", "../canary/file", "/canary/file"])
def test_override_that_makes_a_symlink_of_a_file_leads_nowhere_in_the_engine(tmp_path: Path, target: str) -> None:
    """It is shown as a link, for its client to follow; the engine never does."""
    canary = Canary(tmp_path, "a", "upper", "work")
    a = tree(tmp_path / "a", link=target, dir__file="")
    os.setxattr(a / "link", CONTAINERS, b"0:0:0777:symlink")
    fs = UnionFilesystem([OverrideLayer(DirectoryLayer(str(a)), CONTAINERS)])
    u = Rig(fs, tmp_path)
    for refusal in (u.read, u.list):
        with pytest.raises(OSError):
            refusal("link")
    with u.node("link") as node:
        assert fs.readlink(node) == target.encode()
    fs.close()
    canary.check()
