"""A tar as a layer: every kind of entry, what real tars do, and what hostile ones try."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.golden.hostile_tars import CORPUS, ODD_BUT_GOOD, archive, entry, pax
from tests.requirements import requires
from tests.unit.tar_rig import directories, layer_of, names, tree_of
from unionfs.api import Stack
from unionfs.changeset.apply import apply
from unionfs.changeset.tar_format import BLK, CHR, DIR, FIFO, LINK, SYMLINK, TRAILER
from unionfs.changeset.tar_reader import TarReader
from unionfs.errors import TarError
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import LayerFile
from unionfs.layers.tar import TarLayer
from unionfs.layers.upper import WritableDirectory

TIME = 1_700_000_000_123_456_789


@contextmanager
def opened(directory: Path, *entries: bytes) -> Iterator[TarLayer]:
    layer = layer_of(directory, archive(*entries))
    try:
        yield layer
    finally:
        layer.close()


def refusal(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.raises(OSError, check=lambda error: error.errno == number)


# kinds of entries -----------------------------------------------------------------------------------------------------
def test_every_kind_of_entry_is_shown_as_the_tar_has_it(tmp_path: Path) -> None:
    with opened(
        tmp_path,
        entry(b"d/", DIR, mode=0o1777, uid=1, gid=2, mtime_ns=TIME),
        entry(b"d/file", data=b"hello", mode=0o4755, uid=3, gid=4, mtime_ns=TIME),
        entry(b"d/link", SYMLINK, linkname=b"../else/where"),
        entry(b"d/again", LINK, linkname=b"d/file"),
        entry(b"tty", CHR, mode=0o620, rdev=os.makedev(4, 64)),
        entry(b"disk", BLK, mode=0o660, rdev=os.makedev(259, 1048575)),
        entry(b"pipe", FIFO, mode=0o600),
    ) as layer:
        tree = tree_of(layer)
    assert tree[b"d"] == (0o041777, 1, 2, 0, TIME, 0, None, [])
    assert tree[b"d/again"] == ("link", b"d/again", 2, 0o104755, 3, 4, 5, TIME, 0, b"hello", [])
    assert tree[b"d/file"] == ("link", b"d/again", 2, *tree[b"d/again"][3:])
    assert tree[b"d/link"][0] == 0o120777 and tree[b"d/link"][6] == b"../else/where" and tree[b"d/link"][3] == 13
    assert tree[b"tty"][0] == 0o020620 and tree[b"tty"][5] == os.makedev(4, 64)
    assert tree[b"disk"][0] == 0o060660 and tree[b"disk"][5] == os.makedev(259, 1048575)
    assert tree[b"pipe"][0] == 0o010600


def test_directories_count_their_subdirectories(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"a/b/c/", DIR), entry(b"a/d/", DIR), entry(b"a/f")) as layer:
        assert [layer.lstat(path).st_nlink for path in (b"", b"a", b"a/b", b"a/b/c")] == [3, 4, 3, 2]


def test_xattrs_are_shown_but_those_of_overlays(tmp_path: Path) -> None:
    records = pax(
        (b"SCHILY.xattr.user.a", b"1"),
        (b"SCHILY.xattr.security.capability", b"\0\1"),
        (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
        (b"SCHILY.xattr.user.overlay.redirect", b"/etc"),
    )
    with opened(tmp_path, records + entry(b"f")) as layer:
        assert sorted(layer.listxattr(b"f")) == [b"security.capability", b"user.a"]
        assert layer.getxattr(b"f", b"user.a") == b"1"
        assert layer.getxattr(b"f", b"user.b") is None
        assert layer.getxattr(b"", b"user.a") is None


@pytest.mark.parametrize("length", [101, 255, 256, 257])
def test_names_longer_than_a_header_holds(tmp_path: Path, length: int) -> None:
    name = b"/".join([b"x" * 50] * (length // 51) + [b"y" * (length % 51 or 1)])
    with opened(tmp_path, entry(name, data=b"1")) as layer:
        assert layer.lstat(name).st_size == 1


def test_a_path_beyond_path_max_is_reached(tmp_path: Path) -> None:
    path = b"/".join([b"d" * 200] * 30)
    with opened(tmp_path, entry(path, data=b"deep")) as layer:
        assert layer.open(path).pread(10, 0) == b"deep"


def test_a_whole_record_of_a_directory_is_what_lstat_says(tmp_path: Path) -> None:
    from unionfs.vfs import Attr

    with opened(tmp_path, entry(b"a", data=b"12", uid=7, mtime_ns=-5), entry(b"b/", DIR), entry(b"c", FIFO)) as layer:
        records = layer.records(b"", 0)
        shifted = layer.records(b"", 3 << 48)
        assert records is not None and shifted is not None
        assert set(records) == {b"a", b"b", b"c"}
        for name, record in records.items():
            attr = Attr.from_stat(layer.lstat(name))
            assert Attr.unpack(record) == attr
            assert Attr.unpack(shifted[name]) == attr._replace(ino=attr.ino | 3 << 48)


def test_what_is_kept_at_hand_is_bounded(tmp_path: Path) -> None:
    paths = [b"d%02d/s%d/f%d" % (i // 9, i // 3, i) for i in range(300)]
    with opened(tmp_path, *(entry(path) for path in paths)) as layer:
        layer.limit_dir_fds(2)
        for path in (*paths, *reversed(paths)):
            assert layer.lstat(path).st_size == 0
        assert layer._names <= 2 * 10 + 40, "the last directory read, and the bound"


# order and repetition -------------------------------------------------------------------------------------------------
def test_the_last_of_several_entries_wins(tmp_path: Path) -> None:
    with opened(
        tmp_path, entry(b"a", data=b"old"), entry(b"./a", data=b"newer"), entry(b"/a", data=b"newest")
    ) as layer:
        assert names(layer) == [b"a"]
        assert layer.open(b"a").pread(99, 0) == b"newest"


def test_a_directory_stays_and_takes_the_last_attributes(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"d/", DIR, mode=0o700), entry(b"d/f"), entry(b"d/", DIR, mode=0o711)) as layer:
        assert names(layer, b"d") == [b"f"]
        assert layer.lstat(b"d").st_mode == 0o040711


def test_a_file_in_place_of_a_directory_and_back(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"d/f"), entry(b"d"), entry(b"d/g")[:0], entry(b"x"), entry(b"x/", DIR)) as layer:
        assert layer.lstat(b"d").st_mode >> 12 == 8
        assert layer.lstat(b"x").st_mode >> 12 == 4


def test_links_of_what_is_replaced_are_counted_no_more(tmp_path: Path) -> None:
    with opened(
        tmp_path,
        entry(b"d/a", data=b"1"),
        entry(b"b", LINK, linkname=b"d/a"),
        entry(b"c", LINK, linkname=b"b"),
        entry(b"d", FIFO),
        entry(b"b", data=b"2"),
    ) as layer:
        assert layer.lstat(b"c").st_nlink == 1
        assert layer.open(b"c").pread(9, 0) == b"1"


def test_symbolic_links_in_parents_are_followed_inside(tmp_path: Path) -> None:
    with opened(
        tmp_path,
        entry(b"usr/lib/", DIR),
        entry(b"lib", SYMLINK, linkname=b"/usr/lib"),
        entry(b"up", SYMLINK, linkname=b"../../usr"),
        entry(b"lib/a", data=b"a"),
        entry(b"up/lib/b", data=b"b"),
        entry(b"new", SYMLINK, linkname=b"made/here"),
        entry(b"new/c"),
    ) as layer:
        assert names(layer, b"usr/lib") == [b"a", b"b"]
        assert names(layer, b"made/here") == [b"c"]
        assert layer.readlink(b"lib") == b"/usr/lib"


def test_whiteouts_stand_there_by_name_in_any_order(tmp_path: Path) -> None:
    with opened(
        tmp_path,
        entry(b"d/f"),
        entry(b"d/.wh..wh..opq"),
        entry(b".wh.gone", LINK, linkname=b".wh..wh.aufs"),
        entry(b".wh..wh.aufs"),
        entry(b".wh..wh.plnk/1.2", data=b"x"),
        entry(b".wh.d"),
    ) as layer:
        assert names(layer) == [b".wh.d", b".wh.gone", b"d"]
        assert names(layer, b"d") == [b".wh..wh..opq", b"f"]


def test_a_whiteout_below_a_whiteout_makes_no_directory(tmp_path: Path) -> None:
    with opened(
        tmp_path,
        entry(b"emptied/.wh.file"),
        entry(b"emptied/sub/.wh.file"),
        entry(b".wh.emptied"),
        entry(b"remade/.wh.file"),
        entry(b".wh.remade"),
        entry(b"remade/new"),
        entry(b"described/", DIR),
        entry(b".wh.described"),
        entry(b"opaque/gone/.wh.file"),
        entry(b"opaque/.wh..wh..opq"),
    ) as layer:
        assert names(layer) == [b".wh.described", b".wh.emptied", b".wh.remade", b"described", b"opaque", b"remade"]
        assert names(layer, b"remade") == [b".wh.file", b"new"]
        assert names(layer, b"opaque") == [b".wh..wh..opq"]


def test_a_whiteout_below_a_file_hides_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"f"), entry(b"f/.wh.g")) as layer:
        assert names(layer) == [b"f"]


# directories that are not described ---------------------------------------------------------------------------------
def stack(directory: Path, *layers: bytes) -> Stack:
    """A union of tars, topmost first."""
    paths = []
    for number, data in enumerate(layers):
        paths.append(directory / f"{number}.tar")
        paths[-1].write_bytes(data)
    return Stack(paths)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIONFS_CACHE", str(tmp_path / "cache"))


def test_a_directory_that_is_not_described_shows_the_one_below(tmp_path: Path) -> None:
    above = archive(entry(b"tmp/new/file", mtime_ns=TIME))
    below = archive(entry(b"./", DIR, mode=0o711), entry(b"tmp/", DIR, mode=0o1777, uid=5), entry(b"tmp/old"))
    with stack(tmp_path, above, below) as union:
        assert union.stat("tmp").st_mode == 0o041777 and union.stat("tmp").st_uid == 5
        assert union.stat("/").st_mode == 0o040711
        assert union.listdir("tmp") == ["new", "old"]
        # Nobody describes this one.
        assert union.stat("tmp/new").st_mode == 0o040755 and union.stat("tmp/new").st_mtime_ns == TIME


def test_an_opaque_directory_that_is_not_described_shows_the_one_below_without_its_names(tmp_path: Path) -> None:
    above = archive(entry(b"d/.wh..wh..opq"), entry(b"d/f"))
    with stack(tmp_path, above, archive(entry(b"d/", DIR, mode=0o700), entry(b"d/g"))) as union:
        assert union.listdir("d") == ["f"]
        assert union.stat("d").st_mode == 0o040700


def test_a_directory_that_replaced_a_file_of_its_tar_replaces_what_is_below(tmp_path: Path) -> None:
    with stack(tmp_path, archive(entry(b"a"), entry(b"a/", DIR)), archive(entry(b"a/below"))) as union:
        assert union.listdir("a") == []


def test_its_copy_in_the_upper_is_of_the_one_below(tmp_path: Path) -> None:
    mine: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
    (tmp_path / "a.tar").write_bytes(archive(entry(b"tmp/x", **mine)))
    (tmp_path / "b.tar").write_bytes(archive(entry(b"tmp/", DIR, mode=0o1777, mtime_ns=TIME, **mine)))
    umask = os.umask(0)
    with Stack([tmp_path / "a.tar", tmp_path / "b.tar"], upper=tmp_path / "upper") as union:
        union.write_text("tmp/x", "changed")
    os.umask(umask)
    assert (tmp_path / "upper/tmp").stat().st_mode == 0o041777


# hard links to layers below -------------------------------------------------------------------------------------------
def test_a_hard_link_to_a_layer_below_is_its_file(tmp_path: Path) -> None:
    above = archive(
        entry(b"etc/alias", LINK, linkname=b"etc/passwd"),
        entry(b"to-link", LINK, linkname=b"etc/link"),
        entry(b"to-nothing", LINK, linkname=b"etc/nothing"),
        entry(b"to-hidden", LINK, linkname=b"etc/hidden"),
    )
    between = archive(entry(b"etc/.wh.hidden"))
    below = archive(
        pax((b"SCHILY.xattr.user.x", b"y")) + entry(b"etc/passwd", data=b"root", mode=0o640, mtime_ns=TIME),
        entry(b"etc/link", SYMLINK, linkname=b"target"),
        entry(b"etc/hidden"),
    )
    with stack(tmp_path, above, between, below) as union:
        assert union.listdir("/") == ["etc", "to-link"]
        assert union.read_bytes("etc/alias") == b"root"
        alias, real = union.lstat("etc/alias"), union.lstat("etc/passwd")
        assert (alias.st_mode, alias.st_mtime_ns, alias.st_nlink) == (0o100640, TIME, 1)
        assert alias.st_ino != real.st_ino
        assert union.readlink("to-link") == "target"
        assert union.getxattr("etc/alias", "user.x") == b"y"


def test_a_hard_link_to_a_hard_link_to_a_layer_below_is_its_file(tmp_path: Path) -> None:
    above, between = archive(entry(b"c", LINK, linkname=b"b")), archive(entry(b"b", LINK, linkname=b"a"))
    with stack(tmp_path, above, between, archive(entry(b"a", data=b"data"))) as union:
        assert sorted(union.listdir("/")) == ["a", "b", "c"]
        assert union.read_bytes("c") == b"data"


def test_a_hard_link_to_nothing_is_not_there(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"a", LINK, linkname=b"missing"), entry(b"b")) as layer:
        assert layer.lower_links == 1
        assert names(layer) == [b"b"]
        with refusal(errno.ENOENT):
            layer.lstat(b"a")
        with refusal(errno.ENOENT):
            layer.open(b"a")


def test_a_hard_link_into_a_directory_that_only_a_layer_below_has(tmp_path: Path) -> None:
    above, below = archive(entry(b"alias", LINK, linkname=b"etc/passwd")), archive(entry(b"etc/passwd", data=b"root"))
    with stack(tmp_path, above, below) as union:
        assert union.read_bytes("alias") == b"root"


# merged ---------------------------------------------------------------------------------------------------------------
BASE = archive(
    entry(b"d/", DIR, mode=0o750, uid=3, mtime_ns=TIME),
    pax((b"SCHILY.xattr.user.a", b"1")) + entry(b"d/kept", data=b"base"),
    entry(b"d/gone", data=b"base"),
    entry(b"d/changed", data=b"base"),
    entry(b"linked", data=b"two names"),
    entry(b"also", LINK, linkname=b"linked"),
    entry(b"hidden/deep/file"),
)
MIDDLE = archive(entry(b"d/.wh.gone"), entry(b"d/changed", data=b"middle"), entry(b"hidden/.wh..wh..opq"))
TOP = archive(entry(b"l", SYMLINK, linkname=b"d/kept"), entry(b"hidden/new", data=b"top"), entry(b"e/f/g"))


def seen(union: Stack) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    todo = ["/"]
    while todo:
        path = todo.pop()
        st_ = union.lstat(path)
        content: object = None
        if stat.S_ISREG(st_.st_mode):
            content = union.read_bytes(path)
        elif stat.S_ISLNK(st_.st_mode):
            content = union.readlink(path)
        else:
            todo += [os.path.join(path, name) for name in union.listdir(path)]
        xattrs = [(name, union.getxattr(path, name)) for name in union.listxattr(path, follow_symlinks=False)]
        links = 0 if stat.S_ISDIR(st_.st_mode) else st_.st_nlink
        found[path] = st_.st_mode, st_.st_uid, st_.st_mtime_ns, links, content, xattrs
    return found


def test_merged_layers_show_what_they_show_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with stack(tmp_path, TOP, MIDDLE, BASE) as merged:
        assert len(merged.filesystem._union.stack.lowers) == 1  # type: ignore[attr-defined]
        found = seen(merged)
        assert merged.lstat("linked").st_ino == merged.lstat("also").st_ino
    # A directory at the bottom: the tars are not merged, for below them is something.
    (tmp_path / "empty").chmod(0o755)
    os.utime(tmp_path / "empty", ns=(0, 0))
    with Stack([tmp_path / "0.tar", tmp_path / "1.tar", tmp_path / "2.tar", tmp_path / "empty"]) as apart:
        assert len(apart.filesystem._union.stack.lowers) == 4  # type: ignore[attr-defined]
        wanted = seen(apart)
    root = found.pop("/"), wanted.pop("/")
    assert root[0][0] == root[1][0]
    assert found == wanted
    assert sorted(found) == ["/also", "/d", "/d/changed", "/d/kept", "/e", "/e/f", "/e/f/g", "/hidden", "/hidden/new",
                             "/l", "/linked"]  # fmt: skip


def test_numbers_stay_when_a_layer_is_put_on_top(tmp_path: Path) -> None:
    with stack(tmp_path, MIDDLE, BASE) as two:
        before = {path: two.lstat(path).st_ino for path in ("d/kept", "d/changed", "linked")}
    with stack(tmp_path, TOP, MIDDLE, BASE) as three:
        assert {path: three.lstat(path).st_ino for path in before} == before


def test_a_damaged_merged_index_is_made_anew(tmp_path: Path) -> None:
    with stack(tmp_path, TOP, MIDDLE, BASE) as union:
        wanted = seen(union)
    (merged,) = (tmp_path / "cache/merged").iterdir()
    sound = merged.read_bytes()
    for at in (3, 90, 120, len(sound) - 10):
        damaged = bytearray(sound)
        damaged[at] ^= 0xFF
        merged.write_bytes(damaged)
        with stack(tmp_path, TOP, MIDDLE, BASE) as union:
            assert seen(union) == wanted
        assert merged.read_bytes() == sound


def test_a_merged_index_that_can_be_neither_read_nor_made_is_done_without(tmp_path: Path) -> None:
    with stack(tmp_path, TOP, MIDDLE, BASE) as union:
        wanted = seen(union)
    (merged,) = (tmp_path / "cache/merged").iterdir()
    merged.write_bytes(merged.read_bytes()[:-60] + b"\xff" * 60)
    (tmp_path / "cache/new").rmdir()
    (tmp_path / "cache/new").touch()  # so that nothing new can be written
    with Stack([tmp_path / f"{number}.tar" for number in range(3)]) as union:
        assert seen(union) == wanted


# data -----------------------------------------------------------------------------------------------------------------
def test_reading_ends_where_the_file_does(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"a", data=b"a" * 700), entry(b"b", data=b"b" * 5), entry(b"c")) as layer:
        file = layer.open(b"a")
        assert file.pread(10_000, 0) == b"a" * 700
        assert file.pread(10, 695) == b"a" * 5
        assert file.pread(10, 700) == file.pread(10, 5000) == b""
        assert layer.open(b"c").pread(10, 0) == b""
        assert (file.seek_data(3), file.seek_hole(3)) == (3, 700)
        for seek in (file.seek_data, file.seek_hole):
            with refusal(errno.ENXIO):
                seek(700)


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix"])
def test_sparse_files_in_every_form(tmp_path: Path, form: str) -> None:
    source = tmp_path / "s"
    with open(source, "wb") as out:
        for offset, data in ((200_000, b"one" * 3000), (1_000_000, b"two" * 5000), (3_000_000, b"end")):
            out.seek(offset)
            out.write(data)
        out.truncate(4_000_000)
    tar = tmp_path / "s.tar"
    kind, *more = form.split()
    subprocess.run(["tar", "-S", f"--format={kind}", *more, "-C", tmp_path, "-cf", tar, "s"], check=True)
    layer = layer_of(tmp_path, tar.read_bytes())
    wanted, file = source.read_bytes(), layer.open(b"s")
    assert file.pread(5_000_000, 0) == wanted
    for at in (0, 199_999, 200_000, 208_999, 999_990, 3_000_002, 3_999_999, 4_000_000):
        assert file.pread(50, at) == wanted[at : at + 50]
    assert file.seek_data(0) <= 200_000 and file.seek_hole(0) == 0
    assert file.seek_data(2_000_000) > 2_000_000
    assert file.seek_hole(file.seek_data(2_000_000)) <= 4_000_000
    st = layer.lstat(b"s")
    assert st.st_size == 4_000_000 and 0 < st.st_blocks * 512 < 200_000
    copy_and_compare(tmp_path, file, wanted)
    layer.close()


def copy_and_compare(directory: Path, source: LayerFile, wanted: bytes) -> None:
    """Range copies, as a copy-up makes them."""
    upper = WritableDirectory(os.fsencode(directory))
    target = upper.create(b"copy", 0o644)
    offset = 0
    while offset < len(wanted):
        try:
            offset = source.seek_data(offset)
        except OSError:
            break
        end = source.seek_hole(offset)
        while offset < end:
            count = target.copy_range(source, offset, offset, end - offset)
            assert count > 0
            offset += count
    target.ftruncate(len(wanted))
    target.close()
    upper.close()
    assert (directory / "copy").read_bytes() == wanted


def test_a_file_that_is_copied_up_is_read_from_its_copy(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"a", data=b"old"), entry(b"b", data=b"next")) as layer:
        file = layer.open(b"a")
        extent = file.extent  # type: ignore[attr-defined]
        assert extent(1)[2] == 2
        (tmp_path / "copy").write_bytes(b"a longer new one")
        copy = DirectoryLayer(os.fsencode(tmp_path)).open(b"copy")
        file.replace(copy)
        copy.close()
        assert file.pread(100, 0) == b"a longer new one"
        fd, at, _ = extent(2)
        assert os.pread(fd, 6, at) == b"longer"
        assert file.fstat().st_size == 16
        file.close()


def test_nothing_can_be_written(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"a", data=b"old")) as layer:
        with refusal(errno.EROFS):
            layer.open(b"a", os.O_RDWR)
        file = layer.open(b"a")
        for attempt in (
            lambda: file.pwrite(b"x", 0),
            lambda: file.ftruncate(0),
            lambda: file.chmod(0o600),
            lambda: file.chown(0, 0),
            lambda: file.utime(0, 0),
            lambda: file.setxattr(b"user.a", b"b"),
            lambda: file.fallocate(0, 0, 1),
        ):
            with refusal(errno.EBADF):
                attempt()


@pytest.mark.parametrize(
    ("call", "path", "number"),
    [
        ("lstat", b"none", errno.ENOENT),
        ("lstat", b"none/a", errno.ENOENT),
        ("lstat", b"f/a", errno.ENOTDIR),
        ("lstat", b"l/a", errno.ENOTDIR),
        ("scan", b"f", errno.ENOTDIR),
        ("scan", b"d/none", errno.ENOENT),
        ("open", b"d", errno.EISDIR),
        ("open", b"l", errno.ELOOP),
        ("open", b"p", errno.ENXIO),
        ("readlink", b"f", errno.EINVAL),
        ("getxattr", b"none", errno.ENOENT),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, call: str, path: bytes, number: int) -> None:
    with opened(
        tmp_path, entry(b"f"), entry(b"d/", DIR), entry(b"l", SYMLINK, linkname=b"d"), entry(b"p", FIFO)
    ) as layer:
        arguments = (path, b"user.a") if call == "getxattr" else (path,)
        with refusal(number):
            getattr(layer, call)(*arguments)


# handles --------------------------------------------------------------------------------------------------------------
def test_handles_name_the_object_and_outlast_the_index(tmp_path: Path) -> None:
    data = archive(entry(b"d/a"), entry(b"b", LINK, linkname=b"d/a"), entry(b"c"))
    layer = layer_of(tmp_path, data)
    (tmp_path / "other").mkdir()
    other = layer_of(tmp_path / "other", data)
    handle = layer.handle(b"d/a")
    assert handle is not None and handle == layer.handle(b"b") == other.handle(b"b")
    assert handle != layer.handle(b"c")
    st = other.stat_handle(handle)
    assert (st.st_ino, st.st_nlink) == (other.lstat(b"b").st_ino, 2)
    with refusal(errno.ESTALE):
        layer.stat_handle(handle._replace(type=1))
    layer.close()
    other.close()


# hostile --------------------------------------------------------------------------------------------------------------
#: Refused by apply since it has no layer below; here such a link waits for one.
WAITS = {"hard link to nothing"}
#: Known to the file system that it is applied to, and to nobody else.
UNJUDGED = {"malformed ACL"}


@pytest.mark.parametrize("data", [CORPUS[name] for name in CORPUS if name not in WAITS | UNJUDGED],
                         ids=[name for name in CORPUS if name not in WAITS | UNJUDGED])  # fmt: skip
def test_what_apply_refuses_is_no_layer(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TarError):
        layer_of(tmp_path, data)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("data", list(ODD_BUT_GOOD.values()), ids=ODD_BUT_GOOD)
def test_odd_tars_are_layers(tmp_path: Path, data: bytes) -> None:
    layer = layer_of(tmp_path, data)
    assert b"a" in tree_of(layer) or b"x/a" in tree_of(layer)
    layer.close()


def test_hard_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    with opened(tmp_path, entry(b"a", LINK, linkname=b"b"), entry(b"b", LINK, linkname=b"a")) as layer:
        assert names(layer) == []


def test_a_time_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    from tests.golden.hostile_tars import patched

    with pytest.raises(TarError, match="mtime"):
        layer_of(tmp_path, archive(patched(entry(b"f"), 136, b"\x80" + b"\xff" * 11)))


# compared with apply --------------------------------------------------------------------------------------------------
PARTS = st.sampled_from([b"a", b"b", b"c", b"s", b"x" * 120])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(b"/".join)
MARKS = st.tuples(st.lists(PARTS, max_size=2), PARTS | st.just(b".wh..opq")).map(
    lambda pair: b"/".join([*pair[0], b".wh." + pair[1]])
)


@st.composite
def members(draw: st.DrawFn, marks: bool) -> bytes:
    path = draw(PATHS | MARKS if marks else PATHS)
    path = draw(st.sampled_from([b"", b"./", b"/"])) + path
    kind = b"0" if b".wh." in path else draw(st.sampled_from([b"0", b"0", DIR, SYMLINK, LINK, CHR, FIFO]))
    fields: dict[str, Any] = {"mode": draw(st.sampled_from([0o644, 0o4755, 0o700])), "uid": draw(st.integers(0, 3)),
              "mtime_ns": draw(st.integers(-(10**18), 10**18))}  # fmt: skip
    if kind == SYMLINK:
        return entry(path, SYMLINK, linkname=draw(PATHS | st.sampled_from([b"..", b"/", b"/a", b"../b"])), **fields)
    if kind == LINK:
        return entry(path, LINK, linkname=draw(PATHS))
    if kind == CHR:
        return entry(path, CHR, rdev=draw(st.integers(1, 500)), **fields)
    if kind in (DIR, FIFO):
        return entry(path, kind, **fields)
    xattrs = draw(st.dictionaries(st.sampled_from([b"user.a", b"user.b"]), st.binary(max_size=9), max_size=2))
    head = pax(*((b"SCHILY.xattr." + name, value) for name, value in xattrs.items())) if xattrs else b""
    return head + entry(path, data=draw(st.binary(max_size=2000)), **fields)


def without_times_of_directories(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """Those that the tar does not describe have them from the clock, where they are made."""
    dirs = directories(tree)
    return {path: (*what[:4], *what[5:]) if path in dirs else what for path, what in tree.items()}


@requires("root")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members(marks=False), max_size=12))
def test_any_tar_is_the_tree_that_apply_makes(tmp_path_factory: pytest.TempPathFactory, entries: list[bytes]) -> None:
    directory = tmp_path_factory.mktemp("any")
    data = archive(*entries)
    target = directory / "applied"
    target.mkdir(mode=0o755)
    (directory / "source.tar").write_bytes(data)
    try:
        apply(os.fsencode(directory / "source.tar"), os.fsencode(target))
    except TarError as refused:
        if "which does not exist" not in str(refused):
            with pytest.raises(TarError):
                layer_of(directory, data).close()
        return
    layer, applied = layer_of(directory, data), DirectoryLayer(os.fsencode(target))
    try:
        found, wanted = tree_of(layer), tree_of(applied)
    finally:
        layer.close()
        applied.close()
    # A directory that replaced a file is opaque, which apply, on an empty directory, has no need to say.
    shown = {path: what for path, what in found.items() if not path.endswith(b".wh..wh..opq")}
    assert without_times_of_directories(shown) == without_times_of_directories(wanted)


def is_useful(one: bytes, target: Path) -> bool:
    """Symbolic links in parents are left out, since who applies follows those of the layers below too; hard links,
    which are files of their own here; and whiteouts where no directory is, which here bring one into being."""
    found = next(iter(TarReader(io.BytesIO(one + TRAILER))))
    if found.type in (SYMLINK, LINK):
        return False
    return b".wh." not in found.name or Path(f"{target}/{os.fsdecode(os.path.dirname(found.name))}").is_dir()


@requires("root")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(members(marks=True), max_size=8), min_size=2, max_size=3))
def test_a_stack_of_any_tars_is_what_applying_them_gives(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[bytes]]
) -> None:
    """Base first. Of directories the type alone: whether one that its tar does not describe is that of a layer below
    hangs, for who applies, on where in the tar the mark stands that hides it."""
    directory = tmp_path_factory.mktemp("stack")
    target = directory / "applied"
    target.mkdir(mode=0o755)
    tars = []
    for number, entries in enumerate(layers):
        tars.append(directory / f"{number}.tar")
        tars[-1].write_bytes(archive(*[one for one in entries if is_useful(one, target)]))
        try:
            apply(os.fsencode(tars[-1]), os.fsencode(target))
        except TarError:
            return
    applied = DirectoryLayer(os.fsencode(target))
    try:
        tree = tree_of(applied)
        wanted = {path: ("dir",) if path in directories(tree) else what[:4] for path, what in tree.items()}
    finally:
        applied.close()
    os.environ["UNIONFS_CACHE"] = str(directory / "cache")
    with Stack(list(reversed(tars))) as union:
        found: dict[bytes, tuple[object, ...]] = {}
        todo = [b""]
        while todo:
            path = todo.pop()
            st_ = union.lstat(b"/" + path)
            is_dir = stat.S_ISDIR(st_.st_mode)
            found[path] = ("dir",) if is_dir else (st_.st_mode, st_.st_uid, st_.st_gid, st_.st_size)
            if is_dir:
                todo += [(path + b"/" + name).lstrip(b"/") for name in union.listdir(b"/" + path)]
    assert found == wanted
