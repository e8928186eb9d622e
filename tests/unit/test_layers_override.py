"""Owner, mode and type in an xattr: hostile values, what is shown, what an ordinary user's upper stores."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.requirements import requires
from tests.unit.as_user import NOBODY, run_as_nobody
from tests.unit.overlay_rig import Rig, tree
from tests.unit.test_layers_mapped import caller, shown_by
from unionfs.api.owners import Owners
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.mapped import IdMap, IdMaps
from unionfs.layers.override import CONTAINERS, PRIVILEGED, USER, Override, OverrideLayer, OverrideUpper, detect, parse
from unionfs.layers.upper import WritableDirectory
from unionfs.vfs import DT_CHR, DT_LNK, DT_REG, ROOT

root_only = requires("root")
REG, DIR = stat.S_IFREG, stat.S_IFDIR


# values --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value, stored, meant",
    [
        (b"0:0:0755", DIR, Override(0, 0, 0o755, DIR)),
        (b"1000:1001:4755", REG, Override(1000, 1001, 0o4755, REG)),
        (b"0:0:100644", REG, Override(0, 0, 0o644, REG)),  # fuse-overlayfs writes the whole st_mode
        (b"0:0:0644:file", REG, Override(0, 0, 0o644, REG)),
        (b"0:0:0755:dir", DIR, Override(0, 0, 0o755, DIR)),
        (b"0:0:0777:symlink", REG, Override(0, 0, 0o777, stat.S_IFLNK)),
        (b"1:2:0600:pipe", REG, Override(1, 2, 0o600, stat.S_IFIFO)),
        (b"1:2:0600:socket", REG, Override(1, 2, 0o600, stat.S_IFSOCK)),
        (b"0:6:0660:block-8-1", REG, Override(0, 6, 0o660, stat.S_IFBLK, os.makedev(8, 1))),
        (b"0:6:0666:char-1-3", REG, Override(0, 6, 0o666, stat.S_IFCHR, os.makedev(1, 3))),
        (b"0:6:0666:char-4095-1048575-later", REG, Override(0, 6, 0o666, stat.S_IFCHR, os.makedev(4095, 1048575))),
        (b"0:0:0644:file-and-more:so", REG, Override(0, 0, 0o644, REG)),
        (b"-1:5:644", REG, Override(-1, 5, 0o644, REG)),
        (b"4294967294:0:0", REG, Override(4294967294, 0, 0, REG)),
    ],
)
def test_a_value(value: bytes, stored: int, meant: Override) -> None:
    assert parse(value, stored) == meant


@pytest.mark.parametrize(
    "value",
    [
        b"", b"0:0", b"0:0:", b":::", b"a:0:644", b"-2:0:644", b"4294967295:0:644", b"99999999999:0:644",
        b"0:0:888", b"0:0:0x1", b"0:0:644:", b"0:0:644:bogus", b"0:0:644:filed", b"0:0:644:dir", b"0:0:644:char",
        b"0:0:644:char-1", b"0:0:644:char-a-b", b"0:0:644:char-4096-0", b"0:0:644:block-0-1048576", b" 0:0:644",
        b"0:0:644 ", b"0:0:644\n", b"0:0:644\0", b"\xff:0:644", "٣:0:644".encode(), b"0:0:77777777777", b"0:0:644:FILE",
    ],
)  # fmt: skip
def test_no_value(value: bytes) -> None:
    assert parse(value, REG) is None


def test_a_directory_is_nothing_else() -> None:
    assert parse(b"0:0:0644:file", DIR) is None and parse(b"0:0:0777:symlink", DIR) is None


PIECES = st.sampled_from(
    [b"0", b"1000", b"4294967294", b"4294967295", b":", b"-", b"0755", b"file", b"dir", b"char", b"block", b"symlink",
     b"pipe", b"\0", b" ", b"\xff", b"9" * 12, b"8"]
)  # fmt: skip
HOSTILE = st.binary(max_size=80) | st.lists(PIECES, max_size=12).map(b"".join)


@given(HOSTILE, st.sampled_from([REG, DIR]))
def test_any_bytes_are_an_override_or_none(value: bytes, stored: int) -> None:
    found = parse(value, stored)
    if found is not None:
        assert min(found.uid, found.gid) >= -1 and max(found.uid, found.gid) < 2**32 - 1 and found.mode <= 0o7777
        assert (found.kind == DIR) == (stored == DIR)
        assert parse(found.value(), stored) == found  # what we write, we read


@given(
    st.builds(
        Override,
        st.integers(0, 2**32 - 2),
        st.integers(0, 2**32 - 2),
        st.integers(0, 0o7777),
        st.sampled_from([REG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK]),
        st.just(0),
    )
)
def test_what_is_written_is_read(override: Override) -> None:
    assert parse(override.value(), REG) == override


# a layer -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A directory that says it is a CONTAINERS layer."""
    path = tmp_path / "stored"
    path.mkdir()
    os.setxattr(path, CONTAINERS, b"0:0:0755:dir")
    return path


@pytest.fixture
def layer(stored: Path) -> Iterator[OverrideLayer]:
    opened = OverrideLayer(DirectoryLayer(str(stored)), CONTAINERS)
    yield opened
    opened.close()


def put(path: Path, value: bytes, data: bytes = b"", attribute: bytes = CONTAINERS) -> None:
    path.write_bytes(data)
    os.setxattr(path, attribute, value)


def test_the_root_tells_the_kind_of_layer(tmp_path: Path) -> None:
    plain = DirectoryLayer(str(tmp_path))
    assert detect(plain) is None
    os.setxattr(tmp_path, USER, b"0:0:755")
    assert detect(plain) == USER
    os.setxattr(tmp_path, CONTAINERS, b"")
    assert detect(plain) == CONTAINERS
    plain.close()


@root_only
def test_the_privileged_kind_comes_first(tmp_path: Path) -> None:
    for attribute in (USER, PRIVILEGED):
        os.setxattr(tmp_path, attribute, b"0:0:755")
    plain = DirectoryLayer(str(tmp_path))
    assert detect(plain) == PRIVILEGED
    plain.close()


def test_every_type_is_shown(layer: OverrideLayer, stored: Path) -> None:
    (stored / "d").mkdir(mode=0o700)
    os.setxattr(stored / "d", CONTAINERS, b"7:8:1777:dir")
    put(stored / "f", b"1:2:4711:file", b"data")
    put(stored / "l", b"3:4:0777:symlink", b"target")
    put(stored / "c", b"5:6:0620:char-5-1", b"what is here is not seen")
    (stored / "plain").write_bytes(b"x")
    shown = {name: layer.lstat(name) for name in (b"d", b"f", b"l", b"c")}
    assert {name: (st.st_uid, st.st_gid, st.st_mode) for name, st in shown.items()} == {
        b"d": (7, 8, DIR | 0o1777),
        b"f": (1, 2, REG | 0o4711),
        b"l": (3, 4, stat.S_IFLNK | 0o777),
        b"c": (5, 6, stat.S_IFCHR | 0o620),
    }
    assert (shown[b"c"].st_rdev, shown[b"c"].st_size, shown[b"c"].st_blocks) == (os.makedev(5, 1), 0, 0)
    assert layer.lstat(b"f").st_mtime_ns == (stored / "f").stat().st_mtime_ns
    assert {entry.name: entry.type for entry in layer.scan(b"") if entry.name != b"d"} == {
        b"f": DT_REG, b"l": DT_LNK, b"c": DT_CHR, b"plain": DT_REG,
    }  # fmt: skip
    assert layer.stat_in(b"")(b"l") == shown[b"l"] and layer.readlink(b"l") == b"target"
    assert layer.lstat(b"plain") == os.lstat(stored / "plain")
    file = layer.open(b"f")
    assert file.fstat().st_mode == file.stat_when_opened().st_mode == REG | 0o4711 and file.pread(9, 0) == b"data"
    file.close()


@pytest.mark.parametrize("value, number", [(b"0:0:777:symlink", errno.ELOOP), (b"0:0:666:char-1-3", errno.ENXIO)])
def test_what_is_shown_as_no_file_cannot_be_opened(
    layer: OverrideLayer, stored: Path, value: bytes, number: int
) -> None:
    put(stored / "f", value)
    with pytest.raises(OSError) as caught:
        layer.open(b"f")
    assert caught.value.errno == number


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 4096, b"x" * 5000])
def test_a_link_to_what_no_link_can_lead_to(layer: OverrideLayer, stored: Path, target: bytes) -> None:
    put(stored / "l", b"0:0:777:symlink", target)
    with pytest.raises(OSError) as caught:
        layer.readlink(b"l")
    assert caught.value.errno == errno.EIO


def test_an_id_that_was_left_as_it_is(layer: OverrideLayer, stored: Path) -> None:
    put(stored / "f", b"-1:70:600", b"text")
    shown = layer.lstat(b"f")
    assert (shown.st_uid, shown.st_gid, shown.st_mode) == (os.geteuid(), 70, REG | 0o600)


def test_a_file_is_no_link(layer: OverrideLayer, stored: Path) -> None:
    put(stored / "f", b"0:0:644:file", b"text")
    with pytest.raises(OSError) as caught:
        layer.readlink(b"f")
    assert caught.value.errno == errno.EINVAL


def test_a_malformed_value_shows_what_is_stored_and_is_logged_once(
    layer: OverrideLayer, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in ("f", "g"):
        put(stored / file, b"nonsense" * 8)
    with caplog.at_level(logging.WARNING):
        for name in (b"f", b"g", b"f"):
            assert layer.lstat(name) == os.lstat(stored / os.fsdecode(name))
    (record,) = caplog.records
    assert "nonsense" in record.getMessage() and str(stored) in record.getMessage()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(HOSTILE)
def test_any_value_can_be_looked_at(layer: OverrideLayer, stored: Path, value: bytes) -> None:
    put(stored / "f", value, b"some data")
    shown = layer.lstat(b"f")
    (entry,) = layer.scan(b"")
    assert stat.S_IFMT(shown.st_mode) >> 12 == entry.type
    for call in (layer.open, layer.readlink):
        try:
            result = call(b"f")
        except OSError:
            continue
        if not isinstance(result, bytes):
            result.close()


# names of attributes -------------------------------------------------------------------------------------------------
@pytest.fixture
def upper(stored: Path) -> Iterator[OverrideUpper]:
    opened = OverrideUpper(WritableDirectory(str(stored)), CONTAINERS)
    opened.create(b"f", 0o644).close()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "name, kept_as",
    [
        (b"user.note", b"user.note"),
        (b"security.capability", b"user.containers.override_security.capability"),
        (b"user.overlay.overlay.opaque", b"user.containers.override_user.overlay.opaque"),
        (b"user.overlay.opaque", b"user.overlay.opaque"),  # the union's own
    ],
)
def test_an_attribute_is_stored_as(upper: OverrideUpper, stored: Path, name: bytes, kept_as: bytes) -> None:
    upper.setxattr(b"f", name, b"value")
    assert os.getxattr(stored / "f", kept_as) == b"value"
    assert upper.listxattr(b"f") == [name] and upper.getxattr(b"f", name) == b"value"
    upper.removexattr(b"f", name)
    assert upper.listxattr(b"f") == [] and os.listxattr(stored / "f") == [os.fsdecode(CONTAINERS)]


@pytest.mark.parametrize(
    "name", [CONTAINERS, USER, PRIVILEGED, b"user.containers.override_note", b"user.containers.override_"]
)
def test_nobody_makes_himself_root(upper: OverrideUpper, stored: Path, name: bytes) -> None:
    with pytest.raises(PermissionError):
        upper.setxattr(b"f", name, b"0:0:4755:file")
    file = upper.open(b"f", os.O_RDWR)
    with pytest.raises(PermissionError):
        file.setxattr(name, b"0:0:4755:file")
    file.close()
    assert upper.getxattr(b"f", name) is None and upper.listxattr(b"f") == []
    with pytest.raises(OSError) as caught:
        upper.removexattr(b"f", name)
    assert caught.value.errno == errno.ENODATA


def test_there_are_no_acls(upper: OverrideUpper) -> None:
    with pytest.raises(OSError) as caught:
        upper.setxattr(b"f", b"system.posix_acl_access", b"")
    assert caught.value.errno == errno.EOPNOTSUPP


# an upper of an ordinary user ----------------------------------------------------------------------------------------
@pytest.fixture
def users(open_tmp: Path) -> Path:
    os.chown(open_tmp, NOBODY, NOBODY)
    return open_tmp


KEPT = Owners(override=2)


def seen(rig: Rig, name: str) -> tuple[int, int, int]:
    attr = rig.stat(name)
    return attr.uid, attr.gid, attr.mode


@root_only
def test_a_user_stores_every_owner_mode_and_type(users: Path) -> None:
    def use() -> None:
        with shown_by(users, KEPT) as rig:
            rig.create("f", b"data", 0o600, caller(1000, 1001))
            rig.mkdir("d", 0o2755, caller(0, 5))
            rig.create("d/inherits", caller=caller(0, 0))
            for name, mode, rdev in (
                (b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
                (b"disk", stat.S_IFBLK | 0o660, os.makedev(8, 1)),
                (b"pipe", stat.S_IFIFO | 0o644, 0),
                (b"sock", stat.S_IFSOCK | 0o755, 0),
            ):
                rig.fs.forget(rig.fs.mknod(ROOT, name, mode, rdev, caller(33, 34)).node, 1)
            rig.fs.forget(rig.fs.symlink(ROOT, b"link", b"to/there", caller(35, 36)).node, 1)
            rig.setattr("f", mode=0o4755)
        for _ in range(2):  # and once more, after a remount
            with shown_by(users, KEPT) as rig:
                assert seen(rig, "f") == (1000, 1001, REG | 0o4755) and rig.read("f") == b"data"
                assert seen(rig, "d") == (0, 5, DIR | 0o2755) and seen(rig, "d/inherits") == (0, 5, REG | 0o644)
                assert seen(rig, "null") == (33, 34, stat.S_IFCHR | 0o644)
                assert seen(rig, "disk") == (33, 34, stat.S_IFBLK | 0o640)
                assert (rig.stat("null").rdev, rig.stat("disk").rdev) == (os.makedev(1, 3), os.makedev(8, 1))
                assert seen(rig, "pipe") == (33, 34, stat.S_IFIFO | 0o644)
                assert seen(rig, "sock") == (33, 34, stat.S_IFSOCK | 0o755)
                assert seen(rig, "link") == (35, 36, stat.S_IFLNK | 0o777)
                with rig.node("link") as node:
                    assert rig.fs.readlink(node) == b"to/there"
                assert rig.list() == ["d", "disk", "f", "link", "null", "pipe", "sock"]

    run_as_nobody(use)
    assert os.getxattr(users / "upper/f", CONTAINERS) == b"1000:1001:4755:file"
    assert os.getxattr(users / "upper/null", CONTAINERS) == b"33:34:0644:char-1-3"
    assert os.getxattr(users / "upper/link", CONTAINERS) == b"35:36:0777:symlink"
    assert (users / "upper/link").read_bytes() == b"to/there"
    assert not (users / "upper/f").stat().st_mode & 0o6000, "a set-ID bit would be about the daemon's user"
    assert detect(DirectoryLayer(str(users / "upper"))) == CONTAINERS
    assert sorted(os.listdir(users / "upper")) == ["d", "disk", "f", "link", "null", "pipe", "sock"]


@root_only
def test_a_link_that_gets_another_owner_keeps_its_times_and_its_place(users: Path) -> None:
    def use() -> None:
        with shown_by(users, KEPT) as rig:
            me = caller(NOBODY, NOBODY)
            rig.mkdir("d", caller=me)
            with rig.node("d") as node:
                rig.fs.forget(rig.fs.symlink(node, b"l", b"target", me).node, 1)
            assert stat.S_ISLNK(os.lstat(rig.upper / "d/l").st_mode), "what needs no override has none"
            before, parent = rig.stat("d/l"), rig.stat("d")
            with rig.node("d/l") as node:
                assert rig.setattr("d/l", uid=12, gid=13)[:1] == before[:1]
                assert seen(rig, "d/l") == (12, 13, stat.S_IFLNK | 0o777) and rig.fs.readlink(node) == b"target"
            assert rig.stat("d/l").mtime_ns == before.mtime_ns and rig.stat("d").mtime_ns == parent.mtime_ns
            assert rig.list("d") == ["l"] == rig.stored("d")

    run_as_nobody(use)


@root_only
def test_a_user_copies_up_what_is_anybodys(users: Path) -> None:
    lower = tree(users / "lower", d__f="text", d__gone="x")
    os.symlink("target", lower / "d/l")
    os.mknod(lower / "d/c", stat.S_IFCHR | 0o644, os.makedev(1, 5))
    for name in ("d", "d/f", "d/l", "d/c"):
        os.chown(lower / name, 33, 44, follow_symlinks=False)
    (lower / "d").chmod(0o1777)
    (lower / "d/f").chmod(0o4755)

    def use() -> None:
        with shown_by(users, KEPT) as rig:
            rig.unlink("d/gone")
            for name in ("f", "l", "c"):
                rig.rename(f"d/{name}", f"d/{name}2")
        with shown_by(users, KEPT) as rig:
            assert rig.list("d") == ["c2", "f2", "l2"] and rig.is_whiteout("d/gone")
            assert seen(rig, "d") == (33, 44, DIR | 0o1777) and seen(rig, "d/f2") == (33, 44, REG | 0o4755)
            assert seen(rig, "d/l2") == (33, 44, stat.S_IFLNK | 0o777)
            assert seen(rig, "d/c2") == (33, 44, stat.S_IFCHR | 0o644) and rig.stat("d/c2").rdev == os.makedev(1, 5)
            rig.setattr("d/f2", uid=7)
            assert seen(rig, "d/f2") == (7, 44, REG | 0o755), "chown takes set-ID bits away"

    run_as_nobody(use)


@root_only
def test_capabilities_are_kept_and_go_with_the_owner(users: Path) -> None:
    value = b"\1\0\0\2\0\4\0\0" + bytes(12)

    def use() -> None:
        with shown_by(users, KEPT) as rig:
            rig.create("f", caller=caller(0, 0))
            with rig.node("f") as node:
                rig.fs.setxattr(node, b"security.capability", value, 0)
                assert rig.fs.listxattr(node) == [b"security.capability"]
                assert rig.fs.getxattr(node, b"security.capability") == value
                rig.setattr("f", uid=1)
                assert rig.fs.listxattr(node) == []

    run_as_nobody(use)


def test_an_upper_written_by_an_older_fuse_overlayfs_stays_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    os.setxattr(tmp_path / "upper", USER, b"0:0:555")
    with shown_by(tmp_path, KEPT) as rig:
        rig.create("f", caller=caller(5, 6))
        assert seen(rig, "f") == (5, 6, REG | 0o644) and seen(rig, "") == (0, 0, DIR | 0o555)
    assert os.getxattr(tmp_path / "upper/f", USER) == b"5:6:0644:file"


def test_a_new_upper_has_the_root_of_the_topmost_lower_that_has_an_override(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    os.setxattr(tmp_path / "lower", CONTAINERS, b"3:4:0711:dir")
    with shown_by(tmp_path, KEPT) as rig:
        assert seen(rig, "") == (3, 4, DIR | 0o711)
    assert os.getxattr(tmp_path / "upper", CONTAINERS) == b"3:4:0711:dir"


def test_overrides_are_mapped_too(tmp_path: Path) -> None:
    ids = IdMap(((0, 100_000, 5000),))
    (tmp_path / "lower").mkdir()
    os.setxattr(tmp_path / "lower", CONTAINERS, b"0:0:0755:dir")
    put(tmp_path / "lower/f", b"7:8:0600:file")
    with shown_by(tmp_path, Owners(IdMaps(ids, ids), 2)) as rig:
        assert seen(rig, "f") == (100_007, 100_008, REG | 0o600)
        rig.create("g", caller=caller(100_001, 100_002))
        rig.write("f", b"more")
    assert os.getxattr(tmp_path / "upper/g", CONTAINERS) == b"1:2:0644:file"
    assert os.getxattr(tmp_path / "upper/f", CONTAINERS) == b"7:8:0600:file"


@root_only
def test_the_privileged_kind(tmp_path: Path) -> None:
    with shown_by(tmp_path, Owners(override=1)) as rig:
        rig.create("f", caller=caller(5, 6))
        with rig.node("f") as node:
            rig.fs.setxattr(node, b"security.note", b"x", 0)
            assert rig.fs.listxattr(node) == [b"security.note"]
        assert seen(rig, "f") == (5, 6, REG | 0o644)
    assert os.getxattr(tmp_path / "upper/f", PRIVILEGED) == b"5:6:0644:file"
    assert os.getxattr(tmp_path / "upper/f", "security.note") == b"x"
    assert (tmp_path / "upper/f").stat().st_uid == 0
