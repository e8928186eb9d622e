"""`explain.waste`: held against `which` for what is seen, and against dive's definition computed from the tars."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model import layers as model
from tests.model import strategies
from tests.unit.explain_rig import ENCODINGS, ROOT, Change, changed, changes, layer_of, needs_root, read_only
from tests.unit.overlay_rig import tree
from tests.unit.tar_rig import cache_of
from unionfs.api.paths import Tree
from unionfs.explain.duplicates import duplicates
from unionfs.explain.waste import Waste, WastedPath, waste
from unionfs.explain.which import Place, which
from unionfs.layers.directory import DirectoryLayer
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.overlay.lower_links import bind_links
from unionfs.overlay.metacopy import is_metacopy
from unionfs.vfs import DT_DIR, DT_REG


# what is seen ---------------------------------------------------------------------------------------------------------
def files_of(fs: UnionFilesystem, number: int, path: bytes = b"") -> dict[bytes, os.stat_result]:
    """The regular files that a layer of directories has, but AUFS's whiteouts and those of an xattr."""
    found: dict[bytes, os.stat_result] = {}
    for entry in layer_of(fs, Place(number, path)).scan(path):
        below = path + b"/" + entry.name if path else entry.name
        if entry.type == DT_DIR:
            found |= files_of(fs, number, below)
        elif entry.type == DT_REG and not is_metacopy(fs._union, number, below):
            found[below] = layer_of(fs, Place(number, below)).lstat(below)
    return found


def seen(fs: UnionFilesystem, merged: Tree) -> set[tuple[int, bytes]]:
    """Where `which` has the bytes of all files that the union shows."""
    found = set()
    for directory, _, names in merged.walk(b"/"):
        for name in names:
            path = os.path.join(directory, name).lstrip(b"/")
            if stat.S_ISREG(merged.lstat(path).st_mode):
                data = which(fs, path).data
                assert data is not None
                found.add((data.layer, data.path))
    return found


def check(lowers: list[str], upper: str, work: str) -> None:
    with read_only(lowers, upper, work) as fs:
        shown = seen(fs, Tree(fs, ROOT))
        found = waste(fs)
        for layer in found.layers:
            inodes: dict[int, list[bytes]] = defaultdict(list)
            files = files_of(fs, layer.number)
            for path, status in files.items():
                inodes[status.st_ino].append(path)
            sizes = {paths[0]: files[paths[0]].st_size for paths in inodes.values()}
            hidden = {
                paths[0]: files[paths[0]].st_size
                for paths in inodes.values()
                if not any((layer.number, path) in shown for path in paths)
            }
            assert layer.stored == sum(sizes.values()), (layer, files)
            assert layer.wasted == sum(hidden.values()), (layer, hidden, shown)
        assert sum(path.wasted for path in found.paths) == found.wasted
        names = Tree(fs, ROOT)
        assert [one for one in found.paths if one.removed and names.lexists(one.path)] == []


@needs_root
@settings(max_examples=40, deadline=None)
@given(strategies.stacks(ENCODINGS))
def test_what_no_name_of_any_stack_leads_to_is_wasted(stack: model.Stack) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check(*model.build(stack, directory))


@needs_root
@settings(max_examples=40, deadline=None)
@given(strategies.stacks(ENCODINGS), st.lists(changes(), min_size=1, max_size=8))
def test_what_a_redirect_a_metacopy_or_a_hard_link_leads_to_is_not_wasted(
    stack: model.Stack, made: list[Change]
) -> None:
    with changed(stack, made) as (lowers, upper, work, _):
        check(lowers, upper, work)


# dive -----------------------------------------------------------------------------------------------------------------
def dive(tars: list[bytes]) -> tuple[float, int, int]:
    """dive's efficiency and wasted bytes (filetree.Efficiency, image.Analyze), and the bytes of all but the base layer,
    from what tarfile reads, by whole stacked trees as dive does it. The base is the first."""
    layers = []
    for data in tars:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            layers.append({"/" + member.name: (member.size, member.isdir()) for member in tar.getmembers()})
    stacked: dict[str, tuple[int, bool]] = {}
    occurrences: dict[str, list[int]] = defaultdict(list)
    for layer in layers:
        before = dict(stacked)
        for path, (size, _) in sorted(layer.items()):
            directory, _, name = path.rpartition("/")
            if name.startswith(".wh..wh."):
                continue
            if name.startswith(".wh."):
                gone = f"{directory}/{name[4:]}"
                inside = [p for p in before if p.startswith(gone + "/")]
                was_dir = before.get(gone, (0, False))[1] or inside
                occurrences[gone].append(sum(before[p][0] for p in inside) if was_dir else 0)
                for p in (gone, *inside):
                    stacked.pop(p, None)
            elif not any(other.startswith(path + "/") and not other.startswith(path + "/.wh..wh.") for other in layer):
                occurrences[path].append(size)
        for path, (size, is_dir) in layer.items():
            if "/.wh." not in path:
                stacked[path] = size, is_dir
    least = sum(min(sizes) for sizes in occurrences.values())
    all_ = sum(sum(sizes) for sizes in occurrences.values())
    wasted = sum(sum(sizes) for sizes in occurrences.values() if len(sizes) > 1)
    user = sum(size for layer in layers[1:] for size, _ in layer.values())
    return least / all_ if all_ else 1.0, wasted, user


def tar_of(entries: dict[str, int | None]) -> bytes:
    """`entries`: bytes of a file, None of a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number, (name, size) in enumerate(sorted(entries.items())):
            member = tarfile.TarInfo(name)
            member.type, member.size = (tarfile.DIRTYPE, 0) if size is None else (tarfile.REGTYPE, size)
            tar.addfile(member, io.BytesIO(bytes([number % 256]) * (size or 0)))
    return out.getvalue()


def of_tars(directory: Path, tars: list[bytes]) -> Waste:
    """The base is the first."""
    cache, layers = cache_of(directory), []
    for number, data in reversed(list(enumerate(tars))):
        path = directory / f"{number}.tar"
        path.write_bytes(data)
        layers.append(cache.open_file(os.fsencode(path)))
    bind_links(layers)
    fs = UnionFilesystem(layers, None, None, UnionOptions(read_only=True))
    try:
        return waste(fs)
    finally:
        fs.close()


@st.composite
def image_layers(draw: st.DrawFn) -> list[dict[str, int | None]]:
    """Layers as builders write them: whiteouts are of what is there, a directory stays one, what is in a directory
    stands with it."""
    there: dict[str, int | None] = {}
    layers = []
    for _ in range(draw(st.integers(1, 5))):
        layer: dict[str, int | None] = {}
        gone = draw(st.lists(st.sampled_from(sorted(there) or ["-"]), max_size=2, unique=True))
        for path in gone:
            if path in there:
                head, _, name = path.rpartition("/")
                layer[f"{head}/.wh.{name}".lstrip("/")] = 0
                if head:
                    layer[head] = None
                for below in [p for p in there if p == path or p.startswith(path + "/")]:
                    del there[below]
        for name in draw(st.lists(st.sampled_from(["a/x", "a/y", "a/b/z", "c/x", "f"]), max_size=4, unique=True)):
            parents = ["/".join(name.split("/")[:n]) for n in range(1, name.count("/") + 1)]
            if any(path in gone for path in (name, *parents)):
                continue
            for path in parents:
                layer[path] = there[path] = None
            layer[name] = there[name] = draw(st.integers(0, 100))
        layers.append(layer)
    return layers


@settings(max_examples=60, deadline=None)
@given(image_layers())
def test_the_score_is_what_dives_definition_gives_for_the_tars(layers: list[dict[str, int | None]]) -> None:
    tars = [tar_of(layer) for layer in layers]
    with tempfile.TemporaryDirectory() as directory:
        found = of_tars(Path(directory), tars)
    efficiency, wasted, user = dive(tars)
    assert found.score.wasted == wasted, layers
    assert found.score.efficiency == pytest.approx(efficiency), layers
    assert found.score.user_wasted == pytest.approx(wasted / user if user else 0), layers


def test_a_removed_directory_is_one_path_and_costs_dive_nothing(tmp_path: Path) -> None:
    found = of_tars(
        tmp_path,
        [
            tar_of({"cache": None, "cache/a": 100, "cache/d": None, "cache/d/b": 50, "kept": 10}),
            tar_of({".wh.cache": 0, "kept": 30}),
        ],
    )
    assert found.paths == (
        WastedPath(b"cache", 150, 2, (2,), removed=True),
        WastedPath(b"kept", 10, 1, (2,), removed=False),
    )
    assert [(layer.number, layer.stored, layer.wasted) for layer in found.layers] == [(1, 30, 0), (2, 160, 160)]
    # 150 and 0 for the files and the whiteout of the directory as large again; 10 of 10 + 30.
    assert found.score.efficiency == (150 + 150 + 10) / (150 + 150 + 40)
    assert found.score.wasted == 40


def test_an_opaque_directory_hides_what_lies_below_in_it_and_not_what_it_has(tmp_path: Path) -> None:
    found = of_tars(
        tmp_path,
        [tar_of({"d": None, "d/a": 7, "d/b": 5}), tar_of({"d": None, "d/.wh..wh..opq": 0, "d/b": 5, "d/c": 1})],
    )
    assert [(path.path, path.wasted, path.removed) for path in found.paths] == [(b"d/a", 7, True), (b"d/b", 5, False)]


def test_what_a_tars_hard_link_leads_to_in_a_layer_below_is_not_wasted(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("new")
        link.type, link.linkname = tarfile.LNKTYPE, "old"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(".wh.old"))
    found = of_tars(tmp_path, [tar_of({"old": 99, "other": 1}), out.getvalue()])
    assert (found.stored, found.wasted) == (100, 0)


def test_names_of_one_file_are_wasted_once_and_only_if_all_are_hidden(tmp_path: Path) -> None:
    tree(tmp_path / "base", a="12345", c="123")
    os.link(tmp_path / "base/a", tmp_path / "base/b")
    os.link(tmp_path / "base/c", tmp_path / "base/d")
    tree(tmp_path / "top", a="x", b="y", c="z")
    fs = UnionFilesystem([DirectoryLayer(str(tmp_path / name)) for name in ("top", "base")])
    try:
        found = waste(fs)
    finally:
        fs.close()
    assert found.paths == (WastedPath(b"a", 5, 1, (2,), removed=False),)
    assert found.layers[-1].stored == 8


def test_equal_content_is_found_in_other_layers_under_any_name(tmp_path: Path) -> None:
    tree(tmp_path / "base", a="same", b="else", c="same")
    tree(tmp_path / "top", a="same", d="else", e="size")
    fs = UnionFilesystem([DirectoryLayer(str(tmp_path / name)) for name in ("top", "base")])
    try:
        found = duplicates(fs)
    finally:
        fs.close()
    assert [(one.size, one.extra, sorted((place.layer, place.path) for place in one.places)) for one in found] == [
        (4, 8, [(1, b"a"), (2, b"a"), (2, b"c")]),
        (4, 4, [(1, b"d"), (2, b"b")]),
    ]
