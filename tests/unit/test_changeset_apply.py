"""apply: what OCI says about whiteouts and replacement, and nothing outside the directory whatever the tar says."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import sys
from pathlib import Path

import pytest

from tests.golden.hostile_tars import CORPUS, ODD_BUT_GOOD, archive, entry, pax
from tests.golden.trees import describe
from tests.requirements import need, requires
from tests.unit.as_user import run_as_nobody
from unionfs.changeset.apply import AppliedLayer, apply
from unionfs.changeset.tar_format import BLK, CHR, DIR, FIFO, LINK, REG, SYMLINK, Fields, member
from unionfs.errors import ChangesetError, LayerError, TarError


def put(root: Path, *entries: bytes, skip_devices: bool = False) -> AppliedLayer:
    return apply(io.BytesIO(archive(*entries)), str(root), skip_devices=skip_devices)


def paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a little tree, beside a canary."""
    (tmp_path / "canary").write_text("alive")
    path = tmp_path / "root"
    (path / "d/sub").mkdir(parents=True)
    (path / "d/one").write_text("1")
    (path / "d/two").write_text("2")
    (path / "d/sub/three").write_text("3")
    return path


# hostile input ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CORPUS)
def test_hostile_archive_is_refused_and_touches_nothing_outside(name: str, tmp_path: Path) -> None:
    if os.geteuid() != 0 and name in ("owner beyond uid_t", "no such device", "malformed ACL"):
        need("root")
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "canary").write_text("alive")
    before = os.stat(tmp_path / "canary")
    with pytest.raises(TarError):
        apply(io.BytesIO(CORPUS[name]), str(root))
    after = os.stat(tmp_path / "canary")
    assert sorted(os.listdir(tmp_path)) == ["canary", "root"]
    assert (tmp_path / "canary").read_text() == "alive"
    assert (before.st_ctime_ns, before.st_nlink) == (after.st_ctime_ns, after.st_nlink)


@pytest.mark.parametrize("name", [n for n in ODD_BUT_GOOD if n != "block device 8:0 as a member"])
def test_odd_archive_is_applied(name: str, tmp_path: Path) -> None:
    apply(io.BytesIO(ODD_BUT_GOOD[name]), str(tmp_path))
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("target", ["..", "../..", "/", "/etc", "../canary-dir"])
def test_symlink_parent_stays_inside(root: Path, target: str) -> None:
    outside = root.parent / "canary-dir"
    outside.mkdir()
    put(root, entry(b"l", SYMLINK, linkname=target.encode()), entry(b"l/x", data=b"in"))
    assert list(outside.iterdir()) == []
    assert not (root.parent / "x").exists()
    assert [path.read_text() for path in root.rglob("x")] == ["in"]


def test_symlink_parent_is_followed_as_in_the_container(root: Path) -> None:
    """Real images: /bin -> usr/bin (or /usr/bin) in one layer, bin/foo in the next."""
    (root / "usr/bin").mkdir(parents=True)
    os.symlink("/usr/bin", root / "bin")
    put(root, entry(b"bin/foo"), entry(b"usr/bin/bar"), entry(b"bin/l", LINK, linkname=b"bin/bar"))
    assert sorted(os.listdir(root / "usr/bin")) == ["bar", "foo", "l"]
    assert (root / "bin").is_symlink()
    put(root, entry(b"bin/.wh.foo"))
    assert sorted(os.listdir(root / "usr/bin")) == ["bar", "l"]


def test_dangling_symlink_parent_is_made_inside(root: Path) -> None:
    os.symlink("/opt/real", root / "l")
    put(root, entry(b"l/f"))
    assert (root / "opt/real/f").exists()


def test_a_directory_named_through_a_link_gets_its_mode_though_the_link_is_replaced_since(root: Path) -> None:
    put(root, entry(b"s", SYMLINK, linkname=b"."), entry(b"s/d", DIR, mode=0o751), entry(b"s", data=b"a file now"))
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o751
    assert (root / "s").read_bytes() == b"a file now"


def test_symlink_in_last_component_is_replaced_not_followed(root: Path) -> None:
    os.symlink("../canary", root / "f")
    put(root, entry(b"f", data=b"new"))
    assert not (root / "f").is_symlink()
    assert (root.parent / "canary").read_text() == "alive"


def test_directory_entry_replaces_a_symlink(root: Path) -> None:
    os.symlink("..", root / "l")
    put(root, entry(b"l", DIR, mode=0o711))
    assert stat.S_IMODE((root / "l").lstat().st_mode) == 0o711
    assert (root / "l").lstat().st_mode & stat.S_IFDIR
    assert stat.S_IMODE(root.parent.stat().st_mode) != 0o711


def test_hard_link_through_a_symlink_stays_inside(root: Path) -> None:
    os.symlink("..", root / "up")
    with pytest.raises(TarError, match="does not exist"):
        put(root, entry(b"l", LINK, linkname=b"up/canary"))
    assert (root.parent / "canary").stat().st_nlink == 1


def test_hard_link_to_a_symlink_links_the_symlink(root: Path) -> None:
    os.symlink("../canary", root / "s")
    put(root, entry(b"l", LINK, linkname=b"s"))
    assert (root / "l").is_symlink()
    assert (root.parent / "canary").stat().st_nlink == 1


def test_private_xattrs_are_not_set(root: Path) -> None:
    """A redirect planted in a layer would show another directory once it is mounted."""
    names = [b"user.overlay.redirect", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"]
    put(root, member(Fields(b"x", DIR, 0o755), dict.fromkeys(names, b"y") | {b"user.kept": b"1"}))
    assert os.listxattr(root / "x") == ["user.kept"]


def test_deeper_than_descriptors_and_path_max(root: Path) -> None:
    name = b"/".join([b"deep"] * 3000)
    put(root, entry(name, data=b"x"))
    put(root, entry(b".wh.deep"))
    assert paths(root) == ["d", "d/one", "d/sub", "d/sub/three", "d/two"]


# whiteouts ----------------------------------------------------------------------------------------------------
def test_whiteout_removes_file_and_tree(root: Path) -> None:
    put(root, entry(b"d/.wh.one"), entry(b"d/.wh.sub"))
    assert paths(root) == ["d", "d/two"]


def test_whiteout_of_nothing_there_is_nothing(root: Path) -> None:
    before = paths(root)
    put(root, entry(b"d/.wh.none"), entry(b"no/such/.wh.x"), entry(b"d/one/.wh.x"), entry(b"gone/.wh..wh..opq"))
    assert paths(root) == before


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_opaque_at_any_position_hides_only_lower_entries(root: Path, position: int) -> None:
    entries = [entry(b"d", DIR, mode=0o755), entry(b"d/new"), entry(b"d/sub/four")]
    entries.insert(position, entry(b"d/.wh..wh..opq"))
    put(root, *entries)
    assert paths(root) == ["d", "d/new", "d/sub", "d/sub/four"]


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_and_new_object_of_one_name_in_either_order(root: Path, order: int) -> None:
    put(root, *[entry(b"d/.wh.one"), entry(b"d/one", data=b"new")][::order])
    assert (root / "d/one").read_text() == "new"


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_and_new_directory_is_opaque(root: Path, order: int) -> None:
    put(root, *[entry(b".wh.d"), entry(b"d", DIR, mode=0o700) + entry(b"d/x")][::order])
    assert paths(root) == ["d", "d/x"]


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_of_a_directory_and_of_something_in_it(root: Path, order: int) -> None:
    put(root, *[entry(b".wh.d"), entry(b"d/.wh.one")][::order])
    assert paths(root) == []


def test_opaque_root(root: Path) -> None:
    put(root, entry(b"x"), entry(b".wh..wh..opq"))
    assert paths(root) == ["x"]


def test_hard_link_to_a_hidden_lower_file_survives(root: Path) -> None:
    put(root, entry(b"l", LINK, linkname=b"d/one"), entry(b".wh.d"))
    assert (root / "l").read_text() == "1"
    assert paths(root) == ["l"]


def test_aufs_names_are_skipped(root: Path) -> None:
    before = paths(root)
    put(
        root,
        entry(b".wh..wh.aufs"),
        entry(b".wh..wh.plnk", DIR),
        entry(b".wh..wh.plnk/1.2"),
        entry(b".wh..wh.orph/.wh.x"),
    )
    assert paths(root) == before


# replacement ---------------------------------------------------------------------------------------------------
def test_each_type_replaces_each(root: Path) -> None:
    made = {
        "file": entry(b"x", data=b"f"),
        "dir": entry(b"x", DIR, mode=0o755) + entry(b"x/in"),
        "symlink": entry(b"x", SYMLINK, linkname=b"t"),
        "fifo": entry(b"x", FIFO),
        "link": entry(b"x", LINK, linkname=b"d/one"),
    }
    for first in made.values():
        for name, second in made.items():
            put(root, first)
            put(root, second)
            (line,) = [line for line in describe(root, times=False) if " x" in line and " x/" not in line]
            assert line.startswith(name)


def test_duplicate_entries_last_wins(root: Path) -> None:
    put(root, entry(b"x", data=b"first"), entry(b"x", SYMLINK, linkname=b"t"), entry(b"x", data=b"last", mode=0o600))
    assert (root / "x").read_text() == "last"
    put(root, entry(b"y", DIR, mode=0o700, mtime_ns=5), entry(b"y/f"), entry(b"y", DIR, mode=0o711, mtime_ns=7))
    assert stat.S_IMODE((root / "y").stat().st_mode) == 0o711
    assert (root / "y").stat().st_mtime_ns == 7
    assert (root / "y/f").exists()


def test_other_names_of_a_replaced_file_keep_its_data(root: Path) -> None:
    os.link(root / "d/one", root / "other")
    put(root, entry(b"d/one", data=b"new"))
    assert (root / "other").read_text() == "1"


def test_link_to_itself_keeps_the_file(root: Path) -> None:
    put(root, entry(b"d/one", LINK, linkname=b"./d/one"))
    assert (root / "d/one").read_text() == "1"


def test_directory_takes_the_entrys_attributes_and_keeps_its_contents(root: Path) -> None:
    os.setxattr(root / "d", "user.old", b"1")
    put(root, member(Fields(b"d", DIR, 0o2750, os.getuid(), os.getgid(), 0, 1_000_000_001), {b"user.new": b"2"}))
    assert os.listxattr(root / "d") == ["user.new"]
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o2750
    assert (root / "d").stat().st_mtime_ns == 1_000_000_001
    assert (root / "d/one").exists()


def test_directory_times_survive_what_comes_after(root: Path) -> None:
    put(root, entry(b"t", DIR, mode=0o755, mtime_ns=123), entry(b"t/u", DIR, mode=0o500, mtime_ns=456), entry(b"t/u/f"))
    assert (root / "t").stat().st_mtime_ns == 123
    assert (root / "t/u").stat().st_mtime_ns == 456


def test_missing_parents_are_made(root: Path) -> None:
    os.umask(0o077)
    try:
        put(root, entry(b"p/q/r"))
    finally:
        os.umask(0o022)
    assert stat.S_IMODE((root / "p/q").stat().st_mode) == 0o755


def test_root_entry_sets_the_directory_itself(root: Path) -> None:
    put(root, entry(b"./", DIR, mode=0o711, mtime_ns=9), entry(b"x"))
    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    assert root.stat().st_mtime_ns == 9


def test_zeros_become_holes(root: Path) -> None:
    data = b"a" + bytes(4 << 20) + b"z"
    put(root, entry(b"s", data=data))
    assert (root / "s").read_bytes() == data
    assert (root / "s").stat().st_blocks * 512 < 1 << 20


def test_sparse_member_is_sparse(root: Path) -> None:
    size = 1 << 40
    records = pax((b"GNU.sparse.map", b"512,3,1099511627000,4"), (b"GNU.sparse.size", b"%d" % size))
    put(root, records + entry(b"s", data=b"abcdefg"))
    with open(root / "s", "rb") as f:
        assert os.pread(f.fileno(), 5, 511) == b"\0abc\0"
        assert os.pread(f.fileno(), 4, 1099511627000) == b"defg"
    assert (root / "s").stat().st_size == size


def test_applying_twice_is_applying_once(root: Path) -> None:
    layer = [entry(b"d", DIR, mode=0o755, mtime_ns=1), entry(b"d/.wh.one"), entry(b"d/n", data=b"n"),
             entry(b"d/l", LINK, linkname=b"d/n"), entry(b".wh.none")]  # fmt: skip
    put(root, *layer)
    once = describe(root / "d")
    put(root, *layer)
    assert describe(root / "d") == once


# results, errors, privileges ------------------------------------------------------------------------------------
def test_result_and_progress(root: Path) -> None:
    data = archive(entry(b"a", data=b"x" * 3_000_000), entry(b"b"))
    seen: list[int] = []
    layer = apply(io.BytesIO(data), str(root), progress=seen.append)
    assert layer.diff_id == layer.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert (layer.size, layer.entries, layer.skipped) == (len(data), 2, ())
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


def test_missing_directory_is_a_layer_error(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="nowhere"):
        put(tmp_path / "nowhere", entry(b"a"))
    (tmp_path / "file").touch()
    with pytest.raises(LayerError, match="file"):
        put(tmp_path / "file", entry(b"a"))


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    put(root, *[entry(b"e%d/f/g" % n) for n in range(40)], entry(b".wh.d"))
    for name in ("hard link to nothing", "below a file", "cut in the data", "symlinks in a circle"):
        with pytest.raises(TarError):
            apply(io.BytesIO(CORPUS[name]), str(root))
    assert os.listdir("/proc/self/fd") == before


@requires("root")
def test_owners_setuid_capabilities_and_acls_are_kept(root: Path) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw, effective
    none = 0xFFFFFFFF
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *e) for e in [(1, 7, none), (2, 4, 1000), (4, 4, none), (0x10, 6, none), (0x20, 4, none)]
    )
    xattrs = {b"security.capability": capability, b"system.posix_acl_access": acl, b"user.t": b"\0"}
    put(root, member(Fields(b"ping", REG, 0o4764, 12, 34, 0, 1_700_000_000_123_456_789), xattrs))
    st = (root / "ping").stat()
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (
        12,
        34,
        0o4764,
        1_700_000_000_123_456_789,
    )
    for name, value in xattrs.items():
        assert os.getxattr(root / "ping", name) == value


@requires("root", "setfacl")
def test_inherited_acls_are_removed(root: Path) -> None:
    os.system(f"setfacl -d -m u:1000:rwx {root}/d")
    put(root, entry(b"d/new", mode=0o640), entry(b"d/dir", DIR, mode=0o755))
    assert os.listxattr(root / "d/new") == []
    assert os.listxattr(root / "d/dir") == []
    assert stat.S_IMODE((root / "d/new").stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", [FIFO, SYMLINK])
def test_what_replaces_a_directory_does_not_get_its_attributes(tmp_path: Path, kind: bytes) -> None:
    """Where the file system gives it the number that the directory had, as ext4 does."""
    put(tmp_path, entry(b"d/", DIR, mode=0o711), entry(b"d", kind, linkname=b"x" * (kind == SYMLINK), mode=0o604))
    assert (tmp_path / "d").lstat().st_mode & 0o777 == (0o604 if kind == FIFO else 0o777)


def test_a_directory_whose_parent_became_a_circle_is_gone(tmp_path: Path) -> None:
    put(tmp_path, entry(b"a/b/", DIR), entry(b"a", SYMLINK, linkname=b"a"))
    assert os.readlink(tmp_path / "a") == "a"


@requires("root")
def test_devices_and_inherited_groups(root: Path) -> None:
    os.chown(root / "d", 0, 55)
    os.chmod(root / "d", 0o2755)
    put(root, entry(b"d/c", CHR, rdev=os.makedev(1, 3)), entry(b"d/b", BLK, rdev=os.makedev(259, 1048575)),
        entry(b"d/p", FIFO, mode=0o600), entry(b"d/in", DIR, mode=0o755))  # fmt: skip
    assert describe(root / "d", times=False)[1:5] == [
        "block 0644 0:0 - b 259:1048575", "char 0644 0:0 - c 1:3", "dir 0755 0:0 - in", "file 0644 0:0 - one 1"
    ]  # fmt: skip


@requires("root")
def test_without_privilege(tmp_path: Path) -> None:
    def body() -> None:
        os.mkdir(root := Path(home) / "r")
        owned = member(Fields(b"f", REG, 0o4755, 0, 0), {b"trusted.x": b"1", b"user.y": b"2"})
        shut = entry(b"ro", DIR, mode=0o555) + entry(b"ro/f")
        layer = put(root, owned, shut)
        assert (root / "f").stat().st_uid == 65534
        assert os.listxattr(root / "f") == ["user.y"]
        assert layer.skipped == ("/f: xattr trusted.x",)
        put(root, shut, entry(b"ro/again"))  # the directory may not be written any more
        assert stat.S_IMODE((root / "ro").stat().st_mode) == 0o555
        device = entry(b"dev/mem", CHR, rdev=os.makedev(1, 1))
        with pytest.raises(ChangesetError, match="/dev/mem: may not make a device") as raised:
            put(root, device)
        assert raised.value.hint is not None
        assert "--skip-devices" in raised.value.hint
        assert put(root, device, skip_devices=True).skipped == ("/dev/mem: device",)

    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    for parent in home.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    run_as_nobody(body)


def test_a_directory_that_moves_during_removal_is_noticed(root: Path) -> None:
    """Another process moves a directory while it is being emptied: the removal must not go on elsewhere."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    moved = False

    def meddle(event: str, args: tuple[object, ...]) -> None:
        nonlocal moved
        if event == "os.remove" and not moved and args[0] in (b"three", "three"):
            moved = True
            os.rename(root / "d/sub", outside / "sub")

    sys.addaudithook(meddle)
    with pytest.raises(OSError, match="moved while"):
        put(root, entry(b".wh.d"))
    assert moved
    assert (outside / "precious").exists()
