"""Files that were listed and not named since: one `Batch` for each reply, until somebody asks for one of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem
from unionfs.vfs import ROOT, Attr, Caller, DirEntryPlus, NodeId, SetAttr

NAMES = [b"f%d" % i for i in range(5)]
ROOT_USER = Caller(0, 0, 1, 0)


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    directory = tmp_path / "lower"
    directory.mkdir()
    for name in NAMES:
        (directory / os.fsdecode(name)).write_bytes(name)
    return directory


@pytest.fixture
def fs(lower: Path, tmp_path: Path) -> Iterator[UnionFilesystem]:
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    fs = UnionFilesystem(
        [DirectoryLayer(str(lower))],
        WritableDirectory(str(tmp_path / "upper")),
        WritableDirectory(str(tmp_path / "work")),
    )
    yield fs
    fs.check_invariants()
    fs.close()


def listed(fs: UnionFilesystem, directory: NodeId = ROOT, budget: int = 65536) -> dict[bytes, DirEntryPlus]:
    fh, offset, found = fs.opendir(directory), 0, {}
    while entries := fs.readdirplus(fh, offset, budget, 152):
        found.update({entry.name: entry for entry in entries if entry.node})
        offset = entries[-1].cookie
    fs.releasedir(fh)
    fs.check_invariants()
    return found


def own_inodes(fs: UnionFilesystem) -> int:
    return len(fs._union.table.nodes) - 1


def refused(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def test_a_listing_makes_no_inode_and_the_records_are_those_of_a_lookup(fs: UnionFilesystem, lower: Path) -> None:
    known = listed(fs)
    assert sorted(known) == NAMES and own_inodes(fs) == 0
    for name, entry in known.items():
        st = os.stat(lower / os.fsdecode(name))
        attr = Attr.unpack(entry.attr)
        assert (attr.mode, attr.size, attr.mtime_ns, attr.nlink) == (st.st_mode, st.st_size, st.st_mtime_ns, 1)
        assert fs.lookup(ROOT, name) == (entry.node, entry.attr)


@pytest.mark.parametrize("act", ["getattr", "lookup", "open", "setattr", "getxattr", "link", "rename", "unlink"])
def test_the_first_request_for_a_file_takes_it_and_leaves_the_others(fs: UnionFilesystem, act: str) -> None:
    known = listed(fs)
    node = known[b"f3"].node
    acts: dict[str, Callable[[], object]] = {
        "getattr": lambda: fs.getattr(node),
        "lookup": lambda: fs.lookup(ROOT, b"f3"),
        "open": lambda: fs.release(fs.open(node, os.O_RDONLY).fh),
        "setattr": lambda: fs.setattr(node, SetAttr(mode=0o600), ROOT_USER),
        "getxattr": lambda: refused(lambda: fs.getxattr(node, b"user.none")),
        "link": lambda: fs.link(node, ROOT, b"g", ROOT_USER),
        "rename": lambda: fs.rename(ROOT, b"f3", ROOT, b"g", 0),
        "unlink": lambda: fs.unlink(ROOT, b"f3"),
    }
    acts[act]()
    fs.check_invariants()
    assert own_inodes(fs) == 1 and fs._union.inode(node).node == node
    assert Attr.unpack(fs.getattr(node)).ino == Attr.unpack(known[b"f3"].attr).ino
    again = listed(fs)
    assert all(again[name].node == known[name].node for name in again if name not in (b"g", b"f3"))
    assert (b"f3" in again) == (act not in ("rename", "unlink"))


def test_listing_again_gives_the_same_nodes_each_of_which_has_two_lookups_then(fs: UnionFilesystem) -> None:
    first, second = listed(fs), listed(fs)
    assert first == second
    node = first[b"f1"].node
    fs.forget(node, 1)
    fs.check_invariants()
    assert fs.getattr(node) == first[b"f1"].attr
    fs.forget(node, 1)
    assert refused(lambda: fs.getattr(node)) == errno.ESTALE


def test_more_listings_than_a_byte_counts(fs: UnionFilesystem) -> None:
    nodes = {entry.node for _ in range(300) for entry in listed(fs).values()}
    assert len(nodes) == len(NAMES)
    for node in nodes:
        fs.forget(node, 299)
        fs.getattr(node)
        fs.forget(node, 1)
        assert refused(lambda: fs.getattr(node)) == errno.ESTALE  # noqa: B023 - called at once


def test_a_forgotten_file_gets_a_new_node_when_it_is_listed_again(fs: UnionFilesystem) -> None:
    first = listed(fs)
    fs.forget(first[b"f2"].node, 1)
    second = listed(fs)
    assert second[b"f2"].node != first[b"f2"].node and second[b"f2"].attr == first[b"f2"].attr
    assert refused(lambda: fs.getattr(first[b"f2"].node)) == errno.ESTALE
    fs.forget(first[b"f2"].node, 1)  # once too often: nobody's concern
    assert fs.getattr(second[b"f2"].node)


def test_a_listing_in_parts_makes_a_batch_of_each(fs: UnionFilesystem) -> None:
    known = listed(fs, budget=400)
    assert sorted(known) == NAMES and len(fs._union.table._batches) > 1 and listed(fs) == known


def test_files_with_several_links_have_inodes_at_once_and_are_one(fs: UnionFilesystem, lower: Path) -> None:
    os.link(lower / "f0", lower / "same")
    known = listed(fs)
    assert known[b"f0"].node == known[b"same"].node and own_inodes(fs) == 1


def test_a_directory_stays_while_a_file_listed_in_it_is_in_use(fs: UnionFilesystem, lower: Path) -> None:
    (lower / "d").mkdir()
    (lower / "d/f").write_bytes(b"below")
    directory = fs.lookup(ROOT, b"d").node
    node = listed(fs, directory)[b"f"].node
    fs.forget(directory, 1)
    fs.check_invariants()
    opened = fs.open(node, os.O_RDONLY)
    assert fs.read(opened.fh, 0, 10) == b"below"
    fs.release(opened.fh)
    fs.forget(node, 1)
    assert own_inodes(fs) == 0


def test_the_last_file_to_be_forgotten_takes_its_directory_along(fs: UnionFilesystem, lower: Path) -> None:
    (lower / "d").mkdir()
    (lower / "d/f").touch()
    directory = fs.lookup(ROOT, b"d").node
    node = listed(fs, directory)[b"f"].node
    fs.forget(directory, 1)
    fs.forget(node, 1)
    assert own_inodes(fs) == 0 and len(fs._union.table) == 1


def test_a_renamed_directory_has_its_listed_files_along(fs: UnionFilesystem, lower: Path) -> None:
    (lower / "d").mkdir()
    (lower / "d/f").write_bytes(b"moved")
    directory = fs.lookup(ROOT, b"d").node
    node = listed(fs, directory)[b"f"].node
    fs.rename(ROOT, b"d", ROOT, b"e", 0)
    fs.check_invariants()
    fs.setattr(node, SetAttr(mode=0o640), ROOT_USER)
    assert fs.upper_path(node) == b"e/f"


def test_a_change_of_the_lower_is_noticed_for_listed_files_too(fs: UnionFilesystem, lower: Path) -> None:
    known = listed(fs)
    (lower / "f0").unlink()
    (lower / "f1").write_bytes(b"longer than it was")
    found = fs.refresh()
    fs.check_invariants()
    assert (ROOT, b"f0") in found.gone and known[b"f1"].node in found.nodes
    assert Attr.unpack(fs.getattr(known[b"f1"].node)).size == 18
    assert refused(lambda: fs.lookup(ROOT, b"f0")) == errno.ENOENT


def test_files_of_the_upper_are_listed_so_where_nothing_was_copied_up(fs: UnionFilesystem, lower: Path) -> None:
    node = fs.mkdir(ROOT, b"new", 0o755, ROOT_USER).node
    for name in NAMES:
        fs.forget(fs.mknod(node, name, 0o100644, 0, ROOT_USER).node, 1)
    before = own_inodes(fs)
    known = listed(fs, node)
    assert sorted(known) == NAMES and own_inodes(fs) == before
    opened = fs.open(known[b"f0"].node, os.O_RDWR)
    fs.write(opened.fh, 0, b"data")
    assert Attr.unpack(fs.getattr(known[b"f0"].node)).size == 4
    fs.release(opened.fh)


def test_copied_up_files_show_the_number_they_had_below(fs: UnionFilesystem) -> None:
    ino = {name: Attr.unpack(entry.attr).ino for name, entry in listed(fs).items()}
    node = fs.lookup(ROOT, b"f4").node
    fs.setattr(node, SetAttr(mode=0o600), ROOT_USER)
    fs.forget(node, 2)
    assert {name: Attr.unpack(entry.attr).ino for name, entry in listed(fs).items()} == ino
