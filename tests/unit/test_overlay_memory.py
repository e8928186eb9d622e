"""What a known inode costs, and that it is given back."""

from __future__ import annotations

import sys
from pathlib import Path

from unionfs.layers.directory import DirectoryLayer
from unionfs.overlay import UnionFilesystem
from unionfs.overlay.inode import FileInode
from unionfs.vfs import ROOT, DirEntryPlus

FILES = 3000


def lower_of(files: int, directory: Path) -> UnionFilesystem:
    for i in range(files):
        (directory / f"f{i:04}").touch()
    return UnionFilesystem([DirectoryLayer(str(directory))])


def read_all(fs: UnionFilesystem) -> list[DirEntryPlus]:
    fh, offset, found = fs.opendir(ROOT), 0, []
    while entries := fs.readdirplus(fh, offset, 65536, 152):
        found += [entry for entry in entries if entry.node]
        offset = entries[-1].cookie
    fs.releasedir(fh)
    return found


def read_numbers(fs: UnionFilesystem) -> dict[bytes, int]:
    fh = fs.opendir(ROOT)
    entries = fs.readdir(fh, 0, 1 << 20, 24)
    fs.releasedir(fh)
    return {entry.name: entry.ino for entry in entries}


def test_an_unchanged_file_keeps_one_object_of_its_own_beside_its_record(tmp_path: Path) -> None:
    fs = lower_of(2, tmp_path)
    first, second = (fs._union.inode(entry.node) for entry in read_all(fs))
    assert isinstance(first, FileInode) and isinstance(second, FileInode)
    assert first._base is second._base and first._names is None and sys.getsizeof(first) <= 160
    assert first.lower == (1, first.names[0][1])
    fs.close()


def test_numbers_in_a_listing_stay_when_the_inodes_are_forgotten(tmp_path: Path) -> None:
    fs = lower_of(5, tmp_path)
    before = read_numbers(fs)
    known = read_all(fs)
    assert read_numbers(fs) == before
    for entry in known:
        fs.forget(entry.node, 1)
    assert read_numbers(fs) == before
    fs.check_invariants()
    fs.close()


def test_a_listed_file_that_nobody_names_has_no_object_of_its_own(tmp_path: Path) -> None:
    fs = lower_of(FILES, tmp_path)
    known, table = read_all(fs), fs._union.table
    assert len(known) == FILES and len(table) == FILES + 1 and len(table.nodes) == 1
    for entry in known:
        fs.forget(entry.node, 1)
    assert len(table) == 1 and not table._batches
    fs.check_invariants()
    fs.close()


def test_forgetting_most_inodes_closes_directories_and_makes_the_table_anew(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    fs = lower_of(FILES, tmp_path)
    directory = fs.lookup(ROOT, b"d")
    fs.forget(fs.lookup(directory.node, b"f").node, 1)
    (layer,) = fs._union.stack.lowers
    assert isinstance(layer, DirectoryLayer) and len(layer._dirs) == 2
    known, table = read_all(fs), fs._union.table.nodes
    for entry in known:
        fs.getattr(entry.node)  # nobody had named them
    for entry in known:
        fs.forget(entry.node, 1)
    assert len(layer._dirs) == 1
    assert fs._union.table.nodes is not table and sys.getsizeof(fs._union.table.nodes) < sys.getsizeof(table) / 2
    assert fs.lookup(directory.node, b"f").node
    fs.check_invariants()
    fs.close()
